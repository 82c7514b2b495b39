"""What a shard knows for sure and what it has paid: its journal, written in groups, and its purse.

One thread owns it. Commits run beside that thread; what they carry may be used once `Committed` was handed back by `committed`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from medkd.config import TeacherConfig
from medkd.errors import BudgetError, ConfigError, MedkdError
from medkd.samples import sample_index
from medkd.stages import estimates
from medkd.stages import plan as planning
from medkd.stages.sample_steps import TOKEN_KINDS, Ask
from medkd.stages.shard_calls import CommitFailed, Committed, Crashed, Events, Needed, Note
from medkd.stages.shard_options import ShardOptions
from medkd.store import journal
from medkd.store.budget import Budget, Purse, Taken, unjournalled
from medkd.store.files import Store
from medkd.teacher.client import Answer

# A commit costs one store request; below a tenth of a second it would cost more than it brings forward.
COMMIT_SPACING_SECONDS = 0.1
COMMIT_AFTER_SECONDS = 1.0
COMMIT_SHARE = 0.25
"""Of the slots: as many answers make a group before it is old or a slot waits for one."""


@dataclass
class _Group:
    """Entries on their way into the journal, and the calls whose answers they are."""

    entries: list[journal.Entry] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    notes: list[threading.Event] = field(default_factory=list)
    added_usd: float = 0.0
    since: float = 0.0


class ShardLedger:
    """The journal and the money of one shard while this process works on it."""

    def __init__(
        self,
        store: Store,
        plan: planning.Plan,
        cut: planning.Layout,
        teacher: TeacherConfig,
        options: ShardOptions,
        stop: threading.Event,
        events: Events,
        judge: TeacherConfig | None = None,
    ) -> None:
        self._judge = judge
        self._replies: dict[int, dict[str, journal.Entry]] = {}
        self._store = store
        self._plan = plan
        self._teacher = teacher
        self._options = options
        self._events = events
        self._journal = journal.Journal(store, options.shard, plan.hash, options.writer)
        largest = cut.chunk_usd or float("inf")
        # Batches are journalled before they are sent and found again, so that none of their calls is ever unknown spend.
        self._all_is_known = teacher.mode == "batch"
        allowance = float("inf") if self._all_is_known else self._allowance()
        self.purse = Purse(stop, lambda: events.put(Needed()), allowance, largest_call_usd=largest)
        self.budget = self._budget(cut)
        self._group = _Group()
        self._committing: _Group | None = None
        self._last_commit = 0.0
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="commit")

    def claim(self) -> journal.Replay:
        """Take the shard over; what stands in its journal is known and paid from here on."""
        replay = self._journal.claim(0.0 if self._all_is_known else self._allowance())
        for entry in replay.done.values():
            self._keep(entry)
        self.purse.spent_usd = sum(entry["cost_usd"] for entry in replay.done.values())
        self.purse.possibly_usd = replay.possibly_usd + sum(entry["possibly_usd"] for entry in replay.done.values())
        self.purse.taken_usd = replay.money_usd
        if self.budget and not replay.closed:
            for taken in unjournalled(self._store, self._options.shard, replay.chunks):
                self._add_money(taken)
        return replay

    def replies(self, index: int) -> Mapping[str, journal.Entry]:
        """Durable answers to a sample's calls by call key, in the order in which they came."""
        return self._replies.get(index, {})

    def drop_replies(self, index: int) -> None:
        """The sample has ended: nobody asks for its answers any more."""
        self._replies.pop(index, None)

    def _keep(self, entry: journal.Entry) -> None:
        # The first answer where one stands twice, as in a replay.
        self._replies.setdefault(sample_index(entry["sample_id"]), {}).setdefault(entry["key"], entry)

    def answered(self, ask: Ask, answer: Answer) -> None:
        """Put an answer on its way into the journal."""
        self.purse.settle(ask.key, answer.cost_usd, answer.possibly_usd)
        self._add(_done_entry(ask, answer))
        self._group.asks.append(ask)

    def note(self, note: Note) -> None:
        """Put an entry on its way into the journal, whose sender waits until it is durable."""
        self._add(dict(note.entry))
        self._group.notes.append(note.durable)

    # --- commits ------------------------------------------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Whether entries wait for their segment."""
        return bool(self._group.entries)

    @property
    def is_committing(self) -> bool:
        return self._committing is not None

    @property
    def is_full(self) -> bool:
        """Whether as much waits for its segment as a kill may lose."""
        waiting = len(self._group.entries) + (len(self._committing.entries) if self._committing else 0)
        return waiting >= self._options.group_limit

    def commit_if_due(self, room: bool) -> None:
        """Start writing a segment where it is time. room: another call could be sent now."""
        if self._committing or not (self._group.entries or self.purse.waits_for_commit):
            return
        now = time.monotonic()
        # Small groups keep the answers flowing: a group of all slots would let all calls start, and all answers come, at once.
        wanted = room or self.purse.waits_for_commit or len(self._group.entries) >= self._options.concurrency * COMMIT_SHARE
        old_enough = self._group.entries and now - self._group.since >= COMMIT_AFTER_SECONDS
        if old_enough or (wanted and now - self._last_commit >= COMMIT_SPACING_SECONDS):
            self._commit()

    def commit_last(self) -> None:
        """Write what waits as a segment after which nothing more is sent."""
        self._commit(last=True)

    def committed(self) -> list[Ask]:
        """To be called for `Committed`: the calls whose samples can go on."""
        assert self._committing
        group, self._committing = self._committing, None
        self.purse.durable()
        if group.added_usd:
            self.purse.add(group.added_usd)
        for entry in group.entries:
            if entry["kind"] == "done":
                self._keep(entry)
        for note in group.notes:
            note.set()
        return group.asks

    def commit_failed(self) -> None:
        self._committing = None

    def close(self) -> None:
        """The journal's last segment: every sample has its end."""
        self._journal.close()

    def end(self) -> None:
        """Wait for the segment under way."""
        self._committer.shutdown(wait=True)

    def _add(self, entry: journal.Entry) -> None:
        if not self._group.entries:
            self._group.since = time.monotonic()
        self._group.entries.append(entry)

    def _commit(self, *, last: bool = False) -> None:
        group, self._group, self._committing = self._group, _Group(), self._group
        self._last_commit = time.monotonic()
        in_flight, allowance_usd = self.purse.snapshot(last=last)
        if self._all_is_known:
            in_flight, allowance_usd = {}, 0.0

        def write() -> None:
            try:
                self._journal.commit(group.entries, in_flight, allowance_usd)
                self._events.put(Committed())
            except MedkdError as error:
                self._events.put(CommitFailed(error))
            except BaseException as error:
                self._events.put(Crashed(error))

        self._committer.submit(write)

    # --- money --------------------------------------------------------------------------------------------------------

    def take_money(self, ended: str) -> None:
        """Take budget chunks where a sender waits for money, and journal them; they may be spent once that is durable.

        As many as all who wait need: a segment for each chunk would let them start one after the other.
        ended: how far the shard is, for the error where no chunk is left.
        """
        in_journal = self._group.added_usd + (self._committing.added_usd if self._committing else 0.0)
        if not (self.budget and self.purse.lacks_money) or in_journal:
            return
        short = self.purse.short_usd
        while self._group.added_usd < short and (taken := self.budget.take()):
            self._add_money(taken)
        if not (self._group.added_usd or self.purse.has_reserved or self._group.entries or self._committing):
            self.purse.refuse(
                BudgetError(
                    f"--budget-usd: all of {self._options.budget_usd:g} is spent and shard {self._options.shard} has ended "
                    f"{ended} samples. Raise it and start again, nothing is paid twice"
                )
            )

    def _add_money(self, taken: Taken) -> None:
        self._add({"kind": "money", "path": taken.path, "usd": taken.usd})
        self._group.added_usd += taken.usd

    def _allowance(self) -> float:
        """What calls sent between two commits may reserve: twice the slots, each with the dearest call."""
        return 2 * self._options.concurrency * estimates.dearest_call_usd(self._plan, self._teacher, self._judge)

    def _budget(self, cut: planning.Layout) -> Budget | None:
        if cut.chunk_usd == 0:
            return None
        if self._options.budget_usd is None:
            raise ConfigError("--budget-usd: missing; this run's teacher has a price, say what the run may cost at most")
        return Budget(
            store=self._store,
            shard=self._options.shard,
            writer=self._options.writer,
            budget_usd=self._options.budget_usd,
            chunk_usd=cut.chunk_usd,
        )


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
        "seconds": answer.seconds,
        **{kind: getattr(usage, kind) if usage else 0 for kind in TOKEN_KINDS},
        "cost_usd": answer.cost_usd,
        "possibly_usd": answer.possibly_usd,
        "at": answer.at,
    }
