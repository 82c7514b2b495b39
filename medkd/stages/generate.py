"""Stage generate: one shard of the plan, from the first paid call to Parquet and manifest.

One thread decides, commits and counts; worker threads only wait for the teacher. What is decided follows from durable replies
alone (`sample_steps`), so a killed shard continues where its journal ends and asks nothing durable again.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from medkd.config import TeacherConfig, config_hash
from medkd.errors import BudgetError, ConfigError, FencedError, InputError, MedkdError, StoppedError
from medkd.stages import plan as planning
from medkd.stages.control import Control, read_control
from medkd.stages.sample_steps import TOKEN_KINDS, Ask, Ended, Row, next_step
from medkd.store import conversations, journal, layout, manifests, tables
from medkd.store.budget import Budget, Purse, lost_usd
from medkd.store.conversations import ImportedRow
from medkd.store.files import Store
from medkd.store.manifests import Manifest
from medkd.teacher.client import Answer, TeacherClient
from medkd.telemetry import event

# A commit costs one store request; below a tenth of a second it would cost more than it brings forward.
COMMIT_SPACING_SECONDS = 0.1
COMMIT_AFTER_SECONDS = 1.0
GRACE_SECONDS = 25.0


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """How one process works on its shard; none of it changes a sample."""

    shard: int
    writer: str
    """Unique to this process: two writers of one shard tell each other apart by it."""
    concurrency: int
    """Calls in flight at most."""
    budget_usd: float | None = None
    progress_seconds: float = 5.0
    max_park_seconds: float = 30 * 3600

    @property
    def group_limit(self) -> int:
        """Answers of one commit group at most, and with them what a kill can lose beyond the calls in flight."""
        return max(32, self.concurrency)


def generate(
    store: Store,
    teacher: TeacherConfig,
    client: TeacherClient,
    options: ShardOptions,
    *,
    stop: threading.Event,
    on_progress: Callable[[dict[str, Any]], None] = lambda progress: None,
) -> Manifest:
    """Bring one shard to its end and return its manifest; at once where it has ended before.

    Raises StoppedError after `stop` was set, FencedError where another process took the shard over, BudgetError where the
    run's budget is spent, and the teacher's RefusedError, ConfigError or UnreachableError. In each case what was answered is
    durable first, and the same call later continues.
    """
    plan, cut = planning.load_plan(store)
    if not 0 <= options.shard < cut.num_shards:
        raise ConfigError(f"--shard-index: got {options.shard}, allowed: 0 to {cut.num_shards - 1}, the shards of this run")
    manifest_path = layout.shard_file(options.shard, "manifest.json")
    finished = manifests.read(store, manifest_path)
    if finished:
        journal.delete_segments(store, options.shard)
        return finished
    try:
        shard = _Shard(store, plan, cut, teacher, client, options, stop, on_progress)
        shard.work()
        return shard.finish()
    except (InputError, FencedError):
        # Another process may have finished the shard and dropped its segments while this one was at work.
        finished = manifests.read(store, manifest_path)
        if finished is None:
            raise
        journal.delete_segments(store, options.shard)
        return finished


@dataclass
class _Group:
    """Entries on their way into the journal, and the samples that wait for them."""

    entries: list[journal.Entry] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    added_usd: float = 0.0
    since: float = 0.0


class _Shard:
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
    ) -> None:
        self.store = store
        self.plan = plan
        self.cut = cut
        self.teacher = teacher
        self.client = client
        self.options = options
        self.stop = stop
        self.on_progress = on_progress
        self.indices = plan.shard_range(options.shard, cut.num_shards)
        self.imported = _imported_rows(plan, self.indices)
        self.journal = journal.Journal(store, options.shard, plan.hash, options.writer)
        self.asks: queue.SimpleQueue[Ask | None] = queue.SimpleQueue()
        self.events: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()
        self.purse = Purse(stop, lambda: self.events.put(("need", None, None)), self._allowance())
        self.budget = self._budget()
        self.replies: dict[str, Mapping[str, Any]] = {}
        self.ended: dict[int, Ended] = {}
        self.to_advance: deque[int] = deque()
        self.unstarted = iter(self.indices)
        self.outstanding: dict[str, Ask] = {}
        self.open_samples = 0
        self.group = _Group()
        self.committing: _Group | None = None
        self.last_commit = 0.0
        self.last_progress = 0.0
        self.last_work = time.monotonic()
        self.failure: MedkdError | None = None
        self.control = Control(state="run")
        self.state = "running"
        self.closed = False
        self.num_calls = 0
        self.resumed_calls = 0

    # --- the loop -----------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Until every sample has its end, or something stops the shard; what was answered is durable on return."""
        self._start()
        if self.closed:
            self._advance_all_from_replies()
            return
        for number in range(self.options.concurrency):
            # Daemons: a call that outlives the grace period must not keep the process.
            threading.Thread(target=self._call_teacher, name=f"call-{number}", daemon=True).start()
        committer = ThreadPoolExecutor(1, thread_name_prefix="commit")
        try:
            self._loop(committer)
            self._wind_down(committer)
        finally:
            for _ in range(self.options.concurrency):
                self.asks.put(None)
            committer.shutdown(wait=True)
        if self.failure:
            raise self.failure

    def _loop(self, committer: ThreadPoolExecutor) -> None:
        try:
            while len(self.ended) < len(self.indices) and not self._must_leave():
                self._dispatch()
                self._take_money()
                self._commit_if_due(committer)
                self._report_progress()
                if len(self.ended) < len(self.indices):
                    self._next_event(timeout=0.05 if self.group.entries else 0.2)
        except MedkdError as error:
            # The store or its control file failed this thread; what was answered is made durable all the same.
            self.failure = self._worse(error)

    def _start(self) -> None:
        replay = self.journal.claim(self._allowance())
        self.closed = replay.closed
        self.replies = dict(replay.done)
        self.resumed_calls = len(replay.done)
        self.purse.spent_usd = sum(entry["cost_usd"] for entry in replay.done.values())
        self.purse.possibly_usd = replay.possibly_usd + sum(entry["possibly_usd"] for entry in replay.done.values())
        lost = lost_usd(self.store, self.options.shard, replay.chunks) if self.budget else 0.0
        self.purse.taken_usd = replay.money_usd + lost
        self.purse.possibly_usd += lost
        event("shard claimed", samples=len(self.indices), calls_known=len(replay.done), segments=replay.num_segments)
        self._report_progress(force=True)

    def _must_leave(self) -> bool:
        if self.stop.is_set() and not self.failure:
            self.failure = StoppedError(f"shard {self.options.shard}: stopped; start it again to go on")
        if self._parked and time.monotonic() - self.last_work > self.options.max_park_seconds:
            self.failure = StoppedError(
                f"shard {self.options.shard}: parked too long ({self.control.state}: {self.control.reason})"
            )
        return self.failure is not None

    @property
    def _parked(self) -> bool:
        """Whether the run's control leaves this shard nothing to do."""
        idle = not (self.outstanding or self.to_advance or self.committing or self.group.entries)
        return idle and self.state == "running" and not self._may_start()

    def _dispatch(self) -> None:
        """Give free slots to samples that have a durable reply to go on from, else to new samples within the look-ahead."""
        while len(self.outstanding) < self.options.concurrency and not self._group_full():
            index = self._next_index()
            if index is None:
                return
            step = next_step(self.plan, self.teacher, index, self.replies, self.imported.get(index))
            if isinstance(step, Ended):
                self._end(index, step)
            else:
                self.outstanding[step.key] = step
                self.asks.put(step)

    def _next_index(self) -> int | None:
        if self.to_advance:
            return self.to_advance.popleft()
        # Bounded, so that samples end about in order and the memory of a shard does not grow with its size.
        if self.open_samples >= 2 * self.options.group_limit or not self._may_start():
            return None
        index = next(self.unstarted, None)
        if index is not None:
            self.open_samples += 1
        return index

    def _may_start(self) -> bool:
        """Whether the run's control lets this shard begin another sample now."""
        if self.control.state == "hold":
            return False
        if self.control.state == "pilot":
            return self.options.shard == 0 and len(self.ended) + self.open_samples < self.control.pilot_samples
        return True

    def _call_teacher(self) -> None:
        """In a worker thread: one call after the other, each answer or failure handed to the deciding thread."""
        while ask := self.asks.get():
            reserve = partial(self.purse.reserve, ask.key)
            try:
                self.events.put(("answered", ask, self.client.ask(ask.request, reserve)))
            except MedkdError as error:
                self.events.put(("failed", ask, error))
            except BaseException as error:
                self.events.put(("crashed", ask, error))

    def _next_event(self, timeout: float) -> None:
        try:
            kind, subject, value = self.events.get(timeout=timeout)
        except queue.Empty:
            return
        while True:
            self._handle(kind, subject, value)
            try:
                kind, subject, value = self.events.get_nowait()
            except queue.Empty:
                return

    def _handle(self, kind: str, subject: Any, value: Any) -> None:
        if kind == "answered":
            self._answered(subject, value)
        elif kind == "failed":
            self.outstanding.pop(subject.key)
            self.failure = self._worse(value)
        elif kind == "crashed":
            raise value
        elif kind == "committed":
            self._committed()
        elif kind == "commit failed":
            self.committing = None
            self.failure = self._worse(value)

    def _worse(self, error: MedkdError) -> MedkdError:
        """Which failure to leave with: the first one, unless it only said that others were stopping."""
        if self.failure is None or (type(self.failure) is StoppedError and type(error) is not StoppedError):
            return error
        return self.failure

    def _answered(self, ask: Ask, answer: Answer) -> None:
        self.outstanding.pop(ask.key)
        self.last_work = time.monotonic()
        self.num_calls += 1
        self.purse.settle(ask.key, answer.cost_usd, answer.possibly_usd)
        self._add_entry(_done_entry(ask, answer))
        self.group.samples.append(ask.spec.index)

    def _add_entry(self, entry: journal.Entry) -> None:
        if not self.group.entries:
            self.group.since = time.monotonic()
        self.group.entries.append(entry)

    def _end(self, index: int, ended: Ended) -> None:
        self.ended[index] = ended
        self.open_samples -= 1

    # --- commits and money --------------------------------------------------------------------------------------------

    def _group_full(self) -> bool:
        waiting = len(self.group.entries) + (len(self.committing.entries) if self.committing else 0)
        return waiting >= self.options.group_limit

    def _commit_if_due(self, committer: ThreadPoolExecutor) -> None:
        if self.committing or not (self.group.entries or self.purse.waits_for_commit):
            return
        now = time.monotonic()
        slot_waits = len(self.outstanding) < self.options.concurrency or self.purse.waits_for_commit
        old_enough = self.group.entries and now - self.group.since >= COMMIT_AFTER_SECONDS
        if old_enough or (slot_waits and now - self.last_commit >= COMMIT_SPACING_SECONDS):
            self._commit(committer, self._allowance())

    def _commit(self, committer: ThreadPoolExecutor, allowance_usd: float) -> None:
        group, self.group, self.committing = self.group, _Group(), self.group
        self.last_commit = time.monotonic()
        in_flight = self.purse.snapshot()

        def write() -> None:
            try:
                self.journal.commit(group.entries, in_flight, allowance_usd)
                self.events.put(("committed", None, None))
            except MedkdError as error:
                self.events.put(("commit failed", None, error))
            except BaseException as error:
                self.events.put(("crashed", None, error))

        committer.submit(write)

    def _committed(self) -> None:
        assert self.committing
        group, self.committing = self.committing, None
        self.purse.durable()
        if group.added_usd:
            self.purse.add(group.added_usd)
        for entry in group.entries:
            if entry["kind"] == "done":
                self.replies[entry["key"]] = entry
        self.to_advance.extend(group.samples)

    def _take_money(self) -> None:
        """Take a budget chunk where a sender waits for money, and journal it; it may be spent once that is durable."""
        in_journal = self.group.added_usd + (self.committing.added_usd if self.committing else 0.0)
        if not (self.budget and self.purse.lacks_money) or in_journal:
            return
        taken = self.budget.take()
        if taken:
            self._add_entry({"kind": "money", "path": taken.path, "usd": taken.usd})
            self.group.added_usd += taken.usd
        elif not self.purse.has_reserved and not self.group.entries and not self.committing:
            self.purse.refuse(
                BudgetError(
                    f"--budget-usd: all of {self.options.budget_usd:g} is spent and shard {self.options.shard} has ended "
                    f"{len(self.ended)} of {len(self.indices)} samples. Raise it and start again, nothing is paid twice"
                )
            )

    def _wind_down(self, committer: ThreadPoolExecutor) -> None:
        """Let calls in flight end within the grace period, then make everything durable."""
        if self.failure:
            self.stop.set()
        deadline = time.monotonic() + GRACE_SECONDS
        while (self.outstanding and time.monotonic() < deadline) or self.committing:
            self._next_event(timeout=0.1)
        if isinstance(self.failure, FencedError):
            return
        if self.group.entries or self.failure:
            self._commit(committer, allowance_usd=0.0)
        while self.committing:
            self._next_event(timeout=0.1)
        if self.failure is None:
            self.journal.close()
        else:
            self.state = "stopped" if isinstance(self.failure, StoppedError) else "failed"
            self._report_progress(force=True)

    def _allowance(self) -> float:
        """What calls sent between two commits may reserve: twice the slots, each with the dearest call."""
        return 2 * self.options.concurrency * planning.dearest_call_usd(self.plan, self.teacher)

    def _budget(self) -> Budget | None:
        if self.cut.chunk_usd == 0:
            return None
        if self.options.budget_usd is None:
            raise ConfigError("--budget-usd: missing; this run's teacher has a price, say what the run may cost at most")
        return Budget(
            store=self.store,
            shard=self.options.shard,
            writer=self.options.writer,
            budget_usd=self.options.budget_usd,
            chunk_usd=self.cut.chunk_usd,
        )

    # --- what others see ----------------------------------------------------------------------------------------------

    def _report_progress(self, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self.last_progress < self.options.progress_seconds:
            return
        self.last_progress = now
        manifest_path = layout.shard_file(self.options.shard, "manifest.json")
        if self.state == "running" and self.store.exists(manifest_path):
            # Its segments are gone, so the next commit would not meet them.
            raise FencedError(f"shard {self.options.shard}: another process has finished it; this one stops")
        self.control = read_control(self.store)
        progress = self._progress()
        self.store.replace(layout.shard_file(self.options.shard, "progress.json"), json.dumps(progress).encode())
        self.on_progress(progress)

    def _progress(self) -> dict[str, Any]:
        accepted = sum(1 for ended in self.ended.values() if ended.accepted)
        client = self.client.state()
        return {
            "format": 1,
            "shard": self.options.shard,
            "state": "parked" if self._parked or client["paused_until"] else self.state,
            "parked_until": client["paused_until"],
            "parked_for": self.control.state if self._parked else None,
            "total": len(self.indices),
            "accepted": accepted,
            "short": len(self.ended) - accepted,
            "rejected": sum(len(ended.rejected) for ended in self.ended.values()),
            "calls": self.num_calls,
            "calls_resumed": self.resumed_calls,
            "spent_usd": self.purse.spent_usd,
            "possibly_usd": self.purse.possibly_usd,
            "at": time.time(),
        }

    # --- the end ------------------------------------------------------------------------------------------------------

    def _advance_all_from_replies(self) -> None:
        for index in self.indices:
            step = next_step(self.plan, self.teacher, index, self.replies, self.imported.get(index))
            assert isinstance(step, Ended), "a closed journal answers every call"
            self.ended[index] = step

    def finish(self) -> Manifest:
        """Write the tables as a pure function of the journal, the manifest last, then drop the segments."""
        shard = self.options.shard
        endings = [self.ended[index] for index in self.indices]
        accepted = [ended.accepted for ended in endings if ended.accepted]
        rejected = [row for ended in endings for row in ended.rejected]
        calls = sorted((_call_row(entry) for entry in self.replies.values()), key=lambda row: row["key"])
        files = (
            tables.write(self.store, layout.shard_file(shard, "samples.parquet"), accepted, tables.SAMPLE_COLUMNS),
            tables.write(self.store, layout.shard_file(shard, "rejected.parquet"), rejected, tables.REJECTED_COLUMNS),
            tables.write(self.store, layout.shard_file(shard, "calls.parquet"), calls, tables.CALL_COLUMNS),
        )
        replay = journal.replay_shard(self.store, shard, self.plan.hash)
        possibly = replay.possibly_usd + sum(row["possibly_usd"] for row in calls)
        spent = sum(row["cost_usd"] for row in calls)
        lost = lost_usd(self.store, shard, replay.chunks) if self.budget else 0.0
        manifest = Manifest(
            stage="generate",
            shard=shard,
            plan_hash=self.plan.hash,
            config_hash=config_hash(self.teacher),
            inputs={layout.PLAN: self.plan.hash},
            files=files,
            counts=_counts(len(self.indices), accepted, rejected, calls),
            money={"spent_usd": spent, "possibly_usd": possibly + lost, "taken_usd": replay.money_usd + lost},
        )
        manifests.write(self.store, layout.shard_file(shard, "manifest.json"), manifest)
        if self.budget:
            self.budget.give_back(replay.money_usd - spent - possibly)
        self.state = "complete"
        self._report_progress(force=True)
        journal.delete_segments(self.store, shard)
        event("shard complete", accepted=len(accepted), rejected=len(rejected), calls=len(calls), spent_usd=round(spent, 6))
        return manifest


def _imported_rows(plan: planning.Plan, indices: range) -> dict[int, ImportedRow]:
    if plan.source is None:
        return {}
    return dict(conversations.read(list(plan.source.files), plan.source.columns, indices.start, indices.stop))


def _done_entry(ask: Ask, answer: Answer) -> journal.Entry:
    """The journal's entry of an answered call; the same keys as `tables.CALL_COLUMNS` plus its kind."""
    reply = answer.reply
    usage = reply.usage if reply else None
    return {
        "kind": "done",
        "key": ask.key,
        "sample_id": ask.spec.sample_id,
        "variation": ask.spec.variation,
        "step": ask.step,
        "repair": ask.repair,
        "outcome": answer.outcome,
        "reason": answer.reason,
        "text": reply.text if reply else None,
        "finish": reply.finish if reply else None,
        "served_model": reply.served_model if reply else None,
        "request_id": reply.request_id if reply else None,
        "fingerprint": reply.fingerprint if reply else None,
        "attempts": answer.attempts,
        **{kind: getattr(usage, kind) if usage else 0 for kind in TOKEN_KINDS},
        "cost_usd": answer.cost_usd,
        "possibly_usd": answer.possibly_usd,
        "at": answer.at,
    }


def _call_row(entry: Mapping[str, Any]) -> Row:
    return {key: value for key, value in entry.items() if key != "kind"}


def _counts(num_samples: int, accepted: list[Row], rejected: list[Row], calls: list[Row]) -> dict[str, Any]:
    return {
        "samples": num_samples,
        "accepted": len(accepted),
        "short": num_samples - len(accepted),
        "rejected": len(rejected),
        "rejected_by_reason": dict(sorted(Counter(row["reason"] for row in rejected).items())),
        "calls": len(calls),
        "attempts": sum(row["attempts"] for row in calls),
        "repairs": sum(1 for row in calls if row["repair"]),
        **{kind: sum(row[kind] or 0 for row in calls) for kind in TOKEN_KINDS},
    }


def writer_id(host: str, pid: int, nonce: str) -> str:
    """A writer's name: which process on which machine, and which of its lives."""
    return f"{host}:{pid}:{nonce}"


def shard_states(store: Store, num_shards: int) -> Iterator[dict[str, Any]]:
    """The progress file of every shard that has one."""
    for shard in range(num_shards):
        try:
            yield json.loads(store.read(layout.shard_file(shard, "progress.json")))
        except FileNotFoundError:
            continue
