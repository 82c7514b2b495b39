"""Scores as a table for a terminal: every model with its interval, then the student field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medkd.quality.report import FEW_SHOT_TITLES, MODEL_TITLES, REFERENCES
from medkd.quality.verdicts import decoding_line


def score_table(scores: Mapping[str, Any]) -> str:
    """The lines of what `scores.json` says of one set of conversations."""
    width = max(len(path) for path in (*scores["scores"]["student"]["fields"], *MODEL_TITLES.values()))
    reference = REFERENCES.get(scores["reference"], (scores["reference"], ""))[0]
    lines = [
        f"against {reference}, {scores['num_samples']:,} conversations",
        *filter(None, [decoding_line(scores)]),
        "",
        f"{'':<{width}}  {'F1':>5}  {'95% interval':<14}  precision  recall  hallucinated  omitted  valid",
    ]
    for name, title in {**MODEL_TITLES, **FEW_SHOT_TITLES}.items():
        if name in scores["scores"]:
            lines.append(f"{title:<{width}}  {_model(scores['scores'][name], scores['intervals'][name])}")
    lines += ["", f"{'student, by field':<{width}}  {'F1':>5}  precision  recall  in the references"]
    for path, found in scores["scores"]["student"]["fields"].items():
        if found["predicted"] + found["expected"]:
            lines.append(
                f"{path:<{width}}  {found['f1']:5.3f}  {found['precision']:9.3f}  {found['recall']:6.3f}  {found['expected']:17,}"
            )
    return "\n".join(lines)


def _model(found: Mapping[str, Any], interval: Mapping[str, float]) -> str:
    micro = found["micro"]
    span = f"{interval['low']:.3f} to {interval['high']:.3f}"
    return (
        f"{micro['f1']:5.3f}  {span:<14}  {micro['precision']:9.3f}  {micro['recall']:6.3f}  "
        f"{found['hallucinated']:12,}  {found['omitted']:7,}  {100 * found['valid_schema']:4.0f}%"
    )
