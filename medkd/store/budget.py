"""A run's budget as files that only one writer can take, so that the cap holds across pods without any service.

A chunk is `budget/000017.json`, taken by creating it. A closed shard puts its rest into `budget/return-00003.json`, which
another shard takes by creating `budget/return-00003.taken.json`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass

from medkd.errors import BudgetError, StoppedError
from medkd.store import layout
from medkd.store.files import Store


def chunk_usd(budget_usd: float, num_shards: int, dearest_call_usd: float) -> float:
    """Size of a chunk: a twentieth of a shard's share, and at least four of the dearest calls."""
    return max(budget_usd / (20 * num_shards), 4 * dearest_call_usd)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Budget that belongs to whoever holds this: the file it stands in, and how much."""

    path: str
    usd: float


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The budget of a run as one shard's writer sees it."""

    store: Store
    shard: int
    writer: str
    budget_usd: float
    chunk_usd: float

    def take(self) -> Taken | None:
        """One more chunk or returned rest; None where all is taken."""
        return self._take_chunk() or self._take_return()

    def give_back(self, usd: float) -> None:
        """Leave a closed shard's rest to the others; nothing happens the second time."""
        if usd > 0:
            self.store.create(layout.budget_return(self.shard), self._file(usd))

    def _take_chunk(self) -> Taken | None:
        num_chunks = int(self.budget_usd / self.chunk_usd + 1e-9)
        names = {file.path for file in self.store.list_files(layout.BUDGET)}
        for number in range(num_chunks):
            path = layout.budget_chunk(number)
            if path not in names and self.store.create(path, self._file(self.chunk_usd)):
                return Taken(path=path, usd=self.chunk_usd)
        return None

    def _take_return(self) -> Taken | None:
        names = {file.path for file in self.store.list_files(layout.BUDGET)}
        for path in sorted(names):
            claim = path.removesuffix(".json") + ".taken.json"
            if not _is_offer(path) or claim in names:
                continue
            usd = float(json.loads(self.store.read(path))["usd"])
            if self.store.create(claim, self._file(usd)):
                return Taken(path=claim, usd=usd)
        return None

    def _file(self, usd: float) -> bytes:
        return json.dumps({"format": 1, "shard": self.shard, "writer": self.writer, "usd": usd}).encode()


def lost_usd(store: Store, shard: int, journalled: list[str]) -> float:
    """Budget that a shard's writers took but died before journalling: counted as possibly spent."""
    known = set(journalled)
    paths = [file.path for file in store.list_files(layout.BUDGET) if file.path not in known and not _is_offer(file.path)]
    contents = (json.loads(data) for data in store.read_many(paths).values())
    return sum(float(content["usd"]) for content in contents if content["shard"] == shard)


def _is_offer(path: str) -> bool:
    """Whether the file is what a closed shard gave back, rather than a chunk or the claim of a return."""
    return "/return-" in path and not path.endswith(".taken.json")


class Purse:
    """What one process may still spend: thread-safe, blocking the caller until money and allowance are there.

    Senders call `reserve`; the thread that commits the journal calls everything else. `on_need` is called, from a sender's
    thread, when a reservation waits for a chunk or for the next commit.
    """

    def __init__(self, stop: threading.Event, on_need: Callable[[], None], allowance_usd: float) -> None:
        self.spent_usd = 0.0
        self.possibly_usd = 0.0
        self.taken_usd = 0.0
        self.allowance_usd = allowance_usd
        self._stop = stop
        self._on_need = on_need
        self._changed = threading.Condition()
        self._in_flight: dict[str, float] = {}
        # Reservations since the last durable segment's snapshot, and since the one now being written.
        self._since_durable = 0.0
        self._since_snapshot: float | None = None
        self._waiting_usd = 0.0
        self._refusal: BudgetError | None = None

    def reserve(self, key: str, usd: float) -> None:
        """Set money aside for a send of the call; BudgetError where none is left, StoppedError when told to stop.

        A send that alone exceeds the allowance could wait for ever, so it is a BudgetError, too.
        """
        if usd > self.allowance_usd + 1e-12:
            raise BudgetError(
                f"a single call may cost ${usd:.4f}, but only ${self.allowance_usd:.4f} may be under way at once; "
                "shorten the conversations or raise the teacher's limits.max_concurrency"
            )
        with self._changed:
            while self._stop.is_set() or not self._fits(usd):
                if self._stop.is_set():
                    raise StoppedError("stopped before a call was sent")
                if self._refusal:
                    raise self._refusal
                self._waiting_usd = usd
                self._on_need()
                self._changed.wait(0.2)
            self._waiting_usd = 0.0
            self._in_flight[key] = self._in_flight.get(key, 0.0) + usd
            self._since_durable += usd
            if self._since_snapshot is not None:
                self._since_snapshot += usd

    def settle(self, key: str, spent_usd: float, possibly_usd: float) -> None:
        """The call has ended: its reservation gives way to what it cost."""
        with self._changed:
            self._in_flight.pop(key, None)
            self.spent_usd += spent_usd
            self.possibly_usd += possibly_usd
            self._changed.notify_all()

    def add(self, usd: float) -> None:
        """A journalled chunk may be spent from now on."""
        with self._changed:
            self.taken_usd += usd
            self._changed.notify_all()

    def refuse(self, error: BudgetError) -> None:
        """No chunk is left: everybody who waits for money, now or later, gets this error."""
        with self._changed:
            self._refusal = error
            self._changed.notify_all()

    def snapshot(self) -> dict[str, float]:
        """What is in flight now, for the header of a segment; sends from here on count against its allowance as well."""
        with self._changed:
            self._since_snapshot = 0.0
            return dict(self._in_flight)

    def durable(self) -> None:
        """The segment of the last snapshot is durable: the older allowance no longer counts."""
        with self._changed:
            self._since_durable, self._since_snapshot = self._since_snapshot or 0.0, None
            self._changed.notify_all()

    @property
    def lacks_money(self) -> bool:
        """Whether a sender waits for money that is not here."""
        with self._changed:
            return self._waiting_usd > self.free_usd

    @property
    def waits_for_commit(self) -> bool:
        """Whether a sender waits for the next segment only."""
        with self._changed:
            return 0 < self._waiting_usd <= self.free_usd

    @property
    def has_reserved(self) -> bool:
        """Whether calls in flight may still give money back."""
        with self._changed:
            return any(usd > 0 for usd in self._in_flight.values())

    @property
    def free_usd(self) -> float:
        """What is taken and neither spent, possibly spent nor reserved."""
        return self.taken_usd - self.spent_usd - self.possibly_usd - sum(self._in_flight.values())

    def _fits(self, usd: float) -> bool:
        if usd == 0:
            return True
        window = max(self._since_durable, self._since_snapshot or 0.0)
        return usd <= self.free_usd + 1e-12 and window + usd <= self.allowance_usd + 1e-12
