"""What training says while it runs: `metrics.jsonl`, `metrics.prom`, TensorBoard's events and `progress.json` in the store.

Written by rank 0 alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from medkd.store.files import Store
from medkd.student.event_files import NAME, EventFile
from medkd.telemetry import event

WRITE_EVERY_SECONDS = 3.0
PARTS = ("data", "forward", "backward", "optimizer", "checkpoint")
"""What a step's time goes to; lines of metrics carry each as `<part>_seconds` where it can be told."""

_GAUGES = {
    "step": "optimizer step of the last logged line",
    "loss": "loss of training by answer token, mean of the last logged steps",
    "validation_loss": "loss of the validation split by answer token",
    "validation_field_f1": "micro-F1 of the records written to rows of the validation split",
    "learning_rate": "of the last logged step",
    "tokens_per_second": "tokens of documents, without padding, over the last logged steps on all ranks",
    "seconds": "wall clock of the last logged steps",
    "mfu": "share of the GPUs' peak in bf16 that the model's own operations took over the last logged steps",
    "memory_bytes": "most that rank 0 held: of its GPU over the last logged steps, without a GPU of the host so far",
}


class Metrics:
    """Lines of numbers, replaced in the store as a whole every few seconds: no store can append."""

    def __init__(self, store: Store, folder: str, *, student_name: str, resumed_step: int, total_steps: int) -> None:
        self._store, self._student_name = store, student_name
        self._lines_path, self._progress_path = f"{folder}/metrics.jsonl", f"{folder}/progress.json"
        self._text_path, self._events_path = f"{folder}/metrics.prom", f"{folder}/{NAME}"
        self._total_steps = total_steps
        self._lines = [line for line in self._earlier() if _stands(line, resumed_step)] if resumed_step else []
        self._events = _event_file()
        if self._events:
            for line in self._lines:
                self._events.add(line)
        self._last: dict[str, Any] = {"step": resumed_step, "loss": None}
        self._written = 0.0

    def add(self, **numbers: Any) -> None:
        """One line; must have `step`."""
        self._lines.append(numbers)
        if self._events:
            self._events.add(numbers)
        self._last.update({key: numbers[key] for key in ("step", "loss") if key in numbers})
        if time.monotonic() - self._written >= WRITE_EVERY_SECONDS:
            self.write("training")

    def write(self, state: str) -> None:
        """Bring the store up to date; `state` is training, stopped or finished."""
        text = "".join(json.dumps(line) + "\n" for line in self._lines)
        self._store.replace(self._lines_path, text.encode())
        if self._events:
            self._store.replace(self._events_path, self._events.content())
        numbers = {"total_steps": self._total_steps, **{key: value for line in self._lines for key, value in line.items()}}
        self._store.replace(self._text_path, prometheus_text(self._student_name, numbers).encode())
        progress = {"format": 1, "state": state, "total_steps": self._total_steps, "at": time.time(), **self._last}
        self._store.replace(self._progress_path, (json.dumps(progress) + "\n").encode())
        self._written = time.monotonic()
        event("training", state=state, total_steps=self._total_steps, **self._last)

    def _earlier(self) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in self._store.read(self._lines_path).splitlines()]
        except FileNotFoundError:
            return []


def _event_file() -> EventFile | None:
    try:
        return EventFile()
    except ImportError:
        event("no TensorBoard events", reason="the package tensorboardX is not installed; install medkd[tensorboard]")
        return None


def prometheus_text(student_name: str, numbers: Mapping[str, Any]) -> str:
    """The numbers as gauges in Prometheus' text format: what a textfile collector takes, or a gateway is sent."""
    labels = f'student="{student_name}"'
    lines = []
    for key, meaning in {"total_steps": "optimizer steps that training will take", **_GAUGES}.items():
        if numbers.get(key) is not None:
            name = f"medkd_student_{key}"
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge", f"{name}{{{labels}}} {numbers[key]:.10g}"]
    timed = [part for part in PARTS if f"{part}_seconds" in numbers]
    if timed:
        name = "medkd_student_part_seconds"
        lines += [f"# HELP {name} seconds of the last logged steps on rank 0 by what they went to", f"# TYPE {name} gauge"]
        lines += [f'{name}{{{labels},part="{part}"}} {numbers[f"{part}_seconds"]:.10g}' for part in timed]
    return "".join(line + "\n" for line in lines)


def _stands(line: dict[str, Any], resumed_step: int) -> bool:
    """Whether a training resumed from this step will not write the line again: an epoch is validated after its last save."""
    step: int = line["step"]
    return step < resumed_step or (step == resumed_step and "validation_loss" not in line)
