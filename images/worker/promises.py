"""What the worker image promises to run, imported: fails where something is missing.

The build runs it, so that exactly these modules lie there as bytecode, and `make images` runs it again as the pod's user on a
read-only root.
"""

# ruff: noqa: F401

import kubernetes
import s3fs
import sentencepiece
import yaml
from transformers import PreTrainedTokenizerFast, T5Tokenizer

import medkd.commands.cluster
import medkd.commands.stages
import medkd.commands.tools
import medkd.driver
import medkd.simulator.server
import medkd.stages.generate
import medkd.stages.plan
import medkd.stages.prepare
import medkd.student.memory
import medkd.teacher.client
