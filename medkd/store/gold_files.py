"""Records that are known to be right, in a file of their own: what a teacher and its students are scored on.

A row is `{conversation_sha256, record}`, as `medkd simulate --write-gold` appends them, or `{id, record}` with the id that the
conversation has where it comes from; JSON lines, CSV (the record as JSON text) or Parquet, at any URL that fsspec opens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medkd.errors import InputError
from medkd.records import Record
from medkd.store.row_formats import READERS, RawRow, Start
from medkd.store.source_files import KINDS, Options, kind_of, opened

_COLUMNS = ("conversation_sha256", "id", "record")
_NO_OPTIONS: Options = {}


@dataclass(frozen=True)
class Gold:
    """Records by the hash of their conversation, and by its id. Whether they fit a schema is for others to check."""

    by_conversation: Mapping[str, Record] = field(default_factory=dict)
    by_id: Mapping[str, Record] = field(default_factory=dict)

    def of(self, conversation_sha256: str, source_id: str) -> Record | None:
        """The record of a conversation, None where there is none."""
        return self.by_conversation.get(conversation_sha256) or self.by_id.get(source_id)


def is_file(name: str) -> bool:
    """Whether `name` is named as a file of rows is, and not as a column."""
    return kind_of(name) in KINDS


def read(path: str, options: Options = _NO_OPTIONS) -> Gold:
    """All records of the file, of two for one conversation the later; InputError where it cannot be read or a row is no gold.

    A file whose name says no kind holds JSON lines.
    """
    kind = kind_of(path)
    by_conversation: dict[str, Record] = {}
    by_id: dict[str, Record] = {}
    with opened(path, options) as file:
        for raw in READERS[kind if kind in KINDS else "jsonl"](file, path, _COLUMNS, Start()):
            if isinstance(raw, RawRow):
                identity, number, record = _checked(path, raw)
                if identity:
                    by_conversation[identity] = record
                if number:
                    by_id[number] = record
    return Gold(by_conversation, by_id)


def _checked(path: str, raw: RawRow) -> tuple[str, str, Record]:
    """Hash and id of the conversation, '' where the row has none, and its record."""
    problem = raw.values if isinstance(raw.values, str) else ""
    values: Mapping[str, Any] = {} if isinstance(raw.values, str) else raw.values
    record = values.get("record")
    if isinstance(record, str):
        try:
            record = json.loads(record)
        except ValueError:
            problem = "its record is not JSON"
    identity, number = (str(values.get(name) or "") if values.get(name) != 0 else "0" for name in _COLUMNS[:2])
    if problem or not isinstance(record, dict) or not (identity or number):
        why = problem or "expected conversation_sha256 or id, and record"
        raise InputError(f"--gold {path}:{raw.line}: not a row of known records ({why})")
    return identity, number, record
