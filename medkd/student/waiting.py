"""Waiting for a rank that does long work alone: fetches or stores a large model, or converts a checkpoint.

The other ranks may wait longer than for a step. Not the backend of training waits: NCCL would take a peer that computes nothing
for a lost one. A peer that is really lost is noticed at once, as its connections close.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch.distributed as dist

# Llama-2-7b's 95 GB of states take an hour from a store that gives 26 MB a second, and are then read and written once more.
PATIENCE = timedelta(hours=4)

_patient: Any = None


def prepare() -> None:
    """Connect the ranks for `wait_for_all`. Called on all ranks together, once they have met."""
    global _patient
    _patient = dist.new_group(backend="gloo", timeout=PATIENCE) if dist.get_world_size() > 1 else None


def wait_for_all() -> None:
    """Return when all ranks have come here."""
    if _patient is not None:
        dist.barrier(group=_patient)
