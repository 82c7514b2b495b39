"""What the vendor would know afterwards: who called, when, and what was billed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

# A client learns of a wait or an end when it has read the reply; what it sent before that is no disobedience.
GRACE_SECONDS = 0.1


class Ledger:
    """Counts calls and billed completions. A completion is billed when it is made, whether or not anybody reads it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: Counter[str] = Counter()
        self._billed: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._requests = self._active = self._peak = 0
        self._during_wait = self._after_end = 0
        self._wait_from = self._wait_until = 0.0
        self._ended_at: float | None = None

    def arrived(self, digest: str) -> tuple[int, int]:
        """Count a call; returns its number and the occurrence of its body, both from 1."""
        now = self._clock()
        self._requests += 1
        self._seen[digest] += 1
        self._active += 1
        self._peak = max(self._peak, self._active)
        self._during_wait += self._wait_from + GRACE_SECONDS < now < self._wait_until
        self._after_end += self._ended_at is not None and now > self._ended_at + GRACE_SECONDS
        return self._requests, self._seen[digest]

    def left(self) -> None:
        self._active -= 1

    def bill(self, digest: str) -> None:
        self._billed[digest] += 1

    def fault(self, name: str) -> None:
        self._faults[name] += 1

    def ordered_wait(self, seconds: float) -> None:
        """Every call that arrives before the wait is over counts against the client."""
        now = self._clock()
        if now >= self._wait_until:
            self._wait_from = now
        self._wait_until = max(self._wait_until, now + seconds)

    def ended(self) -> None:
        """A terminal error was sent: every later call counts against the client."""
        self._ended_at = self._clock() if self._ended_at is None else self._ended_at

    def billed(self) -> dict[str, int]:
        """SHA-256 of each billed request body → completions billed."""
        return dict(self._billed)

    def stats(self) -> dict[str, object]:
        return {
            "requests": self._requests,
            "billed_total": sum(self._billed.values()),
            "billed_bodies": len(self._billed),
            "bodies_billed_more_than_once": sum(count > 1 for count in self._billed.values()),
            "peak_concurrency": self._peak,
            "active": self._active,
            "calls_during_wait": self._during_wait,
            "calls_after_end": self._after_end,
            "faults": dict(self._faults),
        }
