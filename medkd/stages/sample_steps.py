"""What a sample needs next, as a pure function of the plan and of the replies it has: the heart of generation.

A sample is a conversation and the record extracted from it. Each try of a sample (a variation) ends accepted or rejected with
its reason; a rejected one is followed by the next variation. Because nothing but durable replies decides, a restart, another
process or another machine arrives at the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from medkd.config import TeacherConfig
from medkd.quality.grounding import Grounding, ground
from medkd.quality.schema import InvalidConversation, InvalidRecord, check_conversation, parse_record
from medkd.quality.scores import compare
from medkd.records import Record
from medkd.samples import SampleSpec, sha256_hex
from medkd.stages.plan import Plan
from medkd.store.conversations import ImportedRow
from medkd.teacher import prompts

MAX_REPAIRS = 2

Row = dict[str, Any]
Entry = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A call that has to be made."""

    key: str
    spec: SampleSpec
    step: str
    repair: int
    request: prompts.Request


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A sample's end. accepted: a row of `tables.SAMPLE_COLUMNS`, or None where every variation was rejected."""

    accepted: Row | None
    rejected: tuple[Row, ...]


CONVERSATION = "conversation"
"""The step whose reply is read soonest: nearly always it leads to another call."""
JUDGE = "judge"
"""The step of a second extraction."""


def next_step(
    plan: Plan,
    teacher: TeacherConfig,
    index: int,
    replies: Mapping[str, Entry],
    imported: ImportedRow | None,
    judge: TeacherConfig | None = None,
) -> Ask | Ended:
    """The next call of a sample, or its end. `replies` holds durable `done` entries by call key.

    judge: another teacher for second extractions; None: the same one.
    """
    return so_far(plan, teacher, index, replies, imported, judge)[1]


def so_far(
    plan: Plan,
    teacher: TeacherConfig,
    index: int,
    replies: Mapping[str, Entry],
    imported: ImportedRow | None,
    judge: TeacherConfig | None = None,
) -> tuple[tuple[Row, ...], Ask | Ended]:
    """The rejected tries of a sample until now, and what `next_step` says."""
    rejected: list[Row] = []
    for variation in range(plan.num_variations):
        attempt = _Variation(plan, teacher, plan.spec(index, variation), replies, imported, judge)
        try:
            return tuple(rejected), Ended(accepted=attempt.accepted_row(), rejected=tuple(rejected))
        except _Unanswered as unanswered:
            return tuple(rejected), unanswered.ask
        except _Rejection as rejection:
            rejected.append(attempt.rejected_row(rejection))
    return tuple(rejected), Ended(accepted=None, rejected=tuple(rejected))


def call_key(plan_hash: str, spec: SampleSpec, step: str, repair: int) -> str:
    """Identity of a call; no URL and no time in it, so that a moved server re-buys nothing."""
    return sha256_hex(f"{plan_hash}:{spec.index}:{spec.variation}:{step}:{repair}")[:32]


class _Unanswered(Exception):  # noqa: N818 - a turn in the walk, not an error
    def __init__(self, ask: Ask) -> None:
        self.ask = ask


class _Rejection(Exception):  # noqa: N818 - as above
    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail


class _Ungrounded(Exception):  # noqa: N818 - as above
    """The record says what the conversation does not."""


class _Variation:
    """One try of a sample: walks through the replies until one is missing or the try has its end."""

    def __init__(
        self,
        plan: Plan,
        teacher: TeacherConfig,
        spec: SampleSpec,
        replies: Mapping[str, Entry],
        imported: ImportedRow | None,
        judge: TeacherConfig | None,
    ) -> None:
        self.judge = judge
        self.plan = plan
        self.teacher = teacher
        self.spec = spec
        self.replies = replies
        self.imported = imported
        self.used: list[Entry] = []
        self.conversation: str | None = None

    def accepted_row(self) -> Row:
        self.conversation = self._imported_conversation() if self.imported else self._generated_conversation()
        gold = self._gold()
        record, grounding = self._record(self.conversation)
        output = self.plan.schema.canonical(record)
        human = self.imported is not None and self.imported.record is not None
        last = self.used[-1] if self.used else {}
        judged = self._judged(self.conversation, record) if self.plan.is_judged(self.spec.index) and not human else {}
        return {
            **self._whose(),
            **judged,
            "instruction": self.plan.schema.task,
            "input": self.conversation,
            "output": output,
            "evidence": [{"field": path, "turns": list(turns)} for path, turns in grounding.evidence.items()],
            "unsupported": [{"field": path, "value": value} for path, value in grounding.unsupported],
            "reference": "human" if human else "teacher",
            "gold": gold or (output if human else None),
            "served_model": last.get("served_model"),
            "prompt_version": self.plan.prompt_version,
            **{name: sum(entry[name] for entry in self.used) for name in TOKEN_KINDS},
            "cost_usd": sum(entry["cost_usd"] for entry in self.used),
            "created_at": last.get("at"),
        }

    def rejected_row(self, rejection: _Rejection) -> Row:
        return {
            **self._whose(),
            "reason": rejection.reason,
            "detail": rejection.detail,
            "conversation": self.conversation,
            "raw_text": self.used[-1]["text"] if self.used else self.imported and self.imported.record,
            "cost_usd": sum(entry["cost_usd"] for entry in self.used),
        }

    def _whose(self) -> Row:
        return {
            "sample_id": self.spec.sample_id,
            "topic": self.imported.topic or "imported" if self.imported else self.spec.topic,
            "mood": "not known" if self.imported else self.spec.mood,
            "source": "imported" if self.imported else "generated",
            "source_id": self.imported.source_id if self.imported else None,
            "teacher": self.plan.teacher["name"],
            "variation": self.spec.variation,
            "attempts": sum(entry["attempts"] for entry in self.used),
        }

    def _judged(self, conversation: str, record: Record) -> Row:
        """Who extracted the record a second time and in which fields it differs; nothing where no valid record came of it."""
        teacher = self.judge or self.teacher

        def second() -> prompts.Request:
            request = prompts.extraction_request(conversation, self.plan.schema, teacher, self.spec.seed + 1)
            # Asked in the same way a teacher would only repeat itself.
            return request if self.judge else replace(request, temperature=teacher.temperature)

        entry = self._reply(JUDGE, 0, second)
        if entry["outcome"] != "reply":
            return {}
        try:
            other = parse_record(entry["text"] or "", self.plan.schema)
        except InvalidRecord:
            return {}
        compared = compare(record, other, self.plan.schema)
        differs = [path for path, (matched, said, wanted) in compared.fields.items() if not matched == said == wanted]
        return {"judge": entry["served_model"] or teacher.model, "disagreement": differs}

    def _imported_conversation(self) -> str:
        assert self.imported
        if self.imported.problem:
            raise _Rejection("unreadable", self.imported.problem)
        return self.imported.conversation

    def _gold(self) -> str | None:
        """The record that came along to be scored against, in canonical form."""
        if self.imported is None or self.imported.gold is None:
            return None
        try:
            return self.plan.schema.canonical(parse_record(self.imported.gold, self.plan.schema))
        except InvalidRecord as problem:
            raise _Rejection("gold_invalid", f"{self.imported.place}: gold: {problem.problem}") from None

    def _generated_conversation(self) -> str:
        def check(text: str) -> str:
            check_conversation(text, self.plan.min_exchanges)
            return text.strip()

        return self._answer(CONVERSATION, partial(prompts.conversation_request, self.spec, self.teacher, self.plan.schema), check)

    def _record(self, conversation: str) -> tuple[Record, Grounding]:
        """The checked record and what its conversation supports of it."""

        def check(text: str) -> tuple[Record, Grounding]:
            record = parse_record(text, self.plan.schema)
            grounding = ground(record, conversation, self.plan.schema)
            if grounding.unsupported and self.plan.ungrounded == "reject":
                shown = "; ".join(f"{path}: {value!r}" for path, value in grounding.unsupported[:5])
                raise _Ungrounded(f"the conversation does not say: {shown}")
            return record, grounding

        if self.imported and self.imported.record is not None:
            try:
                return check(self.imported.record)
            except InvalidRecord as problem:
                raise _Rejection(problem.kind, f"{self.imported.place}: {problem.problem}") from None
            except _Ungrounded as problem:
                raise _Rejection("ungrounded", f"{self.imported.place}: {problem}") from None
        first = partial(prompts.extraction_request, conversation, self.plan.schema, self.teacher, self.spec.seed)
        return self._answer("extraction", first, check)

    def _answer(self, step: str, first: Callable[[], prompts.Request], check: Callable[[str], T]) -> T:
        """What `check` makes of the step's reply, after the repairs that it takes; each repair changes the request.

        first: makes the first request, which is wanted only where its reply is missing or has to be repaired.
        """
        make, enlarged = first, False
        for repair in range(MAX_REPAIRS + 1):
            entry = self._reply(step, repair, make)
            if entry["outcome"] == "reject":
                raise _Rejection(entry["reason"])
            text = entry["text"] or ""
            if entry["outcome"] == "reply":
                try:
                    return check(text)
                except (InvalidConversation, InvalidRecord) as problem:
                    reason, detail = str(problem.kind), problem.problem
                except _Ungrounded as problem:
                    reason, detail = "ungrounded", str(problem)
            else:
                reason, detail = entry["reason"], ""
            request = make()
            if reason == "length":
                if enlarged:
                    break
                request, enlarged = prompts.enlarged(request), True
            else:
                shown = detail or f"the answer could not be used ({reason})"
                again = prompts.repaired(first(), text, shown)
                # The same wrong answer twice: asked the same a third time, a teacher would hardly say anything else.
                request = again if again != request else prompts.repaired(request, text, shown)
            make = partial(replace, request)
        raise _Rejection(reason, detail)

    def _reply(self, step: str, repair: int, make: Callable[[], prompts.Request]) -> Entry:
        key = call_key(self.plan.hash, self.spec, step, repair)
        entry = self.replies.get(key)
        if entry is None:
            raise _Unanswered(Ask(key=key, spec=self.spec, step=step, repair=repair, request=make()))
        self.used.append(entry)
        return entry


TOKEN_KINDS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
