"""Buckets, concurrency and health, told the time by the test."""

from __future__ import annotations

import heapq
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.simulator.limits import Allowance, RateLimits
from medkd.teacher.health import MAX_FAILURES, TROUBLED_RECORDS, Health
from medkd.teacher.rates import BUCKET_SECONDS, Bucket, Concurrency, TokenEstimate, backoff_seconds


def taken(bucket: Bucket, amount: float, now: float) -> float:
    """When a caller who comes at `now` and waits as told has taken `amount`."""
    while (delay := bucket.delay(amount, now)) > 0:
        now += delay
    bucket.take(amount)
    return now


def full(per_minute: float) -> Bucket:
    """A bucket that was left alone for long; now is 0."""
    bucket = Bucket(per_minute, now=-3600.0)
    bucket.take(0)
    assert bucket.delay(0, 0.0) == 0
    return bucket


def test_a_bucket_gives_a_few_seconds_at_once_after_a_lull_and_then_its_rate():
    bucket = full(60)
    assert [bucket.delay(0.98, 0.0) or bucket.take(0.98) for _ in range(5)] == [None] * 5
    assert bucket.delay(1, 0.0) > 0.99
    assert taken(bucket, 1, 0.0) > 0.99


def test_a_bucket_begins_with_one_call_and_its_rate():
    bucket = Bucket(60, now=0.0)
    at = list(itertools.accumulate(range(4), lambda now, _: taken(bucket, 1, now), initial=0.0))[1:]
    assert at == pytest.approx([0.0, 2 / 0.98, 3 / 0.98, 4 / 0.98])


class Shard:
    """One of the processes that share a key: sends as its buckets allow, and waits as the teacher orders."""

    def __init__(self, configured: dict[str, float], share: int) -> None:
        self.share, self.in_flight, self.paused_until = share, 0, 0.0
        self.buckets = {kind: Bucket(limit / share, now=0.0) for kind, limit in configured.items()}

    def delay(self, tokens: float, now: float) -> float:
        if self.in_flight >= 16:
            return 0.05
        delays = (self.buckets["requests"].delay(1, now), self.buckets["tokens"].delay(tokens, now))
        return min(0.2, max(self.paused_until - now, *delays))

    def send(self, tokens: float) -> None:
        self.in_flight += 1
        self.buckets["requests"].take(1)
        self.buckets["tokens"].take(tokens)

    def hear(self, allowance: Allowance, unused: float, now: float) -> None:
        self.in_flight -= 1
        for kind, state in (("requests", allowance.requests), ("tokens", allowance.tokens)):
            assert state
            self.buckets[kind].correct(state.limit, state.remaining, self.share, now)
        self.buckets["tokens"].give_back(unused)


@pytest.mark.parametrize("limiter", ["bucket", "rolling"])
@pytest.mark.parametrize("limits", [{"requests": 900, "tokens": 10**8}, {"requests": 10**6, "tokens": 900_000}])
def test_eight_shards_use_what_a_key_allows_and_are_hardly_ever_refused(limits, limiter):
    clock, luck = [0.0], random.Random(1)
    teacher = RateLimits(
        requests_per_minute=limits["requests"], tokens_per_minute=limits["tokens"], kind=limiter, clock=lambda: clock[0]
    )
    calls = [(200, 3000), (900, 1500)]  # tokens of a prompt, and the limit of its reply
    reply = 200
    # (when, number, what happens, shard, call): it wants to be `sent`, it `arrives`, its answer is `back`
    events = [(luck.uniform(0, 3), number, "sent", Shard(limits, 8), calls[0]) for number in range(8)]
    good = refused = tokens = 0
    for number in itertools.count(8):
        clock[0], _, what, shard, (prompt, reply_limit) = heapq.heappop(events)
        now, call = clock[0], (prompt, reply_limit)
        if now >= 120:
            break
        if what == "sent":
            delay = shard.delay(prompt + reply_limit, now)
            if delay <= 0:
                shard.send(prompt + reply_limit)
                heapq.heappush(events, (now + luck.uniform(0.0, 0.02), -number, "arrives", shard, call))
                call = luck.choice(calls)
            heapq.heappush(events, (now + max(delay, 0.001), number, "sent", shard, call))
        elif what == "back":
            shard.hear(teacher.allowance(), reply_limit - reply, now)
        elif wait := teacher.take(prompt + reply_limit):
            refused += 1
            shard.paused_until = now + wait
            shard.hear(teacher.allowance(), prompt + reply_limit, now)
        else:
            teacher.give_back(reply_limit - reply)
            if now >= 60:
                good, tokens = good + 1, tokens + prompt + reply
            heapq.heappush(events, (now + luck.uniform(0.35, 0.65), number, "back", shard, call))
    # Counted over the second minute: calls that begin together leave some of the first second unused.
    assert max(good / limits["requests"], tokens / limits["tokens"]) >= 0.95
    assert refused < 0.01 * good


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
    bucket = full(60)
    bucket.take(bucket_size := 0.98 * BUCKET_SECONDS)
    assert bucket.delay(1, 0.0) > 0
    bucket.give_back(3)
    assert bucket.delay(3, 0.0) == 0 and bucket.delay(bucket_size, 0.0) > 0


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
    bucket = full(600)  # holds 49
    bucket.correct(per_minute=60, remaining=None, share=1, now=0.0)
    bucket.take(4.9)
    assert bucket.delay(1, 0.0) == pytest.approx(1 / 0.98)
    bucket.correct(per_minute=6000, remaining=None, share=1, now=0.0)
    assert bucket.delay(1, 0.0) == pytest.approx(0.1 / 0.98)


def test_a_process_takes_its_share_of_the_accounts_limit():
    bucket = full(600)
    bucket.correct(per_minute=600, remaining=None, share=10, now=0.0)
    bucket.take(4.9)
    assert bucket.delay(1, 0.0) == pytest.approx(1 / 0.98)


def test_what_remains_lowers_a_bucket_and_never_fills_it():
    bucket = full(600)
    bucket.take(47)
    bucket.correct(per_minute=None, remaining=400, share=10, now=0.0)
    assert bucket.delay(2, 0.0) == 0 and bucket.delay(3, 0.0) > 0
    bucket.correct(per_minute=None, remaining=0, share=10, now=0.0)
    assert bucket.delay(1, 0.0) == pytest.approx(0.1 / 0.98)


def test_two_more_calls_may_go_where_all_that_remains_has_room_for_them():
    bucket = full(600)
    bucket.take(6)
    bucket.correct(per_minute=None, remaining=20, share=10, now=0.0)
    assert bucket.delay(12, 0.0) == 0 and bucket.delay(13, 0.0) > 0
    bucket.correct(per_minute=None, remaining=5, share=10, now=0.0)
    assert bucket.delay(5, 0.0) == 0 and bucket.delay(6, 0.0) > 0


def test_a_bucket_without_a_rate_lets_everything_through_until_headers_give_one():
    bucket = Bucket(None, now=0.0)
    bucket.take(10**9)
    bucket.correct(per_minute=None, remaining=0, share=1, now=1.0)
    assert bucket.delay(10**9, 1.0) == 0
    bucket.correct(per_minute=60, remaining=30, share=1, now=2.0)
    assert bucket.delay(4.9, 2.0) == 0
    bucket.take(4.9)
    assert bucket.delay(1, 2.0) == pytest.approx(1 / 0.98)


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
