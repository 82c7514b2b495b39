"""What training says while it runs: `metrics.jsonl` and `progress.json` in the store, and the log. Written by rank 0 alone."""

from __future__ import annotations

import json
import time
from typing import Any

from medkd.store.files import Store
from medkd.telemetry import event

WRITE_EVERY_SECONDS = 3.0


class Metrics:
    """Lines of numbers, replaced in the store as a whole every few seconds: no store can append."""

    def __init__(self, store: Store, folder: str, *, resumed_step: int, total_steps: int) -> None:
        self._store = store
        self._lines_path, self._progress_path = f"{folder}/metrics.jsonl", f"{folder}/progress.json"
        self._total_steps = total_steps
        self._lines = [line for line in self._earlier() if _stands(line, resumed_step)] if resumed_step else []
        self._last: dict[str, Any] = {"step": resumed_step, "loss": None}
        self._written = 0.0

    def add(self, **numbers: Any) -> None:
        """One line; must have `step`."""
        self._lines.append(numbers)
        self._last.update({key: numbers[key] for key in ("step", "loss") if key in numbers})
        if time.monotonic() - self._written >= WRITE_EVERY_SECONDS:
            self.write("training")

    def write(self, state: str) -> None:
        """Bring the store up to date; `state` is training, stopped or finished."""
        text = "".join(json.dumps(line) + "\n" for line in self._lines)
        self._store.replace(self._lines_path, text.encode())
        progress = {"format": 1, "state": state, "total_steps": self._total_steps, "at": time.time(), **self._last}
        self._store.replace(self._progress_path, (json.dumps(progress) + "\n").encode())
        self._written = time.monotonic()
        event("training", state=state, total_steps=self._total_steps, **self._last)

    def _earlier(self) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in self._store.read(self._lines_path).splitlines()]
        except FileNotFoundError:
            return []


def _stands(line: dict[str, Any], resumed_step: int) -> bool:
    """Whether a training resumed from this step will not write the line again: an epoch is validated after its last save."""
    step: int = line["step"]
    return step < resumed_step or (step == resumed_step and "validation_loss" not in line)
