"""The order of training: which rows make which step, pure in (seed, epoch), so that any step can be resumed. No torch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from medkd.config import StudentConfig

# Rows of about equal length share a step. Sorting within 16 steps' rows saves most of the padding and still mixes well.
STEPS_SORTED_TOGETHER = 16

Steps = list[list[int]]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long training is, counted in optimizer steps."""

    rows: int
    rows_per_step: int
    """All ranks and accumulated micro-batches together."""
    num_epochs: int
    max_steps: int | None

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.rows // self.rows_per_step)

    @property
    def total_steps(self) -> int:
        steps = self.steps_per_epoch * self.num_epochs
        return steps if self.max_steps is None else min(steps, self.max_steps)


def schedule_of(student: StudentConfig, *, rows: int, world_size: int) -> Schedule:
    """The schedule of a student on this many rows and ranks."""
    return Schedule(
        rows=rows,
        rows_per_step=student.batch_size * student.gradient_accumulation * world_size,
        num_epochs=student.num_epochs,
        max_steps=student.max_steps,
    )


def epoch_steps(lengths: Sequence[int], schedule: Schedule, *, seed: int, epoch: int) -> Steps:
    """Row indices of each step of an epoch. Every row stands once; the last step is filled up with the epoch's first rows."""
    chance = random.Random(f"{seed}:{epoch}")
    rows = list(range(len(lengths)))
    chance.shuffle(rows)
    rows = list(islice(cycle(rows), schedule.steps_per_epoch * schedule.rows_per_step))
    block = STEPS_SORTED_TOGETHER * schedule.rows_per_step
    steps: Steps = []
    for start in range(0, len(rows), block):
        alike = sorted(rows[start : start + block], key=lambda row: lengths[row])
        steps.extend(alike[at : at + schedule.rows_per_step] for at in range(0, len(alike), schedule.rows_per_step))
    chance.shuffle(steps)
    return steps


def micro_batches(step: Sequence[int], *, rank: int, world_size: int, accumulation: int) -> Iterator[list[int]]:
    """One rank's micro-batches of a step. Ranks take turns, so that all have about the same work."""
    parts = world_size * accumulation
    for number in range(accumulation):
        yield list(step[number * world_size + rank :: parts])


def learning_rate(step: int, student: StudentConfig, total_steps: int) -> float:
    """Of the step with this number (from 1): a linear rise over the warm-up, then a linear fall to a tenth at the last step."""
    warmup = max(1, round(student.warmup_ratio * total_steps))
    if step <= warmup:
        return student.learning_rate * step / warmup
    left = (total_steps - step) / max(1, total_steps - warmup)
    return student.learning_rate * (0.1 + 0.9 * max(0.0, left))
