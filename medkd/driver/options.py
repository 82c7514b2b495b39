"""How one driver works."""

from __future__ import annotations

from dataclasses import dataclass

from medkd.cluster import names
from medkd.cluster.publish import ReleaseMode


@dataclass(frozen=True, kw_only=True)
class DriverOptions:
    """Whose driver it is, and what it may do without asking."""

    run: str
    full_name: str
    """Start of the names of all objects of the release."""
    student: str
    owner: str
    """Who the run's prefix belongs to, as stage plan wrote it."""
    max_failed_shards: int = 0
    release_mode: ReleaseMode = "gate"
    host: str = "0.0.0.0"
    port: int = 8080

    def job(self, stage: str) -> str:
        """The name of a stage's Job."""
        return names.job_name(self.full_name, stage)
