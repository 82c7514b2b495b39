"""A verdict on bars in words; `bars` comes to it. Needs nothing, so that whoever only repeats a verdict stays small."""

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


def _check_words(check: Mapping[str, Any]) -> str:
    return f"{check['what']}: got {check['got']:.4g}, the bar is {check['bar']:.4g}"
