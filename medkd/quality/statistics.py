"""What a data set holds, counted row by row: splits, topics and moods, what records say, lengths."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from medkd.quality.splits import Split
from medkd.records import NOT_PROVIDED, RecordSchema

Row = Mapping[str, Any]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_SMALLEST_SHOWN = 10


class Statistics:
    """Counts rows, in memory that does not grow with them."""

    def __init__(self, schema: RecordSchema) -> None:
        self._schema = schema
        self._splits: Counter[str] = Counter()
        self._cells: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._held_out: set[str] = set()
        self._references: Counter[str] = Counter()
        self._reviewed: Counter[str] = Counter()
        self._teachers: set[str] = set()
        self._stated: Counter[str] = Counter()
        self._flagged: Counter[str] = Counter()
        self._judged = self._agreed = 0
        self._disagreement: Counter[str] = Counter()
        self._lengths: dict[str, Counter[int]] = {"conversation_characters": Counter(), "record_characters": Counter()}

    def add(self, row: Row, split: Split, held_out: bool) -> None:
        """One row of the data set."""
        self._splits[split] += 1
        self._cells[row["topic"] or "no topic", row["mood"] or "no mood"][split] += 1
        if held_out:
            self._held_out.add(row["topic"])
        self._references[row["reference"]] += 1
        if row.get("review"):
            self._reviewed[row["review"]] += 1
        self._teachers.add(str(row.get("served_model") or row["teacher"]))
        self._flagged.update({flag["field"] for flag in row.get("unsupported") or ()})
        if row.get("disagreement") is not None:
            self._judged += 1
            self._agreed += not row["disagreement"]
            self._disagreement.update(row["disagreement"])
        # A person's record is what the conversation says, also where the teacher's is kept to be scored.
        record = json.loads((row.get("review") and row["gold"]) or row["output"])
        self._stated.update({path for path, value in self._schema.values(record) if value != NOT_PROVIDED})
        self._lengths["conversation_characters"][len(row["input"])] += 1
        self._lengths["record_characters"][len(row["output"])] += 1

    @property
    def num_rows(self) -> int:
        return self._splits.total()

    def summary(self) -> dict[str, Any]:
        """What `statistics.json` says of the rows."""
        topics: Counter[str] = Counter()
        moods: Counter[str] = Counter()
        for (topic, mood), counts in self._cells.items():
            topics[topic] += counts.total()
            moods[mood] += counts.total()
        return {
            "format": 1,
            "rows": {split: self._splits[split] for split in SPLITS},
            "held_out_topics": sorted(self._held_out),
            "by_topic": dict(sorted(topics.items())),
            "by_mood": dict(sorted(moods.items())),
            "by_reference": dict(sorted(self._references.items())),
            **({"reviewed": dict(sorted(self._reviewed.items()))} if self._reviewed else {}),
            "teachers": sorted(self._teachers),
            "share_stated": {path: round(self._stated[path] / max(1, self.num_rows), 4) for path in self._schema.leaves()},
            "flagged": dict(sorted(self._flagged.items())),
            **({"agreement": self._agreement()} if self._judged else {}),
            **{name: _quantiles(lengths) for name, lengths in self._lengths.items()},
            "balance": self._balance(),
            "by_cell": [
                {"topic": topic, "mood": mood, **{split: counts[split] for split in SPLITS}}
                for (topic, mood), counts in sorted(self._cells.items())
            ],
        }

    def _agreement(self) -> dict[str, Any]:
        """Of the rows whose record was extracted twice: how many agree everywhere, and the share that does by field."""
        return {
            "judged": self._judged,
            "agreed": self._agreed,
            "by_field": {path: round(1 - self._disagreement[path] / self._judged, 4) for path in self._schema.leaves()},
        }

    def _balance(self) -> dict[str, Any]:
        """How evenly the rows lie over the cells that have any; variation: standard deviation as a share of the mean."""
        sizes = sorted((counts.total(), cell) for cell, counts in self._cells.items())
        counts = [size for size, _ in sizes]
        mean = sum(counts) / max(1, len(counts))
        deviation = (sum((count - mean) ** 2 for count in counts) / max(1, len(counts))) ** 0.5
        return {
            "cells": len(counts),
            "smallest": counts[0] if counts else 0,
            "largest": counts[-1] if counts else 0,
            "mean": round(mean, 2),
            "variation": round(deviation / mean, 4) if mean else 0.0,
            "smallest_cells": [{"topic": topic, "mood": mood, "rows": size} for size, (topic, mood) in sizes[:_SMALLEST_SHOWN]],
        }


def _quantiles(counts: Counter[int]) -> dict[str, int]:
    """Of the values that were counted, all 0 where there is none."""
    values = sorted(counts) or [0]
    ends = list(accumulate(counts[value] for value in values))
    return {
        name: values[bisect_right(ends, int(share * (ends[-1] - 1)))] if ends[-1] else 0
        for name, share in (("min", 0.0), ("p50", 0.5), ("p95", 0.95), ("max", 1.0))
    }
