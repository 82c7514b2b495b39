"""A run's budget as files that only one writer can take, so that the cap holds across pods without any service.

A chunk is `budget/000017.json`, taken by creating it; each writer goes through the free ones in an order of its own. A closed
shard puts its rest into `budget/return-00003.json`, which another shard takes by creating `budget/return-00003.taken.json`.

A chunk may be spent once the journal of its shard holds it. What a writer took and died before journalling is the shard's all
the same: nothing can have been spent from it, and nothing ever will be by that writer, since whoever claims the journal takes
the number under which it would have written. The claimant adopts it by journalling it.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from medkd.errors import BudgetError, StoppedError
from medkd.store import layout
from medkd.store.files import Store


def chunk_usd(budget_usd: float, num_shards: int, dearest_call_usd: float) -> float:
    """Size of a chunk: a twentieth of a shard's share, and at least four of the dearest calls."""
    return max(budget_usd / (20 * num_shards), 4 * dearest_call_usd)


class TooDearError(BudgetError):
    """A single call that may cost more than a budget chunk: its sample is rejected, the run goes on."""


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
        names = {file.path for file in self.store.list_files(layout.BUDGET)}
        num_chunks = int((self.budget_usd - booked_usd(self.store)) / self.chunk_usd + 1e-9)
        return self._take_chunk(names, num_chunks) or self._take_return(names, num_chunks)

    def give_back(self, usd: float) -> None:
        """Leave a closed shard's rest to the others; nothing happens the second time."""
        if usd > 0:
            self.store.create(layout.budget_return(self.shard), self._file(usd))

    def _take_chunk(self, names: set[str], num_chunks: int) -> Taken | None:
        taken = {number for number in map(layout.chunk_number, names) if number is not None}
        free = [number for number in range(_open_below(taken, max(0, num_chunks))) if number not in taken]
        # Shards begin together: were all to try the lowest free chunk, n of them would need n * n / 2 creates.
        random.Random(self.writer).shuffle(free)
        for number in free:
            path = layout.budget_chunk(number)
            if self.store.create(path, self._file(self.chunk_usd)):
                return Taken(path=path, usd=self.chunk_usd)
        return None

    def _take_return(self, names: set[str], num_chunks: int) -> Taken | None:
        if sum(layout.chunk_number(name) is not None for name in names) > num_chunks:
            # The budget was lowered below what had been taken: what comes back must not go out again.
            return None
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


def unjournalled(store: Store, shard: int, journalled: list[str]) -> list[Taken]:
    """What a shard's writers took and its journal does not hold.

    To be asked after the claim, or after the close, of a journal that holds `journalled`: an earlier look could find what the
    owner before is journalling just now.
    """
    known = set(journalled)
    paths = [file.path for file in store.list_files(layout.BUDGET) if file.path not in known and not _is_offer(file.path)]
    contents = {path: json.loads(data) for path, data in sorted(store.read_many(paths).items())}
    return [Taken(path=path, usd=float(found["usd"])) for path, found in contents.items() if found["shard"] == shard]


def bookings(store: Store) -> list[dict[str, Any]]:
    """What calls outside any shard cost, in their order: teacher, at, tokens, spent_usd, possibly_usd."""
    paths = [file.path for file in store.list_files(layout.PREFLIGHT)]
    return [json.loads(data) for _, data in sorted(store.read_many(paths).items())]


def booked_usd(store: Store) -> float:
    """What such calls took off the budget, for sure or possibly."""
    return sum(float(booked["spent_usd"]) + float(booked["possibly_usd"]) for booked in bookings(store))


def taken_usd(store: Store, chunk_usd: float) -> float:
    """Budget that the shards have taken in chunks."""
    return chunk_usd * sum(layout.chunk_number(file.path) is not None for file in store.list_files(layout.BUDGET))


def _open_below(taken: set[int], num_chunks: int) -> int:
    """Chunks below this number may be taken: with those taken from it on they are no more than `num_chunks`.

    It is `num_chunks`, except where chunks were taken under a larger budget. Taking chunks below it does not move it, so that
    writers who look at different moments agree.
    """
    limit, above = num_chunks, sum(number >= num_chunks for number in taken)
    while limit and limit + above > num_chunks:
        limit -= 1
        above += limit in taken
    return limit


def _is_offer(path: str) -> bool:
    """Whether the file is what a closed shard gave back, rather than a chunk or the claim of a return."""
    return "/return-" in path and not path.endswith(".taken.json")


@dataclass
class _Window:
    """What was reserved since a segment's snapshot, and what that segment says may be."""

    allowance_usd: float
    reserved_usd: float = 0.0

    def fits(self, usd: float) -> bool:
        return self.reserved_usd + usd <= self.allowance_usd + _CENT_FRACTION


_CENT_FRACTION = 1e-12
"""Sums of floats that are equal on paper differ by less."""


class Purse:
    """What one process may still spend: thread-safe, blocking the caller until money and allowance are there.

    Senders call `reserve` and `release`; the thread that commits the journal calls everything else. `on_need` is called, from a
    sender's thread, when a reservation waits for a chunk or for the next commit. A call whose worst case exceeds
    `largest_call_usd` is not sent at all.
    """

    def __init__(
        self,
        stop: threading.Event,
        on_need: Callable[[], None],
        allowance_usd: float,
        *,
        largest_call_usd: float = float("inf"),
    ) -> None:
        self.spent_usd = 0.0
        self.possibly_usd = 0.0
        self.taken_usd = 0.0
        self._usual_allowance_usd = allowance_usd
        self._largest_call_usd = largest_call_usd
        self._stop = stop
        self._on_need = on_need
        self._changed = threading.Condition()
        self._in_flight: dict[str, float] = {}
        self._waiting: dict[str, float] = {}
        # Reservations count from the last durable segment on, and from the one now being written.
        self._durable = _Window(allowance_usd)
        self._snapshot: _Window | None = None
        self._refusal: BudgetError | None = None

    def reserve(self, key: str, usd: float) -> None:
        """Set money aside for a send of the call; BudgetError where none is left, StoppedError when told to stop.

        TooDearError where no run of this budget may send such a call; nothing was sent for it before.
        """
        with self._changed:
            if usd > self._largest_call_usd + _CENT_FRACTION and key not in self._in_flight:
                raise TooDearError(f"a call that may cost ${usd:.4f}, more than a budget chunk of ${self._largest_call_usd:.4f}")
            try:
                while self._stop.is_set() or not self._fits(usd):
                    if self._stop.is_set():
                        raise StoppedError("stopped before a call was sent")
                    if self._refusal:
                        raise self._refusal
                    self._waiting[key] = usd
                    self._on_need()
                    self._changed.wait(0.2)
            finally:
                self._waiting.pop(key, None)
            self._hold(key, usd)

    def try_reserve(self, key: str, usd: float) -> bool:
        """As `reserve` for a sender that does not wait: False where it would have to, and money is being sent for."""
        with self._changed:
            if usd > self._largest_call_usd + _CENT_FRACTION and key not in self._in_flight:
                raise TooDearError(f"a call that may cost ${usd:.4f}, more than a budget chunk of ${self._largest_call_usd:.4f}")
            self._waiting.pop(key, None)
            if self._fits(usd):
                self._hold(key, usd)
                return True
            if self._refusal:
                raise self._refusal
            self._waiting[key] = usd
            self._on_need()
            return False

    def hold(self, key: str, usd: float) -> None:
        """Set money aside for what an earlier process has sent, and reserved for, already."""
        with self._changed:
            self._hold(key, usd)

    def _hold(self, key: str, usd: float) -> None:
        self._in_flight[key] = self._in_flight.get(key, 0.0) + usd
        self._durable.reserved_usd += usd
        if self._snapshot:
            self._snapshot.reserved_usd += usd

    def release(self, key: str, usd: float) -> None:
        """So much of what was reserved for the call will not be spent, and no answer of it comes: the rest may have been."""
        with self._changed:
            left = self._in_flight.pop(key, 0.0) - usd
            if left > _CENT_FRACTION:
                self._in_flight[key] = left
            self._changed.notify_all()

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

    def snapshot(self, *, last: bool = False) -> tuple[dict[str, float], float]:
        """What is in flight now and the allowance from here on, for the header of a segment; sends count against it at once.

        Room for a waiting call that is dearer than the usual allowance, as one with a very long conversation, is added to it.
        last: nothing more will be sent.
        """
        with self._changed:
            usual = self._usual_allowance_usd
            allowance = 0.0 if last else usual + sum(usd for usd in self._waiting.values() if usd > usual)
            self._snapshot = _Window(allowance)
            return dict(self._in_flight), allowance

    def durable(self) -> None:
        """The segment of the last snapshot is durable: the older allowance no longer counts."""
        with self._changed:
            if self._snapshot:
                self._durable, self._snapshot = self._snapshot, None
            self._changed.notify_all()

    @property
    def short_usd(self) -> float:
        """What those who wait lack; 0 where there is money for all of them."""
        with self._changed:
            return max(0.0, sum(self._waiting.values()) - self.free_usd)

    @property
    def lacks_money(self) -> bool:
        """Whether a sender waits for money that is not here."""
        with self._changed:
            return max(self._waiting.values(), default=0.0) > self.free_usd + _CENT_FRACTION

    @property
    def waits_for_commit(self) -> bool:
        """Whether a sender waits for the next segment only."""
        with self._changed:
            return any(usd <= self.free_usd + _CENT_FRACTION for usd in self._waiting.values())

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
        windows = [self._durable, *([self._snapshot] if self._snapshot else [])]
        return usd <= self.free_usd + _CENT_FRACTION and all(window.fits(usd) for window in windows)
