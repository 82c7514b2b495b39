"""Conversations as numbers: the five-word runs that each one is made of, and the short sketches by which near ones find another.

A run is 32 bits of a hash; two conversations are compared by the runs they share. A MinHash of 96 values per conversation gives
16 band keys (equal in at least one band: a candidate) and 96 bits (equal in most: worth an exact comparison).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medkd.samples import normalised

RUN_WORDS = 5
"""Five, because conversations of one topic share phrases ("how long have you had") without sharing facts."""

NUM_BANDS = 16
# At a similarity of 0.85, 1 pair in 2,000 shares no band of six values; at 0.3, 1 in 90 shares one.
_BAND_VALUES = 6
_NUM_VALUES = NUM_BANDS * _BAND_VALUES
BITS_BYTES = _NUM_VALUES // 8
ENOUGH_BITS = 79
"""Of 96, that two conversations of similarity 0.85 or more share: 88.8 on average, 79 is 3.8 standard deviations below."""

_MOST_WORDS = 1_000_000  # remembered hashes of words: some 150 MB at the very most
_PRIME = np.uint64(0x9E3779B97F4A7C15)

Runs = NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True)
class Sketches:
    """What is kept of a batch of conversations.

    runs: the distinct runs of all of them, sorted within each. num_runs: how many each has, at least 1.
    bands: uint64 [conversations, NUM_BANDS]. bits: uint8 [conversations, BITS_BYTES].
    """

    runs: Runs
    num_runs: NDArray[np.int64]
    bands: NDArray[np.uint64]
    bits: NDArray[np.uint8]


class Sketcher:
    """Makes sketches; the same text gives the same sketch in every process."""

    def __init__(self) -> None:
        self._words = _WordHashes()
        chance = np.random.Generator(np.random.PCG64(20250817))
        self._factors = chance.integers(0, 2**63, _NUM_VALUES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._offsets = chance.integers(0, 2**63, _NUM_VALUES, dtype=np.uint64)

    def sketch(self, conversations: Sequence[str]) -> Sketches:
        """The sketches of some thousand conversations."""
        runs, num_runs = self._runs(conversations)
        starts = np.concatenate(([0], np.cumsum(num_runs)[:-1]))
        values = np.empty((len(conversations), _NUM_VALUES), np.uint32)
        wide = runs.astype(np.uint64)
        for place in range(_NUM_VALUES):
            hashed = ((wide * self._factors[place] + self._offsets[place]) >> np.uint64(32)).astype(np.uint32)
            values[:, place] = np.minimum.reduceat(hashed, starts)
        return Sketches(runs=runs, num_runs=num_runs, bands=_bands(values), bits=np.packbits(values & 1 > 0, axis=1))

    def _runs(self, conversations: Sequence[str]) -> tuple[Runs, NDArray[np.int64]]:
        words: list[int] = []
        lengths = []
        for conversation in conversations:
            found = list(map(self._words.__getitem__, normalised(conversation).split()))
            found += [0] * (RUN_WORDS - len(found))
            words += found
            lengths.append(len(found))
        hashed = np.array(words, np.uint64)
        length = np.array(lengths, np.int64)
        run = hashed[: len(hashed) - RUN_WORDS + 1].copy()
        for place in range(1, RUN_WORDS):
            run = run * _PRIME + hashed[place : len(hashed) - RUN_WORDS + 1 + place]
        run = (run ^ (run >> np.uint64(29))) * _PRIME
        row = np.repeat(np.arange(len(conversations), dtype=np.uint64), length - RUN_WORDS + 1)
        firsts = np.concatenate(([0], np.cumsum(length)[:-1]))
        within = np.concatenate(
            [np.arange(first, first + count - RUN_WORDS + 1) for first, count in zip(firsts, length, strict=True)]
        )
        distinct = distinct_sorted((row << np.uint64(32)) | (run[within] >> np.uint64(32)))
        counts = np.bincount((distinct >> np.uint64(32)).astype(np.int64), minlength=len(conversations))
        return (distinct & np.uint64(0xFFFFFFFF)).astype(np.uint32), counts


class _WordHashes(dict[str, int]):
    """64 bits of each word's hash, computed once; as a dict, because that is looked up without a Python call."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MOST_WORDS:
            self.clear()
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = found = int.from_bytes(digest, "little")
        return found


def distinct_sorted(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """As `numpy.unique`, which hashes first and takes several times as long."""
    ordered = np.sort(values)
    distinct: NDArray[np.uint64] = ordered[np.concatenate((np.ones(min(1, len(ordered)), bool), ordered[1:] != ordered[:-1]))]
    return distinct


def _bands(values: NDArray[np.uint32]) -> NDArray[np.uint64]:
    keys = np.empty((len(values), NUM_BANDS), np.uint64)
    for band in range(NUM_BANDS):
        key = np.full(len(values), band, np.uint64)
        for place in range(band * _BAND_VALUES, (band + 1) * _BAND_VALUES):
            key = (key ^ values[:, place]) * _PRIME
            key ^= key >> np.uint64(31)
        keys[:, band] = key
    return keys


def equal_bits(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[Any]:
    """How many bits of the sketches agree, pair by pair."""
    agreeing: NDArray[Any] = _NUM_VALUES - np.bitwise_count(one ^ other).sum(axis=1, dtype=np.int64)
    return agreeing


def shared(one: Runs, other: Runs) -> int:
    """How many runs two conversations have in common."""
    small, large = (one, other) if len(one) <= len(other) else (other, one)
    places = np.searchsorted(large, small)
    places[places == len(large)] = 0
    return int((large[places] == small).sum())


def similarity(one: Runs, other: Runs) -> float:
    """Jaccard similarity of two conversations' runs."""
    common = shared(one, other)
    return common / (len(one) + len(other) - common)


def contained(one: Runs, other: Runs) -> float:
    """The share of the shorter conversation's runs that the longer one says, too."""
    return shared(one, other) / min(len(one), len(other))


def batches(sizes: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges whose sizes add up to about `most` each."""
    start = total = 0
    for index, size in enumerate(sizes):
        total += int(size)
        if total >= most:
            yield start, index + 1
            start, total = index + 1, 0
    if start < len(sizes):
        yield start, len(sizes)
