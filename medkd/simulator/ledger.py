"""What the vendor would know afterwards: who called, when, and what was billed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable


class Ledger:
    """Counts calls and billed completions. A completion is billed when it is made, whether or not anybody reads it.

    grace_seconds: a client learns of a wait or an end when it has read the reply; what arrives within this time after the
    reply was written may have been sent before that, and is no disobedience.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, grace_seconds: float = 0.1) -> None:
        self._clock = clock
        self._grace_seconds = grace_seconds
        self._seen: Counter[str] = Counter()
        self._billed: Counter[str] = Counter()
        self._answered: set[str] = set()
        self._faults: Counter[str] = Counter()
        self._statuses: Counter[int] = Counter()
        self.requests = self._active = self._peak = 0
        self._prompt_tokens = self._completion_tokens = self._paid_twice = 0
        self._during_wait = self._after_end = 0
        self._wait_from = self._wait_until = 0.0
        self._ended_at: float | None = None

    def arrived(self, digest: str) -> tuple[int, int]:
        """Count a call; returns its number and the occurrence of its body, both from 1."""
        now = self._clock()
        self.requests += 1
        self._seen[digest] += 1
        self._active += 1
        self._peak = max(self._peak, self._active)
        self._during_wait += self._wait_from + self._grace_seconds < now < self._wait_until
        self._after_end += self._ended_at is not None and now > self._ended_at + self._grace_seconds
        return self.requests, self._seen[digest]

    def left(self) -> None:
        self._active -= 1

    def bill(self, digest: str, *, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        self._billed[digest] += 1
        self._paid_twice += digest in self._answered
        self._prompt_tokens += prompt_tokens
        self._completion_tokens += completion_tokens

    def answering(self, status: int) -> None:
        """A reply with this status is about to go out."""
        self._statuses[status] += 1

    def answered(self, digest: str) -> None:
        """The call was answered in full with what it asked for: who pays for the same body again pays twice."""
        self._answered.add(digest)

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

    def begin_anew(self) -> None:
        """Forget waits and the end that were ordered: the client was restarted, or the account has money again."""
        self._wait_from = self._wait_until = 0.0
        self._ended_at = None

    def billed(self) -> dict[str, int]:
        """SHA-256 of each billed request body → completions billed."""
        return dict(self._billed)

    def stats(self) -> dict[str, object]:
        """All counts; may be asked for from another thread than the server's."""
        billed = list(self._billed.values())  # a copy in one step, while the server goes on counting
        return {
            "requests": self.requests,
            "billed_total": sum(billed),
            "billed_bodies": len(billed),
            "billed_prompt_tokens": self._prompt_tokens,
            "billed_completion_tokens": self._completion_tokens,
            "bodies_billed_more_than_once": sum(count > 1 for count in billed),
            "billed_after_a_good_answer": self._paid_twice,
            "answers": {str(status): count for status, count in sorted(self._statuses.items())},
            "peak_concurrency": self._peak,
            "active": self._active,
            "calls_during_wait": self._during_wait,
            "calls_after_end": self._after_end,
            "faults": dict(self._faults),
        }
