"""What the trainer image promises to run, imported: fails where something is missing.

The build runs it, so that exactly these modules lie there as bytecode, and `make images` runs it again as the pod's user on a
read-only root, where ranks must also find DeepSpeed's operators compiled.
"""

# ruff: noqa: F401

import os
import sys
import tempfile
from pathlib import Path

import deepspeed
import llguidance
import s3fs
import torch.distributed.run
from transformers import GPT2LMHeadModel, LlamaForCausalLM, PreTrainedTokenizerFast, T5ForConditionalGeneration

if "packages-only" not in sys.argv:
    import medkd.commands.stages
    import medkd.stages.evaluate
    import medkd.stages.report
    import medkd.stages.train
    import medkd.student.decode
    import medkd.student.session
    import medkd.student.torchrun
    from medkd.student.compile_ops import main, operator_variables
    from medkd.student.launch import num_gpus

    if not num_gpus():
        os.environ.update(operator_variables(os.environ, Path(tempfile.mkdtemp())))
        sys.exit(main())
