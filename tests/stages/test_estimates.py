"""What a plan will take, said before anything is paid, against what the simulated teacher then bills."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from medkd import config
from medkd.config import Limits, Prices, TeacherConfig
from medkd.errors import ConfigError, StoppedError
from medkd.simulator.server import Server
from medkd.stages.estimates import Estimate, estimate, estimate_usd, shown
from medkd.stages.measured import Measured, measure
from medkd.stages.plan import ConversationSource, Plan
from medkd.store.conversations import Columns, survey
from medkd.store.files import open_store
from tests.generation import Worker, planned, simulated, start_simulator

PRICED = Prices(input=1.0, output=4.0, peak_multiplier=2.0, peak_hours_utc=(1, 2))


def teacher(**limits: int) -> TeacherConfig:
    entry = config.load(None).teacher("simulator")
    return entry.model_copy(update={"prices": PRICED, "limits": Limits(**limits)})


def plan_of(entry: TeacherConfig, samples: int = 600, **settings: object) -> Plan:
    return planned(open_store(f"memory://{uuid.uuid4().hex}"), entry, samples=samples, budget_usd=1e6, **settings)[0]


def estimated(entry: TeacherConfig, *, shards: int = 4, parallel: int = 4, seconds: float = 10.0, samples: int = 600) -> Estimate:
    return estimate(plan_of(entry, samples), entry, num_shards=shards, parallel=parallel, seconds_per_call=seconds)


def test_it_is_above_what_a_teacher_without_faults_bills_and_not_far_from_it() -> None:
    with start_simulator() as server:
        entry, store = simulated(server, prices=Prices(input=1.0, output=4.0)), open_store("memory://estimate")
        plan, cut = planned(store, entry, samples=40, budget_usd=5.0)
        manifest = Worker(store, entry, budget_usd=5.0).run()
        stats = server.counters.stats()
    expected = estimate(plan, entry, num_shards=1, parallel=1, seconds_per_call=1.0)
    assert expected.calls == stats["billed_total"] == 80
    assert expected.cost_usd == cut.estimate_usd
    # The simulated doctor and patient are of few words, and their teacher does not bill the schema.
    assert manifest.money["spent_usd"] < expected.cost_usd < 3 * manifest.money["spent_usd"]
    assert stats["billed_prompt_tokens"] < expected.prompt_tokens < 3 * stats["billed_prompt_tokens"]


def test_the_cost_is_that_of_the_peak_and_the_cheapest_that_outside_of_it() -> None:
    found = estimated(teacher())
    assert found.cost_usd == pytest.approx(2 * found.cheapest_usd) == estimate_usd(plan_of(teacher()), teacher())
    assert found.budget_usd >= found.cost_usd
    free = estimated(config.load(None).teacher("simulator"))
    assert (free.cost_usd, free.budget_usd) == (0.0, 0.0)
    assert not any(line.startswith("budget") for line in shown(free))


def test_the_slowest_limit_says_how_long_it_takes() -> None:
    found = estimated(teacher(requests_per_minute=100, tokens_per_minute=10_000_000, max_concurrency=32))
    assert found.hours == found.hours_by_limit["100 requests a minute"] == pytest.approx(1200 / 100 / 60)
    assert found.hours_by_limit["32 calls in flight of 10 s"] == pytest.approx(1200 * 10 / 32 / 3600)
    tokens = found.prompt_tokens + found.completion_tokens
    assert found.hours_by_limit["10,000,000 tokens a minute"] == pytest.approx(tokens / 1e7 / 60, rel=1e-3)
    assert "set by 100 requests a minute" in "\n".join(shown(found))


def test_fewer_shards_than_run_at_once_leave_slots_of_the_key_unused() -> None:
    assert "8 calls in flight of 10 s" in estimated(teacher(max_concurrency=32), shards=1, parallel=4).hours_by_limit


def test_second_extractions_of_the_same_teacher_are_among_its_calls_as_it_bills_them() -> None:
    with start_simulator() as server:
        entry, store = simulated(server, prices=Prices(input=1.0, output=4.0)), open_store("memory://estimate-judged")
        plan, _ = planned(store, entry, samples=40, budget_usd=5.0, judges={"share": 1.0})
        Worker(store, entry, budget_usd=5.0).run()
        billed = server.counters.stats()["billed_total"]
    expected = estimate(plan, entry, num_shards=1, parallel=1, seconds_per_call=9.0)
    assert (expected.calls, expected.second_extractions, expected.judge) == (billed, 40, None) == (120, 40, None)
    alone = estimate(replace(plan, judges=None), entry, num_shards=1, parallel=1, seconds_per_call=9.0)
    assert expected.hours == pytest.approx(1.5 * alone.hours) and expected.prompt_tokens > 1.2 * alone.prompt_tokens
    assert "calls     120, 40 of them second extractions" in list(shown(expected))


def test_another_judges_limits_can_be_what_takes_longest() -> None:
    entry, slow = teacher(requests_per_minute=1000, max_concurrency=32), teacher(requests_per_minute=1, max_concurrency=32)
    plan = replace(plan_of(entry), judges={"share": 0.5, "teacher": {"name": "slow"}})
    found = estimate(plan, entry, num_shards=4, parallel=4, seconds_per_call=1.0, judge=slow)
    assert found.hours == found.hours_by_limit["1 requests a minute of slow"] == pytest.approx(300 / 60)
    assert found.hours_by_limit["1,000 requests a minute"] == pytest.approx(1200 / 1000 / 60), "its own calls alone"
    assert (found.calls, found.second_extractions, found.judge) == (1500, 300, "slow")


def test_a_pilot_takes_the_place_of_what_is_assumed() -> None:
    with start_simulator(latency_seconds=0.2, faults="not_json:0.4") as server:
        entry, store = simulated(server, prices=Prices(input=1.0, output=4.0)), open_store(f"memory://{uuid.uuid4().hex}")
        planned(store, entry, samples=40, shards=2, budget_usd=5.0)
        pilot = Worker(store, entry, budget_usd=5.0, progress_seconds=0.0)
        with pytest.raises(StoppedError):
            pilot.run(0, on_progress=lambda progress: progress["accepted"] >= 12 and pilot.stop.set())
        halfway = measure(store)
        assert halfway.accepted >= 12 and halfway.calls > 2.0
        for shard in (0, 1):
            Worker(store, entry, budget_usd=5.0).run(shard)
        stats = server.counters.stats()
    found = measure(store)
    assert found.accepted == 40 and found.calls * 40 == pytest.approx(stats["billed_total"])
    assert found.prompt_tokens * 40 == pytest.approx(stats["billed_prompt_tokens"])
    assert found.completion_tokens * 40 == pytest.approx(stats["billed_completion_tokens"])
    assert found.seconds_per_call is not None and found.seconds_per_call >= 0.2
    assert found.steps["extraction"].calls > found.steps["conversation"].calls == pytest.approx(1.0, abs=0.2)

    plan = plan_of(entry, 400)
    expected = estimate(plan, entry, num_shards=1, parallel=1, measured=found)
    assert expected.calls == 10 * stats["billed_total"]
    assert expected.cost_usd == pytest.approx(10 * (stats["billed_prompt_tokens"] + 4 * stats["billed_completion_tokens"]) / 1e6)
    words = "\n".join(shown(expected))
    assert "measured: 40 accepted samples of memory://" in words and "calls of kind extraction" in words
    assert "assumed" not in words and f"measured: {found.seconds_per_call:.2g}"[:12] in words
    other = estimate(plan, entry.model_copy(update={"model": "clinic-2"}), num_shards=1, parallel=1, measured=found)
    assert "assumed: simulator (clinic-2) takes as many calls" in "\n".join(shown(other))
    said = estimate(plan, entry, num_shards=1, parallel=1, seconds_per_call=3.0, measured=found)
    assert "said: 3 s a call" in "\n".join(shown(said))


def test_too_little_measures_nothing(server: Server) -> None:
    entry, store = simulated(server), open_store(f"memory://{uuid.uuid4().hex}")
    planned(store, entry, samples=4)
    Worker(store, entry).run()
    with pytest.raises(ConfigError, match="4 accepted samples and 8 calls; expected 10"):
        measure(store)


def test_own_conversations_take_one_call_each_and_labelled_ones_none(tmp_path: Path, server: Server) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"conversation": "Doctor: Hi.\\\\nPatient: Hello.", "record": {}}\n' * 5)
    for record, calls in ((None, 5), ("record", 0)):
        columns = Columns(record=record)
        source = ConversationSource(files=tuple(survey([str(file)], columns)), columns=columns, contains_phi=False)
        plan, _ = planned(
            open_store(f"memory://{uuid.uuid4().hex}"), simulated(server), samples=None, source=source, budget_usd=9.0
        )
        found = estimate(plan, teacher(), num_shards=1, parallel=1, seconds_per_call=1.0)
        assert found.calls == calls
        assert (found.cost_usd > 0) == (calls > 0)
        generated = Measured(
            run="pilot",
            teacher="simulator",
            model="m",
            imported=False,
            accepted=9,
            rejected_share=0,
            steps={},
            seconds_per_call=None,
        )
        if calls:
            with pytest.raises(ConfigError, match="pilot worked on generated conversations"):
                estimate(plan, teacher(), num_shards=1, parallel=1, measured=generated)


@pytest.fixture
def server():
    with start_simulator() as server:
        yield server
