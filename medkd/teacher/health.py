"""Whether a teacher is in trouble, as opposed to a single record: what happened since its last good answer."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_FAILURES = 20
"""Hard failures in a row, each burst counted once, until the teacher is given up."""
TROUBLED_RECORDS = 5
"""Different records failing in a row are the teacher's trouble and not theirs."""


@dataclass
class Health:
    """Starts anew with every good answer. Times are monotonic seconds."""

    failures: int = 0
    """Calls sent and lost or failed, each burst counted once."""
    steps: int = 0
    """Bursts of anything without a hint; the exponent of the shared backoff."""
    records: set[int] = field(default_factory=set)
    """Records whose calls failed."""
    silent_since: float | None = None
    """When the first failure or wait without a hint came; a hint shows that the teacher is there."""
    ordered_since: float | None = None
    """When the first ordered wait came."""

    @property
    def troubled(self) -> bool:
        """It is the teacher: attempts no longer count against records, and one call at a time asks whether it is back."""
        return len(self.records) >= TROUBLED_RECORDS

    @property
    def broken(self) -> bool:
        """So many failures in a row that going on makes no sense."""
        return self.failures >= MAX_FAILURES

    def failed(self, record: int, *, sent: bool, new_burst: bool, now: float) -> None:
        """A call failed without an answer worth anything; one that could not even be sent counts by the clock alone."""
        self.records.add(record)
        self.silent(new_burst=new_burst, now=now)
        self.failures += sent and new_burst

    def silent(self, *, new_burst: bool, now: float) -> None:
        self.silent_since = now if self.silent_since is None else self.silent_since
        self.steps += new_burst

    def ordered(self, *, hinted: bool, new_burst: bool, now: float) -> None:
        """The teacher told us to wait; for how long only if `hinted`."""
        self.ordered_since = now if self.ordered_since is None else self.ordered_since
        if hinted:
            self.silent_since = None
        else:
            self.silent(new_burst=new_burst, now=now)

    def silent_seconds(self, now: float) -> float:
        return 0.0 if self.silent_since is None else now - self.silent_since
