"""Buckets, concurrency and health, told the time by the test."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.teacher.health import MAX_FAILURES, TROUBLED_RECORDS, Health
from medkd.teacher.rates import BUCKET_SECONDS, Bucket, Concurrency, TokenEstimate, backoff_seconds


def taken(bucket: Bucket, amount: float, now: float) -> float:
    """When a caller who comes at `now` and waits as told has taken `amount`."""
    while (delay := bucket.delay(amount, now)) > 0:
        now += delay
    bucket.take(amount)
    return now


def test_a_bucket_gives_a_few_seconds_at_once_and_then_its_rate():
    bucket = Bucket(60, now=0.0)
    assert [bucket.delay(1, 0.0) or bucket.take(1) for _ in range(5)] == [None] * 5
    assert bucket.delay(1, 0.0) > 0.99
    assert taken(bucket, 1, 0.0) > 0.99


@given(st.integers(1, 6000), st.lists(st.tuples(st.floats(0, 5), st.floats(0, 100)), min_size=1, max_size=60))
def test_a_bucket_never_lets_more_through_than_its_rate_and_its_content(per_minute, arrivals):
    bucket, now, given_out = Bucket(per_minute, now=0.0), 0.0, 0.0
    largest = max(amount for _, amount in arrivals)
    for pause, amount in arrivals:
        now = taken(bucket, amount, now + pause)
        given_out += amount
        allowed = per_minute / 60 * (now + BUCKET_SECONDS) + largest + 1
        assert given_out <= allowed * 1.000001


def test_what_a_call_did_not_use_goes_back():
    bucket = Bucket(60, now=0.0)
    bucket.take(5)
    assert bucket.delay(1, 0.0) > 0
    bucket.give_back(3)
    assert bucket.delay(3, 0.0) == 0 and bucket.delay(4, 0.0) > 0


def test_an_amount_larger_than_the_bucket_goes_on_credit():
    bucket = Bucket(60, now=0.0)
    assert bucket.delay(600, 0.0) == 0
    bucket.take(600)
    assert bucket.delay(1, 0.0) > 590


def test_concurrency_starts_low_and_quadruples_each_round_until_the_first_cut():
    concurrency = Concurrency(1000)
    assert concurrency.limit == 4
    for limit in (16, 64, 256):
        for _ in range(limit // 4):
            concurrency.good()
        assert concurrency.limit == limit


def test_after_a_cut_concurrency_grows_by_one_for_each_full_round():
    concurrency = Concurrency(6)
    concurrency.cut()
    limits = []
    for _ in range(20):
        limits.append(concurrency.limit)
        concurrency.good()
    assert limits == [2] * 2 + [3] * 3 + [4] * 4 + [5] * 5 + [6] * 6


def test_headers_lower_a_rate_and_let_it_rise_to_the_configured_one_again():
    bucket = Bucket(600, now=0.0)  # holds 50
    bucket.correct(per_minute=60, remaining=None, now=0.0)
    bucket.take(5)
    assert bucket.delay(1, 0.0) == pytest.approx(1.0)
    bucket.correct(per_minute=6000, remaining=None, now=0.0)
    assert bucket.delay(1, 0.0) == pytest.approx(0.1)


def test_what_remains_lowers_a_bucket_and_never_fills_it():
    bucket = Bucket(600, now=0.0)
    bucket.take(48)
    bucket.correct(per_minute=None, remaining=40, now=0.0)
    assert bucket.delay(2, 0.0) == 0 and bucket.delay(3, 0.0) > 0
    bucket.correct(per_minute=None, remaining=0, now=0.0)
    assert bucket.delay(1, 0.0) == pytest.approx(0.1)


def test_a_bucket_without_a_rate_lets_everything_through_until_headers_give_one():
    bucket = Bucket(None, now=0.0)
    bucket.take(10**9)
    bucket.correct(per_minute=None, remaining=0, now=1.0)
    assert bucket.delay(10**9, 1.0) == 0
    bucket.correct(per_minute=60, remaining=30, now=2.0)
    assert bucket.delay(5, 2.0) == 0
    bucket.take(5)
    assert bucket.delay(1, 2.0) == pytest.approx(1.0)


def test_a_cut_takes_three_tenths_and_never_the_last():
    concurrency = Concurrency(100)
    for _ in range(2):
        concurrency.good()
    assert concurrency.limit == 10
    concurrency.cut()
    assert concurrency.limit == 7
    for _ in range(30):
        concurrency.cut()
    assert concurrency.limit == 1


@given(st.integers(1, 40), st.lists(st.booleans(), max_size=300))
def test_concurrency_stays_between_one_and_its_cap(cap, history):
    concurrency = Concurrency(cap)
    for good in history:
        concurrency.good() if good else concurrency.cut()
        assert 1 <= concurrency.limit <= cap


@given(st.integers(0, 10_000))
def test_backoff_doubles_up_to_a_minute(step):
    assert 0.25 <= backoff_seconds(step) <= min(60, 2.0 ** min(step, 10))


def test_the_token_estimate_starts_with_characters_and_follows_the_usage():
    estimate = TokenEstimate()
    assert estimate.tokens(3500) in (1000, 1001)
    for _ in range(200):
        estimate.learn(1000, 500)
    assert 1990 <= estimate.tokens(4000) <= 2010


def test_one_record_alone_is_never_the_teachers_trouble():
    health = Health()
    for second in range(MAX_FAILURES - 1):
        health.failed(7, sent=True, new_burst=True, now=second)
    assert not health.troubled and not health.broken


def test_many_records_failing_are_the_teachers_trouble_even_in_one_burst():
    health = Health()
    for record in range(TROUBLED_RECORDS):
        health.failed(record, sent=True, new_burst=record == 0, now=0.0)
    assert health.troubled and health.failures == 1


def test_a_hint_shows_that_the_teacher_is_there():
    health = Health()
    health.failed(1, sent=False, new_burst=True, now=100.0)
    assert health.silent_seconds(160.0) == 60.0
    health.ordered(hinted=True, new_burst=True, now=160.0)
    assert health.silent_seconds(500.0) == 0.0
