"""A student's scores in the words of its model card: what they were measured against, beside what, and whether they pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medkd.quality.card import review_words
from medkd.quality.report import MODEL_TITLES, REFERENCES
from medkd.quality.verdicts import decoding_line, verdict_words


def scores_section(scores: Mapping[str, Any]) -> str:
    """Verdict, scores with intervals and bars of a `scores.json`, as Markdown."""
    return "\n".join(_lines(scores)) + "\n"


def _lines(scores: Mapping[str, Any]) -> Iterator[str]:
    against, remark = REFERENCES.get(scores["reference"], (scores["reference"], ""))
    yield f"Verdict: **{verdict_words(scores['bars'])}**."
    yield ""
    yield f"Against {against}, on {scores['num_samples']:,} held-out conversations. {remark}".rstrip()
    yield ""
    yield "| | micro-F1 | 95% interval | whole records right |"
    yield "| --- | --- | --- | --- |"
    for model, title in MODEL_TITLES.items():
        if model in scores["scores"]:
            yield _row(title, model, scores)
    for title, apart in _apart(scores):
        whose = apart.get("reference", scores["reference"])
        against = f" (against {REFERENCES.get(whose, (whose, ''))[0]})" if whose != scores["reference"] else ""
        yield _row(f"student, on {apart['num_samples']:,} {title}{against}", "student", apart)
    yield ""
    yield f"Intervals are resampled by conversation. The baselines saw the training rows only. {decoding_line(scores)}".rstrip()
    reviewed = review_words(scores.get("review") or {})
    if reviewed:
        yield ""
        yield f"People reviewed the data set that it was trained and tested on: {reviewed}."
    if scores["bars"]["checks"]:
        yield ""
        yield "| bar | at least | lower end of the interval | |"
        yield "| --- | --- | --- | --- |"
        for check in scores["bars"]["checks"]:
            yield f"| `{check['what']}` | {check['bar']:.3f} | {check['got']:.3f} | {'passed' if check['passed'] else 'missed'} |"


def _row(title: str, model: str, scores: Mapping[str, Any]) -> str:
    found, interval = scores["scores"][model], scores["intervals"][model]
    span = f"{interval['low']:.3f} to {interval['high']:.3f}"
    return f"| {title} | {found['micro']['f1']:.3f} | {span} | {100 * found['exact_match']:.1f}% |"


def _apart(scores: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Sets of conversations that are not counted above, each with what it is called."""
    if scores.get("held_out_topics"):
        yield "conversations of topics that training never saw", scores["held_out_topics"]
    if scores.get("rejected_conversations"):
        yield "conversations whose samples were rejected", scores["rejected_conversations"]
    for other in (scores.get("other_references") or {}).values():
        yield "other conversations", other
