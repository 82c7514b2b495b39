"""One sample, and lists of them, as lines for a terminal: what a teacher or a patient wrote comes without control characters."""

from __future__ import annotations

import json
import textwrap
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from medkd.quality import side_by_side
from medkd.records import NOT_PROVIDED, Record, RecordSchema
from medkd.samples import turns

Found = Mapping[str, Any]

_LEAST_WIDTH = 60
_MARKS = {"same": " ", "omitted": "-", "added": "+", "silent": " "}


def plain(text: Any) -> str:
    """Text in one line that a terminal only shows: no escape sequences, no control characters."""
    return harmless(" ".join(str(text).split()))


def harmless(line: str) -> str:
    """A line without what a terminal would obey."""
    return "".join("\ufffd" if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character for character in line)


def usd(amount: float) -> str:
    return f"${amount:,.4f}" if amount else "$0"


# --- one sample -------------------------------------------------------------------------------------------------------------


def sample_sheet(found: Found, schemas: Mapping[str, RecordSchema], schema: RecordSchema, width: int) -> Iterator[str]:
    """What `inspect --sample` found, in sections. schemas: of each student that answered."""
    width = max(_LEAST_WIDTH, width)
    row = found["row"] or {}
    yield from _head(found, row)
    rejected = found["rejected"]
    conversation = row.get("input") or next((one["conversation"] for one in reversed(rejected) if one["conversation"]), None)
    conversation = conversation or _last_conversation(found["calls"])
    if conversation:
        evidence = {one["field"]: one["turns"] for one in row.get("evidence") or ()}
        yield from _section("conversation")
        yield from _conversation(conversation, evidence, width)
        if row:
            yield from _section("record, and the turns that say it")
            yield from _record(json.loads(row["output"]), evidence, row.get("unsupported") or (), schema, width)
    if row:
        yield from _section("checks")
        yield from _checks(row)
    if rejected:
        yield from _section("rejected tries")
        for one in rejected:
            yield from _rejected(one, width)
    if found["calls"]:
        yield from _section("calls")
        yield from _calls(found["calls"])
    if found["next"]:
        yield f"next: {found['next']}"
    if found["predictions"]:
        yield from _section("students, beside the reference")
        yield from _predictions(found["predictions"], schemas, schema, width)


def _head(found: Found, row: Found) -> Iterator[str]:
    place = "" if found["shard"] is None else f", shard {found['shard']}"
    yield f"sample {plain(found['sample_id'])}{place}: {found['state'] or 'not made by this run'}"
    if row:
        came = f"came as {plain(row['source_id'])}" if row.get("source_id") else row["source"]
        yield f"{plain(row['topic'])}, {plain(row['mood'])}; {came}; record by {row['reference']} {plain(row['teacher'])}"
        tokens = f"{row['prompt_tokens'] or 0:,} tokens in, {row['completion_tokens'] or 0:,} out"
        yield f"variation {row['variation']}, {row['attempts']} requests, {tokens}, {usd(row['cost_usd'] or 0.0)}"
    elif found["rejected"]:
        one = found["rejected"][-1]
        yield f"{plain(one['topic'])}, {plain(one['mood'])}; {one['source']}"
    if data_set := found["data_set"]:
        if data_set["split"]:
            yield f"data set: {data_set['split']}{', a topic that is only tested on' if data_set['held_out_topic'] else ''}"
        else:
            kept = f" of {plain(data_set['kept_sample_id'])}" if data_set["kept_sample_id"] else ""
            yield f"data set: left out, {data_set['left_out']}{kept} (similarity {data_set['similarity'] or 0:.2f})"


def _section(title: str) -> Iterator[str]:
    yield ""
    yield title


def _last_conversation(calls: Sequence[Found]) -> str | None:
    texts = [call["text"] for call in calls if call["step"] == "conversation" and call["outcome"] == "reply"]
    return texts[-1] if texts else None


def _conversation(text: str, evidence: Mapping[str, Sequence[int]], width: int) -> Iterator[str]:
    """Numbered turns; in brackets the fields of the record that one supports."""
    supports: dict[int, list[str]] = defaultdict(list)
    for path, places in evidence.items():
        for place in places:
            supports[place].append(path.rpartition(".")[2])
    for number, turn in enumerate(turns(text)):
        said = f"  [{', '.join(supports[number])}]" if number in supports else ""
        speaker = f"{plain(turn.speaker)}: " if turn.speaker else ""
        yield from _wrapped(f"{number:>4}  ", f"{speaker}{plain(turn.text)}{said}", width)


def _record(
    record: Record, evidence: Mapping[str, Sequence[int]], unsupported: Sequence[Found], schema: RecordSchema, width: int
) -> Iterator[str]:
    flagged = {(one["field"], one["value"]) for one in unsupported}
    paths = max(map(len, schema.leaves()))
    for path, value in schema.values(record):
        if value == NOT_PROVIDED:
            continue
        places = evidence.get(path)
        mark = "NOT SUPPORTED" if (path, value) in flagged else f"turn {', '.join(map(str, places))}" if places else ""
        yield from _wrapped(f"  {path:<{paths}}  ", f"{plain(value)}{f'  ({mark})' if mark else ''}", width)
    said = {path for path, value in schema.values(record) if value != NOT_PROVIDED}
    if silent := [path for path in schema.leaves() if path not in said]:
        yield from _wrapped(f"  {'says nothing of':<{paths}}  ", ", ".join(silent), width)


def _checks(row: Found) -> Iterator[str]:
    flagged = row.get("unsupported") or ()
    if row["reference"] == "human":
        yield "  record: imported, written by people"
    yield (
        f"  grounding: {len(flagged)} values that the conversation does not say"
        if flagged
        else "  grounding: the conversation says every value"
    )
    if row.get("judge") is None:
        yield "  judge: not extracted a second time"
    else:
        differs = row["disagreement"] or ()
        yield f"  judge {plain(row['judge'])}: {'differs in ' + ', '.join(differs) if differs else 'agrees in every field'}"
    if row.get("gold"):
        yield "  gold: came along with the conversation"


def _rejected(one: Found, width: int) -> Iterator[str]:
    detail = f": {plain(one['detail'])}" if one["detail"] else ""
    cost = f" ({one['attempts']} requests, {usd(one['cost_usd'] or 0.0)})"
    yield from _wrapped("  ", f"variation {one['variation']}: {plain(one['reason'])}{detail}{cost}", width)
    if one["raw_text"]:
        yield from _wrapped("    ", f"last reply: {plain(one['raw_text'])}", width, lines=6)


def _calls(calls: Sequence[Found]) -> Iterator[str]:
    kinds = ("in", "cached", "out")
    head = ("variation", "kind", "teacher", "model", "verdict", "finish", *kinds, "cost", "seconds", "at")
    rows: list[tuple[str, ...]] = [head]
    for call in calls:
        verdict = call["outcome"] + (f" ({call['reason']})" if call["reason"] not in (None, call["outcome"]) else "")
        rows.append(
            (
                str(call["variation"]),
                call["step"] + (f", repair {call['repair']}" if call["repair"] else ""),
                call["teacher"],
                call["served_model"] or "-",
                verdict + (f" in {call['attempts']} attempts" if call["attempts"] > 1 else ""),
                call["finish"] or "-",
                *(f"{call[kind] or 0:,}" for kind in ("prompt_tokens", "cached_tokens", "completion_tokens")),
                usd(call["cost_usd"]) + (f" + {usd(call['possibly_usd'])}?" if call["possibly_usd"] else ""),
                "-" if call["seconds"] is None else f"{call['seconds']:.2f}",
                (call["at"] or "-")[:19],
            )
        )
    yield from table(rows, right=(6, 7, 8, 9, 10))


def _predictions(
    predictions: Sequence[Found], schemas: Mapping[str, RecordSchema], schema: RecordSchema, width: int
) -> Iterator[str]:
    for one in predictions:
        if one["model"] != "student":
            continue
        fields = schemas.get(one["student"], schema)
        others = [
            f"{other['model']} {other['f1']:.2f}"
            for other in predictions
            if other["student"] == one["student"] and other["model"] != "student"
        ]
        beside = f"; beside it {', '.join(others)}" if others else ""
        yield f"{plain(one['student'])}: F1 {one['f1']:.2f} against {one['gold_source']}{beside}"
        if one["record"] is None:
            yield from _wrapped("    ", f"no valid record: {plain(one['raw_text'])}", width, lines=6)
            continue
        yield from _differences(json.loads(one["gold"]), json.loads(one["record"]), fields, width)
        if one["truncated"]:
            yield "    the answer was cut"


def _differences(gold: Record, predicted: Record, schema: RecordSchema, width: int) -> Iterator[str]:
    """Fields in which both differ: `-` stands in the reference alone, `+` in the student's answer alone."""
    same = 0
    for row in side_by_side.rows(gold, predicted, schema):
        sides = [(mark, line) for mark, lines in (("omitted", row.reference), ("added", row.predicted)) for line in lines]
        differing = [(mark, line) for mark, line in sides if any(value.mark == mark for value in line)]
        name = f"{row.group}.{row.name}" if row.group else row.name
        same += not differing
        for mark, line in differing:
            shown = ", ".join(plain(value.text) for value in line if value.mark != "silent")
            yield from _wrapped(f"  {_MARKS[mark]} {name}: ", shown, width)
    yield f"    {same} fields alike"


# --- lists ------------------------------------------------------------------------------------------------------------------


def rejected_lines(rows: Iterable[Found], width: int) -> Iterator[str]:
    for row in rows:
        head = f"{row['sample_id']}  variation {row['variation']}  {row['reason']}  "
        about = f"{plain(row['topic'])}, {plain(row['mood'])}"
        detail = f": {plain(row['detail'])}" if row["detail"] else ""
        yield from _wrapped(head, about + detail, width, lines=2)


def accepted_lines(rows: Iterable[Found], width: int) -> Iterator[str]:
    for row in rows:
        notes = []
        if flagged := row["unsupported"]:
            notes.append(f"{len(flagged)} values not supported")
        if row["disagreement"] is not None:
            notes.append(f"judge differs in {', '.join(row['disagreement'])}" if row["disagreement"] else "judge agrees")
        if row["variation"]:
            notes.append(f"variation {row['variation']}")
        own_id = f" ({plain(row['source_id'])})" if row["source_id"] else ""
        about = f"{plain(row['topic'])}, {plain(row['mood'])}{own_id}"
        yield from _wrapped(f"{row['sample_id']}  ", "; ".join((about, *notes, usd(row["cost_usd"] or 0.0))), width, lines=2)


def overview_lines(found: Found, limit: int) -> Iterator[str]:
    """The whole run: its shards, at most `limit` of them, reasons of rejects, data set, students."""
    if found["plan_hash"]:
        teacher = f"teacher {plain(found['teacher'])} ({plain(found['model'])})"
        yield f"{found['prefix']}: plan {found['plan_hash'][:12]}, {found['samples']:,} samples, {teacher}"
        yield from _shard_lines(found["shards"], limit)
    else:
        yield f"{found['prefix']}: a data set from rows of elsewhere"
    if found["reasons"]:
        yield "rejected: " + ", ".join(f"{reason} {count:,}" for reason, count in found["reasons"].items())
    if data_set := found["data_set"]:
        rows = ", ".join(f"{data_set[split]:,} {split}" for split in ("train", "validation", "test"))
        yield f"data set {data_set['data_set_hash'][:12]}: {rows}; {data_set['duplicates']:,} duplicates left out"
    for one in found["students"]:
        if one["evaluated"]:
            interval = f"{one['low']:.3f} to {one['high']:.3f}"
            against = f"against {one['reference']} on {one['num_samples']:,} conversations"
            yield f"student {plain(one['student'])}: F1 {one['f1']:.3f} ({interval}) {against}; {one['verdict']}"
        else:
            yield f"student {plain(one['student'])}: not evaluated yet"


def _shard_lines(shards: Sequence[Found], limit: int) -> Iterator[str]:
    columns = ("samples", "accepted", "rejected", "short", "calls")
    rows: list[tuple[str, ...]] = [("shard", "state", *columns, "spent")]
    for one in shards[:limit]:
        rows.append((str(one["shard"]), one["state"], *(f"{one[name]:,}" for name in columns), usd(one["spent_usd"])))
    sums = [sum(one[name] for one in shards) for name in columns]
    spent = sum(one["spent_usd"] for one in shards)
    ended = sum(one["state"] == "complete" for one in shards)
    rows.append(("all", f"{ended} complete", *(f"{number:,}" for number in sums), usd(spent)))
    yield from table(rows, right=tuple(range(2, 8)))
    if len(shards) > limit:
        yield f"{len(shards) - limit:,} shards more: --limit"


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    """Rows of cells in columns, the first one as the head; `right` says which columns are numbers."""
    widths = [max(len(plain(cell)) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            f"{plain(cell):>{width}}" if place in right else f"{plain(cell):<{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _wrapped(head: str, text: str, width: int, lines: int | None = None) -> Iterator[str]:
    """Text after a head, further lines indented as far; what exceeds `lines` is cut."""
    room = max(20, width - len(head))
    head = harmless(head)
    wrapped = textwrap.wrap(harmless(text), room, break_on_hyphens=False, max_lines=lines, placeholder=" …") or [""]
    yield f"{head}{wrapped[0]}".rstrip()
    for line in wrapped[1:]:
        yield f"{' ' * len(head)}{line}"
