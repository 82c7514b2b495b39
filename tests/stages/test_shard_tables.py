"""A shard's tables while its samples end: whole, in the plan's order, and the same bytes in whatever order samples end."""

from __future__ import annotations

import random
from typing import Any

import pytest

from medkd.samples import sample_id
from medkd.stages.sample_steps import TOKEN_KINDS, Ended
from medkd.stages.shard_tables import ShardTables
from medkd.store import tables
from medkd.store.files import Store, open_store

INDICES = range(30, 90)


def whose(index: int, **more: Any) -> dict[str, Any]:
    return {"sample_id": sample_id(index), "topic": "gout", "mood": "calm", "teacher": "big", "cost_usd": index / 700, **more}


def ended(index: int) -> Ended:
    """Every third sample has a rejected try, every ninth nothing else."""
    rejected = (whose(index, reason="ungrounded", variation=0),) if index % 3 == 0 else ()
    return Ended(accepted=None if index % 9 == 0 else whose(index, variation=len(rejected)), rejected=rejected)


def calls(index: int) -> list[dict[str, Any]]:
    common = {"kind": "done", "sample_id": sample_id(index), "attempts": 2, "cost_usd": index / 900, "possibly_usd": 0.001}
    tokens = dict.fromkeys(TOKEN_KINDS, 10)
    # The keys are hashes: their order is not that of the calls.
    return [{**common, **tokens, "key": f"{(index * 7 - step) % 11}-{index}", "repair": step} for step in range(2)]


def written(order: list[int]) -> tuple[Store, ShardTables]:
    store = open_store(f"memory://shard-tables-{random.random()}")
    found = ShardTables(store, 2, INDICES)
    for index in order:
        found.add(index, ended(index), calls(index))
    found.close()
    return store, found


@pytest.mark.parametrize("seed", range(3))
def test_samples_that_end_in_any_order_leave_the_same_bytes_and_sums(seed: int) -> None:
    in_order, expected = written(list(INDICES))
    shuffled = random.Random(seed).sample(INDICES, len(INDICES))
    store, found = written(shuffled)
    for name in ("samples", "rejected", "calls"):
        path = f"generate/shard-00002/{name}.parquet"
        assert store.read(path) == in_order.read(path)
    assert found.counts() == expected.counts()
    assert found.groups.table() == expected.groups.table()
    assert (found.spent_usd, found.possibly_usd) == (expected.spent_usd, expected.possibly_usd)


def test_the_tables_hold_every_sample_and_every_call_in_the_order_of_the_plan_and_of_the_journal() -> None:
    store, found = written(list(reversed(INDICES)))
    rows = {name: tables.decode(store.read(f"generate/shard-00002/{name}.parquet")) for name in ("samples", "rejected", "calls")}
    assert [row["sample_id"] for row in rows["samples"]] == [sample_id(index) for index in INDICES if index % 9]
    assert [row["sample_id"] for row in rows["rejected"]] == [sample_id(index) for index in INDICES if index % 3 == 0]
    assert [row["key"] for row in rows["calls"]] == [call["key"] for index in INDICES for call in calls(index)]
    counts = found.counts()
    assert (counts["samples"], counts["accepted"], counts["short"], counts["rejected"]) == (60, 54, 6, 20)
    assert (counts["calls"], counts["attempts"], counts["repairs"], counts["prompt_tokens"]) == (120, 240, 60, 1200)


def test_a_sample_that_has_not_ended_leaves_no_tables() -> None:
    store = open_store(f"memory://shard-tables-{random.random()}")
    found = ShardTables(store, 2, INDICES)
    for index in INDICES[1:]:
        found.add(index, ended(index), calls(index))
    with pytest.raises(AssertionError):
        found.close()
    assert store.list_files() == []
