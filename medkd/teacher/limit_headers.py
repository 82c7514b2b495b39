"""What the limit headers of a reply say about the account, purely; both vendors' spellings, on good replies as on refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medkd.teacher.hints import duration_seconds, number

LONGEST_WINDOW_SECONDS = 120.0
"""A limit that takes longer to recover is one of a day (Groq's requests): its 429 says when to go on, no rate follows from it."""

_NAMES = {
    "requests": (
        ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
        ("anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining", ""),
    ),
    "tokens": (
        ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
        ("anthropic-ratelimit-input-tokens-limit", "anthropic-ratelimit-input-tokens-remaining", ""),
    ),
    "output_tokens": (("anthropic-ratelimit-output-tokens-limit", "anthropic-ratelimit-output-tokens-remaining", ""),),
}


@dataclass(frozen=True, kw_only=True)
class Level:
    """One limit of the account, all its users together."""

    per_minute: float | None
    remaining: float | None


def levels(headers: Mapping[str, str]) -> dict[str, Level]:
    """The limits per minute that the headers tell: `requests`, `tokens`, `output_tokens`. Header names in lower case."""
    found: dict[str, Level] = {}
    for kind, spellings in _NAMES.items():
        for limit, remaining, reset in spellings:
            if limit in headers or remaining in headers:
                level = Level(per_minute=number(headers.get(limit, "")) or None, remaining=number(headers.get(remaining, "")))
                if _reset_seconds(headers.get(reset, "")) <= LONGEST_WINDOW_SECONDS:
                    found[kind] = level
    return found


def _reset_seconds(text: str) -> float:
    return duration_seconds(text) or number(text) or 0.0
