"""How the simulated teacher behaves: one value object, filled by the command line or a test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class SimulatorOptions:
    """How the simulated teacher behaves."""

    host: str = "127.0.0.1"
    port: int = 8765
    """0 takes a free port."""
    api_key: str | None = None
    """The key that requests must carry; None asks for none."""
    models: tuple[str, ...] = ("clinic-1",)
    """Model names that exist; others get the vendor's 404."""
    latency_seconds: float = 0.0
    latency_jitter: float = 0.0
    """Each latency is drawn from latency_seconds * (1 ± latency_jitter)."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    limiter: Literal["bucket", "rolling"] = "bucket"
    """How the limits are enforced, see `limits`."""
    grace_seconds: float = 0.1
    """What arrives this soon after an ordered wait or a terminal error counts as sent before it was read."""
    batch_seconds: float = 1.0
    """From the making of a batch to its end."""
    batch_expire: float = 0.0
    """Share of a batch's requests that expire undone."""
    faults: str = ""
    """Spec as `faults.parse_faults` takes it."""
    seed: int = 0
    """Decides faults and jitter; answers depend on the request alone."""
    write_gold: Path | None = None
    """File that gets a line {conversation_sha256, record} for each conversation written."""
