"""Conversations that say the same twice, and training rows that say what a test row says; at any number of rows.

Near duplicates are found by MinHash bands and confirmed by comparing their five-word runs exactly: one changed fact breaks five
runs, so that two conversations of 110 words may differ in two words at most to count as near at 0.85. Across the splits a row
leaves already where one of the two contains the other's runs to that share: a quoted or continued test conversation is no
training row. Of a pair, the row that is tested on stays, then the one validated on, then the one with the lower sample id.

Runs, band keys and identities lie in a scratch folder (some 1,100 bytes a row). In memory stay four bytes a row, about 150 for
each near duplicate, and what is compared at the moment, whose size is fixed.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medkd.quality import sketches
from medkd.quality.kept_rows import GROUP_RECORDS, TRAINED_ON, KeptRows, Places, row_of
from medkd.quality.sketches import NUM_BANDS, Runs, Sketcher
from medkd.quality.splits import Split

THRESHOLD = 0.85

Reason = Literal["exact", "near", "leak"]
_REASONS: tuple[Reason, ...] = ("exact", "near", "leak")

_RANKS: dict[Split, int] = {"test": 0, "validation": 1, "train": TRAINED_ON}
_BATCH = 4096
# Rows that share a band are compared with so many before them, and with so many of the first: a crowd costs no square.
_NEIGHBOURS = 64
_MOST_CANDIDATES = 8
# Of a tested conversation's runs so many are looked for in the other splits; phrases that many tested rows say do not count.
_SAMPLED_RUNS = 16
_ENOUGH_SAMPLED = 3
_COMMON_PHRASE = 10


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """A row to leave out, and the one that stays for it. Rows are numbered in the order in which they were added.

    reason: `exact`; `near`; or `leak`, where the other row is in a split that is tested (or validated) on.
    similarity: Jaccard similarity of their runs; for a leak the share of the shorter one's runs; 1.0 where they are equal.
    """

    row: int
    kept_row: int
    reason: Reason
    similarity: float


class Duplicates:
    """Duplicates in the order of their rows, 17 bytes each."""

    def __init__(self, num_rows: int, rows: NDArray[Any], kept_rows: NDArray[Any], reasons: NDArray[Any], shares: NDArray[Any]):
        order = np.argsort(rows)
        self._columns = [column[order] for column in (rows, kept_rows, reasons, shares)]
        self.is_left_out = np.zeros(num_rows, bool)
        """Of each row, whether it is one of them."""
        self.is_left_out[rows] = True

    def __len__(self) -> int:
        return len(self._columns[0])

    def __iter__(self) -> Iterator[Duplicate]:
        for row, kept_row, reason, share in zip(*self._columns, strict=True):
            yield Duplicate(row=int(row), kept_row=int(kept_row), reason=_REASONS[reason], similarity=float(share))


class DuplicateFinder:
    """Takes conversations in the order of their sample ids and then says which to leave out.

    folder: an empty one on a disk, for as long as this is used.
    """

    def __init__(self, folder: Path, threshold: float = THRESHOLD, *, at_once: int = GROUP_RECORDS) -> None:
        """at_once: rows that are compared at once, at most; decides about memory and time, not about what is found."""
        self.threshold = threshold
        self._at_once = at_once
        self._sketcher = Sketcher()
        self._waiting: list[str] = []
        self._identities: list[bytes] = []
        self._ranks: list[int] = []
        self._kept = KeptRows(folder, at_once)

    def add(self, conversation: str, identity: str, split: Split) -> None:
        """One more row. identity: its `conversation_sha256`."""
        self._waiting.append(conversation)
        self._identities.append(bytes.fromhex(identity[:32]))
        self._ranks.append(_RANKS[split])
        if len(self._waiting) == _BATCH:
            self._sketch()

    def find(self) -> Duplicates:
        """The rows to leave out; what is left out never stays for another."""
        if self._waiting:
            self._sketch()
        kept = self._kept
        kept.close()
        equal, stays = _exact(kept)
        alone = np.ones(kept.num_rows, bool)
        alone[equal] = False
        near = self._confirmed(np.concatenate([_similar(kept, alone), *_quoting(kept, alone, self._at_once // 2)]))
        # An equal row stays for another only if it stays itself.
        stays = np.array([near.stays_for.get(row, row) for row in stays.tolist()], np.uint32)
        return Duplicates(
            kept.num_rows,
            np.concatenate([equal, np.fromiter(near.stays_for, np.uint32)]),
            np.concatenate([stays, np.fromiter(near.stays_for.values(), np.uint32)]),
            np.concatenate([np.zeros(len(equal), np.uint8), np.array(near.reasons, np.uint8)]),
            np.concatenate([np.ones(len(equal)), np.array(near.shares, np.float64)]),
        )

    def _sketch(self) -> None:
        self._kept.append(self._sketcher.sketch(self._waiting), self._identities, self._ranks)
        self._waiting, self._identities, self._ranks = [], [], []

    def _confirmed(self, candidates: NDArray[np.uint64]) -> _Near:
        """Of candidate pairs (later place, earlier place) those that are near and whose earlier row stays, by later place."""
        kept, found = self._kept, _Near()
        for pair in sketches.distinct_sorted(candidates):
            row, other = int(row_of(np.uint32(pair >> np.uint64(32)))), int(row_of(np.uint32(pair & np.uint64(0xFFFFFFFF))))
            if row in found.stays_for:
                continue
            other = found.stays_for.get(other, other)
            leak = bool(kept.ranks[row] != kept.ranks[other])
            measure = sketches.contained if leak else sketches.similarity
            share = measure(kept.runs(row), kept.runs(other))
            if share >= self.threshold:
                found.stays_for[row] = other
                found.reasons.append(_REASONS.index("leak" if leak else "near"))
                found.shares.append(round(share, 4))
        return found


class _Near:
    """Rows that are near another: which, why and how much, in one order."""

    def __init__(self) -> None:
        self.stays_for: dict[int, int] = {}
        self.reasons = array("B")
        self.shares = array("d")


def _exact(kept: KeptRows) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Rows whose conversation is another's, which stands earlier, and which rows those are."""
    rows, stays = [np.empty(0, np.uint32)], [np.empty(0, np.uint32)]
    for group in kept.identities():
        ordered = group[np.lexsort((group["place"], group["rest"], group["key"]))]
        new = np.ones(len(ordered), bool)
        new[1:] = (ordered["key"][1:] != ordered["key"][:-1]) | (ordered["rest"][1:] != ordered["rest"][:-1])
        first = np.maximum.accumulate(np.where(new, np.arange(len(ordered)), 0))
        rows.append(row_of(ordered["place"][~new]))
        stays.append(row_of(ordered["place"][first[~new]]))
    return np.concatenate(rows), np.concatenate(stays)


def _similar(kept: KeptRows, alone: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Candidate pairs by equal bands: (later place << 32 | earlier place), at most a few for each later row and band."""
    found = np.empty(0, np.uint64)
    for band in range(NUM_BANDS):
        pairs = [found]
        for group in kept.band(band):
            group = group[alone[row_of(group["place"])]]
            ordered = group[np.lexsort((group["place"], group["key"]))]
            for later, earlier in _neighbours(ordered["key"]):
                near = sketches.equal_bits(ordered["bits"][later], ordered["bits"][earlier]) >= sketches.ENOUGH_BITS
                pairs.append(_pairs(ordered["place"][later[near]], ordered["place"][earlier[near]]))
        found = _few(sketches.distinct_sorted(np.concatenate(pairs)))
    return found


def _neighbours(keys: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions (later, earlier) of equal ones of the sorted keys: close ones, and each with the first ones of its crowd."""
    for distance in range(1, _NEIGHBOURS + 1):
        same = np.flatnonzero(keys[distance:] == keys[:-distance])
        if not len(same):
            return
        yield same + distance, same
    start = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    first = np.repeat(start, np.diff(np.append(start, len(keys))))
    far = np.flatnonzero(np.arange(len(keys)) - first > _NEIGHBOURS)
    for step in range(_NEIGHBOURS):
        later = far[far - first[far] > _NEIGHBOURS + step]
        yield later, first[later] + step


def _pairs(later: Places, earlier: Places) -> NDArray[np.uint64]:
    """Pairs of places as one number each, which sorts by the later place."""
    pairs: NDArray[np.uint64] = (later.astype(np.uint64) << np.uint64(32)) | earlier
    return pairs


def _few(pairs: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Of sorted pairs the first few of each later row."""
    later = pairs >> np.uint64(32)
    keep = np.ones(len(pairs), bool)
    keep[_MOST_CANDIDATES:] = later[_MOST_CANDIDATES:] != later[:-_MOST_CANDIDATES]
    return pairs[keep]


def _quoting(kept: KeptRows, alone: NDArray[np.bool_], at_once: int) -> Iterator[NDArray[np.uint64]]:
    """Candidate pairs across the splits: rows that say several sampled runs of a row which is tested or validated on.

    at_once: tested rows whose sampled runs are looked for in one pass over all runs, 16 times 12 bytes each.
    """
    tested = np.flatnonzero(alone & (kept.ranks < TRAINED_ON)).astype(np.uint32)
    for start in range(0, len(tested), at_once):
        yield from _quoting_these(kept, alone, tested[start : start + at_once])


def _quoting_these(kept: KeptRows, alone: NDArray[np.bool_], tested: NDArray[np.uint32]) -> Iterator[NDArray[np.uint64]]:
    runs, owners = _sampled(kept, tested)
    # A bit for each of the 2^27 beginnings of a run: few others of the looked-up runs get past it.
    known = np.zeros(1 << 24, np.uint8)
    np.bitwise_or.at(known, runs >> 8, np.uint8(1) << ((runs >> np.uint32(5)) & np.uint32(7)).astype(np.uint8))
    for said, row in kept.all_runs():
        hit = (known[said >> 8] >> ((said >> np.uint32(5)) & np.uint32(7)).astype(np.uint8)) & 1 > 0
        said, row = said[hit], row[hit]
        other = alone[row] & (kept.ranks[row] > 0)
        said, row = said[other], row[other]
        start = np.searchsorted(runs, said, "left")
        count = np.searchsorted(runs, said, "right") - start
        later = np.repeat(row, count)
        within = np.arange(len(later)) - np.repeat(np.cumsum(count) - count, count)
        earlier = owners[np.repeat(start, count) + within]
        across = kept.ranks[later] > kept.ranks[earlier]
        pairs = np.sort(_pairs(kept.places(later[across]), kept.places(earlier[across])))
        pair = sketches.distinct_sorted(pairs)
        times = np.searchsorted(pairs, pair, "right") - np.searchsorted(pairs, pair, "left")
        enough = np.minimum(_ENOUGH_SAMPLED, kept.few_runs[row_of(pair.astype(np.uint32))])
        yield _few(pair[times >= enough])


def _sampled(kept: KeptRows, rows: NDArray[np.uint32]) -> tuple[Runs, NDArray[np.uint32]]:
    """Some runs of each row, sorted, and whose they are; without those that many of the rows say."""
    runs, count = np.empty((len(rows), _SAMPLED_RUNS), np.uint32), np.empty(len(rows), np.int64)
    for place, row in enumerate(rows):
        # Which runs are taken depends on the runs alone; the lowest of a second hash are spread over the conversation.
        said = kept.runs(int(row))
        if len(said) > _SAMPLED_RUNS:
            spread = (said * np.uint32(2654435761)) ^ (said >> 15)
            said = said[np.argpartition(spread, _SAMPLED_RUNS)[:_SAMPLED_RUNS]]
        runs[place, : len(said)], count[place] = said, len(said)
    run, owner = runs[np.arange(_SAMPLED_RUNS) < count[:, None]], np.repeat(rows, count)
    order = np.argsort(run, kind="stable")
    run, owner = run[order], owner[order]
    count = np.searchsorted(run, run, "right") - np.searchsorted(run, run, "left")
    return run[count < _COMMON_PHRASE], owner[count < _COMMON_PHRASE]
