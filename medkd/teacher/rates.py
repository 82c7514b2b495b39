"""How many calls, how often: plain values that are told the time and never wait. `pacing` locks and waits."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

BUCKET_SECONDS = 5.0
"""A bucket holds this much of its rate: vendors enforce in slices of a minute."""
RATE_USED = 0.98
"""Of an allowed rate. Where no minute, wherever it begins, may hold more than the limit, processes that each keep exactly to
their share are refused by turns: some calls arrive a little sooner after each other than they were sent."""
FIRST_CONCURRENCY = 4
GROWTH_BEFORE_CUT = 3
"""More calls in flight for each good one, until the teacher first says that they are too many."""
CUT = 0.7
MIN_BACKOFF, MAX_BACKOFF = 0.25, 60.0
FIRST_CHARACTERS_PER_TOKEN = 3.5


def backoff_seconds(step: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
    """A random wait whose bound doubles with each step (0, 1, ..), for failures without a hint."""
    return uniform(MIN_BACKOFF, min(MAX_BACKOFF, 2.0 ** min(step, 10)))


class Bucket:
    """Allows nearly `per_minute` units, refilled continuously. An amount larger than the bucket goes when it is full, on credit.

    `configured` is what the configuration allows, None if nothing; what headers say can only make it less. It starts empty and
    lends the first amount: a full one would be a burst beyond the first minute's limit.
    """

    def __init__(self, configured: float | None, now: float) -> None:
        self._configured = math.inf if configured is None else configured
        self._filled_at = now
        self._set_rate(self._configured)
        self._level = 0.0
        self._one_call: float | None = None  # the largest of the latest, None before the first

    def correct(self, per_minute: float | None, remaining: float | None, share: int, now: float) -> None:
        """Take over what the account's headers say of the limit, which `share` processes use, and of what remains of it."""
        self._fill(now)
        if per_minute is not None:
            unlimited = math.isinf(self._rate)
            self._set_rate(min(self._configured, per_minute / share))
            self._level = self._capacity if unlimited else min(self._level, self._capacity)
        if remaining is not None and not math.isinf(self._rate):
            # Two more calls may go where all that remains has room for them: with equal parts alone, as many calls' worth of the
            # limit would lie idle as there are processes, and with one more half as much.
            self._level = min(self._level, max(remaining / share, min(remaining, 2 * (self._one_call or 0.0))))

    def _set_rate(self, per_minute: float) -> None:
        self._rate = per_minute * RATE_USED / 60
        self._capacity = max(1.0, self._rate * BUCKET_SECONDS)

    def _fill(self, now: float) -> None:
        if not math.isinf(self._rate):
            self._level = min(self._capacity, self._level + max(0.0, now - self._filled_at) * self._rate)
        self._filled_at = now

    def delay(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; 0: now."""
        if math.isinf(self._rate) or self._one_call is None:
            return 0.0
        self._fill(now)
        missing = min(amount, self._capacity) - self._level
        return missing / self._rate if missing > 1e-9 else 0.0

    def take(self, amount: float) -> None:
        # Fades, so that one very long conversation does not decide for all that follow.
        self._one_call = max(amount, 0.9 * (self._one_call or 0.0))
        self._level -= amount

    def give_back(self, amount: float) -> None:
        """Undo part of an earlier `take`; a negative amount takes what was used beyond it."""
        self._level = min(self._capacity, self._level + amount)


class Concurrency:
    """Calls in flight: starts low and quadruples with each round of good calls until the first congestion; from then on one
    more after each full round. Congestion cuts it to seven tenths.

    Adding one a round from the start would reach 256 calls of 2 s only after nine minutes; like this it takes three rounds.
    """

    def __init__(self, cap: int) -> None:
        self._cap = float(cap)
        self._limit = min(float(FIRST_CONCURRENCY), self._cap)
        self._good_in_round = 0
        self._was_cut = False

    @property
    def limit(self) -> int:
        return int(self._limit)

    def good(self) -> None:
        self._good_in_round += 1
        if not self._was_cut:
            self._limit = min(self._cap, self._limit + GROWTH_BEFORE_CUT)
        elif self._good_in_round >= self.limit:
            self._good_in_round = 0
            self._limit = min(self._cap, self._limit + 1)

    def cut(self) -> None:
        self._was_cut = True
        self._limit = max(1.0, self._limit * CUT)
        self._good_in_round = 0


class TokenEstimate:
    """Tokens of a prompt before it is sent: a fixed ratio at first, then what this teacher's usage has shown."""

    def __init__(self) -> None:
        self._tokens_per_character = 1 / FIRST_CHARACTERS_PER_TOKEN

    def tokens(self, characters: int) -> int:
        return int(characters * self._tokens_per_character) + 1

    def learn(self, characters: int, tokens: int) -> None:
        if characters > 0 and tokens > 0:
            self._tokens_per_character += 0.1 * (tokens / characters - self._tokens_per_character)
