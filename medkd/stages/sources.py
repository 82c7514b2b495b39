"""Where the rows of a data set come from: the shards of this run, the data sets of other runs, or rows in memory.

A source can be read as often as wanted and always gives the same rows, in the order of their sample ids.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from medkd.errors import InputError
from medkd.store import layout, tables
from medkd.store.files import Store
from medkd.store.manifests import FileEntry, Manifest

Row = dict[str, Any]

ID_PREFIX_LENGTH = 8
"""Hexadecimal digits of a data set's hash that go before the sample ids of a union."""


class Source(Protocol):
    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """All rows with these columns, None: all there are; InputError where a file differs from its manifest."""


@dataclass(frozen=True)
class RowsInMemory:
    """Rows somebody else has read."""

    all_rows: Sequence[Row]

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        yield from sorted(self.all_rows, key=lambda row: row["sample_id"])


@dataclass(frozen=True)
class Shards:
    """The accepted rows of finished shards, in the order of the shards."""

    store: Store
    manifests: Sequence[Manifest]

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        files = [file for shard in self.manifests for file in shard.files if file.path.endswith("/samples.parquet")]
        yield from tables.stream(self.store, files, columns)


@dataclass(frozen=True)
class Union:
    """The data sets of several runs as one: ids begin with a piece of the data set's hash, so that each row has its own."""

    runs: Sequence[tuple[Store, Manifest]]
    keeps_ids: bool = False
    """Where it is a single run's data set and nothing else."""

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        for prefix, store, manifest in self._ordered():
            parts = [tables.stream(store, files_of(manifest, split), columns) for split in layout.SPLITS]
            for row in heapq.merge(*parts, key=lambda row: row["sample_id"]):
                row.pop("conversation_sha256", None)
                row.pop("held_out_topic", None)
                yield row if self.keeps_ids else {**row, "sample_id": f"{prefix}-{row['sample_id']}"}

    def _ordered(self) -> list[tuple[str, Store, Manifest]]:
        """Runs by prefix, whatever their order; InputError where two hold the same data set."""
        ordered = sorted(
            ((manifest.counts["data_set_hash"][:ID_PREFIX_LENGTH], store, manifest) for store, manifest in self.runs),
            key=lambda run: run[0],
        )
        for one, other in pairwise(ordered):
            if one[0] == other[0]:
                raise InputError(f"{one[1].url} and {other[1].url} hold the same data set ({one[0]}); name it once")
        return ordered


@dataclass(frozen=True)
class Merged:
    """Several sources as one."""

    sources: Sequence[Source]

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        yield from heapq.merge(*(source.rows(columns) for source in self.sources), key=lambda row: str(row["sample_id"]))


def files_of(manifest: Manifest, split: str) -> list[FileEntry]:
    """The files of one split of a data set."""
    return [file for file in manifest.files if file.path.startswith(f"{layout.DATASET}/{split}-")]
