"""Conversations that say the same twice, and training rows that say what a test row says; at any number of rows.

Near duplicates are found by MinHash bands and confirmed by comparing their five-word runs exactly: one changed fact breaks five
runs, so that two conversations of 110 words may differ in two words at most to count as near at 0.85. Across the splits a row
leaves already where one of the two contains the other's runs to that share: a quoted or continued test conversation is no
training row. Of a pair, the row that is tested on stays, then the one validated on, then the one with the lower sample id.

In memory stay about 100 bytes a row; runs and band keys lie in a scratch folder (some 800 bytes a row).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medkd.quality import sketches
from medkd.quality.sketches import NUM_BANDS, Runs, Sketcher
from medkd.quality.splits import Split

THRESHOLD = 0.85

Reason = Literal["exact", "near", "leak"]

_RANKS: dict[Split, int] = {"test": 0, "validation": 1, "train": 2}
_BATCH = 4096
# Rows that share a band are compared with so many before them, and with so many of the first: a crowd costs no square.
_NEIGHBOURS = 64
_MOST_CANDIDATES = 8
# Of a tested conversation's runs so many are looked for in the other splits; phrases that many tested rows say do not count.
_SAMPLED_RUNS = 16
_ENOUGH_SAMPLED = 3
_COMMON_PHRASE = 10
_MOST_LOOKED_UP = 2_000_000


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


class DuplicateFinder:
    """Takes conversations in the order of their sample ids and then says which to leave out.

    folder: an empty one on a disk, for as long as this is used.
    """

    def __init__(self, folder: Path, threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        self._sketcher = Sketcher()
        self._waiting: list[str] = []
        self._identities: list[bytes] = []
        self._ranks: list[int] = []
        self._kept = _Kept(folder)

    def add(self, conversation: str, identity: str, split: Split) -> None:
        """One more row. identity: its `conversation_sha256`."""
        self._waiting.append(conversation)
        self._identities.append(bytes.fromhex(identity[:32]))
        self._ranks.append(_RANKS[split])
        if len(self._waiting) == _BATCH:
            self._sketch()

    def find(self) -> list[Duplicate]:
        """The rows to leave out, in order; what is left out never stays for another."""
        if self._waiting:
            self._sketch()
        self._kept.close()
        self._kept.load()
        kept = self._kept
        if not kept.num_rows:
            return []
        found = {duplicate.row: duplicate for duplicate in _exact(kept)}
        alone = np.ones(kept.num_rows, bool)
        alone[list(found)] = False
        candidates = sketches.distinct_sorted(np.concatenate([_similar(kept, alone), _quoting(kept, alone)]))
        for duplicate in self._confirmed(candidates):
            found[duplicate.row] = duplicate
        # An equal row stays for another only if it stays itself.
        for row, duplicate in found.items():
            if duplicate.kept_row in found:
                found[row] = Duplicate(
                    row=row, kept_row=found[duplicate.kept_row].kept_row, reason=duplicate.reason, similarity=duplicate.similarity
                )
        return [found[row] for row in sorted(found)]

    def _sketch(self) -> None:
        self._kept.append(self._sketcher.sketch(self._waiting), self._identities, self._ranks)
        self._waiting, self._identities, self._ranks = [], [], []

    def _confirmed(self, candidates: NDArray[np.uint64]) -> Iterator[Duplicate]:
        """Of candidate pairs (later place, earlier place), in that order, those that are near and whose earlier row stays."""
        kept = self._kept
        stays_for: dict[int, int] = {}
        for pair in candidates:
            later, earlier = int(pair >> np.uint64(32)), int(pair & np.uint64(0xFFFFFFFF))
            if later in stays_for:
                continue
            earlier = stays_for.get(earlier, earlier)
            row, other = int(kept.order[later]), int(kept.order[earlier])
            leak = kept.ranks[row] != kept.ranks[other]
            measure = sketches.contained if leak else sketches.similarity
            found = measure(kept.runs(row), kept.runs(other))
            if found >= self.threshold:
                stays_for[later] = earlier
                yield Duplicate(row=row, kept_row=other, reason="leak" if leak else "near", similarity=round(found, 4))


class _Kept:
    """What is kept of the rows: identities, ranks, bits in memory; runs and band keys in files."""

    def __init__(self, folder: Path) -> None:
        self._runs_path = folder / "runs"
        self._runs_file = self._runs_path.open("wb")
        self._band_paths = [folder / f"band-{band:02d}" for band in range(NUM_BANDS)]
        self._band_files = [path.open("wb") for path in self._band_paths]
        self._parts: list[tuple[NDArray[np.uint64], NDArray[np.int8], NDArray[np.uint8], NDArray[np.int32]]] = []
        self._handle = -1

    def append(self, found: sketches.Sketches, identities: list[bytes], ranks: list[int]) -> None:
        found.runs.tofile(self._runs_file)
        for band, file in enumerate(self._band_files):
            found.bands[:, band].tofile(file)
        identity = np.frombuffer(b"".join(identities), np.uint64).reshape(-1, 2)
        self._parts.append((identity, np.array(ranks, np.int8), found.bits, found.num_runs.astype(np.int32)))

    def close(self) -> None:
        for file in (self._runs_file, *self._band_files):
            file.close()

    def load(self) -> None:
        """Join what came in batches."""
        parts, self._parts = self._parts, []
        self.num_rows = sum(len(part[1]) for part in parts)
        if parts:
            self.identities = np.concatenate([part[0] for part in parts])
            self.ranks = np.concatenate([part[1] for part in parts])
            self.bits = np.concatenate([part[2] for part in parts])
            self.num_runs = np.concatenate([part[3] for part in parts])
            self.order = np.lexsort((np.arange(self.num_rows), self.ranks)).astype(np.uint32)
            """Rows in the order in which they may stay: tested ones first."""
            self.place = np.empty(self.num_rows, np.uint32)
            self.place[self.order] = np.arange(self.num_rows, dtype=np.uint32)
            self.offsets = np.concatenate(([0], np.cumsum(self.num_runs, dtype=np.int64)))
            self._handle = os.open(self._runs_path, os.O_RDONLY)

    def __del__(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)

    def runs(self, row: int) -> Runs:
        return self.runs_of(row, row + 1)

    def runs_of(self, first: int, last: int) -> Runs:
        """The runs of consecutive rows, one row's after the other's."""
        start, end = int(self.offsets[first]), int(self.offsets[last])
        return np.frombuffer(os.pread(self._handle, 4 * (end - start), 4 * start), np.uint32)

    def band(self, number: int) -> NDArray[np.uint64]:
        return np.fromfile(self._band_paths[number], np.uint64)


def _exact(kept: _Kept) -> Iterator[Duplicate]:
    """Rows whose conversation is another's, which stands earlier."""
    order = np.lexsort((kept.place, kept.identities[:, 1], kept.identities[:, 0]))
    same = (kept.identities[order[1:]] == kept.identities[order[:-1]]).all(axis=1)
    first = order[0]
    for index in np.flatnonzero(same):
        if index == 0 or not same[index - 1]:
            first = order[index]
        yield Duplicate(row=int(order[index + 1]), kept_row=int(first), reason="exact", similarity=1.0)


def _similar(kept: _Kept, alone: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Candidate pairs by equal bands: (later place << 32 | earlier place), at most a few for each later row and band."""
    found = np.empty(0, np.uint64)
    rows = np.flatnonzero(alone)
    for band in range(NUM_BANDS):
        keys = kept.band(band)[rows]
        order = np.lexsort((kept.place[rows], keys))
        sorted_rows, sorted_keys = rows[order], keys[order]
        pairs = [_filtered(kept, one, other) for one, other in _neighbours(sorted_rows, sorted_keys)]
        found = _few(sketches.distinct_sorted(np.concatenate([found, *pairs])))
    return found


def _neighbours(rows: NDArray[np.int64], keys: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs (later, earlier) of rows with equal keys: close ones, and each with the first ones of its crowd."""
    for distance in range(1, _NEIGHBOURS + 1):
        same = np.flatnonzero(keys[distance:] == keys[:-distance])
        if not len(same):
            return
        yield rows[same + distance], rows[same]
    start = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    first = np.repeat(start, np.diff(np.append(start, len(keys))))
    far = np.flatnonzero(np.arange(len(keys)) - first > _NEIGHBOURS)
    for step in range(_NEIGHBOURS):
        later = far[far - first[far] > _NEIGHBOURS + step]
        yield rows[later], rows[first[later] + step]


def _filtered(kept: _Kept, later: NDArray[np.int64], earlier: NDArray[np.int64]) -> NDArray[np.uint64]:
    near = sketches.equal_bits(kept.bits[later], kept.bits[earlier]) >= sketches.ENOUGH_BITS
    return _pairs(kept, later[near], earlier[near])


def _pairs(kept: _Kept, later: NDArray[np.int64], earlier: NDArray[Any]) -> NDArray[np.uint64]:
    """Rows as (later place << 32 | earlier place), which sorts by place."""
    pairs: NDArray[np.uint64] = (kept.place[later].astype(np.uint64) << np.uint64(32)) | kept.place[earlier]
    return pairs


def _few(pairs: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Of sorted pairs the first few of each later row."""
    later = pairs >> np.uint64(32)
    keep = np.ones(len(pairs), bool)
    keep[_MOST_CANDIDATES:] = later[_MOST_CANDIDATES:] != later[:-_MOST_CANDIDATES]
    return pairs[keep]


def _quoting(kept: _Kept, alone: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Candidate pairs across the splits: rows that say several sampled runs of a row which is tested or validated on."""
    tested = np.flatnonzero(alone & (kept.ranks < _RANKS["train"]))
    found: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    if not len(tested):
        return found[0]
    runs, owners = _sampled(kept, tested)
    known = np.zeros(1 << 24, bool)
    known[runs >> 8] = True
    for first, last in sketches.batches(kept.num_runs, _MOST_LOOKED_UP):
        said = kept.runs_of(first, last)
        row = np.repeat(np.arange(first, last), kept.num_runs[first:last])
        hit = known[said >> 8] & alone[row] & (kept.ranks[row] > 0)
        said, row = said[hit], row[hit]
        start = np.searchsorted(runs, said, "left")
        count = np.searchsorted(runs, said, "right") - start
        later = np.repeat(row, count)
        within = np.arange(len(later)) - np.repeat(np.cumsum(count) - count, count)
        earlier = owners[np.repeat(start, count) + within]
        across = kept.ranks[later] > kept.ranks[earlier]
        pairs = np.sort(_pairs(kept, later[across], earlier[across]))
        pair = sketches.distinct_sorted(pairs)
        times = np.searchsorted(pairs, pair, "right") - np.searchsorted(pairs, pair, "left")
        enough = np.minimum(_ENOUGH_SAMPLED, kept.num_runs[kept.order[pair & np.uint64(0xFFFFFFFF)]])
        found.append(_few(pair[times >= enough]))
    return np.concatenate(found)


def _sampled(kept: _Kept, rows: NDArray[np.int64]) -> tuple[Runs, NDArray[np.uint32]]:
    """Some runs of each row, sorted, and whose they are; without those that many of the rows say."""
    runs, owners = [], []
    for row in rows:
        # Which runs are taken depends on the runs alone; the lowest of a second hash are spread over the conversation.
        said = kept.runs(int(row))
        spread = (said * np.uint32(2654435761)) ^ (said >> 15)
        runs.append(said[np.argpartition(spread, _SAMPLED_RUNS)[:_SAMPLED_RUNS]] if len(said) > _SAMPLED_RUNS else said)
        owners.append(np.full(len(runs[-1]), row, np.uint32))
    run, owner = np.concatenate(runs), np.concatenate(owners)
    order = np.argsort(run, kind="stable")
    run, owner = run[order], owner[order]
    count = np.searchsorted(run, run, "right") - np.searchsorted(run, run, "left")
    return run[count < _COMMON_PHRASE], owner[count < _COMMON_PHRASE]
