"""What the journal of a shard that has not finished comes to: its samples so far, as its worker would say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from medkd.errors import MedkdError
from medkd.samples import sample_index
from medkd.stages.opened_run import Run
from medkd.stages.plan import Plan, reading_teacher
from medkd.stages.sample_steps import Ask, Ended, so_far
from medkd.store import conversations, journal, tables
from medkd.store.conversations import ImportedRow

Row = dict[str, Any]

_ROWS_OF_WINDOW, _WINDOWS = 256, 4


def open_sample(run: Run, shard: int, wanted: str) -> dict[str, Any]:
    assert run.planned
    plan = run.planned[0]
    calls: dict[str, Row] = {}
    for entry in journal.stream_answers(run.store, shard, plan.hash):
        if entry["sample_id"] == wanted:
            calls.setdefault(entry["key"], entry)
    shown = [{name: entry.get(name) for name in tables.CALL_COLUMNS.names} for entry in calls.values()]
    if not calls and plan.source is None:
        return {"state": "not started", "calls": []}
    try:
        rejected, step = _Reader(run).so_far(sample_index(wanted), calls)
    except MedkdError as error:
        # Its conversation lies in files that only the run can open; what was answered is known all the same.
        return {"state": "open", "calls": shown, "next": f"not known here: {error}"}
    if isinstance(step, Ended):
        state = "accepted" if step.accepted else "rejected"
        row = {name: (step.accepted or {}).get(name) for name in tables.SAMPLE_COLUMNS.names} if step.accepted else None
        return {"state": state, "row": row, "rejected": list(rejected), "calls": shown}
    return {"state": "open" if calls else "not started", "rejected": list(rejected), "calls": shown, "next": _asked(step)}


def _asked(step: Ask) -> str:
    return f"{step.step}, variation {step.spec.variation}" + (f", repair {step.repair}" if step.repair else "")


@dataclass(frozen=True)
class _Reader:
    """Says what the journal of an open shard comes to, as its worker would."""

    run: Run

    def so_far(self, index: int, replies: Mapping[str, Row]) -> tuple[tuple[Row, ...], Ask | Ended]:
        assert self.run.planned
        plan = self.run.planned[0]
        imported = self._imported(plan, index) if plan.source else None
        return so_far(plan, self._teacher, index, replies, imported, self._judge)

    @cached_property
    def _teacher(self) -> Any:
        assert self.run.planned
        return reading_teacher(self.run.planned[0].teacher)

    @cached_property
    def _judge(self) -> Any:
        assert self.run.planned
        judge = (self.run.planned[0].judges or {}).get("teacher")
        return reading_teacher(judge) if judge else None

    def _imported(self, plan: Plan, index: int) -> ImportedRow | None:
        window = index // _ROWS_OF_WINDOW
        if window not in self._windows:
            assert plan.source
            start = window * _ROWS_OF_WINDOW
            rows = conversations.read(
                list(plan.source.files), plan.source.columns, start, start + _ROWS_OF_WINDOW, self.run.store.options
            )
            # Samples end about in their order, so few windows are wanted at once.
            while len(self._windows) >= _WINDOWS:
                self._windows.pop(next(iter(self._windows)))
            self._windows[window] = dict(rows)
        return self._windows[window].get(index)

    @cached_property
    def _windows(self) -> dict[int, dict[int, ImportedRow]]:
        """Imported rows by number, some hundred at a time."""
        return {}


def endings(run: Run, shard: int) -> Iterator[tuple[tuple[Row, ...], Row | None]]:
    """Rejected tries and accepted row of each sample that an open shard has begun; in memory are those that have not ended."""
    assert run.planned
    plan, reader = run.planned[0], _Reader(run)
    begun: dict[int, dict[str, Row]] = {}
    ended: set[int] = set()
    for entry in journal.stream_answers(run.store, shard, plan.hash):
        index = sample_index(entry["sample_id"])
        if index in ended:
            continue
        begun.setdefault(index, {}).setdefault(entry["key"], entry)
        rejected, step = reader.so_far(index, begun[index])
        if isinstance(step, Ended):
            ended.add(index)
            del begun[index]
            yield rejected, step.accepted
    for index, replies in sorted(begun.items()):
        yield reader.so_far(index, replies)[0], None
