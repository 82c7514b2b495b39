"""How far scores may be off by chance: bootstrap intervals over conversations, of one model and of two on the same ones.

A conversation's counts stay together, because its mistakes are no independent draws. Each resample draws as many conversations
with replacement and adds up their counts; the interval holds the middle 95% of the resampled scores. The draws are seeded, so
the same predictions give the same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
RESAMPLES_OF_MANY = 10_000
_SEED = 20250817
_LOW = 2.5

Counts = Sequence[tuple[int, int, int]]
"""Matched, predicted and expected of each conversation."""


@dataclass(frozen=True)
class Interval:
    """The middle 95% of the resampled scores."""

    low: float
    high: float


def f1_interval(counts: Counts) -> Interval:
    """Of the F1 that the conversations' counts add up to."""
    return _middle(_f1(_resampled(counts)))


def ratio_interval(parts: Sequence[tuple[int, int]]) -> Interval:
    """Of the share that (part, whole) of each conversation add up to."""
    sums = _resampled(parts)
    return _middle(_divided(sums[:, 0], sums[:, 1]))


def paired_f1_interval(counts: Counts, others: Counts) -> Interval:
    """Of the first F1 less the second one, of two models on the same conversations in the same order."""
    if len(counts) != len(others):
        raise ValueError(f"got {len(counts)} and {len(others)} conversations, expected the same ones")
    return _middle(_f1(_resampled(counts)) - _f1(_resampled(others)))


@dataclass(frozen=True)
class Difference:
    """Of two models on the same conversations: `second` less `first`, with the middle 95% of the resampled differences.

    together: as wide as it has to be for all differences that were asked for at once to lie within with 95% (Bonferroni).
    """

    first: float
    second: float
    interval: Interval
    together: Interval

    @property
    def change(self) -> float:
        return self.second - self.first


def paired_f1_differences(pairs: Sequence[tuple[Counts, Counts]], compared: int) -> list[Difference]:
    """The second F1 less the first one, of each pair of counts; all pairs are of the same conversations in the same order.

    compared: how many differences are looked at in all, these included.
    """
    if not pairs:
        return []
    sizes = {len(counts) for pair in pairs for counts in pair}
    if len(sizes) > 1:
        raise ValueError(f"got {sorted(sizes)} conversations, expected the same ones")
    columns = [[part for pair in pairs for counts in pair for part in counts[place]] for place in range(sizes.pop())]
    # Tails as thin as many comparisons ask for hold too few of a thousand resamples.
    sums = _resampled(columns, RESAMPLES_OF_MANY)
    whole = np.array(columns, np.float64).sum(axis=0, keepdims=True)
    found = []
    for place in range(0, 6 * len(pairs), 6):
        one, other = slice(place, place + 3), slice(place + 3, place + 6)
        changes = _f1(sums[:, other]) - _f1(sums[:, one])
        thin = _LOW / max(1, compared)
        found.append(
            Difference(
                first=float(_f1(whole[:, one])[0]),
                second=float(_f1(whole[:, other])[0]),
                interval=_middle(changes),
                together=_middle(changes, thin),
            )
        )
    return found


def _resampled(counts: Sequence[Sequence[int]], resamples: int = RESAMPLES) -> NDArray[Any]:
    """Sums of each resample; equal for equally many conversations, so that differences are paired."""
    if not counts:
        return np.zeros((1, 3))
    values = np.array(counts, np.float64)
    chance = np.random.default_rng(_SEED)
    sums = np.empty((resamples, values.shape[1]))
    for resample in range(resamples):
        sums[resample] = np.bincount(chance.integers(0, len(values), len(values)), minlength=len(values)) @ values
    return sums


def _f1(sums: NDArray[Any]) -> NDArray[Any]:
    whole = sums[:, 1] + sums[:, 2]
    return np.where(whole == 0, 1.0, _divided(2 * sums[:, 0], whole))


def _divided(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[Any]:
    ratio: NDArray[Any] = np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)
    return ratio


def _middle(scores: NDArray[Any], tail: float = _LOW) -> Interval:
    """All but this many percent at each end."""
    low, high = np.percentile(scores, (tail, 100 - tail))
    return Interval(round(float(low), 4), round(float(high), 4))
