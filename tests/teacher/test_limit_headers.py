"""The limits that headers tell, in both vendors' spellings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.teacher.limit_headers import Level, levels


def test_openai_tells_limit_and_rest_of_requests_and_tokens():
    headers = {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "29000",
        "x-ratelimit-reset-tokens": "2s",
    }
    assert levels(headers) == {
        "requests": Level(per_minute=500, remaining=499),
        "tokens": Level(per_minute=30000, remaining=29000),
    }


def test_anthropic_tells_input_and_output_tokens_apart():
    kinds = ("requests", "input-tokens", "output-tokens")
    headers = {f"anthropic-ratelimit-{kind}-limit": "50" for kind in kinds}
    headers |= {f"anthropic-ratelimit-{kind}-remaining": "0" for kind in kinds}
    assert levels(headers) == {kind: Level(per_minute=50, remaining=0) for kind in ("requests", "tokens", "output_tokens")}


@pytest.mark.parametrize("reset", ["7h12m0s", "2m59.56s", "86400"])
def test_a_limit_of_a_day_gives_no_rate(reset):
    headers = {
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": "10",
        "x-ratelimit-reset-requests": reset,
    }
    assert levels(headers) == {}


@pytest.mark.parametrize("junk", ["", "None", "-1", "many"])
def test_junk_says_nothing(junk):
    headers = {"x-ratelimit-limit-requests": junk, "x-ratelimit-remaining-requests": junk}
    assert levels(headers) == {"requests": Level(per_minute=None, remaining=None)}


@given(st.dictionaries(st.sampled_from(["x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens"]) | st.text(), st.text()))
def test_any_headers_will_do(headers):
    for level in levels(headers).values():
        assert all(value is None or value >= 0 for value in (level.per_minute, level.remaining))
