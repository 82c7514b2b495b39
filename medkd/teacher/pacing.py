"""When a call may be sent: the pause a teacher ordered, concurrency, requests and tokens per minute, and when to give up.

One `Pacing` belongs to one (teacher, model, key) and is shared by all threads of a client.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from medkd.config import Limits
from medkd.errors import MedkdError, RefusedError, StoppedError, UnreachableError
from medkd.teacher.health import Health
from medkd.teacher.limit_headers import Level
from medkd.teacher.rates import MIN_BACKOFF, Bucket, Concurrency, backoff_seconds

POLL_SECONDS = 0.2
"""Longest time until a waiting thread notices that the run stops."""
PARK_SECONDS = 10.0
"""A pause at least this long is reported as parking."""
SPREAD_SECONDS = 3.0
"""First calls of processes that share limits are spread over this time."""
HINT_JITTER = 0.1
"""An ordered wait is made longer by up to this share, so that not everyone returns at once."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a client waits for a teacher."""

    unreachable_seconds: float
    """Without a good answer or a hint, until the teacher counts as unreachable."""
    max_park_seconds: float
    """Ordered waits in a row, until a human has to look."""


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """Leave to send one call. What came to light when it was let in tells bursts apart: answers to calls sent before the
    last cut or failure belong to it."""

    record: int
    tokens: int
    cuts: int
    bursts: int
    good: int


class Pacing:
    """Decides for all threads of one client when the next call may be sent. Times are monotonic seconds."""

    def __init__(
        self,
        teacher: str,
        limits: Limits,
        *,
        share: int,
        patience: Patience,
        stop: threading.Event,
        on_park: Callable[[float | None], None],
    ) -> None:
        now = time.monotonic()
        self._teacher, self._patience, self._stop, self._on_park = teacher, patience, stop, on_park
        self._freed = threading.Condition()
        # Fourfold a round until the first congestion, as TCP's slow start; one more a round only after it. From the start, that
        # would take nine minutes to 256 calls of 2 s, longer than many a shard; what is too much is found out by one cut.
        self._concurrency = Concurrency(max(1, limits.max_concurrency // share))
        self._share = share
        configured = {
            "requests": limits.requests_per_minute,
            "tokens": limits.tokens_per_minute,
            "output_tokens": limits.output_tokens_per_minute,
        }
        self._buckets = {kind: Bucket(limit / share if limit else None, now) for kind, limit in configured.items()}
        rated = any(configured.values())
        self._paused_until = now + random.uniform(0, SPREAD_SECONDS) if rated and share > 1 else now
        self._parked_until: float | None = None
        self._health = Health()
        self._cuts = self._bursts = self._good = self._in_flight = self._calls = self._waits = 0
        self._over: MedkdError | None = None

    def enter(self, record: int, tokens: int) -> Ticket:
        """Wait until a call for `record` may be sent that takes `tokens`; give the ticket back with `leave`.

        Raises StoppedError when the run stops, or what `end` was given.
        """
        while True:
            with self._freed:
                self._raise_if_over()
                if self._in_flight >= self._limit():
                    self._freed.wait(POLL_SECONDS)
                    continue
                delay = self._delay(tokens)
                if delay <= 0:
                    return self._let_in(record, tokens)
            self._stop.wait(min(delay, POLL_SECONDS))

    def hold(self) -> None:
        """Wait until no pause is in force: the last look before a send, for a pause that was ordered since `enter`."""
        while True:
            with self._freed:
                self._raise_if_over()
                delay = self._paused_until - time.monotonic()
            if delay <= 0:
                return None if self._parked_until is None else self._report_park(None)
            self._stop.wait(min(delay, POLL_SECONDS))

    def rest(self, seconds: float) -> None:
        """Wait before this one call is tried again."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            with self._freed:
                self._raise_if_over()
            self._stop.wait(min(left, POLL_SECONDS))

    def leave(self, ticket: Ticket, used_tokens: int, output_tokens: int = 0) -> None:
        """The call is over and took `used_tokens` of the rate; `output_tokens` of that of replies, where it is one of its own."""
        with self._freed:
            self._in_flight -= 1
            self._buckets["tokens"].give_back(ticket.tokens - used_tokens)
            self._buckets["output_tokens"].take(output_tokens)
            self._freed.notify()

    def saw(self, levels: Mapping[str, Level]) -> None:
        """Headers told the account's limits and what remains; this process takes its share of both."""
        if not levels:
            return
        now = time.monotonic()
        with self._freed:
            for kind, level in levels.items():
                self._buckets[kind].correct(level.per_minute, level.remaining, self._share, now)

    def good(self) -> None:
        """The teacher answered as it should."""
        with self._freed:
            self._good += 1
            self._health = Health()
            self._concurrency.good()

    def ordered(self, ticket: Ticket, hint_seconds: float | None) -> None:
        """The teacher ordered all calls to wait. One burst of such answers makes one cut and one step of backoff."""
        now = time.monotonic()
        with self._freed:
            self._waits += 1
            new_burst = ticket.cuts == self._cuts
            if new_burst:
                self._cuts += 1
                self._concurrency.cut()
            self._health.ordered(hinted=hint_seconds is not None, new_burst=new_burst, now=now)
            if hint_seconds is not None:
                self._pause(now + hint_seconds * (1 + random.uniform(0, HINT_JITTER)))
            elif new_burst:
                self._pause(now + self._backoff(now))
            self._give_up_if_hopeless(now)
        self._report_park(self._paused_until)

    def failed(self, ticket: Ticket, *, sent: bool) -> bool:
        """A call failed; returns whether that counts as an attempt of its record, or is the teacher's trouble."""
        now = time.monotonic()
        with self._freed:
            new_burst = ticket.bursts == self._bursts
            self._bursts += new_burst
            self._health.failed(ticket.record, sent=sent, new_burst=new_burst, now=now)
            if self._health.troubled and new_burst:
                self._pause(now + self._backoff(now))
            self._give_up_if_hopeless(now)
            # While others were answered, a connection that failed is a failure like any other.
            return not self._health.troubled if sent else self._good > ticket.good

    def end(self, error: MedkdError) -> None:
        """Nothing more is sent: every thread raises `error` from now on. The first one given stays."""
        with self._freed:
            self._over = self._over or error
            self._freed.notify_all()

    def state(self) -> dict[str, float | int | None]:
        """For progress reports. `paused_until` and `parked_until` are Unix time, None while nothing pauses (for long)."""
        with self._freed:
            left = self._paused_until - time.monotonic()
            return {
                "concurrency": self._limit(),
                "in_flight": self._in_flight,
                "paused_until": time.time() + left if left > 0 else None,
                "parked_until": time.time() + left if left > 0 and self._parked_until is not None else None,
                "calls": self._calls,
                "waits": self._waits,
            }

    def _limit(self) -> int:
        return 1 if self._health.troubled else self._concurrency.limit

    def _delay(self, tokens: int) -> float:
        now = time.monotonic()
        wanted = {"requests": 1, "tokens": tokens, "output_tokens": 1}
        return max(self._paused_until - now, *(bucket.delay(wanted[kind], now) for kind, bucket in self._buckets.items()))

    def _let_in(self, record: int, tokens: int) -> Ticket:
        self._in_flight += 1
        self._calls += 1
        self._buckets["requests"].take(1)
        self._buckets["tokens"].take(tokens)
        return Ticket(record=record, tokens=tokens, cuts=self._cuts, bursts=self._bursts, good=self._good)

    def _pause(self, until: float) -> None:
        self._paused_until = max(self._paused_until, until)

    def _backoff(self, now: float) -> float:
        """The next shared backoff; not beyond the moment at which the teacher counts as unreachable."""
        left = self._patience.unreachable_seconds - self._health.silent_seconds(now)
        return min(backoff_seconds(max(0, self._health.steps - 1)), max(MIN_BACKOFF, left))

    def _give_up_if_hopeless(self, now: float) -> None:
        health, patience = self._health, self._patience
        if health.broken:
            self.end(UnreachableError(f"{self._teacher}: {health.failures} calls failed in a row; run again to continue"))
        elif health.silent_seconds(now) >= patience.unreachable_seconds:
            silent = f"no answer for {health.silent_seconds(now):.0f} s"
            self.end(
                UnreachableError(f"{self._teacher}: {silent}; check that it is up and reachable, then run again to continue")
            )
        elif health.ordered_since is not None and self._paused_until - health.ordered_since > patience.max_park_seconds:
            hours, allowed = (self._paused_until - health.ordered_since) / 3600, patience.max_park_seconds / 3600
            waiting = f"orders {hours:.1f} h of waiting, more than the {allowed:.1f} h allowed"
            self.end(RefusedError(f"{self._teacher}: {waiting}; raise its limit or run again later"))

    def _raise_if_over(self) -> None:
        if self._stop.is_set():
            raise StoppedError("stopped; run again to continue")
        if self._over is not None:
            # A fresh one for each thread: raising a shared exception would mix their tracebacks.
            raise type(self._over)(*self._over.args)

    def _report_park(self, until: float | None) -> None:
        """Tell once when a long pause begins, moves, and is over."""
        now = time.monotonic()
        with self._freed:
            if until is not None and until - now < PARK_SECONDS and self._parked_until is None:
                return
            if until == self._parked_until:
                return
            self._parked_until = until
        self._on_park(None if until is None else time.time() + until - now)
