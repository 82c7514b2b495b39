"""The true record of each conversation that the clinic wrote, for those who want to score against it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

from medkd.records import Record
from medkd.samples import conversation_sha256


class GoldFile:
    """Appends one line for each different conversation, also across restarts."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._known = set(_known_conversations(path))
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def add(self, conversation: str, record: Record) -> None:
        digest = conversation_sha256(conversation.strip())
        if digest not in self._known:
            self._known.add(digest)
            line = json.dumps({"conversation_sha256": digest, "record": record})
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def _known_conversations(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [json.loads(line)["conversation_sha256"] for line in path.read_text("utf-8").splitlines() if line.strip()]
