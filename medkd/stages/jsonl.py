"""Rows `{instruction, input, output}` as JSON lines: what other tools read and write, out of a run and into one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medkd.errors import ConfigError, InputError
from medkd.quality.schema import InvalidRecord, parse_record
from medkd.records import RecordSchema
from medkd.samples import sample_id
from medkd.store import layout, manifests, tables
from medkd.store.files import Store

Row = dict[str, Any]

COLUMNS = ("instruction", "input", "output")


@dataclass(frozen=True)
class BadRow:
    """A line that is not a usable row, and why."""

    line: int
    reason: str


def accepted_rows(store: Store) -> Iterable[Row]:
    """The run's rows in sample order: its data set where it stands, else what the finished shards accepted."""
    data_set = manifests.read(store, layout.DATASET_MANIFEST)
    if data_set:
        parts = [
            file
            for file in data_set.files
            if file.path.startswith(tuple(f"{layout.DATASET}/{split}-" for split in layout.SPLITS))
        ]
        return sorted(tables.read(store, parts, ["sample_id", *COLUMNS]), key=lambda row: row["sample_id"])
    paths = [file.path for file in store.list_files(layout.GENERATE) if file.path.endswith("/manifest.json")]
    shards = [manifests.require(store, path, "generate") for path in paths]
    if not shards:
        raise ConfigError(f"{store.url}: no finished shard under this prefix; run stage generate first")
    parts = [file for shard in shards for file in shard.files if file.path.endswith("/samples.parquet")]
    return tables.read(store, parts, ["sample_id", *COLUMNS])


def write(rows: Iterable[Row], target: Path) -> int:
    """Write rows as JSON lines, whole or not at all; returns how many."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    count = 0
    with temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({name: row[name] for name in COLUMNS}, ensure_ascii=False) + "\n")
            count += 1
    temporary.replace(target)
    return count


def read(path: Path, schema: RecordSchema) -> tuple[list[Row], list[BadRow]]:
    """Rows of a JSON lines file as samples whose record somebody else wrote, and the lines that are none.

    InputError where the file cannot be read or has no usable row.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    good: list[Row] = []
    bad: list[BadRow] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            good.append(_sample(json.loads(line), len(good), f"{path.name}:{number}", schema))
        except InvalidRecord as problem:
            # The full problem quotes the record; a reason may end up in a log.
            bad.append(BadRow(number, f"output: {problem.kind}"))
        except json.JSONDecodeError as problem:
            bad.append(BadRow(number, f"not JSON at column {problem.colno}"))
        except ValueError as problem:
            bad.append(BadRow(number, str(problem)))
        except RecursionError:
            bad.append(BadRow(number, "nested too deeply"))
    if not good:
        first = f"; line {bad[0].line}: {bad[0].reason}" if bad else ""
        raise InputError(f"{path}: none of {len(bad)} rows is usable{first}")
    return good, bad


def _sample(raw: Any, index: int, source_id: str, schema: RecordSchema) -> Row:
    if not isinstance(raw, dict):
        raise ValueError("not a JSON object")
    conversation, output = raw.get("input"), raw.get("output")
    if not isinstance(conversation, str) or not conversation.strip():
        raise ValueError("input: expected the conversation as text")
    if isinstance(output, dict):
        output = json.dumps(output, ensure_ascii=False)
    if not isinstance(output, str):
        raise ValueError("output: expected the record as JSON text")
    instruction = raw.get("instruction") or schema.task
    if not isinstance(instruction, str):
        raise ValueError("instruction: expected text")
    return {
        "sample_id": sample_id(index),
        "topic": "imported",
        "mood": "not known",
        "instruction": instruction,
        "input": conversation,
        "output": schema.canonical(parse_record(output, schema)),
        "evidence": [],
        "source": "imported",
        "source_id": source_id,
        "reference": "teacher",
        "teacher": "not known",
        "prompt_version": 0,
        "variation": 0,
        "attempts": 0,
        "cost_usd": 0.0,
    }
