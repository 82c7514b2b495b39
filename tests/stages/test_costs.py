"""Ledgers added up: while shards run, when they have ended, and with what a preflight paid."""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path

import pytest

from medkd.config import Prices
from medkd.errors import BudgetError, ConfigError, RefusedError, StoppedError
from medkd.simulator.server import Server
from medkd.stages.bookings import Booking
from medkd.stages.costs import NO_SAMPLE, as_json, by_group, costs_of, find_runs, shown
from medkd.stages.preflight import first_call
from medkd.store import budget, layout
from medkd.store.files import Store, open_store
from medkd.teacher.client import TeacherClient
from tests.generation import Worker, planned, simulated, start_simulator

CHEAP = Prices(input=1.0, output=4.0)


@pytest.fixture
def server():
    # Slow enough that a shard can be stopped on its way.
    with start_simulator(latency_seconds=0.05) as server:
        yield server


def billed_usd(server: Server) -> float:
    stats = server.counters.stats()
    return (stats["billed_prompt_tokens"] * CHEAP.input + stats["billed_completion_tokens"] * CHEAP.output) / 1e6


def summed(store: Store) -> dict:
    return by_group([cost for name, run in find_runs(store).items() for cost in costs_of(name, run)])


def test_the_sum_is_what_the_teacher_billed_before_and_after_the_end(store: Store, server: Server) -> None:
    teacher = simulated(server, prices=CHEAP, max_concurrency=2)
    plan, _ = planned(store, teacher, samples=30, shards=2, budget_usd=5.0)
    Worker(store, teacher, budget_usd=5.0).run(0)
    half = Worker(store, teacher, budget_usd=5.0, progress_seconds=0.0)
    with pytest.raises(StoppedError):
        half.run(1, on_progress=lambda progress: progress["accepted"] and half.stop.set())
    open_sums = summed(store)
    assert open_sums["total"]["all"]["spent_usd"] == pytest.approx(billed_usd(server), rel=1e-6)
    assert open_sums["total"]["all"]["calls"] == server.counters.stats()["billed_total"]
    Worker(store, teacher, budget_usd=5.0).run(1)
    groups = summed(store)
    assert groups["total"]["all"]["spent_usd"] == pytest.approx(billed_usd(server), rel=1e-6)
    assert groups["total"]["all"]["prompt_tokens"] == server.counters.stats()["billed_prompt_tokens"]
    assert set(groups["topic"]) == set(plan.topics) and list(groups["teacher"]) == ["simulator"]
    for group in ("run", "teacher", "topic", "day"):
        assert sum(one["spent_usd"] for one in groups[group].values()) == pytest.approx(billed_usd(server), rel=1e-6)
    assert json.loads(as_json(groups))["topic"] == groups["topic"]
    assert "by topic" in "\n".join(shown(groups))


def test_a_folder_of_runs_is_summed_by_run(tmp_path: Path, server: Server) -> None:
    teacher = simulated(server, prices=CHEAP)
    for name, samples in (("monday", 4), ("tuesday", 8)):
        run = open_store(str(tmp_path / name))
        planned(run, teacher, samples=samples, budget_usd=5.0)
        Worker(run, teacher, budget_usd=5.0).run()
    (tmp_path / "notes").mkdir()
    groups = summed(open_store(str(tmp_path)))
    assert {name: one["calls"] for name, one in groups["run"].items()} == {"monday": 8, "tuesday": 16}
    with pytest.raises(ConfigError, match="is no run and holds none"):
        find_runs(open_store(str(tmp_path / "notes")))


def test_a_first_call_is_booked_and_taken_off_the_budget(store: Store, server: Server) -> None:
    teacher = simulated(server, prices=CHEAP)
    plan, cut = planned(store, teacher, samples=12, budget_usd=5.0)
    client = TeacherClient(teacher, api_key=None, stop=threading.Event())
    said = first_call(client, plan, teacher, Booking(store, "simulator", uuid.uuid4().hex, 5.0))
    client.close()
    assert "answered by" in said and "booked" in said
    assert budget.booked_usd(store) == pytest.approx(billed_usd(server), rel=1e-6)
    groups = summed(store)
    assert groups["topic"][NO_SAMPLE]["spent_usd"] == pytest.approx(billed_usd(server), rel=1e-6)
    purse = budget.Budget(store=store, shard=0, writer="w", budget_usd=5.0, chunk_usd=cut.chunk_usd)
    taken = 0
    while purse.take():
        taken += 1
    assert taken * cut.chunk_usd + budget.booked_usd(store) <= 5.0
    assert (taken + 1) * cut.chunk_usd + budget.booked_usd(store) > 5.0


def test_a_first_call_without_room_in_the_budget_is_not_sent(store: Store, server: Server) -> None:
    teacher = simulated(server, prices=CHEAP)
    plan, cut = planned(store, teacher, samples=12, budget_usd=5.0)
    purse = budget.Budget(store=store, shard=0, writer="w", budget_usd=5.0, chunk_usd=cut.chunk_usd)
    taken = 0.0
    while chunk := purse.take():
        taken += chunk.usd
    client = TeacherClient(teacher, api_key=None, stop=threading.Event())
    with pytest.raises(BudgetError, match=r"--budget-usd: got .* are taken, and a first call may cost \$"):
        first_call(client, plan, teacher, Booking(store, "simulator", "x", taken))
    client.close()
    assert server.counters.stats()["requests"] == 0
    assert budget.booked_usd(store) == 0.0


def test_a_first_call_that_the_teacher_refuses_leaves_nothing_booked_but_what_was_lost_on_the_way(store: Store) -> None:
    with start_simulator(faults="reset_after@1,bad_key@2-") as server:
        teacher = simulated(server, prices=CHEAP)
        plan, _ = planned(store, teacher, samples=12, budget_usd=5.0)
        client = TeacherClient(teacher, api_key=None, stop=threading.Event())
        for booked in (1, 1):
            with pytest.raises(RefusedError):
                first_call(client, plan, teacher, Booking(store, "simulator", uuid.uuid4().hex, 5.0))
            possibly = [one["possibly_usd"] for one in budget.bookings(store)]
            assert sum(usd > 0 for usd in possibly) == booked
        client.close()
        assert max(possibly) >= billed_usd(server) > 0


def test_a_booking_that_was_never_settled_stands_with_its_worst_case(store: Store) -> None:
    Booking(store, "big", "x", None).reserve(0.25)
    (booked,) = budget.bookings(store)
    assert (booked["spent_usd"], booked["possibly_usd"]) == (0.0, 0.25)
    assert store.list_folders() == [layout.PREFLIGHT]
