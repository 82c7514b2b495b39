"""The work on one shard: which sample goes on, which begins, when to stop, and what others see of it.

One thread decides, commits and counts; worker threads only wait for the teacher. What is decided follows from durable replies
alone (`sample_steps`), so a killed shard continues where its journal ends and asks nothing durable again.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from medkd.config import TeacherConfig
from medkd.errors import FencedError, MedkdError, StoppedError
from medkd.stages import plan as planning
from medkd.stages.control import Control, read_control
from medkd.stages.sample_steps import CONVERSATION, Ask, Ended, next_step
from medkd.stages.shard_batches import BatchCalls
from medkd.stages.shard_calls import Answered, Calls, CommitFailed, Committed, Crashed, Event, Events, Failed, Note
from medkd.stages.shard_ledger import ShardLedger
from medkd.stages.shard_options import ShardOptions
from medkd.stages.shard_tables import ShardTables
from medkd.stages.tallies import gold_agreement
from medkd.store import conversations, layout
from medkd.store.conversations import ImportedRow
from medkd.store.files import Store
from medkd.teacher.client import TeacherClient
from medkd.telemetry import event

GRACE_SECONDS = 25.0


@dataclass(frozen=True)
class Judge:
    """Another teacher that extracts samples a second time."""

    teacher: TeacherConfig
    client: TeacherClient


class ShardWork:
    """The state of one shard while this process works on it."""

    def __init__(
        self,
        store: Store,
        plan: planning.Plan,
        cut: planning.Layout,
        teacher: TeacherConfig,
        client: TeacherClient,
        options: ShardOptions,
        stop: threading.Event,
        on_progress: Callable[[dict[str, Any]], None],
        judge: Judge | None = None,
    ) -> None:
        self._judge = judge.teacher if judge else None
        self.indices = plan.shard_range(options.shard, cut.num_shards)
        self._store = store
        self._plan = plan
        self._teacher = teacher
        self._client = client
        self._judge_client = judge.client if judge else None
        self._options = options
        self._stop = stop
        self._on_progress = on_progress
        self._cells_of_run = plan.cells()
        self.tables = ShardTables(store, options.shard, self.indices)
        self._pilot: list[Ended] = []
        self._imported = _imported_rows(plan, self.indices, store)
        self._events: Events = queue.SimpleQueue()
        self.ledger = ShardLedger(store, plan, cut, teacher, options, stop, self._events, self._judge)
        self._calls: Calls | BatchCalls = Calls(
            client, self.ledger.purse, self._events, options.concurrency, judge.client if judge else None
        )
        if teacher.mode == "batch":
            self._calls = BatchCalls(
                client,
                self.ledger.purse,
                self._events,
                stop,
                capacity=options.concurrency,
                batch_size=teacher.limits.batch_size,
                poll_seconds=teacher.limits.batch_poll_seconds,
            )
        self._to_ask: deque[int] = deque()
        self._to_read: deque[int] = deque()
        self._ready: deque[Ask] = deque()
        self._unstarted = iter(self.indices)
        self._open_samples = 0
        self._last_progress = 0.0
        self._last_work = time.monotonic()
        self._failure: MedkdError | None = None
        self._control = Control(state="run")
        self._state = "running"
        self._num_calls = 0
        self._resumed_calls = 0

    # --- the loop -----------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Until every sample has its end, or something stops the shard; what was answered is durable on return."""
        if self._start():
            self._end_all_from_replies()
            return
        self._calls.start()
        try:
            self._loop()
            self._wind_down()
        finally:
            self._calls.end()
            self.ledger.end()
        if self._failure:
            raise self._failure

    def complete(self) -> None:
        """Say that the shard's manifest stands."""
        self._state = "complete"
        self._report_progress(force=True)

    def _start(self) -> bool:
        """Take the shard over; whether it was closed before, so that only its tables are missing."""
        replay = self.ledger.claim()
        self._resumed_calls = len(replay.done)
        if isinstance(self._calls, BatchCalls):
            self._calls.adopt(replay.batches, replay.done)
        event("shard claimed", samples=len(self.indices), calls_known=len(replay.done), segments=replay.num_segments)
        self._report_progress(force=True)
        return replay.closed

    def _end_all_from_replies(self) -> None:
        for index in self.indices:
            step = self._next_step(index)
            assert isinstance(step, Ended), "a closed journal answers every call"
            self._end(index, step)

    def _loop(self) -> None:
        try:
            while self.tables.num_ended < len(self.indices) and not self._must_leave():
                self._dispatch()
                self.ledger.take_money(f"{self.tables.num_ended} of {len(self.indices)}")
                self.ledger.commit_if_due(self._calls.has_room)
                self._report_progress()
                if self._to_read:
                    self._read_one()
                    self._next_event(timeout=0)
                elif self.tables.num_ended < len(self.indices):
                    self._next_event(timeout=0.05 if self.ledger.is_waiting else 0.2)
        except MedkdError as error:
            # The store or its control file failed this thread; what was answered is made durable all the same.
            self._failure = self._worse(error)

    def _wind_down(self) -> None:
        """Let calls in flight end within the grace period, then make everything durable."""
        if self._failure:
            self._stop.set()
        deadline = time.monotonic() + GRACE_SECONDS
        while (self._calls.outstanding and time.monotonic() < deadline) or self.ledger.is_committing:
            self._next_event(timeout=0.1)
        if isinstance(self._failure, FencedError):
            return
        if self.ledger.is_waiting or self._failure:
            self.ledger.commit_last()
        while self.ledger.is_committing:
            self._next_event(timeout=0.1)
        if self._failure is None:
            self.ledger.close()
        else:
            self._state = "stopped" if isinstance(self._failure, StoppedError) else "failed"
            self._report_progress(force=True)

    def _must_leave(self) -> bool:
        if self._stop.is_set() and not self._failure:
            self._failure = StoppedError(f"shard {self._options.shard}: stopped; start it again to go on")
        if self._parked and time.monotonic() - self._last_work > self._options.max_park_seconds:
            self._failure = StoppedError(
                f"shard {self._options.shard}: parked too long ({self._control.state}: {self._control.reason})"
            )
        return self._failure is not None

    @property
    def _parked(self) -> bool:
        """Whether the run's control leaves this shard nothing to do."""
        to_do = self._to_ask or self._to_read or self._ready
        busy = self._calls.outstanding or to_do or self.ledger.is_committing or self.ledger.is_waiting
        return not busy and self._state == "running" and not self._may_start()

    # --- samples ------------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Give free slots to samples that have a durable reply to go on from, else to new samples within the look-ahead."""
        while self._calls.has_room and not self.ledger.is_full:
            ask = self._next_ask()
            if ask is None:
                return
            self._calls.send(ask)

    def _next_ask(self) -> Ask | None:
        if self._ready:
            return self._ready.popleft()
        while (index := self._next_index()) is not None:
            ask = self._advance(index)
            if ask:
                return ask
        return None

    def _read_one(self) -> None:
        """Read one sample's record, which takes longer than any other step: after the slots have work, and one at a time."""
        ask = self._advance(self._to_read.popleft())
        if ask:
            self._ready.append(ask)

    def _advance(self, index: int) -> Ask | None:
        """A sample's next call, or None: it has its end."""
        step = self._next_step(index)
        if isinstance(step, Ask):
            return step
        self._end(index, step)
        self._open_samples -= 1
        return None

    def _end(self, index: int, ended: Ended) -> None:
        self.tables.add(index, ended, self.ledger.replies(index).values())
        self.ledger.drop_replies(index)
        # Not more than the pilot's samples.
        self._pilot = [*self._pilot, ended] if self._control.state == "pilot" else []

    def _next_step(self, index: int) -> Ask | Ended:
        replies = self.ledger.replies(index)
        return next_step(self._plan, self._teacher, index, replies, self._imported.get(index), self._judge)

    def _next_index(self) -> int | None:
        if self._to_ask:
            return self._to_ask.popleft()
        # Bounded, so that samples end about in order and the memory of a shard does not grow with its size.
        if self._open_samples >= 2 * self._options.group_limit or not self._may_start():
            return None
        index = next(self._unstarted, None)
        if index is not None:
            self._open_samples += 1
        return index

    def _may_start(self) -> bool:
        """Whether the run's control lets this shard begin another sample now."""
        if self._control.state == "hold":
            return False
        if self._control.state == "pilot":
            return self._options.shard == 0 and self.tables.num_ended + self._open_samples < self._control.pilot_samples
        return True

    # --- events -------------------------------------------------------------------------------------------------------

    def _next_event(self, timeout: float) -> None:
        try:
            found = self._events.get(timeout=timeout)
        except queue.Empty:
            return
        while True:
            self._handle(found)
            try:
                found = self._events.get_nowait()
            except queue.Empty:
                return

    def _handle(self, found: Event) -> None:
        if isinstance(found, Answered):
            self._calls.came_back(found.ask)
            self._last_work = time.monotonic()
            self._num_calls += 1
            self.ledger.answered(found.ask, found.answer)
        elif isinstance(found, Committed):
            for ask in self.ledger.committed():
                (self._to_ask if ask.step == CONVERSATION else self._to_read).append(ask.spec.index)
        elif isinstance(found, Note):
            self.ledger.note(found)
        elif isinstance(found, Failed):
            self._calls.came_back(found.ask)
            self._failure = self._worse(found.error)
        elif isinstance(found, CommitFailed):
            self.ledger.commit_failed()
            self._failure = self._worse(found.error)
        elif isinstance(found, Crashed):
            raise found.error

    def _worse(self, error: MedkdError) -> MedkdError:
        """Which failure to leave with: the first one, unless it only said that others were stopping."""
        if self._failure is None or (type(self._failure) is StoppedError and type(error) is not StoppedError):
            return error
        return self._failure

    # --- what others see ----------------------------------------------------------------------------------------------

    def _report_progress(self, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._last_progress < self._options.progress_seconds:
            return
        self._last_progress = now
        manifest_path = layout.shard_file(self._options.shard, "manifest.json")
        if self._state == "running" and self._store.exists(manifest_path):
            # Its segments are gone, so the next commit would not meet them.
            raise FencedError(f"shard {self._options.shard}: another process has finished it; this one stops")
        self._control = read_control(self._store)
        progress = self._progress()
        self._store.replace(layout.shard_file(self._options.shard, "progress.json"), json.dumps(progress).encode())
        self._on_progress(progress)

    def _parked_for(self, until: float | None, judge_until: float | None, batch_until: float | None) -> str | None:
        if self._parked:
            return self._control.state
        if until is None:
            return None
        return "judge" if until == judge_until else "batch" if until == batch_until else None

    def _progress(self) -> dict[str, Any]:
        teacher_until = self._client.state()["parked_until"]
        judge_until = self._judge_client.state()["parked_until"] if self._judge_client else None
        batch_until = self._calls.parked_until if isinstance(self._calls, BatchCalls) and self._state == "running" else None
        # Whoever waits longest is whom samples wait for: an answer of each is in most of them.
        until = max((one for one in (teacher_until, judge_until, batch_until) if one), default=None)
        return {
            "format": 1,
            "shard": self._options.shard,
            "state": "parked" if self._parked or until else self._state,
            "parked_until": until,
            "parked_for": self._parked_for(until, judge_until, batch_until),
            "total": len(self.indices),
            "accepted": self.tables.num_accepted,
            "short": self.tables.num_ended - self.tables.num_accepted,
            **(gold_agreement(self._pilot, self._plan.schema) if self._control.state == "pilot" else {}),
            "short_cells": self.tables.short_cells.table(self._cells_of_run),
            "rejected": self.tables.num_rejected,
            "calls": self._num_calls,
            "calls_resumed": self._resumed_calls,
            "spent_usd": self.ledger.purse.spent_usd,
            "possibly_usd": self.ledger.purse.possibly_usd,
            "at": time.time(),
        }


def _imported_rows(plan: planning.Plan, indices: range, store: Store) -> dict[int, ImportedRow]:
    if plan.source is None:
        return {}
    source = plan.source
    return dict(conversations.read(list(source.files), source.columns, indices.start, indices.stop, store.options))
