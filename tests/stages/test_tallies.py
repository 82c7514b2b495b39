"""Cells that fell short and why, acceptance and cost by group: summed from samples, over shards and for the eye."""

from __future__ import annotations

from typing import Any

import pytest

from medkd import config
from medkd.simulator.server import Server
from medkd.stages.plan import Plan
from medkd.stages.progress import ShardReader
from medkd.stages.sample_steps import Ended
from medkd.stages.tallies import Groups, ShortCells, lost_cells, merged_groups, merged_short_cells, shown_cells
from medkd.store import tables
from medkd.store.files import open_store
from tests.generation import Worker, planned, simulated, start_simulator


def row(topic: str, mood: str, reason: str = "", cost: float = 0.01) -> dict:
    return {"teacher": "big", "topic": topic, "mood": mood, "reason": reason, "cost_usd": cost}


def sample(topic: str, mood: str, *reasons: str, accepted: bool = True) -> Ended:
    return Ended(
        accepted=row(topic, mood) if accepted else None, rejected=tuple(row(topic, mood, reason, 0.02) for reason in reasons)
    )


def short_cells(samples: list[Ended], of_run: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
    cells = ShortCells()
    for ended in samples:
        cells.add(ended)
    return cells.table(of_run)


def groups(samples: list[Ended]) -> dict[str, Any]:
    found = Groups()
    for ended in samples:
        found.add(ended)
    return found.table()


FIRST = [sample("gout", "calm"), sample("gout", "calm", "length", "ungrounded", "length", "length", accepted=False)]
SECOND = [sample("gout", "calm", "refused"), sample("asthma", "angry", "refused", accepted=False)]


def test_a_cell_falls_short_by_its_samples_without_a_row_and_says_why_each_try_failed() -> None:
    why = {"length": 3, "ungrounded": 1}
    assert short_cells(FIRST, {("gout", "calm"): 30}) == [
        {"topic": "gout", "mood": "calm", "planned": 2, "accepted": 1, "reasons": why, "of_run": 30}
    ]
    assert short_cells([sample("gout", "calm", "length")], {}) == [], "a try that was replaced leaves no gap"


def test_tables_of_many_shards_are_one_against_what_the_whole_run_planned() -> None:
    merged = merged_short_cells(short_cells(shard, {("gout", "calm"): 30}) for shard in (FIRST, SECOND, []))
    assert [(cell["topic"], cell["planned"], cell["accepted"]) for cell in merged] == [("asthma", 1, 0), ("gout", 30, 29)]


def test_the_screen_shows_the_largest_gaps_first_and_counts_the_rest() -> None:
    cells = [{"topic": f"t{n}", "mood": "calm", "planned": 9, "accepted": 9 - n, "reasons": {"refused": n}} for n in range(1, 6)]
    assert shown_cells(cells, most=2) == (
        "t5 / calm: 4 of 9; tries rejected: refused 5",
        "t4 / calm: 5 of 9; tries rejected: refused 4",
        "and 3 cells more",
    )
    assert shown_cells([]) == ()


def test_acceptance_and_cost_are_sums_over_all_tries() -> None:
    merged = merged_groups(groups(shard) for shard in (FIRST, SECOND, []))
    # gout: an accepted row, four failed tries of another sample, a failed try and its accepted successor.
    assert merged["topic"]["gout"] == {
        "samples": 3,
        "accepted": 2,
        "tries": 7,
        "acceptance": pytest.approx(2 / 7, abs=1e-4),
        "cost_usd": pytest.approx(0.12),
        "cost_per_accepted_usd": pytest.approx(0.06),
    }
    assert merged["mood"]["angry"]["cost_per_accepted_usd"] is None, "nothing was bought for it"
    assert {group: sum(found["samples"] for found in merged[group].values()) for group in merged} == {
        "teacher": 4,
        "topic": 4,
        "mood": 4,
    }


@pytest.mark.parametrize("samples", [1, 6, 20, 100])
def test_the_planned_cells_are_those_of_all_samples(samples: int) -> None:
    plan, _ = planned(open_store(f"memory://cells-{samples}"), config.load(None).teacher("simulator"), samples=samples)
    counted: dict[tuple[str, str], int] = {}
    for index in range(samples):
        spec = plan.spec(index, 0)
        counted[spec.topic, spec.mood] = counted.get((spec.topic, spec.mood), 0) + 1
    assert plan.cells() == counted
    assert max(counted.values()) - min(counted.values()) <= 1


def test_a_shard_that_is_missing_takes_its_cells_with_it() -> None:
    plan, _ = planned(open_store("memory://lost"), config.load(None).teacher("simulator"), samples=12)
    lost = merged_short_cells([lost_cells(plan, plan.shard_range(1, 4))])
    assert sum(cell["planned"] - cell["accepted"] for cell in lost) == 3
    assert all(cell["planned"] == 2 and list(cell["reasons"]) == ["missing_shard"] for cell in lost)


def test_every_cell_ends_with_its_exact_count_or_stands_in_the_table() -> None:
    with start_simulator(faults="refusal:0.5", seed=3) as server:
        manifests, plan, reader = _two_shards(server)
    short = merged_short_cells(manifest.counts["short_cells"] for manifest in manifests)
    got: dict[tuple[str, str], int] = {}
    for manifest in manifests:
        for accepted in tables.read(reader, [manifest.files[0]]):
            got[accepted["topic"], accepted["mood"]] = got.get((accepted["topic"], accepted["mood"]), 0) + 1
    missing = {(cell["topic"], cell["mood"]): cell["planned"] - cell["accepted"] for cell in short}
    assert {cell: got.get(cell, 0) + missing.get(cell, 0) for cell in plan.cells()} == plan.cells()
    assert short, "half of all calls refused: some sample of forty had four bad tries"
    assert all(cell["reasons"] == {"refused": 4 * (cell["planned"] - cell["accepted"])} for cell in short)
    shown = ShardReader(reader).read({0, 1}, ())
    assert list(shown.short_cells) == short


def _two_shards(server: Server):
    teacher, store = simulated(server), open_store("memory://exact-cells")
    plan, _ = planned(store, teacher, samples=40, shards=2)
    assert isinstance(plan, Plan)
    return [Worker(store, teacher).run(shard) for shard in range(2)], plan, store
