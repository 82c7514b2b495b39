"""Calls that are paid outside any shard: booked before they are sent, settled after, and taken off the run's budget.

One file each, `preflight/<when>-<nonce>.json`. A booking that was never settled stands with its worst case.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from medkd.errors import BudgetError
from medkd.store import budget, layout
from medkd.store.files import Store
from medkd.teacher.client import Answer


class Booking:
    """The money of one call: `reserve` is what a client calls before it sends, `release` where no answer comes."""

    def __init__(self, store: Store, teacher: str, nonce: str, budget_usd: float | None) -> None:
        self._store = store
        self._teacher = teacher
        self._at = datetime.now(UTC).isoformat(timespec="seconds")
        self._path = layout.booking(f"{self._at.replace(':', '')[:17]}-{nonce}")
        self._budget_usd = budget_usd
        self._reserved_usd = 0.0

    def reserve(self, usd: float) -> None:
        """Book the worst case of one more send; BudgetError where the run's budget has no room for it."""
        if not usd:
            return
        before, self._reserved_usd = self._reserved_usd, self._reserved_usd + usd
        self._write(possibly_usd=self._reserved_usd)
        # Looked at after the booking is there: a shard that takes its chunk meanwhile has seen it.
        taken = budget.booked_usd(self._store) + self._taken_by_shards()
        if self._budget_usd is not None and taken > self._budget_usd + 1e-9:
            self._reserved_usd = before
            self._write(possibly_usd=before)
            raise BudgetError(
                f"--budget-usd: got {self._budget_usd:g}, of which ${taken - usd:.4f} are taken, and a first call may cost "
                f"${usd:.4f}; raise it"
            )

    def release(self, usd: float) -> None:
        """Put down that so much of what was booked cannot have been spent."""
        if usd:
            self._reserved_usd = max(0.0, self._reserved_usd - usd)
            self._write(possibly_usd=self._reserved_usd)

    def settle(self, answer: Answer) -> None:
        """Put down what the call has cost."""
        if not self._reserved_usd:
            return
        usage = answer.reply.usage if answer.reply else None
        self._write(
            spent_usd=answer.cost_usd,
            possibly_usd=answer.possibly_usd,
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
        )

    def _taken_by_shards(self) -> float:
        try:
            chunk_usd = float(json.loads(self._store.read(layout.LAYOUT))["chunk_usd"])
        except FileNotFoundError:
            return 0.0
        return budget.taken_usd(self._store, chunk_usd)

    def _write(self, **figures: float) -> None:
        nothing = {"spent_usd": 0.0, "possibly_usd": 0.0, "prompt_tokens": 0, "completion_tokens": 0}
        entry = {"format": 1, "teacher": self._teacher, "at": self._at, **nothing, **figures}
        self._store.replace(self._path, json.dumps(entry).encode())
