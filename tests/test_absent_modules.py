"""What each image leaves out is not needed there: imports in a fresh process in which some libraries do not exist."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from collections.abc import Sequence

import pytest

import medkd.commands
import medkd.quality
import medkd.student
import medkd.teacher

BLOCKER = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""

TRAINING = ["torch", "transformers", "tokenizers", "deepspeed"]
GENERATION = ["requests", "kubernetes"]
# Rooms of the student that stages without torch use as well.
TORCH_FREE = ["families", "tokens", "launch", "ranks", "order", "linear", "escapes", "card", "memory"]


def run_without(blocked: Sequence[str], program: str) -> str:
    code = BLOCKER.format(blocked=set(blocked)) + program
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def importing(modules: Sequence[str]) -> str:
    return "".join(f"import {module}\n" for module in modules)


def modules_of(package: object) -> list[str]:
    path, name = package.__path__, package.__name__  # type: ignore[attr-defined]
    return [f"{name}.{module.name}" for module in pkgutil.iter_modules(path)]


def test_the_blocker_blocks() -> None:
    with pytest.raises(AssertionError, match="No module named 'torch'"):
        run_without(TRAINING, "import torch")


def test_generation_needs_nothing_of_training() -> None:
    stages = [f"medkd.stages.{name}" for name in ("plan", "generate", "control", "ownership", "sequence", "jsonl")]
    modules = [*modules_of(medkd.commands), "medkd.local", *stages, *modules_of(medkd.teacher), *modules_of(medkd.quality)]
    run_without([*TRAINING, "kubernetes"], importing(modules))


def test_the_driver_needs_no_tables() -> None:
    # They would double the memory of a pod that lives as long as the run.
    run_without([*TRAINING, "pyarrow", "numpy", "jinja2"], importing(["medkd.driver", "medkd.cluster.runs"]))


def test_the_command_line_says_its_help_where_only_the_base_is_installed() -> None:
    program = "import sys; from medkd.commands import main; sys.argv = ['medkd', '--help']; main()"
    assert "generate" in run_without([*TRAINING, *GENERATION, "s3fs", "numpy"], program)


def test_prepare_and_the_student_rooms_it_uses_need_no_torch() -> None:
    modules = ["medkd.stages.prepare", *(f"medkd.student.{name}" for name in TORCH_FREE)]
    run_without(["torch", "deepspeed", "kubernetes"], importing(modules))


def test_whether_a_student_fits_is_told_without_torch() -> None:
    pytest.importorskip("transformers")
    program = """
import importlib.util
from pathlib import Path
find = importlib.util.find_spec
# Transformers asks in this way whether torch is there, and the blocker answers with an error.
importlib.util.find_spec = lambda name, package=None: None if name == "torch" else find(name, package)
from medkd import config
from medkd.store.files import open_store
from medkd.student import memory
student = config.load(None).student("tiny-t5")
sizes = memory.sizes_of(open_store("memory://run"), student, Path("."))
print(memory.check_fits("tiny-t5", sizes, student, 80 * memory.GIB, world_size=1).total > 0)
"""
    assert run_without(["torch", "deepspeed", "kubernetes", "requests"], program) == "True\n"


def test_the_stages_of_training_need_nothing_of_generation() -> None:
    run_without(GENERATION, importing(["medkd.stages.train", "medkd.stages.evaluate", "medkd.stages.prepare"]))


@pytest.mark.torch
def test_every_student_room_needs_nothing_of_generation() -> None:
    programs = {"medkd.student.torchrun", "medkd.student.compile_ops"}
    modules = [module for module in modules_of(medkd.student) if module not in programs]
    run_without(GENERATION, importing(modules))


def test_the_base_needs_pydantic_only() -> None:
    modules = [f"medkd.{name}" for name in ("errors", "records", "samples", "config", "telemetry")]
    run_without([*TRAINING, *GENERATION, "fsspec", "s3fs", "pyarrow", "jsonschema", "jinja2", "numpy"], importing(modules))


def test_stores_work_without_s3fs_and_an_s3_url_names_what_is_missing() -> None:
    program = """
import medkd.store.budget, medkd.store.conversations, medkd.store.journal, medkd.store.manifests, medkd.store.tables
from medkd.errors import ConfigError
from medkd.store.files import check_exclusive_create, open_store
check_exclusive_create(open_store("memory://run"))
try:
    open_store("s3://bucket/run")
except ConfigError as error:
    print(error)
"""
    output = run_without([*TRAINING, *GENERATION, "s3fs", "botocore", "aiobotocore"], program)
    assert output.startswith("store s3://bucket/run: ")
    assert "s3fs" in output
