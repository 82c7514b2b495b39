"""Requests and tokens per minute, as vendors enforce them: buckets that hold ten seconds' worth and refill evenly."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

# Vendors enforce in slices of a minute, so no burst gets a whole minute's allowance at once.
BURST_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class LimitState:
    """What the limit headers tell: per minute, what is left now, and the seconds until the bucket is full again."""

    limit: int
    remaining: int
    reset_seconds: float


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """State of both limits; None where there is no limit."""

    requests: LimitState | None
    tokens: LimitState | None


class _Bucket:
    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self.per_second = per_minute / 60
        self.capacity = max(1.0, self.per_second * BURST_SECONDS)
        self.level = self.capacity
        self.clock = clock
        self.filled_at = clock()

    def wait_for(self, amount: float) -> float:
        """Seconds until `amount` fits; more than the bucket holds fits a full bucket."""
        now = self.clock()
        self.level = min(self.capacity, self.level + (now - self.filled_at) * self.per_second)
        self.filled_at = now
        return max(0.0, (min(amount, self.capacity) - self.level) / self.per_second)

    def state(self) -> LimitState:
        reset = (self.capacity - self.level) / self.per_second
        return LimitState(limit=self.per_minute, remaining=max(0, int(self.level)), reset_seconds=reset)


class RateLimits:
    """The limits of one key. `clock` counts seconds from anywhere."""

    def __init__(
        self, *, requests_per_minute: int | None, tokens_per_minute: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._requests = _Bucket(requests_per_minute, clock) if requests_per_minute else None
        self._tokens = _Bucket(tokens_per_minute, clock) if tokens_per_minute else None

    def take(self, tokens: int) -> float:
        """Count one request of `tokens` and return 0, or count nothing and return the seconds to wait."""
        wanted = [(bucket, amount) for bucket, amount in ((self._requests, 1), (self._tokens, tokens)) if bucket is not None]
        wait = max((bucket.wait_for(amount) for bucket, amount in wanted), default=0.0)
        if wait <= 0:
            for bucket, amount in wanted:
                bucket.level -= amount
        return wait

    def allowance(self) -> Allowance:
        return Allowance(
            requests=self._requests.state() if self._requests else None, tokens=self._tokens.state() if self._tokens else None
        )
