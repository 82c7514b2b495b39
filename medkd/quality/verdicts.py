"""A verdict on bars, and what has to be said beside scores, in words. Needs nothing, so that who repeats it stays small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def shortfalls(verdict: Mapping[str, Any]) -> str:
    """The checks that were missed, in words."""
    return "; ".join(_check_words(check) for check in verdict["checks"] if not check["passed"])


def verdict_words(verdict: Mapping[str, Any]) -> str:
    """A verdict in a few words; `no bar set` where nothing was asked."""
    if not verdict["checks"]:
        return "no bar set"
    return "passed" if verdict["passed"] else "below its bar"


def verdict_line(verdict: Mapping[str, Any]) -> str:
    """A verdict with what it rests on: the checks that were missed or, where none was, all."""
    said = shortfalls(verdict) or "; ".join(_check_words(check) for check in verdict["checks"])
    return verdict_words(verdict) + (f" ({said})" if said else "")


def decoding_line(scores: Mapping[str, Any]) -> str:
    """How the students of a `scores.json` wrote their answers, in a sentence; empty where they wrote what they liked."""
    if scores.get("decoding", "free") == "free":
        return ""
    return "Students, trained or not, could write nothing but valid records (constrained decoding)."


def _check_words(check: Mapping[str, Any]) -> str:
    return f"{check['what']}: got {check['got']:.4g}, the bar is {check['bar']:.4g}"
