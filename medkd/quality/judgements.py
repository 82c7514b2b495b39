"""What a person says of one row: a verdict for each field, perhaps the record as it should be. From what stands in a filled
file to a judgement, or to what is wrong with it; and from several people's judgements to what becomes of the row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medkd.quality.schema import InvalidRecord, parse_record
from medkd.quality.scores import pairs
from medkd.records import Record, RecordSchema

RIGHT, WRONG, NOT_SAID, MISSING = VERDICTS = ("right", "wrong", "not said", "missing")
"""Of a field: as the conversation has it, NOT PROVIDED included; another value; a value that nobody said; said, and not there or
not all of it."""

REVIEW, SAMPLE_ID, REVIEWER, WHOLE, CORRECTED, COMMENT = (
    "review",
    "sample_id",
    "reviewer",
    "whole",
    "corrected_record",
    "comment",
)
"""What a filled row holds beside its verdicts."""
_VERDICT = "verdict:"
_LONGEST_NAMED = 24

Decision = Literal["confirmed", "corrected", "wrong", "disputed", "open"]
"""confirmed, corrected: `record` is what people say is right; wrong: it is not, and nobody said what is; disputed: they differ;
open: not judged in all fields."""


def named(text: str) -> str:
    """A cell's text for an error message, unless it may be a conversation's that slipped into another column."""
    return json.dumps(text) if len(text) <= _LONGEST_NAMED else f"a text of {len(text):,} characters"


def verdict_column(path: str) -> str:
    """The CSV column of a field's verdict."""
    return f"{_VERDICT}{path}"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A row as a reviewer saw it. record: None where the teacher gave none that could be read."""

    sample_id: str
    record: Record | None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One person's verdicts on one row; fields without a verdict are left out."""

    sample_id: str
    reviewer: str
    verdicts: Mapping[str, str]
    whole: str | None
    """`right` or `wrong` as a whole; None: not judged in all fields, and none is wrong."""
    corrected: Record | None
    """The record as it should be, where that is another one."""
    comment: str


class UnusableRow(Exception):  # noqa: N818 - a finding about data, not a failure of the program
    """A filled row is no judgement; `problems` say why, each with its column, what stands there and what is allowed."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = tuple(problems)


def is_filled(values: Mapping[str, Any]) -> bool:
    """Whether somebody has written anything but a name into the row."""
    columns = [name for name in values if str(name).startswith(_VERDICT)]
    verdicts = values.get("verdicts")
    given = list(verdicts.values()) if isinstance(verdicts, Mapping) else [verdicts]
    given += [values.get(name) for name in (*columns, WHOLE, CORRECTED, COMMENT)]
    return any(value not in (None, "", {}, []) and str(value).strip() for value in given)


def read_judgement(values: Mapping[str, Any], shown: Shown, schema: RecordSchema, reviewer: str | None = None) -> Judgement:
    """The judgement in a filled row; UnusableRow otherwise. reviewer: whose it is where the row does not say.

    A corrected record without verdicts gives them: a field is right where both records say the same. `whole: right` stands for
    `right` in every field that has no verdict of its own.
    """
    problems: list[str] = []
    who = str(values.get(REVIEWER) or "").strip() or (reviewer or "")
    if not who:
        problems.append(f"{REVIEWER}: missing; write a name in the row, or pass --reviewer")
    verdicts = _verdicts(values, schema, problems)
    whole = _one_of(WHOLE, values.get(WHOLE), (RIGHT, WRONG), problems)
    corrected = _corrected(values.get(CORRECTED), schema, problems)
    if shown.record is None and (verdicts or whole == RIGHT):
        problems.append(f"{WHOLE}: this row shows no record that could be right; write {CORRECTED}, or {WHOLE}: wrong")
    if not problems and shown.record is not None:
        verdicts = _completed(verdicts, whole, shown.record, corrected, schema, problems)
    if problems:
        raise UnusableRow(problems)
    return Judgement(
        sample_id=shown.sample_id,
        reviewer=who,
        verdicts=verdicts,
        whole=_whole(verdicts, whole, shown, corrected, schema),
        corrected=corrected if corrected is not None and not _same(corrected, shown.record, schema) else None,
        comment=str(values.get(COMMENT) or "").strip(),
    )


def _verdicts(values: Mapping[str, Any], schema: RecordSchema, problems: list[str]) -> dict[str, str]:
    given = values.get("verdicts")
    if given not in (None, "") and not isinstance(given, Mapping):
        problems.append(f"verdicts: got {type(given).__name__}, expected an object of field and verdict")
    found = dict(given) if isinstance(given, Mapping) else {}
    found |= {name.removeprefix(_VERDICT): value for name, value in values.items() if str(name).startswith(_VERDICT)}
    known = schema.leaves()
    problems += [f"{verdict_column(path)}: no such field; fields are {', '.join(known)}" for path in found if path not in known]
    verdicts: dict[str, str] = {}
    for path in known:
        verdict = _one_of(verdict_column(path), found.get(path), VERDICTS, problems)
        if verdict:
            verdicts[path] = verdict
    return verdicts


def _one_of(column: str, value: Any, allowed: Sequence[str], problems: list[str]) -> str | None:
    text = " ".join(str(value if value is not None else "").lower().replace("_", " ").split())
    if text and text not in allowed:
        problems.append(f"{column}: got {named(text)}, expected {', '.join(allowed)} or nothing")
    return text if text in allowed else None


def _corrected(value: Any, schema: RecordSchema, problems: list[str]) -> Record | None:
    if value is None or value == {} or (isinstance(value, str) and not value.strip()):
        return None
    try:
        return parse_record(value if isinstance(value, str) else json.dumps(value), schema)
    except InvalidRecord as error:
        problems.append(f"{CORRECTED}: {error.problem}")
        return None


def _completed(
    verdicts: dict[str, str],
    whole: str | None,
    record: Record,
    corrected: Record | None,
    schema: RecordSchema,
    problems: list[str],
) -> dict[str, str]:
    """The verdicts with those that `whole` and the corrected record imply; problems where they contradict each other."""
    wrong = [path for path, verdict in verdicts.items() if verdict != RIGHT]
    if whole == RIGHT and wrong:
        problems.append(f"{WHOLE}: got right, but {verdict_column(wrong[0])} is {verdicts[wrong[0]]}; clear one of them")
    if whole == WRONG and len(verdicts) == len(schema.leaves()) and not wrong:
        problems.append(f"{WHOLE}: got wrong, but every field is right; clear one of them")
    implied = dict.fromkeys(schema.leaves(), RIGHT) if whole == RIGHT else {}
    if corrected is not None:
        implied = implied_verdicts(record, corrected, schema)
        for path, verdict in verdicts.items():
            if (verdict == RIGHT) != (implied[path] == RIGHT):
                says = "says the same" if implied[path] == RIGHT else "says something else"
                problems.append(f"{verdict_column(path)}: got {verdict}, but {CORRECTED} {says} in this field; mend one of them")
        if whole == RIGHT and any(verdict != RIGHT for verdict in implied.values()):
            problems.append(f"{WHOLE}: got right, but {CORRECTED} differs from the record; clear one of them")
    return {path: verdicts.get(path) or implied[path] for path in schema.leaves() if path in verdicts or path in implied}


def implied_verdicts(record: Record, corrected: Record, schema: RecordSchema) -> dict[str, str]:
    """What a correction says of each field of a record. Values are compared in their normal form (`quality.scores`)."""
    said, wanted = pairs(record, schema), pairs(corrected, schema)
    verdicts: dict[str, str] = {}
    for path in schema.leaves():
        has = {pair: count for pair, count in said.items() if pair[0] == path}
        should = {pair: count for pair, count in wanted.items() if pair[0] == path}
        if has == should:
            verdicts[path] = RIGHT
        elif has and should and not set(has) <= set(should) and not set(should) <= set(has):
            verdicts[path] = WRONG
        else:
            verdicts[path] = NOT_SAID if set(should) <= set(has) else MISSING
    if _same(record, corrected, schema):
        return verdicts
    # Items whose members changed places hold the same values and are not the same items.
    if all(verdict == RIGHT for verdict in verdicts.values()):
        first = next(path for path in schema.leaves() if "[]." in path)
        verdicts[first] = WRONG
    return verdicts


def _whole(
    verdicts: Mapping[str, str], whole: str | None, shown: Shown, corrected: Record | None, schema: RecordSchema
) -> str | None:
    if shown.record is None:
        return WRONG if whole or corrected is not None else None
    if whole == WRONG or any(verdict != RIGHT for verdict in verdicts.values()):
        return WRONG
    return RIGHT if len(verdicts) == len(schema.leaves()) else None


def _same(record: Record, other: Record | None, schema: RecordSchema) -> bool:
    return other is not None and dict(_by_item(record, schema)) == dict(_by_item(other, schema))


def _by_item(record: Record, schema: RecordSchema) -> Iterable[tuple[str, Any]]:
    """A record's values in normal form: each field's, and each list of items as a multiset of whole items."""
    nothing = schema.empty()
    for field in schema.fields:
        entries = record[field.name] if field.kind == "items" else [None]
        alone = [{**nothing, field.name: [entry] if field.kind == "items" else record[field.name]} for entry in entries]
        yield field.name, sorted(sorted(pairs(one, schema).elements()) for one in alone)


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What becomes of a row after all judgements of it. record: for confirmed and corrected rows."""

    decision: Decision
    record: Record | None
    reviewers: tuple[str, ...]


def counted(judgements: Sequence[Judgement], adjudicator: str | None) -> list[Judgement]:
    """The adjudicator's word alone where there is one, else everybody's."""
    return [one for one in judgements if one.reviewer == adjudicator] or list(judgements)


def decide(judgements: Sequence[Judgement], shown: Shown, schema: RecordSchema, adjudicator: str | None = None) -> Decided:
    """One decision from what several people say; the adjudicator's word counts alone where there is one."""
    heard = counted(judgements, adjudicator)
    reviewers = tuple(sorted(one.reviewer for one in heard))
    ended = [one for one in heard if one.whole is not None]
    corrections = [one.corrected for one in ended if one.corrected is not None]
    confirmed = any(one.whole == RIGHT for one in ended)
    if not ended:
        return Decided(decision="open", record=None, reviewers=reviewers)
    agree = all(_same(corrections[0], other, schema) for other in corrections[1:])
    if (confirmed and any(one.whole == WRONG for one in ended)) or not agree:
        return Decided(decision="disputed", record=None, reviewers=reviewers)
    if confirmed:
        return Decided(decision="confirmed", record=shown.record, reviewers=reviewers)
    if corrections:
        return Decided(decision="corrected", record=corrections[0], reviewers=reviewers)
    return Decided(decision="wrong", record=None, reviewers=reviewers)
