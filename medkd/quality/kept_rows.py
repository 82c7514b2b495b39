"""What is kept of the rows while duplicates are looked for: runs, identities and band keys on a disk, two bytes a row in memory.

A row's place is its rank and number in one: of two rows, the one with the lower place may stay. Ranks: 0 tested on, 1 validated
on, 2 trained on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medkd.quality.sketches import BITS_BYTES, NUM_BANDS, Runs, Sketches

TRAINED_ON = 2
MANY_RUNS = 255
_ROW_BITS = 30  # a billion rows; with the two bits of the rank a place is 32 bits, and a pair of places 64

GROUP_RECORDS = 100_000
"""Records that are compared at once, 24 bytes each and about four times that while they are sorted."""
_ROWS_AT_ONCE = 8192
_RUNS_AT_ONCE = 500_000

Places = NDArray[np.uint32]

IDENTITY = np.dtype([("key", np.uint64), ("rest", np.uint64), ("place", np.uint32)])
"""128 bits of the conversation's hash, and whose it is."""
BAND = np.dtype([("key", np.uint64), ("place", np.uint32), ("bits", np.uint8, BITS_BYTES)])
"""A row's key in one band, and its bits."""


def places_of(ranks: NDArray[Any], rows: NDArray[Any]) -> Places:
    return (ranks.astype(np.uint32) << np.uint32(_ROW_BITS)) | rows.astype(np.uint32)


def row_of(place: Any) -> Any:
    """The row, or rows, at a place."""
    return place & np.uint32((1 << _ROW_BITS) - 1)


class KeptRows:
    """Takes sketches in the order of their rows; after `close` what was taken can be read.

    folder: an empty one, for as long as this is used.
    """

    def __init__(self, folder: Path, group_records: int = GROUP_RECORDS) -> None:
        self._folder, self._group_records = folder, group_records
        self._names = ("runs", "ends", "identities", *(f"band-{band:02d}" for band in range(NUM_BANDS)))
        self._files = {name: (folder / name).open("wb") for name in self._names}
        self._ranks: list[NDArray[np.uint8]] = []
        self._few_runs: list[NDArray[np.uint8]] = []
        self._runs_handle = self._ends_handle = -1
        self._num_runs = 0
        self.num_rows = 0

    def append(self, found: Sketches, identities: list[bytes], ranks: list[int]) -> None:
        """The next rows."""
        rank = np.array(ranks, np.uint8)
        places = places_of(rank, np.arange(self.num_rows, self.num_rows + len(rank)))
        ends = self._num_runs + np.cumsum(found.num_runs, dtype=np.uint64)
        identity = np.empty(len(rank), IDENTITY)
        halves = np.frombuffer(b"".join(identities), np.uint64).reshape(-1, 2)
        identity["key"], identity["rest"], identity["place"] = halves[:, 0], halves[:, 1], places
        band = np.empty(len(rank), BAND)
        band["place"], band["bits"] = places, found.bits
        for name, part in (("runs", found.runs), ("ends", ends), ("identities", identity)):
            part.tofile(self._files[name])
        for number in range(NUM_BANDS):
            band["key"] = found.bands[:, number]
            band.tofile(self._files[f"band-{number:02d}"])
        self._ranks.append(rank)
        self._few_runs.append(np.minimum(found.num_runs, MANY_RUNS).astype(np.uint8))
        self.num_rows += len(rank)
        self._num_runs = int(ends[-1])

    def close(self) -> None:
        """No more rows come."""
        for file in self._files.values():
            file.close()
        self.ranks = np.concatenate([*self._ranks, np.empty(0, np.uint8)])
        """Of each row."""
        self.few_runs = np.concatenate([*self._few_runs, np.empty(0, np.uint8)])
        """How many runs each row has, at most `MANY_RUNS`."""
        self._ranks, self._few_runs = [], []
        self._runs_handle = os.open(self._folder / "runs", os.O_RDONLY)
        self._ends_handle = os.open(self._folder / "ends", os.O_RDONLY)

    def __del__(self) -> None:
        for handle in (self._runs_handle, self._ends_handle):
            if handle >= 0:
                os.close(handle)

    def places(self, rows: NDArray[Any]) -> Places:
        return places_of(self.ranks[rows], rows)

    def runs(self, row: int) -> Runs:
        """The distinct runs of a row, sorted."""
        start, end = self._bounds(row, row + 1)
        return self._runs_between(int(start), int(end))

    def all_runs(self) -> Iterator[tuple[Runs, NDArray[np.int64]]]:
        """The runs of all rows, and of each run whose it is; some hundred thousand at a time."""
        for first in range(0, self.num_rows, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, self.num_rows)
            bounds = self._bounds(first, last).astype(np.int64)
            start = 0
            while start < last - first:
                end = int(np.searchsorted(bounds, bounds[start] + _RUNS_AT_ONCE, "right")) - 1
                end = min(max(end, start + 1), last - first)
                rows = np.arange(first + start, first + end)
                yield (
                    self._runs_between(int(bounds[start]), int(bounds[end])),
                    np.repeat(rows, np.diff(bounds[start : end + 1])),
                )
                start = end

    def identities(self) -> Iterator[NDArray[Any]]:
        """Records of `IDENTITY`, equal ones together."""
        return self._groups("identities", IDENTITY)

    def band(self, number: int) -> Iterator[NDArray[Any]]:
        """Records of `BAND`, those with equal keys together."""
        return self._groups(f"band-{number:02d}", BAND)

    def _bounds(self, first: int, last: int) -> NDArray[np.uint64]:
        """Where the runs of the rows start, and where the last one's end."""
        before = max(0, first - 1)
        found = np.frombuffer(os.pread(self._ends_handle, 8 * (last - before), 8 * before), np.uint64)
        return found if first else np.concatenate((np.zeros(1, np.uint64), found))

    def _runs_between(self, start: int, end: int) -> Runs:
        return np.frombuffer(os.pread(self._runs_handle, 4 * (end - start), 4 * start), np.uint32)

    def _groups(self, name: str, record: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """The records of a file in groups of bounded size, unless more than that have one key; equal keys are in one group."""
        count = -(-self.num_rows // self._group_records)
        if count <= 1:
            yield np.fromfile(self._folder / name, record)
            return
        paths = [self._folder / f"group-{number:05d}" for number in range(count)]
        files = [path.open("wb") for path in paths]
        with (self._folder / name).open("rb") as whole:
            while len(part := np.fromfile(whole, record, self._group_records)):
                group = (part["key"] >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)
                order = np.argsort(group, kind="stable")
                ends = np.searchsorted(group[order], np.arange(count), "right")
                for file, chosen in zip(files, np.split(order, ends[:-1]), strict=True):
                    part[chosen].tofile(file)
        for file in files:
            file.close()
        for path in paths:
            yield np.fromfile(path, record)
            path.unlink()


class KeptTexts:
    """Short texts on a disk, looked up by their number. folder: one without any other."""

    def __init__(self, folder: Path) -> None:
        self._paths = folder / "texts", folder / "text-ends"
        self._files = [path.open("w+b") for path in self._paths]
        self._end = 0

    def add(self, text: str) -> None:
        """The next text."""
        data = text.encode("utf-8", "surrogatepass")
        self._end += len(data)
        self._files[0].write(data)
        self._files[1].write(self._end.to_bytes(8, "little"))

    def __getitem__(self, number: int) -> str:
        for file in self._files:
            file.flush()
        before = max(0, number - 1)
        found = np.frombuffer(os.pread(self._files[1].fileno(), 16 if number else 8, 8 * before), "<u8")
        start, end = (int(found[0]), int(found[1])) if number else (0, int(found[0]))
        return os.pread(self._files[0].fileno(), end - start, start).decode("utf-8", "surrogatepass")

    def close(self) -> None:
        for file in self._files:
            file.close()
