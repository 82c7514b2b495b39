"""Metrics as TensorBoard reads them. Needs the optional package tensorboardX; imports no torch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

NAME = "events.out.tfevents.0.medkd"
"""TensorBoard knows its files by the middle of their name."""


class EventFile:
    """Lines of metrics as one event file, kept as a whole: no store can append. ImportError without tensorboardX."""

    def __init__(self) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        self._folder = TemporaryDirectory(prefix="medkd-events-")
        self._writer = EventsWriter(str(Path(self._folder.name) / "events"))

    def add(self, line: Mapping[str, Any]) -> None:
        """A scalar for each number of a line, at its step."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=f"{'validation' if name.startswith('validation_') else 'train'}/{name}", simple_value=value)
            for name, value in line.items()
            if name != "step" and isinstance(value, int | float)
        ]
        self._writer.write_event(Event(wall_time=time.time(), step=line["step"], summary=Summary(value=values)))

    def content(self) -> bytes:
        """All that was added."""
        self._writer.flush()
        (file,) = Path(self._folder.name).iterdir()
        return file.read_bytes()
