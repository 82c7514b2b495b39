from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.config import StudentConfig
from medkd.student.order import Schedule, epoch_steps, learning_rate, micro_batches, schedule_of

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=200)


def schedule(rows: int, rows_per_step: int) -> Schedule:
    return Schedule(rows=rows, rows_per_step=rows_per_step, num_epochs=2, max_steps=None)


@given(lengths=LENGTHS, size=st.integers(1, 16), seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_every_row_is_in_each_epoch_and_only_the_filling_twice(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    plan = schedule(len(lengths), size)
    steps = epoch_steps(lengths, plan, seed=seed, epoch=epoch)
    assert len(steps) == plan.steps_per_epoch
    assert all(len(step) == size for step in steps)
    counts = Counter(row for step in steps for row in step)
    assert set(counts) == set(range(len(lengths)))
    assert max(counts.values()) - min(counts.values()) <= 1
    assert steps == epoch_steps(lengths, plan, seed=seed, epoch=epoch)


def test_epochs_and_seeds_differ_in_order() -> None:
    lengths = list(range(64))
    plan = schedule(64, 4)
    orders = [epoch_steps(lengths, plan, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] != orders[1] and orders[0] != orders[2]


def test_rows_of_a_step_are_about_equally_long() -> None:
    lengths = [10, 500] * 64
    steps = epoch_steps(lengths, schedule(128, 8), seed=0, epoch=0)
    assert all(len({lengths[row] for row in step}) == 1 for step in steps)


@given(world=st.integers(1, 4), accumulation=st.integers(1, 3), size=st.integers(1, 4))
def test_ranks_share_a_step_without_overlap(world: int, accumulation: int, size: int) -> None:
    step = list(range(world * accumulation * size))
    parts = [
        part for rank in range(world) for part in micro_batches(step, rank=rank, world_size=world, accumulation=accumulation)
    ]
    assert sorted(row for part in parts for row in part) == step
    assert {len(part) for part in parts} == {size}


def test_more_ranks_make_larger_steps_and_max_steps_ends_early() -> None:
    student = StudentConfig(model_name="x", batch_size=4, gradient_accumulation=2, num_epochs=3)
    assert schedule_of(student, rows=100, world_size=1).total_steps == 3 * 13
    assert schedule_of(student, rows=100, world_size=2).total_steps == 3 * 7
    assert schedule_of(student.model_copy(update={"max_steps": 5}), rows=100, world_size=2).total_steps == 5


def test_the_learning_rate_rises_and_falls_to_a_tenth() -> None:
    student = StudentConfig(model_name="x", learning_rate=1e-3, warmup_ratio=0.1)
    rates = [learning_rate(step, student, 100) for step in range(1, 101)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == max(rates) == pytest.approx(1e-3)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(1e-4)
