"""Every way in which teachers say how long to wait."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.teacher.hints import duration_seconds, try_again_seconds, wait_hint

DATE = "Sun, 22 Nov 2026 10:00:00 GMT"
NOON = "Sun, 22 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after-ms": "1500"}, "", 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, "try again in 7s", 1.5),
        ({"retry-after": "2"}, "", 2.0),
        ({"retry-after": " 2.5 "}, "", 2.5),
        ({"retry-after": "7200"}, "", 7200.0),
        ({"retry-after": NOON, "date": DATE}, "", 7200.0),
        ({"retry-after": "2026-11-22T12:00:00Z", "date": DATE}, "", 7200.0),
        ({}, "Limit reached. Please try again in 7.66s. See the docs.", 7.66),
        ({}, "Please try again in 120ms.", 0.12),
        ({}, "Please try again in 2m59.56s.", 179.56),
        ({}, "Try again in 20 seconds", 20.0),
        ({}, "TRY AGAIN IN 20 SECONDS", 20.0),
        ({}, "please Retry After 1 Minute and 20 secs.", 80.0),
        ({}, "retry your request in 2 hrs, 5 min", 7500.0),
        ({}, "try again in 500µs", 0.0005),
        ({}, "try again in 5 ſeconds", 5.0),
        ({"retry-after": "soon"}, "try again in 7h12m0s", 25920.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2m59.56s"}, "", 179.56),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, "", 360.0),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "7.66s",
            },
            "",
            7.66,
        ),
        (
            {
                "x-ratelimit-remaining-requests": "12",
                "x-ratelimit-reset-requests": "7h12m0s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "120ms",
            },
            "",
            0.12,
        ),
        (
            {
                "date": DATE,
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2026-11-22T10:00:05Z",
                "anthropic-ratelimit-requests-remaining": "3",
                "anthropic-ratelimit-requests-reset": "2026-11-22T11:00:00Z",
            },
            "",
            5.0,
        ),
    ],
)
def test_a_hint_is_read_in_whichever_form_it_comes(headers, message, seconds):
    assert wait_hint(headers, message) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, ""),
        ({"retry-after": "soon"}, "please reduce your prompt and try again."),
        ({"retry-after": "0"}, ""),
        ({"retry-after": "-5"}, ""),
        ({"retry-after": "nan"}, ""),
        ({"retry-after": "inf"}, ""),
        ({"retry-after": "9" * 400}, ""),
        ({"retry-after": DATE, "date": NOON}, ""),
        ({"retry-after": NOON}, ""),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "1s"}, ""),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "later"}, ""),
    ],
)
def test_what_is_no_usable_hint_is_none(headers, message):
    assert wait_hint(headers, message) is None


def test_a_junk_hint_leaves_the_word_to_the_next_one():
    headers = {
        "retry-after-ms": "0",
        "retry-after": "soon",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "3s",
    }
    assert wait_hint(headers, "") == 3.0


def test_a_date_without_the_replys_own_date_counts_from_now():
    assert wait_hint({"retry-after": "Thu, 01 Jan 1970 00:10:00 GMT"}, "", now=300.0) == 300.0


@given(st.integers(0, 200), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_of_hours_minutes_and_seconds_add_up(hours, minutes, seconds, thousandths):
    total = hours * 3600 + minutes * 60 + seconds + thousandths / 1000
    text = f"{hours}h{minutes}m{seconds}.{thousandths:03d}s"
    assert duration_seconds(text) == pytest.approx(total)
    assert try_again_seconds(f"Rate limit. Please try again in {text}. Bye") == pytest.approx(total)


HEADER_NAMES = [
    "retry-after", "retry-after-ms", "date", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
    "anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset",
]  # fmt: skip
HEADER_VALUES = st.text() | st.sampled_from(
    ["0", "1", DATE, NOON, "2026-11-22T10:00:05Z", "1s", "1e999", "0001-01-01T00:00:00+23:59"]
)


@given(st.dictionaries(st.sampled_from(HEADER_NAMES), HEADER_VALUES), st.text(), st.none() | st.floats(0, 4e9))
def test_any_headers_and_message_give_a_positive_finite_hint_or_none(headers, message, now):
    hint = wait_hint(headers, message, now)
    assert hint is None or (hint > 0 and math.isfinite(hint))
