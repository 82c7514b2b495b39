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
_SEED = 20250817
_LOW, _HIGH = 2.5, 97.5

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


def _resampled(counts: Sequence[Sequence[int]]) -> NDArray[Any]:
    """Sums of each resample; equal for equally many conversations, so that differences are paired."""
    if not counts:
        return np.zeros((1, 3))
    values = np.array(counts, np.float64)
    chance = np.random.default_rng(_SEED)
    sums = np.empty((RESAMPLES, values.shape[1]))
    for resample in range(RESAMPLES):
        sums[resample] = np.bincount(chance.integers(0, len(values), len(values)), minlength=len(values)) @ values
    return sums


def _f1(sums: NDArray[Any]) -> NDArray[Any]:
    whole = sums[:, 1] + sums[:, 2]
    return np.where(whole == 0, 1.0, _divided(2 * sums[:, 0], whole))


def _divided(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[Any]:
    ratio: NDArray[Any] = np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)
    return ratio


def _middle(scores: NDArray[Any]) -> Interval:
    low, high = np.percentile(scores, (_LOW, _HIGH))
    return Interval(round(float(low), 4), round(float(high), 4))
