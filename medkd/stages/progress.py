"""How far a run is, read from its prefix: each finished shard's manifest once, progress files of active shards only."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from medkd.quality.verdicts import verdict_line
from medkd.stages import standing
from medkd.stages.tallies import merged_short_cells
from medkd.store import layout
from medkd.store.files import Store
from medkd.store.manifests import Manifest


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The samples of a run. short: ended without an accepted row."""

    total: int = 0
    accepted: int = 0
    short: int = 0
    rejected: int = 0

    @property
    def ended(self) -> int:
        return self.accepted + self.short


@dataclass(frozen=True, kw_only=True)
class Money:
    """US dollars: spent for sure, possibly spent on answers that never came, and the plan's estimate of the whole."""

    spent_usd: float = 0.0
    possibly_usd: float = 0.0
    estimate_usd: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Stage generate at one moment."""

    num_shards: int
    done: int
    samples: Samples
    money: Money
    parked: int = 0
    """Shards that wait by order: of the teacher, or of the run's control."""
    parked_until: float | None = None
    """When the last of them goes on, where the teacher said so; seconds since 1970."""
    short_cells: tuple[Mapping[str, Any], ...] = ()
    """Cells that fell short so far: topic, mood, planned, accepted (of planned, at most) and the reasons of all their tries."""
    last_at: float | None = None
    """When a shard last wrote down how far it is."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Stage train at one moment."""

    step: int
    total_steps: int
    loss: float | None
    at: float


class ShardReader:
    """Reads the shards of one run, each file no more often than it has to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._total_samples = int(json.loads(store.read(layout.PLAN))["total_samples"])
        cut = json.loads(store.read(layout.LAYOUT))
        self.num_shards = int(cut["num_shards"])
        self._estimate_usd = float(cut["estimate_usd"])
        self.finished: dict[int, Manifest] = {}
        self._open: dict[int, Mapping[str, Any]] = {}
        self._active: frozenset[int] = frozenset()
        self._started = False

    def read(self, ended: Collection[int], active: Collection[int]) -> Generation:
        """The state of the run, given which shards have ended and which may be at work."""
        self._read_finished([shard for shard in ended if shard not in self.finished])
        # Once all of them: what shards spent that wait for their next try is in their files, too.
        wanted = active if self._started else range(self.num_shards)
        self._started = True
        self._active = frozenset(active)
        paths = {layout.shard_file(shard, "progress.json"): shard for shard in wanted if shard not in self.finished}
        for path, data in self._store.read_present(paths).items():
            self._open[paths[path]] = json.loads(data)
        return self._state()

    def read_all_finished(self) -> Mapping[int, Manifest]:
        """The manifests of all finished shards."""
        self._read_finished([shard for shard in range(self.num_shards) if shard not in self.finished])
        return self.finished

    def _read_finished(self, shards: Collection[int]) -> None:
        self.finished |= standing.shard_manifests(self._store, shards)
        for shard in shards:
            if shard in self.finished:
                self._open.pop(shard, None)

    def _state(self) -> Generation:
        done, at_work = [manifest.counts for manifest in self.finished.values()], list(self._open.values())
        paid = [manifest.money for manifest in self.finished.values()]
        parked = [state for shard, state in self._open.items() if shard in self._active and state["state"] == "parked"]
        counts = [*done, *at_work]
        return Generation(
            num_shards=self.num_shards,
            done=len(self.finished),
            samples=Samples(
                total=self._total_samples,
                accepted=sum(one["accepted"] for one in counts),
                short=sum(one["short"] for one in counts),
                rejected=sum(one["rejected"] for one in counts),
            ),
            money=Money(
                spent_usd=sum(one["spent_usd"] for one in [*paid, *at_work]),
                possibly_usd=sum(one["possibly_usd"] for one in [*paid, *at_work]),
                estimate_usd=self._estimate_usd,
            ),
            parked=len(parked),
            short_cells=tuple(merged_short_cells(one.get("short_cells", ()) for one in counts)),
            parked_until=max((state["parked_until"] or 0.0 for state in parked), default=0.0) or None,
            last_at=max((state["at"] for state in at_work), default=None),
        )


def verdict(store: Store, student: str) -> str:
    """Whether a student clears its bars, in words; empty where it has not been evaluated."""
    try:
        return verdict_line(json.loads(store.read(layout.student_evaluation(student)))["bars"])
    except FileNotFoundError:
        return ""


def training(store: Store, student: str) -> Training | None:
    """How far a student's training is; None before its first step."""
    try:
        raw = json.loads(store.read(f"{layout.student_folder(student)}/train/progress.json"))
    except FileNotFoundError:
        return None
    return Training(step=raw["step"], total_steps=raw["total_steps"], loss=raw.get("loss"), at=raw["at"])
