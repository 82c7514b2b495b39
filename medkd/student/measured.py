"""A student's goodness on the validation split."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How good a student was on the validation split after a step."""

    step: int
    loss: float
    """Nats per answer token."""
    field_f1: float | None
    """Of the answers that it wrote itself; None where it was not asked."""
