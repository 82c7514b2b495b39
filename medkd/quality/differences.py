"""Two students on the same conversations: where the second one is better or worse, as far as chance allows to say.

Differences are paired: the conversations are drawn anew, and of each both answers are taken. With as many comparisons as there
are fields and topics some leave zero out by chance alone; so each verdict also says whether it holds for all of them at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medkd.quality.findings import counts_of
from medkd.quality.intervals import Difference, paired_f1_differences
from medkd.quality.scores import Agreement, Comparison, total
from medkd.records import RecordSchema

LEAST_OF_TOPIC = 10
"""Conversations of a topic below which nothing is said about it: so few draw nearly alike again and again."""
_ALL = "all fields"
_LONGEST_VALUE = 40


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One conversation that both students answered, each answer compared with the same reference."""

    topic: str
    first: Comparison
    second: Comparison


def compare_students(pairs: Sequence[Pair], schema: RecordSchema) -> dict[str, Any]:
    """Differences over all fields, by field and by topic, and how many leave zero out."""
    first, second = [one.first for one in pairs], [one.second for one in pairs]
    totals = [total(side, schema) for side in (first, second)]
    fields = [path for path in schema.leaves() if any(_says(found.fields[path]) for found in totals)]
    topics: dict[str, list[Pair]] = defaultdict(list)
    for one in pairs:
        topics[one.topic].append(one)
    several = topics if len(topics) > 1 else {}
    enough = {topic: found for topic, found in sorted(several.items()) if len(found) >= LEAST_OF_TOPIC}
    compared = len(fields) + len(enough)
    micro = paired_f1_differences([_micro(pairs)], 1)[0]
    by_field = paired_f1_differences(
        [([one.fields[path] for one in first], [one.fields[path] for one in second]) for path in fields], compared
    )
    rows = [_row("field", path, len(pairs), found) for path, found in zip(fields, by_field, strict=True)]
    for topic, found in enough.items():
        rows.append(_row("topic", topic, len(found), paired_f1_differences([_micro(found)], compared)[0]))
    return {
        "num_pairs": len(pairs),
        "micro": _row("all", _ALL, len(pairs), micro),
        "fields": [row for row in rows if row["kind"] == "field"],
        "topics": [row for row in rows if row["kind"] == "topic"],
        "topics_too_small": {topic: len(found) for topic, found in sorted(several.items()) if topic not in enough},
        "compared": compared,
        "by_chance": round(0.05 * compared, 2),
        "beside": [
            {
                "hallucinated": found.hallucinated,
                "omitted": found.omitted,
                "valid": found.valid_schema,
                "exact": found.exact_match,
            }
            for found in totals
        ],
    }


def _says(found: Agreement) -> int:
    """Values of a field on either side."""
    return found.predicted + found.expected


def _micro(pairs: Sequence[Pair]) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    return [counts_of(one.first) for one in pairs], [counts_of(one.second) for one in pairs]


def _row(kind: str, name: str, num_pairs: int, found: Difference) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": name,
        "num_pairs": num_pairs,
        "first": found.first,
        "second": found.second,
        "change": found.change,
        "low": found.interval.low,
        "high": found.interval.high,
        "verdict": _verdict(found.interval.low, found.interval.high),
        "low_together": found.together.low,
        "high_together": found.together.high,
        "verdict_together": _verdict(found.together.low, found.together.high),
    }


def _verdict(low: float, high: float) -> str:
    return "better" if low > 0 else "worse" if high < 0 else "not shown"


# --- in words ---------------------------------------------------------------------------------------------------------------


def difference_lines(found: Mapping[str, Any], first: str, second: str) -> Iterator[str]:
    """The table, and what can be said."""
    names = [row["name"] for row in (*found["fields"], *found["topics"])]
    width = max(len(name) for name in (*names, "by topic", _ALL))
    yield f"{'':<{width}}  {'a':>5}  {'b':>5}  {'b - a':>6}  {'95% interval':<16}  pairs  b is"
    yield _line(found["micro"], width)
    for title, rows in (("by field", found["fields"]), ("by topic", found["topics"])):
        if rows:
            yield title
            yield from (_line(row, width) for row in rows)
    if small := found["topics_too_small"]:
        named = ", ".join(f"{name} {count}" for name, count in small.items())
        yield f"topics with less than {LEAST_OF_TOPIC} pairs, of which nothing is said: {named}"
    for name, side in zip("ab", found["beside"], strict=True):
        yield (
            f"{name}: {side['hallucinated']:,} values hallucinated, {side['omitted']:,} omitted, "
            f"{100 * side['valid']:.1f}% valid, {100 * side['exact']:.1f}% right as a whole"
        )
    yield ""
    yield from sentences(found, first, second)


def _line(row: Mapping[str, Any], width: int) -> str:
    interval = f"{row['low']:+.3f} to {row['high']:+.3f}"
    verdict = row["verdict"]
    if row["kind"] != "all" and verdict != "not shown":
        verdict += " (alone and together)" if row["verdict_together"] == verdict else " (alone)"
    return (
        f"{row['name']:<{width}}  {row['first']:5.3f}  {row['second']:5.3f}  {row['change']:+6.3f}  {interval:<16}  "
        f"{row['num_pairs']:5,}  {verdict}"
    )


def sentences(found: Mapping[str, Any], first: str, second: str) -> Iterator[str]:
    """What can be said, and how many of the comparisons chance alone would tell apart."""
    micro, rows = found["micro"], (*found["fields"], *found["topics"])
    over_all = {"better": "is better", "worse": "is worse", "not shown": "is neither shown to be better nor worse"}
    yield (
        f"b ({second}) {over_all[micro['verdict']]} over all fields than a ({first}): {micro['change']:+.3f} "
        f"({micro['low']:+.3f} to {micro['high']:+.3f}). "
        f"Each taken by itself, it is {_counted(found['fields'], 'field')}"
        + (f", {_counted(found['topics'], 'topic')}" if found["topics"] else "")
        + f"; 95% intervals, {found['num_pairs']:,} paired conversations."
    )
    alone = sum(row["verdict"] != "not shown" for row in rows)
    if not alone:
        return
    together = [row for row in rows if row["verdict_together"] != "not shown"]
    named = ", ".join(f"{row['name']} ({row['verdict_together']})" for row in together)
    held = f"{len(together)} of the {alone} hold: {named}" if together else f"none of the {alone} holds"
    yield (
        f"Of {found['compared']} comparisons about {found['by_chance']:g} would leave zero out by chance if both were equal; "
        f"for all at once (Bonferroni) {held}."
    )


def _counted(rows: Sequence[Mapping[str, Any]], what: str) -> str:
    better, worse = (sum(row["verdict"] == verdict for row in rows) for verdict in ("better", "worse"))
    plural = "" if len(rows) == 1 else "s"
    return f"better in {better or 'none'} and worse in {worse or 'none'} of {len(rows)} {what}{plural}"


def all_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Everything `stages.difference` found, from what was asked to what came of it."""
    yield f"a  {found['first']}"
    yield f"b  {found['second']}"
    for what in ("plan", "student"):
        for row in found[what]:
            yield f"{what}: {row['name']}  {_shown(row['first'])} -> {_shown(row['second'])}"
    for name, one in zip("ab" if len(found["generation"]) > 1 else ("both",), found["generation"], strict=True):
        if one["acceptance"] is None:
            yield f"generated by {name}: nothing"
            continue
        yield (
            f"generated by {name}: {one['accepted']:,} accepted of {one['accepted'] + one['rejected']:,} tries "
            f"({100 * one['acceptance']:.1f}%), ${one['cost_per_accepted_usd']:,.6f} per accepted row"
        )
    scores = found["scores"]
    if scores is None:
        yield "scores: none to compare, stage evaluate of both has to end first"
        return
    for title, part in (("", scores["usual_topics"]), ("topics that were only tested on", scores["held_out_topics"])):
        if part:
            yield ""
            if title:
                yield title
            yield from difference_lines(part, found["first"], found["second"])
    yield ""
    on_set = f"on the set {scores['set']}; " if scores["set"] else ""
    reference = f"{on_set}against {scores['reference']}'s records; " if scores["reference"] else on_set
    if scores["decoding"][0] != scores["decoding"][1]:
        how = ", ".join(f"{side} was {decoding}" for side, decoding in zip("ab", scores["decoding"], strict=True))
        yield f"not decoded alike: {how}; part of the difference is that"
    left = ", ".join(f"{count:,} {why}" for why, count in scores["left_out"].items()) or "none"
    yield f"{reference}tested were {scores['tested'][0]:,} and {scores['tested'][1]:,} conversations; left out: {left}"


def _shown(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
