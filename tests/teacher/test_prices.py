"""Money of single calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.config import Prices
from medkd.teacher.prices import cost_usd, upper_bound_usd
from medkd.teacher.protocols import Usage

MILLION = 1_000_000


def test_openai_bills_cached_tokens_at_their_own_price():
    usage = Usage(prompt_tokens=3 * MILLION, cached_tokens=MILLION, completion_tokens=MILLION)
    assert cost_usd(Prices(input=1.0, cached_input=0.1, output=10.0), usage, 0) == pytest.approx(2.0 + 0.1 + 10.0)
    assert cost_usd(Prices(input=1.0, output=10.0), usage, 0) == pytest.approx(13.0)


def test_anthropic_bills_cache_reads_and_writes():
    usage = Usage(prompt_tokens=3 * MILLION, cached_tokens=MILLION, cache_write_tokens=MILLION, completion_tokens=0)
    assert cost_usd(Prices(input=1.0, cached_input=0.1, cache_write=1.25, output=5.0), usage, 0) == pytest.approx(1 + 0.1 + 1.25)


def test_peak_hours_cost_their_multiple():
    prices = Prices(input=1.0, output=1.0, peak_multiplier=2.0, peak_hours_utc=(6, 7))
    usage = Usage(prompt_tokens=MILLION, completion_tokens=0)
    assert [cost_usd(prices, usage, hour) for hour in (5, 6, 7, 8)] == [1.0, 2.0, 2.0, 1.0]


def test_the_upper_bound_of_a_call_just_before_the_peak_is_the_peaks():
    prices = Prices(input=1.0, output=1.0, peak_multiplier=2.0, peak_hours_utc=(0,))
    assert [upper_bound_usd(prices, MILLION, 0, hour) for hour in (22, 23, 0, 1)] == [1.0, 2.0, 2.0, 1.0]


DOLLARS = st.floats(0, 100)
PRICES = st.builds(
    Prices,
    input=DOLLARS,
    output=DOLLARS,
    cached_input=st.none() | DOLLARS,
    cache_write=st.none() | DOLLARS,
    peak_multiplier=st.floats(1, 5),
    peak_hours_utc=st.lists(st.integers(0, 23), max_size=5).map(tuple),
)


@given(
    PRICES,
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.integers(0, 23),
    st.booleans(),
)
def test_no_usage_within_its_bounds_costs_more_than_the_reservation(prices, fresh, cached, written, completion, hour, next_hour):
    usage = Usage(
        prompt_tokens=fresh + cached + written, cached_tokens=cached, cache_write_tokens=written, completion_tokens=completion
    )
    reserved = upper_bound_usd(prices, usage.prompt_tokens, completion, hour)
    assert cost_usd(prices, usage, (hour + next_hour) % 24) <= reserved * 1.000001 + 1e-12
