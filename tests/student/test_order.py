from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.config import StudentConfig
from medkd.student.order import Course, course_of, epoch_passes, learning_rate, token_budget

SIZES = st.lists(st.integers(1, 500), min_size=1, max_size=400)


def student(**changes: object) -> StudentConfig:
    return StudentConfig.model_validate({"model_name": "x", **changes})


def files_of(rows: int, each: int = 32) -> list[int]:
    return [min(each, rows - start) for start in range(0, rows, each)]


@given(sizes=SIZES, batch=st.integers(1, 16), seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_every_row_is_in_each_epoch_once_and_no_pass_is_over_its_budget(
    sizes: list[int], batch: int, seed: int, epoch: int
) -> None:
    budget = token_budget(student(batch_size=batch), sizes)
    passes = epoch_passes(sizes, files_of(len(sizes)), budget, seed=seed, epoch=epoch)
    assert sorted(row for one in passes for row in one) == list(range(len(sizes)))
    assert all(0 < sum(sizes[row] for row in one) <= budget for one in passes)
    assert passes == epoch_passes(sizes, files_of(len(sizes)), budget, seed=seed, epoch=epoch)


def test_epochs_and_seeds_differ_in_order_and_in_company() -> None:
    sizes = [100 + row % 50 for row in range(256)]
    orders = [epoch_passes(sizes, files_of(256), 1000, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    companies = [{frozenset(one) for one in order} for order in orders]
    assert len(companies[0] & companies[1]) < 5 and len(companies[0] & companies[2]) < 5


@given(seed=st.integers(0, 20), batch=st.integers(4, 16))
def test_passes_of_usual_conversations_are_full(seed: int, batch: int) -> None:
    sizes = [250 + (row * 7919 + seed * 31) % 650 for row in range(2000)]
    budget = token_budget(student(batch_size=batch), sizes)
    passes = epoch_passes(sizes, files_of(2000, 256), budget, seed=seed, epoch=0)
    assert sum(sizes) / (len(passes) * budget) >= 0.97


@given(world=st.integers(1, 4), accumulation=st.integers(1, 3), rows=st.integers(1, 60), epochs=st.integers(1, 3))
def test_all_ranks_make_equally_many_passes_and_together_all_of_them(
    world: int, accumulation: int, rows: int, epochs: int
) -> None:
    recipe = student(batch_size=2, gradient_accumulation=accumulation, num_epochs=epochs)
    course = course_of(recipe, [10] * rows, files_of(rows), world_size=world, seed=0)
    seen, steps, counts = 0, 0, Counter[int]()
    while seen < course.last:
        step = course.step(seen)
        assert len(step) == world * accumulation
        counts.update(row for one in step for row in one)
        seen, steps = seen + len(step), steps + 1
    assert steps == course.total_steps
    assert set(counts) == set(range(rows)) and min(counts.values()) >= epochs


def test_another_number_of_ranks_takes_up_the_sequence_where_it_stood() -> None:
    sizes = [10 + row % 7 for row in range(100)]
    recipe = student(batch_size=2, num_epochs=2)
    two = course_of(recipe, sizes, files_of(100), world_size=2, seed=1)
    three = course_of(recipe, sizes, files_of(100), world_size=3, seed=1, step=10, passes_seen=20)
    assert three.passes == two.passes
    assert three.step(20) == list(two.passes[20:23])
    assert three.total_steps == 10 + -(-(len(two.passes) - 20) // 3)


def test_max_steps_ends_early_and_epochs_are_counted() -> None:
    course = course_of(student(max_steps=5, batch_size=1), [10] * 30, [30], world_size=2, seed=0)
    assert (course.total_steps, course.last) == (5, 10)
    whole = Course(passes=[[0]] * 6, ends=[2, 4, 6], per_step=1, max_steps=None, budget=1)
    assert [whole.epoch(seen) for seen in range(7)] == [0, 0, 1, 1, 2, 2, 3]


def test_a_rank_reads_its_own_lanes_files_alone() -> None:
    sizes = [100] * 64 * 64
    passes = epoch_passes(sizes, [64] * 64, 1000, seed=0, epoch=0)
    even = [passes[at : at + 2] for at in range(0, len(passes) - 1, 2)]
    files = [{row // 64 for pair in even for row in pair[rank]} for rank in (0, 1)]
    assert not files[0] & files[1]
    assert len(files[0]) == len(files[1]) == 32


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_learning_rate_rises_and_then_goes_as_the_schedule_says(schedule: str) -> None:
    recipe = student(learning_rate=1e-3, warmup_ratio=0.1, schedule=schedule)
    rates = [learning_rate(step / 100, recipe, 1 / 100) for step in range(1, 101)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == max(rates) == pytest.approx(1e-3)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(1e-3 if schedule == "constant" else 1e-4)
    half = {"linear": 0.55e-3, "cosine": 0.55e-3, "constant": 1e-3}[schedule]
    assert learning_rate(0.55, recipe, 0.01) == pytest.approx(half)
    assert learning_rate(1.0, student(learning_rate=1.0, warmup_ratio=0), 1.0) == 1.0
