"""The order of training: which documents lie together in which forward pass, pure in seed, epoch and token budget.

A *pass* is what one rank takes through the model at once: documents laid end to end up to the token budget. All epochs' passes
form one sequence; each optimizer step takes the next ranks x accumulation of them, so that every rank makes equally many, and a
training that goes on with another number of ranks takes up the sequence where it stood.

Documents come in files. Files are dealt to lanes, and neighbouring passes come from different lanes: where the number of ranks
divides that of the lanes, a rank reads its lanes' files alone.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from medkd.config import StudentConfig

MOST_LANES = 64
# Each lane ends with a pass that is not full, so lanes must be long.
PASSES_OF_A_LANE = 32
# Documents that are mixed with one another before they are packed.
MIXED = 512
# Documents among which the last two of a pass are looked for: 64 make 2,016 pairs, one of which nearly always fits to the token.
CANDIDATES = 64

Pass = list[int]
"""Row numbers."""


def token_budget(student: StudentConfig, sizes: Sequence[int]) -> int:
    """Tokens of a pass. By default `batch_size` documents of mean size, and at least the longest one."""
    wanted = student.tokens_per_pass or math.ceil(student.batch_size * sum(sizes) / len(sizes))
    return max(wanted, *sizes)


def epoch_passes(sizes: Sequence[int], files: Sequence[int], budget: int, *, seed: int, epoch: int) -> list[Pass]:
    """The passes of one epoch. Every row stands once.

    sizes: tokens of each row. files: rows of each file that they come from, in order.
    """
    chance = random.Random(f"{seed}:{epoch}")
    starts = _starts(files)
    order = list(range(len(files)))
    chance.shuffle(order)
    lanes = _lanes(len(files), math.ceil(sum(sizes) / budget))
    packed = []
    for lane in range(lanes):
        rows = (row for file in order[lane::lanes] for row in range(starts[file], starts[file] + files[file]))
        packed.append(list(_pack(_mixed(rows, chance), sizes, budget)))
    return [lane[at] for at in range(max(map(len, packed))) for lane in packed if at < len(lane)]


def _starts(files: Sequence[int]) -> list[int]:
    starts, row = [], 0
    for rows in files:
        starts.append(row)
        row += rows
    return starts


def _lanes(files: int, passes: int) -> int:
    """A power of two, so that usual numbers of ranks divide it."""
    most = min(MOST_LANES, files, passes // PASSES_OF_A_LANE)
    return 2 ** int(math.log2(most)) if most > 1 else 1


def _mixed(rows: Iterator[int], chance: random.Random) -> Iterator[int]:
    """The rows in random order, as far as a pool of `MIXED` reaches."""
    pool: list[int] = []
    for row in rows:
        pool.append(row)
        if len(pool) > MIXED:
            yield _draw(pool, chance)
    while pool:
        yield _draw(pool, chance)


def _draw(pool: list[int], chance: random.Random) -> int:
    at = chance.randrange(len(pool))
    pool[at], pool[-1] = pool[-1], pool[at]
    return pool.pop()


def _pack(rows: Iterator[int], sizes: Sequence[int], budget: int) -> Iterator[Pass]:
    """Rows in their order until about two more fit, which are then chosen to fill the pass."""
    waiting: list[int] = []
    whole: Pass = []
    room = budget
    for row in rows:
        waiting.append(row)
        if len(waiting) < CANDIDATES:
            continue
        largest = max(sizes[row] for row in waiting)
        if room >= 2 * largest:
            first = waiting.pop(0)
            whole.append(first)
            room -= sizes[first]
            continue
        yield whole + _fill(waiting, sizes, room)
        whole, room = [], budget
    while waiting:
        largest = max(sizes[row] for row in waiting)
        if room >= 2 * largest and len(waiting) > 1:
            first = waiting.pop(0)
            whole.append(first)
            room -= sizes[first]
            continue
        yield whole + _fill(waiting, sizes, room)
        whole, room = [], budget


def _fill(waiting: list[int], sizes: Sequence[int], room: int) -> Pass:
    """Take those two (or that one) out of the waiting rows that together come closest to filling the room; none where none fits.

    Where more than two fit, it goes on with what is left of the room.
    """
    taken: Pass = []
    while waiting:
        by_size = sorted(range(len(waiting)), key=lambda at: sizes[waiting[at]])
        ordered = [sizes[waiting[at]] for at in by_size]
        best: tuple[int, ...] = ()
        best_fill = 0
        for low, size in enumerate(ordered):
            if size > room:
                break
            # The largest partner that still fits beside it.
            high = bisect_right(ordered, room - size) - 1
            pair = high > low
            fill = size + ordered[high] if pair else size
            if fill > best_fill:
                best, best_fill = (low, high) if pair else (low,), fill
        if not best:
            break
        for at in sorted((by_size[place] for place in best), reverse=True):
            taken.append(waiting.pop(at))
        room -= best_fill
    return taken


@dataclass(frozen=True, kw_only=True)
class Course:
    """All passes of a training on a number of ranks, and where its steps and epochs end."""

    passes: Sequence[Pass]
    """Of all epochs, one after the other."""
    ends: Sequence[int]
    """Passes until the end of each epoch."""
    per_step: int
    """Passes of an optimizer step: ranks x accumulation."""
    max_steps: int | None
    budget: int
    started_step: int = 0
    started_passes: int = 0
    last: int = field(init=False)
    """Passes until training ends."""

    def __post_init__(self) -> None:
        last = len(self.passes)
        if self.max_steps is not None:
            last = min(last, self.started_passes + max(0, self.max_steps - self.started_step) * self.per_step)
        object.__setattr__(self, "last", last)

    @property
    def total_steps(self) -> int:
        return self.started_step + -(-max(0, self.last - self.started_passes) // self.per_step)

    def step(self, passes_seen: int) -> list[Pass]:
        """The passes of the step after so many; the last step is filled up with the first passes of training."""
        return [self.passes[at % len(self.passes)] for at in range(passes_seen, passes_seen + self.per_step)]

    def epoch(self, passes_seen: int) -> int:
        """Epochs that are complete after so many passes."""
        return bisect_right(self.ends, passes_seen)

    def filled_share(self, sizes: Sequence[int]) -> float:
        """Tokens of documents among all tokens that the passes have room for."""
        return sum(sizes[row] for one in self.passes for row in one) / (len(self.passes) * self.budget)


def course_of(
    student: StudentConfig,
    sizes: Sequence[int],
    files: Sequence[int],
    *,
    world_size: int,
    seed: int,
    step: int = 0,
    passes_seen: int = 0,
) -> Course:
    """The course of a student's training; step, passes_seen: where it goes on."""
    budget = token_budget(student, sizes)
    passes: list[Pass] = []
    ends: list[int] = []
    for epoch in range(student.num_epochs):
        passes += epoch_passes(sizes, files, budget, seed=seed, epoch=epoch)
        ends.append(len(passes))
    return Course(
        passes=passes,
        ends=ends,
        per_step=student.gradient_accumulation * world_size,
        max_steps=student.max_steps,
        budget=budget,
        started_step=step,
        started_passes=passes_seen,
    )


def learning_rate(done: float, student: StudentConfig, first: float) -> float:
    """At a share of training (0 to 1, this step included): a linear rise over the warm-up, then the schedule.

    first: the share that the first step is, which is the shortest warm-up.
    """
    warmup = max(first, student.warmup_ratio)
    if done <= warmup:
        return student.learning_rate * done / warmup
    left = (1.0 - min(1.0, done)) / max(first, 1.0 - warmup)
    if student.schedule == "constant":
        return student.learning_rate
    shape = left if student.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))
    return student.learning_rate * (0.1 + 0.9 * shape)
