"""The tables of a shard while its samples end: rows go out in the plan's order, so that memory does not grow with the shard.

What they hold is a pure function of the journal, however samples end: two finishers of one shard write equal bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from medkd.stages.sample_steps import TOKEN_KINDS, Ended
from medkd.stages.tallies import Groups, ShortCells
from medkd.store import layout
from medkd.store.files import Store
from medkd.store.manifests import FileEntry

if TYPE_CHECKING:
    from medkd.store.tables import PartWriter

Entry = Mapping[str, Any]


class ShardTables:
    """Takes the ends of samples in any order."""

    def __init__(self, store: Store, shard: int, indices: range) -> None:
        self.num_ended = self.num_accepted = self.num_rejected = 0
        self.short_cells = ShortCells()
        self.groups = Groups()
        self.spent_usd = self.possibly_usd = 0.0
        self._store = store
        self._shard = shard
        self._next = indices.start
        self._waiting: dict[int, tuple[Ended, list[Entry]]] = {}
        self._reasons: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._writers: tuple[PartWriter, ...] = ()

    def add(self, index: int, ended: Ended, calls: Iterable[Entry]) -> None:
        """A sample has ended, with all its calls."""
        self.num_ended += 1
        self.num_accepted += ended.accepted is not None
        self.num_rejected += len(ended.rejected)
        self.short_cells.add(ended)
        self._waiting[index] = (ended, list(calls))
        while self._next in self._waiting:
            self._write(*self._waiting.pop(self._next))
            self._next += 1

    def close(self) -> tuple[FileEntry, ...]:
        """Write what is left and say what was written; every sample has ended."""
        assert not self._waiting, "a sample in between has not ended"
        return tuple(file for writer in self._opened() for file in writer.close())

    def counts(self) -> dict[str, Any]:
        """As the shard's manifest carries them."""
        return {
            "samples": self.num_ended,
            "accepted": self.num_accepted,
            "short": self.num_ended - self.num_accepted,
            "rejected": self.num_rejected,
            "rejected_by_reason": dict(sorted(self._reasons.items())),
            **{name: self._calls[name] for name in ("calls", "attempts", "repairs", *TOKEN_KINDS)},
        }

    def _write(self, ended: Ended, calls: list[Entry]) -> None:
        samples, rejected, called = self._opened()
        if ended.accepted:
            samples.add(ended.accepted)
        for row in ended.rejected:
            rejected.add(row)
            self._reasons[row["reason"]] += 1
        for entry in calls:
            called.add({key: value for key, value in entry.items() if key != "kind"})
            self._calls["calls"] += 1
            self._calls["attempts"] += entry["attempts"]
            self._calls["repairs"] += bool(entry["repair"])
            for kind in TOKEN_KINDS:
                self._calls[kind] += entry[kind] or 0
            self.spent_usd += entry["cost_usd"]
            self.possibly_usd += entry["possibly_usd"]
        self.groups.add(ended)

    def _opened(self) -> tuple[PartWriter, ...]:
        if not self._writers:
            # Here and not above: pyarrow takes a third of a second to load, before the first call.
            from medkd.store import tables

            def path(name: str, number: int) -> str:
                return layout.shard_file(self._shard, name)

            columns = {
                "samples.parquet": tables.SAMPLE_COLUMNS,
                "rejected.parquet": tables.REJECTED_COLUMNS,
                "calls.parquet": tables.CALL_COLUMNS,
            }
            self._writers = tuple(
                tables.PartWriter(self._store, partial(path, name), found, None) for name, found in columns.items()
            )
        return self._writers
