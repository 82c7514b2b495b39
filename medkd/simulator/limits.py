"""Requests and tokens per minute, as vendors enforce them, in two forms.

`bucket`: holds ten seconds' worth and refills evenly, so no burst gets a whole minute's allowance at once.
`rolling`: no minute, wherever it begins, may hold more than the limit; what was taken comes free a minute later.
Either way a call takes its prompt and its reply limit at first, and what the reply did not use is given back.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

BURST_SECONDS = 10
WINDOW_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class LimitState:
    """What the limit headers tell: per minute, what is left now, and the seconds until all of it is there again."""

    limit: int
    remaining: int
    reset_seconds: float


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """State of both limits; None where there is no limit."""

    requests: LimitState | None
    tokens: LimitState | None


class _Limiter(Protocol):
    def wait_for(self, amount: float) -> float:
        """Seconds until `amount` fits; more than ever fits counts as all there is."""

    def take(self, amount: float) -> None: ...

    def give_back(self, amount: float) -> None:
        """Undo part of the last `take`; a negative amount takes more."""

    def state(self) -> LimitState: ...


class _Bucket:
    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self.per_second = per_minute / 60
        self.capacity = max(1.0, self.per_second * BURST_SECONDS)
        self.level = self.capacity
        self.clock = clock
        self.filled_at = clock()

    def wait_for(self, amount: float) -> float:
        now = self.clock()
        self.level = min(self.capacity, self.level + (now - self.filled_at) * self.per_second)
        self.filled_at = now
        return max(0.0, (min(amount, self.capacity) - self.level) / self.per_second)

    def take(self, amount: float) -> None:
        self.level -= amount

    def give_back(self, amount: float) -> None:
        self.level = min(self.capacity, self.level + amount)

    def state(self) -> LimitState:
        reset = (self.capacity - self.level) / self.per_second
        return LimitState(limit=self.per_minute, remaining=max(0, int(self.level)), reset_seconds=reset)


class _Window:
    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self.clock = clock
        self.taken: deque[tuple[float, float]] = deque()
        self.total = 0.0

    def wait_for(self, amount: float) -> float:
        now = self.clock()
        while self.taken and self.taken[0][0] <= now - WINDOW_SECONDS:
            self.total -= self.taken.popleft()[1]
        over = self.total + min(amount, self.per_minute) - self.per_minute
        for at, taken in self.taken:
            if over <= 0:
                break
            over -= taken
            if over <= 0:
                return max(0.001, at + WINDOW_SECONDS - now)
        return 0.0 if over <= 0 else WINDOW_SECONDS

    def take(self, amount: float) -> None:
        self.taken.append((self.clock(), amount))
        self.total += amount

    def give_back(self, amount: float) -> None:
        at, taken = self.taken.pop()
        self.taken.append((at, taken - amount))
        self.total -= amount

    def state(self) -> LimitState:
        reset = self.taken[-1][0] + WINDOW_SECONDS - self.clock() if self.taken else 0.0
        remaining = max(0, int(self.per_minute - self.total))
        return LimitState(limit=self.per_minute, remaining=remaining, reset_seconds=max(0.0, reset))


class RateLimits:
    """The limits of one key. `clock` counts seconds from anywhere."""

    def __init__(
        self,
        *,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        kind: Literal["bucket", "rolling"] = "bucket",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limiter: Callable[[int, Callable[[], float]], _Limiter] = _Bucket if kind == "bucket" else _Window
        self._requests = limiter(requests_per_minute, clock) if requests_per_minute else None
        self._tokens = limiter(tokens_per_minute, clock) if tokens_per_minute else None

    def take(self, tokens: int) -> float:
        """Count one request of `tokens` and return 0, or count nothing and return the seconds to wait."""
        wanted = [(limiter, amount) for limiter, amount in ((self._requests, 1), (self._tokens, tokens)) if limiter is not None]
        wait = max((limiter.wait_for(amount) for limiter, amount in wanted), default=0.0)
        if wait <= 0:
            for limiter, amount in wanted:
                limiter.take(amount)
        return wait

    def give_back(self, tokens: int) -> None:
        """The request just taken used so many tokens less than it had reserved."""
        if self._tokens is not None:
            self._tokens.give_back(tokens)

    def allowance(self) -> Allowance:
        return Allowance(
            requests=self._requests.state() if self._requests else None, tokens=self._tokens.state() if self._tokens else None
        )
