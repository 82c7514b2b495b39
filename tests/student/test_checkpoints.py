"""Checkpoints of real ranks: whole or invisible, exact on resume, and off training's critical path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medkd.store.files import Store, open_store
from tests.student.gang import start_ranks, train_ranks, wait_until
from tests.student.trained import metrics, prepare_tokens, tiny_student

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

FOLDER = "students/tiny/checkpoints"


def newest_step(store: Store) -> int:
    try:
        tag = store.read(f"{FOLDER}/LATEST").decode().strip()
    except FileNotFoundError:
        return 0
    step: int = json.loads(store.read(f"{FOLDER}/{tag}/state.json"))["step"]
    return step


def run_of(folder: Path, student: object) -> Store:
    store = open_store(str(folder))
    prepare_tokens(store, "tiny", student)  # type: ignore[arg-type]
    return store


def test_a_training_killed_and_stopped_goes_the_same_way_as_one_that_was_not(tmp_path: Path) -> None:
    student = tiny_student("t5", num_epochs=40, checkpoint_every_steps=10, keep_checkpoints=1)
    whole, broken = run_of(tmp_path / "whole", student), run_of(tmp_path / "broken", student)
    assert train_ranks(whole.url, "tiny", student, 2, tmp_path) == [0, 0]

    gang = start_ranks(broken.url, "tiny", student, 2, tmp_path)
    wait_until(lambda: newest_step(broken) >= 10)
    gang.kill(1)
    assert gang.wait() == [75, -9]
    killed_after = newest_step(broken)
    gang = start_ranks(broken.url, "tiny", student, 2, tmp_path)
    wait_until(lambda: newest_step(broken) > killed_after)
    gang.stop()
    assert gang.wait() == [75, 75]
    stopped_at = newest_step(broken)
    gang = start_ranks(broken.url, "tiny", student, 2, tmp_path, grace_seconds=0.0)
    gang.stop()  # no time to save: the position of the stop before stands
    assert gang.wait() == [75, 75]
    assert newest_step(broken) == stopped_at
    assert train_ranks(broken.url, "tiny", student, 2, tmp_path) == [0, 0]

    assert metrics(broken, "tiny") == metrics(whole, "tiny")
    weights = "students/tiny/model/model.safetensors"
    assert broken.read(weights) == whole.read(weights)
    assert broken.list_files(FOLDER) == []
