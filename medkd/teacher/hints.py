"""How long a teacher asks to be left alone, read from headers and message; purely, without a clock of our own."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_UNITS = {"ns": 1e-9, "us": 1e-6, "μs": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WORDS = {"millisecond": "ms", "msec": "ms", "second": "s", "sec": "s", "minute": "m", "min": "m", "hour": "h", "hr": "h"}
_WORDS["day"] = "d"
_PIECE = r"\d+(?:\.\d+)?\s*(?:[nuμm]s|milliseconds?|msecs?|seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|[smhd])(?![a-zμ])"
_ONE_PIECE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zμ]+)", re.IGNORECASE)
# Units may follow one another without a space ("2m59.56s"), so a piece may end where a digit begins.
_PIECES = rf"{_PIECE}(?:(?:\s*,\s*(?:and\s+)?|\s+and\s+|\s*){_PIECE})*"
_DURATION = re.compile(_PIECES, re.IGNORECASE)
_TRY_AGAIN = re.compile(rf"(?:try again|retry)(?:ing)?(?:\s+your\s+request)?\s+(?:in|after)\s+({_PIECES})", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{0,15})?|\.\d{1,15}")


def wait_hint(headers: Mapping[str, str], message: str, now: float | None = None) -> float | None:
    """Seconds the teacher asks to wait, more than 0; None where it gives no usable hint.

    headers: names in lower case. now: Unix time that stands in for a missing `Date` header.
    The first usable one wins: `retry-after-ms`, `retry-after`, "try again in" of the message, the longest reset among the
    limits of which nothing remains.
    """
    sent_at = _moment(headers.get("date", "")) or now
    hints = (
        _scaled(number(headers.get("retry-after-ms", "")), 0.001),
        number(headers.get("retry-after", "")),
        _until(headers.get("retry-after", ""), sent_at),
        try_again_seconds(message),
        max(_exhausted_resets(headers, sent_at), default=None),
    )
    return next((hint for hint in hints if hint is not None and math.isfinite(hint) and hint > 0), None)


def try_again_seconds(message: str) -> float | None:
    """The seconds in "Please try again in 2m59.56s" or "retry after 20 seconds"; None where the message does not say so."""
    found = _TRY_AGAIN.search(message)
    return duration_seconds(found[1]) if found else None


def duration_seconds(text: str) -> float | None:
    """Seconds of a duration such as `120ms`, `7.66s`, `2m59.56s`, `7h12m0s` or "20 seconds"; None for anything else."""
    if not _DURATION.fullmatch(text.strip()):
        return None
    return sum(float(amount) * _UNITS[_unit(name)] for amount, name in _ONE_PIECE.findall(text))


def _unit(name: str) -> str:
    name = name.casefold()  # more than lower case: the pattern ignores case as Unicode does
    return name if name in _UNITS else _WORDS[name.removesuffix("s")]


def number(text: str) -> float | None:
    """A plain number of at least 0; None for anything else."""
    return float(text) if _NUMBER.fullmatch(text.strip()) else None


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _until(text: str, sent_at: float | None) -> float | None:
    moment = _moment(text)
    return None if moment is None or sent_at is None else moment - sent_at


def _exhausted_resets(headers: Mapping[str, str], sent_at: float | None) -> Iterator[float]:
    """Seconds to the reset of each limit that the headers show as used up, in the vendors' two spellings."""
    for name, value in headers.items():
        if "ratelimit-" in name and "remaining" in name and number(value) == 0:
            # x-ratelimit-remaining-tokens belongs to x-ratelimit-reset-tokens; anthropic-ratelimit-tokens-remaining to -reset.
            reset = headers.get(name.replace("remaining", "reset"), "")
            seconds = next((found for found in (duration_seconds(reset), number(reset), _until(reset, sent_at)) if found), None)
            if seconds is not None and seconds > 0:
                yield seconds


def _moment(text: str) -> float | None:
    """Unix time of an HTTP date or an RFC 3339 timestamp; a missing zone counts as UTC."""
    for parser in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = parser(text.strip())
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None
