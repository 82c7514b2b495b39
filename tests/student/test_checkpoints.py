"""Checkpoints of real ranks: whole or invisible, exact on resume, and off training's critical path."""

from __future__ import annotations

import json
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from medkd.store.files import Store, open_store
from medkd.student.compile_ops import operator_variables
from tests.student.gang import start_ranks, train_ranks, wait_until
from tests.student.trained import metrics, prepare_tokens, rows, tiny_student

pytestmark = [pytest.mark.torch, pytest.mark.timeout(1200)]

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
    student = tiny_student(
        "t5", num_epochs=24, checkpoint_every_steps=6, keep_checkpoints=1, best_by="field_f1", validation_samples=3
    )
    whole, broken = run_of(tmp_path / "whole", student), run_of(tmp_path / "broken", student)
    assert train_ranks(whole.url, "tiny", student, 2, tmp_path) == [0, 0]

    gang = start_ranks(broken.url, "tiny", student, 2, tmp_path)
    wait_until(lambda: newest_step(broken) >= 6)
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


def test_training_goes_on_with_another_number_of_ranks_and_another_zero_stage(tmp_path: Path) -> None:
    recipe = {"num_epochs": 60, "learning_rate": 2e-3, "checkpoint_every_steps": 8, "warmup_ratio": 0.0}
    student = tiny_student("gpt2", zero_stage=2, **recipe)
    store = run_of(tmp_path / "run", student)
    for ranks, zero_stage in ((2, 2), (1, 3), (2, 0)):
        before = newest_step(store)
        gang = start_ranks(store.url, "tiny", student.model_copy(update={"zero_stage": zero_stage}), ranks, tmp_path)
        wait_until(lambda before=before: newest_step(store) > before)
        gang.stop()
        assert gang.wait() == [75] * ranks
    assert train_ranks(store.url, "tiny", student.model_copy(update={"zero_stage": 3}), 2, tmp_path) == [0, 0]
    losses = [line["validation_loss"] for line in metrics(store, "tiny") if "validation_loss" in line]
    assert len(losses) == 60
    # Weights or an optimizer that began anew would show as a step back.
    assert all(later < earlier * 1.1 + 0.02 for earlier, later in pairwise(losses))
    assert losses[-1] < losses[0] / 3


def test_weights_and_optimizer_come_through_a_change_of_zero_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import torch.distributed as dist

    from medkd.records import PATIENT_RECORD
    from medkd.student import packing
    from medkd.student.batches import pack
    from medkd.student.checkpoints import Checkpoints
    from medkd.student.engine import join, make_engine
    from medkd.student.export import gather_weights
    from medkd.student.models import make_model
    from medkd.student.position import Position
    from medkd.student.ranks import Ranks
    from medkd.student.tokens import build_tokenizer, tokenise

    for name, value in {"LOCAL_RANK": "0", "DS_ACCELERATOR": "cpu", **operator_variables(os.environ)}.items():
        monkeypatch.setenv(name, value)
    store, device = open_store(str(tmp_path / "run")), torch.device("cpu")
    ranks = Ranks(rank=0, local_rank=0, world_size=1, local_world_size=1, folder=tmp_path)
    student = tiny_student("llama", zero_stage=2)
    tokenizer = build_tokenizer(store, student, rows(), PATIENT_RECORD, tmp_path)
    batch = pack(list(tokenise(tokenizer, rows(), Counter())), tokenizer.family, pad=tokenizer.pad, start=None)

    def engine_of(zero_stage: int, dtype: torch.dtype, universal: bool, seed: int) -> Any:
        model = make_model(store, student, tokenizer, scratch=tmp_path, seed=seed, dtype=dtype)
        packing.install(model)
        changed = student.model_copy(update={"zero_stage": zero_stage})
        return make_engine(model, changed, ranks, device, dtype, universal=universal)

    def step(engine: Any) -> float:
        loss = engine(batch)
        engine.backward(loss / 100)
        engine.step()
        return float(loss.item())

    def checkpoints_of(zero_stage: int, dtype: torch.dtype) -> Checkpoints:
        return Checkpoints(store, str(dtype), ranks, keep=1, identity={}, zero_stage=zero_stage)

    join(ranks, device)
    try:
        # In bf16 optimizers work on copies of the weights in fp32.
        fine, rough = {"rel": 1e-5, "abs": 1e-6}, {"rel": 0.02, "abs": 0.02}
        for dtype, stages, near in ((torch.float32, (2, 3, 0, 1), fine), (torch.bfloat16, (2, 0, 3), rough)):
            engine = engine_of(2, dtype, universal=False, seed=1)
            for _ in range(3):
                step(engine)
            for number, (before, now) in enumerate(pairwise(stages), 1):
                saving = checkpoints_of(before, dtype)
                saving.save(engine, Position(step=number))
                saving.finish()
                found = checkpoints_of(now, dtype).find()
                assert found and found.universal and found.state["step"] == number
                other = engine_of(now, dtype, universal=True, seed=2)
                assert checkpoints_of(now, dtype).resume(other, found).step == number
                # The second step tells whether the optimizer's moments came along.
                assert [step(other) for _ in range(3)] == pytest.approx([step(engine) for _ in range(3)], **near)
                one, changed = gather_weights(engine), gather_weights(other)
                assert one and changed
                assert all(torch.allclose(one[name], changed[name], rtol=near["rel"], atol=near["abs"]) for name in one)
                engine = other
    finally:
        dist.destroy_process_group()
