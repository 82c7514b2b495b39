"""Bars that a data set or a student has to clear before anybody hands it on, and the verdict on them.

A score clears its bar only with the lower end of its interval: a student that may be worse than the bar by chance does not pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medkd.config import Bars, DataSetBars, ScoreBar
from medkd.errors import ConfigError
from medkd.quality.findings import counts_of
from medkd.quality.intervals import f1_interval, ratio_interval
from medkd.quality.scores import Comparison
from medkd.records import RecordSchema

_SHARES = ("exact_match", "valid_json", "valid_schema", "abstention_accuracy")
_RATIOS = ("f1", "precision", "recall")


def check_names(bars: Bars, schema: RecordSchema) -> None:
    """ConfigError where a bar names a field or a score that records of this schema do not have: known before anything is paid."""
    for path in bars.prepare.share_stated:
        if path not in schema.leaves():
            raise _unknown_field(path, schema.leaves())
    heads = {"micro", *(f"fields.{path}" for path in schema.leaves())}
    heads |= {f"items.{field.name}" for field in schema.fields if field.kind == "items"}
    for bar in bars.evaluate:
        head, _, ratio = bar.score.rpartition(".")
        if bar.score not in _SHARES and not (head in heads and ratio in _RATIOS):
            raise _unknown_score(bar.score, schema.leaves())


def judge_scores(bars: Sequence[ScoreBar], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The verdict on a student's comparisons; ConfigError where a bar names a score that there is not."""
    checks = []
    for bar in bars:
        low = _lower_end(bar.score, comparisons)
        checks.append({"what": bar.score, "bar": bar.at_least, "got": low, "passed": low >= bar.at_least})
    return _verdict(checks)


def judge_data_set(bars: DataSetBars, statistics: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict on a data set with these statistics."""
    kept = sum(statistics["rows"].values())
    left_out = sum(statistics["duplicates"].values())
    checks = []
    if bars.train_rows is not None:
        checks.append(_at_least("rows to train on", bars.train_rows, statistics["rows"]["train"]))
    if bars.rows_per_topic is not None:
        topic, rows = min(_rows_by_topic(statistics).items(), key=lambda found: (found[1], found[0]))
        checks.append(_at_least(f"rows of a topic ({topic} has the fewest)", bars.rows_per_topic, rows))
    for path, share in bars.share_stated.items():
        if path not in statistics["share_stated"]:
            raise _unknown_field(path, statistics["share_stated"])
        checks.append(_at_least(f"share of records that state {path}", share, statistics["share_stated"][path]))
    if bars.reject_rate is not None:
        checks.append(_at_most("share of rejected tries", bars.reject_rate, _reject_rate(statistics)))
    if bars.duplicate_rate is not None:
        checks.append(_at_most("share of duplicates", bars.duplicate_rate, left_out / max(1, kept + left_out)))
    return _verdict(checks)


def _rows_by_topic(statistics: Mapping[str, Any]) -> dict[str, int]:
    """The data set's rows of each topic that was tried; a topic whose rows are all rejected or left out has none."""
    tried = [*statistics.get("acceptance", {}).get("topic", ()), *(cell["topic"] for cell in statistics.get("short_cells", ()))]
    return {**{topic or "no topic": 0 for topic in tried}, **statistics["by_topic"]}


def _reject_rate(statistics: Mapping[str, Any]) -> float:
    """The share of this run's tries that failed a check, after people: what they let in passed, what they found wrong did not."""
    checked = statistics.get("rejected", 0)
    # Statistics of a data set that does not know its accepted tries: rows of other runs count among them.
    accepted = statistics.get("accepted", sum(statistics["rows"].values()) + sum(statistics["duplicates"].values()))
    rejected = checked - statistics.get("rejects_admitted", 0) + statistics.get("judged_wrong", 0)
    return float(rejected / max(1, checked + accepted))


def _unknown_field(path: str, known: Iterable[str]) -> ConfigError:
    return ConfigError(f"bars.prepare.share_stated: got {path!r}, known: {', '.join(sorted(known))}")


def _unknown_score(score: str, fields: Iterable[str]) -> ConfigError:
    return ConfigError(
        f"bars.evaluate.score: got {score!r}, known: {', '.join(_SHARES)}, and micro, items.LIST or fields.PATH with .f1, "
        f".precision or .recall; paths are {', '.join(sorted(fields))}"
    )


def _at_least(what: str, bar: float, got: float) -> dict[str, Any]:
    return {"what": what, "bar": bar, "got": got, "passed": got >= bar}


def _at_most(what: str, bar: float, got: float) -> dict[str, Any]:
    return {"what": what, "bar": bar, "got": round(got, 4), "passed": got <= bar}


def _verdict(checks: list[dict[str, Any]]) -> dict[str, Any]:
    return {"passed": all(check["passed"] for check in checks), "checks": checks}


def _lower_end(score: str, comparisons: Sequence[Comparison]) -> float:
    """The lower end of the interval of `micro.f1`, `fields.prescription[].dose.recall`, `items.prescription.f1`, a share, ..."""
    if score in _SHARES:
        return ratio_interval([_part(score, one) for one in comparisons]).low
    head, _, ratio = score.rpartition(".")
    counts = _counts(head, comparisons)
    if ratio not in _RATIOS or counts is None:
        raise _unknown_score(score, comparisons[0].fields if comparisons else ())
    if ratio == "f1":
        return f1_interval(counts).low
    return ratio_interval(
        [(matched, predicted if ratio == "precision" else expected) for matched, predicted, expected in counts]
    ).low


def _counts(head: str, comparisons: Sequence[Comparison]) -> list[tuple[int, int, int]] | None:
    if head == "micro":
        return [counts_of(one) for one in comparisons]
    kind, _, path = head.partition(".")
    if kind not in ("fields", "items") or any(path not in getattr(one, kind) for one in comparisons):
        return None
    return [getattr(one, kind)[path] for one in comparisons]


def _part(score: str, one: Comparison) -> tuple[int, int]:
    if score == "abstention_accuracy":
        return one.leaves_agreeing, one.leaves
    return int(getattr(one, {"exact_match": "exact"}.get(score, score))), 1
