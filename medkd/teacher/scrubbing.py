"""Keeps what a teacher echoes out of logs, messages and tables: pieces of the key, and words of the prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence

from medkd.teacher.error_bodies import REQUEST_FIELDS

KEY_PIECE = 8
"""Characters in a row that give a key away."""
_SEGMENTS = re.compile(r"[.\[\]]+")


class Scrubber:
    """Knows the key of one teacher."""

    def __init__(self, key: str | None) -> None:
        pieces = {key[start : start + KEY_PIECE] for start in range(max(1, len(key) - KEY_PIECE + 1))} if key else set()
        self._pieces = re.compile("|".join(map(re.escape, sorted(pieces))), re.IGNORECASE) if pieces else None

    def clean(self, names: Sequence[str], prompt: Sequence[str], allowed: Sequence[str] = ()) -> list[str]:
        """The names, empty where one holds a piece of the key or stands in the prompt.

        `allowed` are names of ours (the model, the fields that were sent): these may be said whatever the prompt holds.
        """
        text = "\n".join(prompt).lower()
        return [name if self._harmless(name, text, allowed) else "" for name in names]

    def _harmless(self, name: str, text: str, allowed: Sequence[str]) -> bool:
        if not name or name in allowed:
            return True
        if self._pieces is not None and self._pieces.search(name):
            return False
        segments = _SEGMENTS.split(name.lower())
        return segments[0] in REQUEST_FIELDS or segments[0] in allowed or not any(part in text for part in segments if part)
