"""What `medkd extract` says of the teacher beside a student, and how it refuses; a student at work: tests/student."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from medkd.commands.flags import build_parser
from medkd.config import Prices
from medkd.errors import ConfigError, UsageError
from medkd.stages.extract import Extracted, teachers_price
from medkd.store import layout, manifests, tables
from medkd.store.files import open_store
from tests.generation import Worker, planned, simulated, start_simulator


def test_the_teachers_price_is_what_its_extractions_cost_by_accepted_record() -> None:
    store = open_store("memory://teachers-price")
    with start_simulator() as server:
        teacher = simulated(server, prices=Prices(input=0.5, output=2.0))
        planned(store, teacher, samples=6, shards=2, budget_usd=5.0)
        with pytest.raises(ConfigError, match="hold no extraction by a teacher"):
            teachers_price(store)
        for shard in range(2):
            Worker(store, teacher, budget_usd=5.0).run(shard)
    paid = 0.0
    for shard in range(2):
        manifest = manifests.require(store, layout.shard_file(shard, "manifest.json"), "generate")
        calls = tables.read(store, [file for file in manifest.files if file.path.endswith("/calls.parquet")])
        paid += sum(call["cost_usd"] for call in calls if call["step"] == "extraction")
    found = teachers_price(store)
    assert (found.teacher, found.records) == ("simulator", 6)
    assert found.usd_per_1000 == pytest.approx(1000 * paid / 6) and paid > 0


def test_rates_and_money_follow_from_what_was_answered() -> None:
    done = Extracted(outcomes=Counter(record=20), seconds=4.0, answered_in=tuple(range(1, 21)))
    assert (done.per_second, done.within(0.5), done.within(0.95)) == (5.0, 11, 20)
    assert done.usd_per_1000(3.6) == pytest.approx(0.2)
    nothing = Extracted(outcomes=Counter(), seconds=0.0, answered_in=())
    assert (nothing.per_second, nothing.within(0.95), nothing.usd_per_1000(1.0)) == (0.0, 0.0, None)


def test_input_and_output_go_together(tmp_path: Path) -> None:
    args = build_parser().parse_args(["extract", "--model", str(tmp_path), "--input", "visits"])
    with pytest.raises(UsageError, match="--input, --output: go together"):
        args.verb(args, threading.Event())
