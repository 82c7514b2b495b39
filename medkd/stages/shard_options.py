"""How one process works on its shard; none of it changes a sample."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ShardOptions:
    """The shard, who works on it, and what it may use up."""

    shard: int
    writer: str
    """Unique to this process: two writers of one shard tell each other apart by it."""
    concurrency: int
    """Calls in flight at most."""
    budget_usd: float | None = None
    progress_seconds: float = 5.0
    max_park_seconds: float = 30 * 3600

    @property
    def group_limit(self) -> int:
        """Answers of one commit group at most, and with them what a kill can lose beyond the calls in flight."""
        return max(32, self.concurrency)
