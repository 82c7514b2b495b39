"""The calls of a shard by a provider's batch API: half the price, answers within a day. Takes the place of `shard_calls.Calls`.

A batch is in the journal before it is made, with a tag of its own and the keys of its calls, and again with the provider's id.
So whoever takes the shard over finds every batch, waits for it and pays nothing twice; a batch whose id was lost is looked up
by its tag. Nothing that was sent is ever unknown spend.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from medkd.errors import ConfigError, MedkdError, StoppedError
from medkd.stages.sample_steps import Ask
from medkd.stages.shard_calls import UNSENT, Answered, Crashed, Events, Failed, Note
from medkd.store.budget import Purse, TooDearError
from medkd.store.journal import OpenBatch
from medkd.teacher.batch_protocols import MAX_BODY_BYTES, Batch, Item, Result
from medkd.teacher.batches import LostError
from medkd.teacher.client import Answer, TeacherClient
from medkd.teacher.verdicts import Verdict
from medkd.telemetry import event

MAX_ATTEMPTS = 5
MAX_WAITS = 10
"""Batches that may expire before a request is done, or answer it with a wait: each may take a day, so not for ever."""
_QUIET_SECONDS = 0.5
"""A batch that is not full goes when nothing was added to it for as long."""
_STEP_SECONDS = 0.05
_WINDOW_SECONDS = 24 * 3600.0
_MONEY_SECONDS = 3.0
"""What is not paid for after as long waits for another batch."""
_HEAD_BYTES = 600
_BYTES_PER_TOKEN = 4
_GIVEN_UP = Verdict(kind="reject", reason="attempts_exhausted")


@dataclass
class _Sent:
    """A batch that is with the provider, as far as this process knows."""

    tag: str
    keys: tuple[str, ...]
    """Of the calls that it is to answer."""
    size: int
    """Requests in it."""
    since: float
    id: str = ""
    next_look: float = 0.0


@dataclass
class _Spent:
    """What earlier tries of a call have cost."""

    attempts: int = 0
    cost_usd: float = 0.0
    possibly_usd: float = 0.0
    waits: int = 0


class BatchCalls:
    """Asks the teacher in batches from one thread; every call sent comes back as one event."""

    def __init__(
        self,
        client: TeacherClient,
        purse: Purse,
        events: Events,
        stop: threading.Event,
        *,
        capacity: int,
        batch_size: int,
        poll_seconds: float,
    ) -> None:
        self._client = client
        self._batches = client.batches(stop)
        self._purse = purse
        self._events = events
        self._stop = stop
        self._capacity = capacity
        self._batch_size = batch_size
        self._poll_seconds = poll_seconds
        self._quiet_seconds = min(_QUIET_SECONDS, poll_seconds)
        self._lock = threading.Lock()
        self._outstanding: dict[str, Ask] = {}
        self._waiting: dict[str, Ask] = {}
        self._reserved: set[str] = set()
        self._last_added = 0.0
        self._lacking_since = 0.0
        self._sent: list[_Sent] = []
        self._early: dict[str, Result | None] = {}
        self._spent: dict[str, _Spent] = {}
        self._known_ids: set[str] = set()
        self._over = False

    def adopt(self, batches: Mapping[str, OpenBatch], answered: Mapping[str, Any]) -> None:
        """Go on with the batches that the journal names; before `start`."""
        for tag, batch in batches.items():
            if batch.id:
                self._known_ids.add(batch.id)
            for key, (attempts, cost_usd, possibly_usd, *waits) in batch.spent.items():
                if key not in answered:
                    self._spent[key] = _Spent(int(attempts), cost_usd, possibly_usd, *map(int, waits))
                    self._purse.hold(key, cost_usd + possibly_usd)
            if not batch.ended:
                keys = tuple(key for key in batch.keys if key not in answered)
                # A batch without an id may have been handed in a moment ago: its provider gets time to show it.
                wait = 0.0 if batch.id else max(0.0, self._poll_seconds - (time.time() - batch.at))
                sent = _Sent(tag=tag, keys=keys, size=len(batch.keys), since=batch.at, id=batch.id)
                sent.next_look = time.monotonic() + min(wait, self._poll_seconds)
                self._sent.append(sent)

    def start(self) -> None:
        threading.Thread(target=self._guarded, name="batches", daemon=True).start()

    @property
    def has_room(self) -> bool:
        """Whether another call would be taken now."""
        return len(self._outstanding) < self._capacity

    @property
    def outstanding(self) -> int:
        """Calls that have not come back; none once the shard is leaving, since its batches wait for the next start."""
        return 0 if self._stop.is_set() else len(self._outstanding)

    @property
    def parked_until(self) -> float | None:
        """Unix time until which the provider may take, while nothing but batches is waited for."""
        with self._lock:
            sent = [batch.since for batch in self._sent]
            return max(sent) + _WINDOW_SECONDS if sent and not self._waiting else None

    def send(self, ask: Ask) -> None:
        with self._lock:
            self._outstanding[ask.key] = ask
            if ask.key in self._early or any(ask.key in batch.keys for batch in self._sent):
                return
            self._waiting[ask.key] = ask
            self._last_added = time.monotonic()

    def came_back(self, ask: Ask) -> None:
        """To be told of each event of a call by whoever reads the queue."""
        with self._lock:
            self._outstanding.pop(ask.key, None)

    def end(self) -> None:
        """Let the thread go at its next step."""
        self._over = True

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _guarded(self) -> None:
        try:
            while not self._over and not self._stop.is_set():
                self._settle_early()
                self._send_when_due()
                self._look()
                self._stop.wait(_STEP_SECONDS)
        except StoppedError:
            return
        except MedkdError as error:
            self._fail(error)
        except BaseException as error:
            self._events.put(Crashed(error))

    def _fail(self, error: MedkdError) -> None:
        with self._lock:
            asks = list(self._outstanding.values())
        # All are over with it; the first failure is the one that the shard leaves with.
        for ask in asks:
            self._events.put(Failed(ask, error))

    def _send_when_due(self) -> None:
        """Reserve for what waits, as far as the money goes, and hand it in when no more is coming."""
        with self._lock:
            waiting = list(self._waiting.values())
            quiet = time.monotonic() - self._last_added > self._quiet_seconds
            full = len(waiting) >= self._batch_size or not self.has_room
        if not waiting or not (quiet or full):
            return
        # All of them are reserved for, so that as many chunks are taken as they need, before the first is handed in.
        paid = [ask for ask in waiting if self._reserve(ask) and ask.key in self._waiting]
        if len(paid) < len(waiting):
            self._lacking_since = self._lacking_since or time.monotonic()
            if time.monotonic() - self._lacking_since < _MONEY_SECONDS:
                return
        self._lacking_since = 0.0
        chosen: list[Ask] = []
        asked = answered = 0
        for ask in paid[: self._batch_size]:
            asked += _HEAD_BYTES + 2 * sum(len(message.text.encode("utf-8", "replace")) for message in ask.request.messages)
            answered += _HEAD_BYTES + _BYTES_PER_TOKEN * ask.request.reply_limit
            if chosen and max(asked, answered) > MAX_BODY_BYTES:
                break
            chosen.append(ask)
        if chosen:
            self._hand_in(chosen)

    def _reserve(self, ask: Ask) -> bool:
        """Set the money for one request aside; False while there is none. A call too dear for any chunk comes back unsent."""
        if ask.key in self._reserved:
            return True
        try:
            if not self._purse.try_reserve(ask.key, self._client.upper_bound_usd(ask.request)):
                return False
        except TooDearError:
            with self._lock:
                self._waiting.pop(ask.key)
            self._events.put(Answered(ask, UNSENT))
            return True
        self._reserved.add(ask.key)
        return True

    def _hand_in(self, asks: list[Ask]) -> None:
        batch = _Sent(tag=uuid.uuid4().hex[:16], keys=tuple(ask.key for ask in asks), size=len(asks), since=time.time())
        self._note({"kind": "batch", "tag": batch.tag, "keys": list(batch.keys), "at": batch.since})
        with self._lock:
            for key in batch.keys:
                self._waiting.pop(key, None)
            self._sent.append(batch)
        items = [Item(custom_id=f"{batch.tag}_{ask.key}", request=ask.request) for ask in asks]
        try:
            self._made(batch, self._batches.make(batch.tag, items))
        except LostError:
            # Perhaps it was made. The next look searches for it by its tag, and asks anew only if there is none.
            batch.next_look = time.monotonic() + self._poll_seconds
            event("batch outcome unknown, looking for it", requests=len(asks))

    def _made(self, batch: _Sent, made: Batch) -> None:
        batch.id = made.id
        batch.next_look = time.monotonic() + self._poll_seconds
        self._known_ids.add(made.id)
        self._note({"kind": "batch", "tag": batch.tag, "id": made.id})
        event("batch handed in", batch=made.id, requests=len(batch.keys))

    def _note(self, entry: Mapping[str, Any]) -> None:
        """Until the entry is durable; StoppedError where the shard leaves before."""
        note = Note(entry)
        self._events.put(note)
        while not note.durable.wait(_STEP_SECONDS):
            if self._over or self._stop.is_set():
                raise StoppedError("stopped")

    def _look(self) -> None:
        for batch in [batch for batch in self._sent if time.monotonic() >= batch.next_look]:
            self._hold_money(batch)
            if not batch.id:
                found = self._batches.find(batch.tag, batch.size, batch.since, self._known_ids)
                if found is None:
                    event("batch was never made, asking anew", requests=len(batch.keys))
                    self._close(batch, {})
                    continue
                self._made(batch, found)
            state = self._batches.state(batch.id)
            if not state.ended:
                batch.next_look = time.monotonic() + self._poll_seconds
                continue
            if state.failed and state.failed != "token_limit_exceeded":
                raise ConfigError(f"teacher's batch {batch.id}: failed before anything was done ({state.failed})")
            keys = set(batch.keys)
            results = {
                key: result for result in self._batches.results(state) if (key := result.custom_id.rpartition("_")[2]) in keys
            }
            event("batch ended", batch=batch.id, requests=len(keys), results=len(results))
            self._close(batch, results)
            self._batches.forget(state)

    def _hold_money(self, batch: _Sent) -> None:
        """What a batch from before a restart may cost is set aside again."""
        with self._lock:
            asks = [self._outstanding[key] for key in batch.keys if key in self._outstanding]
        for ask in asks:
            if ask.key not in self._reserved:
                self._purse.hold(ask.key, self._client.upper_bound_usd(ask.request))
                self._reserved.add(ask.key)

    def _close(self, batch: _Sent, results: Mapping[str, Result]) -> None:
        with self._lock:
            self._early.update({key: results.get(key) for key in batch.keys})
        self._settle_early()
        # Durable after the answers, since entries keep their order: a batch counts as open until all it brought is known.
        while any(key in self._early for key in batch.keys):
            if self._over or self._stop.wait(_STEP_SECONDS):
                raise StoppedError("stopped")
            self._settle_early()
        spent = {key: astuple(self._spent[key]) for key in batch.keys if key in self._spent}
        self._note({"kind": "batch", "tag": batch.tag, "ended": True, "spent": spent})
        with self._lock:
            self._sent.remove(batch)

    def _settle_early(self) -> None:
        """Hand on the results of calls that the shard has asked for; others wait until it does."""
        with self._lock:
            ready = [(self._outstanding[key], result) for key, result in self._early.items() if key in self._outstanding]
        for ask, result in ready:
            answer = self._answer(ask, result)
            with self._lock:
                self._early.pop(ask.key)
                if answer is None:
                    self._waiting[ask.key] = ask
                    self._last_added = time.monotonic()
            if answer is not None:
                self._reserved.discard(ask.key)
                self._events.put(Answered(ask, answer))

    def _answer(self, ask: Ask, result: Result | None) -> Answer | None:
        """What came of one request; None where it goes into another batch."""
        spent = self._spent.setdefault(ask.key, _Spent())
        if result is None or result.status == 0:
            spent.waits += 1
            return None if spent.waits < MAX_WAITS else self._over_with(ask, spent, _GIVEN_UP)
        verdict, cost_usd, possibly_usd = self._client.judge(ask.request, result.status, result.body)
        spent.cost_usd += cost_usd
        spent.possibly_usd += possibly_usd
        if verdict.kind == "wait":
            spent.waits += 1
        else:
            spent.attempts += 1
        if verdict.kind in ("wait", "retry") and spent.attempts < MAX_ATTEMPTS and spent.waits < MAX_WAITS:
            if cost_usd or possibly_usd:
                # The money set aside for it is used up; the next try needs its own.
                self._reserved.discard(ask.key)
            return None
        if verdict.kind in ("wait", "retry"):
            verdict = replace(verdict, kind=_GIVEN_UP.kind, reason=_GIVEN_UP.reason)
        return self._over_with(ask, spent, verdict)

    def _over_with(self, ask: Ask, spent: _Spent, verdict: Verdict) -> Answer:
        del self._spent[ask.key]
        outcomes: Mapping[str, Any] = {"ok": "reply", "repair": "repair"}
        return Answer(
            outcome=outcomes.get(verdict.kind, "reject"),
            reason=verdict.reason,
            reply=verdict.reply,
            attempts=spent.attempts,
            cost_usd=spent.cost_usd,
            possibly_usd=spent.possibly_usd,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
