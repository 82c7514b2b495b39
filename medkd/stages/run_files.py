"""The files of a run as its report reads them: each once, verified against its manifest, empty where a stage has not run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from medkd.records import PATIENT_RECORD, RecordSchema
from medkd.stages import tallies
from medkd.stages.plan import planned_schema
from medkd.store import layout, manifests, tables
from medkd.store.files import Store
from medkd.store.manifests import Manifest
from medkd.store.tables import Row
from medkd.student.tokenizer import FORM_FILE

SHARDS = f"{layout.GENERATE}/shard-*"
"""Where the files of the shards lie, in words."""


@dataclass(frozen=True)
class RunFiles:
    """The files of a run, each read once."""

    store: Store
    student: str | None

    @cached_property
    def plan(self) -> dict[str, Any]:
        return self.json(layout.PLAN)

    @cached_property
    def schema(self) -> RecordSchema:
        # A student that was trained on a file has no plan.
        form = {} if self.plan else self.json(self.student_file(f"tokens/tokenizer/{FORM_FILE}"))
        return planned_schema(self.plan.get("record_schema") or form.get("record_schema") or PATIENT_RECORD.name)

    @cached_property
    def shards(self) -> list[Manifest]:
        """Manifests of the shards that have finished."""
        paths = [file.path for file in self.store.list_files(layout.GENERATE) if file.path.endswith("/manifest.json")]
        return [manifest for path in paths if (manifest := manifests.read(self.store, path))]

    @cached_property
    def data_set(self) -> Manifest | None:
        return manifests.read(self.store, layout.DATASET_MANIFEST)

    @cached_property
    def statistics(self) -> dict[str, Any]:
        return self.json(f"{layout.DATASET}/statistics.json") if self.data_set else {}

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        if self.student is None:
            return []
        return [json.loads(line) for line in self.text(self.student_file("train/metrics.jsonl")).splitlines()]

    @cached_property
    def scores(self) -> dict[str, Any]:
        return self.json(self.student_file("evaluate/scores.json")) if self.student else {}

    @cached_property
    def short_cells(self) -> list[dict[str, Any]]:
        """Cells that fell short, with the reasons, over all shards that have finished."""
        return tallies.merged_short_cells(shard.counts.get("short_cells", ()) for shard in self.shards)

    def student_file(self, name: str) -> str:
        return f"{layout.student_folder(self.student or '')}/{name}"

    def count(self, what: str) -> int:
        """A count of the shards' manifests, added up."""
        return sum(int(shard.counts.get(what, 0)) for shard in self.shards)

    def table(self, name: str, columns: Sequence[str]) -> list[Row]:
        """Columns of the finished shards' tables of that name."""
        files = [file for shard in self.shards for file in shard.files if file.path.endswith(f"/{name}")]
        return tables.read(self.store, files, columns)

    def json(self, path: str) -> dict[str, Any]:
        text = self.text(path)
        value: dict[str, Any] = json.loads(text) if text else {}
        return value

    def text(self, path: str) -> str:
        """The file's text, '' where there is no such file."""
        try:
            return self.store.read(path).decode()
        except FileNotFoundError:
            return ""
