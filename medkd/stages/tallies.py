"""What samples came to, summed by who and what they are about: cells that fell short, acceptance and cost by group.

A cell is a topic and a mood. A sample is topped up by fresh variations of itself, so a cell ends with exactly the accepted
samples planned for it, or stands in the table of those that fell short, with the reasons of every try.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medkd.quality.scores import compare, total

if TYPE_CHECKING:
    from medkd.records import RecordSchema
    from medkd.stages.plan import Plan
    from medkd.stages.sample_steps import Ended

GROUPS = ("teacher", "topic", "mood")
_SUMS = ("samples", "accepted", "tries", "cost_usd", "judged", "agreed")


Cell = tuple[str, str]


class ShortCells:
    """Cells of a shard with fewer accepted samples than planned, and why all tries of the missing ones were rejected."""

    def __init__(self) -> None:
        self._planned: Counter[Cell] = Counter()
        self._accepted: Counter[Cell] = Counter()
        self._reasons: dict[Cell, Counter[str]] = {}

    def add(self, ended: Ended) -> None:
        """One more sample of the shard."""
        row = ended.accepted or ended.rejected[0]
        cell = (row["topic"], row["mood"])
        self._planned[cell] += 1
        if ended.accepted:
            self._accepted[cell] += 1
        else:
            self._reasons.setdefault(cell, Counter()).update(rejected["reason"] for rejected in ended.rejected)

    def table(self, of_run: Mapping[Cell, int]) -> list[dict[str, Any]]:
        """As a manifest and a progress file carry it.

        of_run: samples that the whole run plans of each cell, where that is known; carried along for whoever adds shards up.
        """
        return [
            {**_short_cell(cell, self._planned[cell], self._accepted[cell], found), "of_run": of_run.get(cell)}
            for cell, found in sorted(self._reasons.items())
        ]


class Groups:
    """Samples, tries and cost of a shard by teacher, topic and mood."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, Counter[str]]] = {group: {} for group in GROUPS}

    def add(self, ended: Ended) -> None:
        """One more sample of the shard; in the plan's order, since sums of the same costs in another order may differ."""
        tries = [*ended.rejected, *([ended.accepted] if ended.accepted else [])]
        one = {
            "samples": 1,
            "accepted": int(ended.accepted is not None),
            "tries": len(tries),
            "cost_usd": sum(row["cost_usd"] for row in tries),
        }
        disagreement = ended.accepted.get("disagreement") if ended.accepted else None
        if disagreement is not None:
            one |= {"judged": 1, "agreed": int(not disagreement)}
        for group in GROUPS:
            self._sums[group].setdefault(tries[0][group], Counter()).update(one)

    def table(self) -> dict[str, dict[str, dict[str, Any]]]:
        """As a manifest carries it."""
        return {group: {name: dict(found) for name, found in sorted(sums.items())} for group, sums in self._sums.items()}


def merged_short_cells(tables: Iterable[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The tables of many shards as one, against what the run plans of each cell or, not known, what those shards do."""
    missing: Counter[Cell] = Counter()
    planned: Counter[Cell] = Counter()
    of_run: dict[Cell, int] = {}
    reasons: dict[Cell, Counter[str]] = {}
    for table in tables:
        for row in table:
            cell = (row["topic"], row["mood"])
            planned[cell] += row["planned"]
            if row["of_run"] is not None:
                of_run[cell] = row["of_run"]
            missing[cell] += row["planned"] - row["accepted"]
            reasons.setdefault(cell, Counter()).update(row["reasons"])
    totals = {**planned, **of_run}
    return [_short_cell(cell, totals[cell], totals[cell] - missing[cell], found) for cell, found in sorted(reasons.items())]


def lost_cells(plan: Plan, indices: range) -> list[dict[str, Any]]:
    """The table of a shard that the run goes on without; empty for imported conversations, whose topics only their files know."""
    if plan.source:
        return []
    of_run, planned = plan.cells(), Counter(map(plan.cell, indices))
    return [
        {**_short_cell(cell, count, 0, Counter({"missing_shard": count})), "of_run": of_run[cell]}
        for cell, count in sorted(planned.items())
    ]


def gold_agreement(endings: Iterable[Ended], schema: RecordSchema) -> dict[str, Any]:
    """How well the teacher's records agree with the gold that came with their conversations: `gold_samples`, `gold_f1`."""
    rows = [ended.accepted for ended in endings if ended.accepted]
    compared = [
        compare(json.loads(row["gold"]), json.loads(row["output"]), schema)
        for row in rows
        if row["gold"] and row["reference"] == "teacher"
    ]
    return {"gold_samples": len(compared), "gold_f1": total(compared, schema).micro.f1 if compared else None}


def merged_groups(tables: Iterable[Mapping[str, Mapping[str, Mapping[str, Any]]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Acceptance and cost by teacher, topic and mood over many shards, with what follows from the sums.

    acceptance: accepted rows of all tries. cost_per_accepted_usd: what rejected tries cost is in it; None without any row.
    agreement, where any row was extracted twice: the share of those on whose every field both extractions agree.
    """
    sums: dict[str, dict[str, Counter[str]]] = {group: {} for group in GROUPS}
    for table in tables:
        for group in GROUPS:
            for name, found in table.get(group, {}).items():
                sums[group].setdefault(name, Counter()).update({key: found.get(key, 0) for key in _SUMS})
    return {group: {name: _with_shares(found) for name, found in sorted(sums[group].items())} for group in GROUPS}


def _with_shares(found: Mapping[str, Any]) -> dict[str, Any]:
    accepted, tries, cost = found["accepted"], found["tries"], found["cost_usd"]
    return {
        **{key: found[key] for key in ("samples", "accepted", "tries")},
        "acceptance": round(accepted / tries, 4) if tries else None,
        "cost_usd": round(cost, 8),
        "cost_per_accepted_usd": round(cost / accepted, 8) if accepted else None,
        **({"judged": found["judged"], "agreement": round(found["agreed"] / found["judged"], 4)} if found["judged"] else {}),
    }


def _short_cell(cell: Cell, planned: int, accepted: int, reasons: Counter[str]) -> dict[str, Any]:
    by_count = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return {"topic": cell[0], "mood": cell[1], "planned": planned, "accepted": accepted, "reasons": dict(by_count)}


def shown_cells(cells: Sequence[Mapping[str, Any]], most: int = 8) -> tuple[str, ...]:
    """Short cells in words, the largest gaps first; what exceeds `most` is one line more."""
    ordered = sorted(cells, key=lambda cell: (cell["accepted"] - cell["planned"], cell["topic"], cell["mood"]))
    rest = len(ordered) - most
    return (*(_shown_cell(cell) for cell in ordered[:most]), *([f"and {rest:,} cells more"] if rest > 0 else []))


def _shown_cell(cell: Mapping[str, Any]) -> str:
    why = ", ".join(f"{reason} {count}" for reason, count in cell["reasons"].items())
    return f"{cell['topic']} / {cell['mood']}: {cell['accepted']:,} of {cell['planned']:,}; tries rejected: {why}"
