"""Real training: DeepSpeed ranks over gloo, from tokens to a model folder and back to records."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from medkd.store import manifests
from medkd.store.files import Store, open_store
from tests.student.trained import metrics, prepare_tokens, rows, tiny_student, train

# Minutes only where other work has the cores: a launch imports torch in three processes.
pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("t5", {"zero_stage": 2}),
        ("gpt2", {"zero_stage": 1, "gradient_accumulation": 2}),
        ("llama", {"zero_stage": 3}),
    ],
)
def test_a_student_of_each_family_learns_five_records_by_heart(family: str, changes: dict[str, int], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    from medkd.student.decode import Extractor

    student = tiny_student(family, **changes)
    store = open_store(str(tmp_path / "run"))
    prepare_tokens(store, "tiny", student)
    assert train(tmp_path, "tiny", student) == 0

    manifest = manifests.require(store, "students/tiny/train/manifest.json", "train")
    assert manifests.missing_files(store, manifest, "students/tiny/model") == []
    assert store.list_files("students/tiny/checkpoints") == []
    folder = tmp_path / "run/students/tiny/model"
    auto = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    assert auto.from_pretrained(folder).config.model_type == family
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<end>"
    extractions = Extractor.load(folder).extract([row["input"] for row in rows()])
    assert [extraction.record for extraction in extractions] == [json.loads(row["output"]) for row in rows()]
    assert not any(extraction.truncated for extraction in extractions)


def test_an_interrupted_and_resumed_training_goes_the_same_way_as_one_that_was_not(tmp_path: Path) -> None:
    student = tiny_student("t5", num_epochs=250, checkpoint_every_steps=40, keep_checkpoints=1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        prepare_tokens(open_store(str(folder / "run")), "tiny", student)
    assert train(whole, "tiny", student) == 0

    store = open_store(str(broken / "run"))
    stop = threading.Event()
    told = threading.Thread(target=lambda: (_wait_for_step(store, 40), stop.set()))
    told.start()
    assert train(broken, "tiny", student, stop=stop) == 75
    told.join()
    stopped_at = _newest_step(store)
    killed = threading.Thread(target=lambda: (_wait_for_step(store, stopped_at + 1), _kill_a_rank(broken)))
    killed.start()
    assert train(broken, "tiny", student) == 75
    killed.join()
    assert _newest_step(store) > stopped_at
    assert train(broken, "tiny", student) == 0

    undisturbed = open_store(str(whole / "run"))
    assert metrics(store, "tiny") == metrics(undisturbed, "tiny")
    weights = "students/tiny/model/model.safetensors"
    assert store.read(weights) == undisturbed.read(weights)


def _newest_step(store: Store) -> int:
    try:
        tag = store.read("students/tiny/checkpoints/LATEST").decode().strip()
    except FileNotFoundError:
        return 0
    step: int = json.loads(store.read(f"students/tiny/checkpoints/{tag}/state.json"))["step"]
    return step


def _wait_for_step(store: Store, step: int) -> None:
    deadline = time.monotonic() + 200
    while _newest_step(store) < step and time.monotonic() < deadline:
        time.sleep(0.05)


def _kill_a_rank(folder: Path) -> None:
    """SIGKILL to local rank 1 of the training in this folder."""
    found = subprocess.run(["pgrep", "-f", f"medkd train .*{folder}/"], capture_output=True, text=True, check=False)
    for pid in found.stdout.split():
        if b"LOCAL_RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes():
            os.kill(int(pid), signal.SIGKILL)
