"""Logs: one JSON object a line on stderr with run, stage, shard and event, or short text when a person is watching.

Nothing secret may be passed in: no header, key, prompt or conversation.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

log = logging.getLogger("medkd")


class _JsonLines(logging.Formatter):
    def __init__(self, context: dict[str, Any]) -> None:
        super().__init__()
        self.context = context

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            **self.context,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return json.dumps(entry, ensure_ascii=False, default=str)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in getattr(record, "fields", {}).items())
        return f"{record.levelname.lower()}: {record.getMessage()} {fields}".rstrip()


def configure(*, json_lines: bool, level: str = "INFO", stream: TextIO | None = None, **context: Any) -> None:
    """Send medkd's log to `stream` (stderr), as JSON lines carrying `context` or as plain text. Replaces an earlier set-up."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonLines(context) if json_lines else _Text())
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False


def event(name: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log one event with named fields (numbers, ids and states only)."""
    log.log(level, name, extra={"fields": fields})
