"""A second extraction of accepted samples: a step of the sample, booked as any call, kept by field, usable as a filter."""

from __future__ import annotations

import json
import threading
import time
import uuid
from typing import Any

import pytest

from medkd.config import GenerationSettings, Judges, Prices, TeacherConfig
from medkd.errors import ConfigError, StoppedError
from medkd.records import PATIENT_RECORD
from medkd.stages import plan as planning
from medkd.stages.costs import by_group, costs_of
from medkd.stages.generate import generate
from medkd.stages.plan import Plan
from medkd.stages.prepare import build_data_set, prepare
from medkd.stages.sample_steps import JUDGE
from medkd.stages.shard_options import ShardOptions
from medkd.stages.shard_work import Judge
from medkd.store import layout, tables
from medkd.store.files import Store, open_store
from medkd.store.manifests import Manifest
from medkd.teacher.client import TeacherClient
from medkd.teacher.prompts import PROMPT_VERSION
from tests.generation import settings, simulated, start_simulator
from tests.student.trained import tiny_student

SAMPLES = 24
LEAVES = len(PATIENT_RECORD.leaves())


def plan_with(store: Store, teacher: TeacherConfig, judge: TeacherConfig | None, share: float, shards: int = 1) -> Plan:
    wanted: GenerationSettings = settings(judges=Judges(teacher="other" if judge else None, share=share).model_dump())
    plan = planning.make_plan(
        wanted, "simulator", teacher, seed=1, total_samples=SAMPLES, prompt_version=PROMPT_VERSION, judge=judge
    )
    planning.publish(store, plan, teacher, num_shards=shards, budget_usd=50.0, judge=judge)
    return plan


def run(
    store: Store, teacher: TeacherConfig, judge: TeacherConfig | None, shard: int = 0, on_progress: Any = lambda progress: None
) -> Manifest:
    stop = threading.Event()
    clients = [TeacherClient(one, api_key=None, stop=stop) for one in (teacher, judge) if one]
    options = ShardOptions(shard=shard, writer=uuid.uuid4().hex, concurrency=8, budget_usd=50.0, progress_seconds=0.2)
    try:
        second = Judge(judge, clients[1]) if judge else None
        return generate(store, teacher, clients[0], options, stop=stop, judge=second, on_progress=on_progress)
    finally:
        for client in clients:
            client.close()


def rows(store: Store, manifest: Manifest, name: str) -> list[dict[str, Any]]:
    return tables.read(store, [file for file in manifest.files if file.path.endswith(f"/{name}.parquet")])


def test_another_teacher_s_disagreement_is_kept_by_field_and_paid_from_the_same_budget() -> None:
    store = open_store("memory://judged")
    with start_simulator() as server, start_simulator(faults="hallucinate:0.4") as doubtful:
        teacher = simulated(server, prices=Prices(input=1.0, output=1.0))
        judge = simulated(doubtful, prices=Prices(input=3.0, output=3.0))
        plan = plan_with(store, teacher, judge, share=0.75)
        manifest = run(store, teacher, judge)
        billed = [each.counters.stats()["billed_total"] for each in (server, doubtful)]
    accepted, calls = rows(store, manifest, "samples"), rows(store, manifest, "calls")
    asked = [call for call in calls if call["step"] == JUDGE]
    wanted = [index for index in range(SAMPLES) if plan.is_judged(index)]
    assert 0 < len(wanted) < SAMPLES and sorted(int(call["sample_id"]) for call in asked) == wanted
    assert billed == [len(calls) - len(asked), len(asked)]
    assert manifest.money["spent_usd"] == pytest.approx(sum(call["cost_usd"] for call in calls))
    assert sum(row["cost_usd"] for row in accepted) == pytest.approx(sum(call["cost_usd"] for call in calls), rel=0.5)
    by_teacher = by_group(list(costs_of("run", store)))["teacher"]
    assert by_teacher["other"]["calls"] == len(asked) and by_teacher["simulator"]["calls"] == len(calls) - len(asked)
    judged = [row for row in accepted if row["disagreement"] is not None]
    disputed = [row for row in judged if row["disagreement"]]
    assert {int(row["sample_id"]) for row in judged} == set(wanted) and all(row["judge"] for row in judged)
    assert disputed and len(disputed) < len(judged)
    assert all("prescription[].drug" in row["disagreement"] for row in disputed)
    (group,) = manifest.counts["groups"]["teacher"].values()
    assert (group["judged"], group["agreed"]) == (len(judged), len(judged) - len(disputed))


def test_a_shard_that_stands_asks_no_judge_again_and_any_cut_gives_the_same_rows() -> None:
    tables_of = []
    with start_simulator() as server:
        teacher = simulated(server)
        for shards in (1, 3):
            store = open_store(f"memory://judged-{shards}")
            plan_with(store, teacher, None, share=0.5, shards=shards)
            found = [row for shard in range(shards) for row in rows(store, run(store, teacher, None, shard), "samples")]
            before = server.counters.stats()["billed_total"]
            run(store, teacher, None)
            assert server.counters.stats()["billed_total"] == before
            tables_of.append([{key: row[key] for key in ("sample_id", "output", "disagreement")} for row in found])
    assert tables_of[0] == tables_of[1]
    # The same teacher asked again about the same text: the simulator is of one mind.
    assert {tuple(row["disagreement"]) for row in tables_of[0] if row["disagreement"] is not None} == {()}


def test_a_stopped_shard_goes_on_and_pays_no_judge_twice() -> None:
    store = open_store("memory://judged-stopped")
    stop = threading.Event()
    with start_simulator(latency_seconds=0.02) as server:
        teacher = simulated(server, prices=Prices(input=1.0, output=1.0), max_concurrency=2)
        plan_with(store, teacher, None, share=1.0)
        client = TeacherClient(teacher, api_key=None, stop=stop)
        options = ShardOptions(shard=0, writer="first", concurrency=2, budget_usd=50.0, progress_seconds=0.01)

        def on_progress(progress: dict[str, Any]) -> None:
            if progress["calls"] >= 20:
                stop.set()

        with pytest.raises(StoppedError):
            generate(store, teacher, client, options, stop=stop, on_progress=on_progress)
        client.close()
        manifest = run(store, teacher, None)
        assert server.counters.stats()["billed_total"] == len(rows(store, manifest, "calls"))
    assert manifest.counts["accepted"] == SAMPLES
    assert all(row["disagreement"] == [] for row in rows(store, manifest, "samples"))


def test_a_judge_that_writes_no_record_leaves_the_row_as_it_is() -> None:
    store = open_store("memory://judged-badly")
    with start_simulator() as server, start_simulator(faults="not_json:1") as broken:
        teacher, judge = simulated(server), simulated(broken)
        plan_with(store, teacher, judge, share=1.0)
        manifest = run(store, teacher, judge)
    assert manifest.counts["accepted"] == SAMPLES
    assert {(row["judge"], row["disagreement"]) for row in rows(store, manifest, "samples")} == {(None, None)}


def test_a_judge_that_orders_a_long_wait_parks_the_shard_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medkd.teacher.pacing.PARK_SECONDS", 0.1)
    store, seen = open_store("memory://judged-parked"), []
    with start_simulator() as server, start_simulator(faults="rate_limit@3") as limited:
        teacher, judge = simulated(server), simulated(limited)
        plan_with(store, teacher, judge, share=1.0)
        began = time.time()
        run(store, teacher, judge, on_progress=seen.append)
    parked = [progress for progress in seen if progress["state"] == "parked"]
    assert parked and {progress["parked_for"] for progress in parked} == {"judge"}
    assert all(began < progress["parked_until"] < began + 30 for progress in parked)
    assert seen[-1]["state"] == "complete" and seen[-1]["parked_for"] is None


def test_disputed_rows_are_trained_on_only_if_nobody_asks_for_agreement() -> None:
    store = open_store("memory://disputed")
    with start_simulator() as server, start_simulator(faults="hallucinate:0.5") as doubtful:
        teacher, judge = simulated(server), simulated(doubtful)
        plan_with(store, teacher, judge, share=1.0)
        accepted = rows(store, run(store, teacher, judge), "samples")
    disputed = {row["sample_id"] for row in accepted if row["disagreement"]}
    build_data_set(store)
    kept, statistics = ids_by_split(store), json.loads(store.read("dataset/statistics.json"))
    assert disputed <= {one for ids in kept.values() for one in ids} and disputed & (kept["train"] | kept["validation"])
    assert statistics["agreement"]["judged"] == SAMPLES and statistics["agreement"]["agreed"] == SAMPLES - len(disputed)
    assert statistics["agreement"]["by_field"]["prescription[].drug"] == round(1 - len(disputed) / SAMPLES, 4)
    assert statistics["acceptance"]["teacher"]["simulator"]["agreement"] == round(1 - len(disputed) / SAMPLES, 4)
    assert f"Extracted a second time: {SAMPLES} rows" in store.read("dataset/README.md").decode()
    # Another filter makes the data set anew; what is tested on stays.
    prepare(store, "tiny", tiny_student("t5"), require_agreement=1.0)
    strict = ids_by_split(store)
    assert strict["test"] == kept["test"]
    assert strict["train"] == kept["train"] - disputed and strict["validation"] == kept["validation"] - disputed
    left_out = tables.decode(store.read("dataset/rejected.parquet"))
    assert {row["sample_id"] for row in left_out if row["reason"] == "disputed"} == disputed - kept["test"]
    prepare(store, "tiny", tiny_student("t5"), require_agreement=1 - LEAVES / LEAVES)
    assert ids_by_split(store) == kept


def ids_by_split(store: Store) -> dict[str, set[str]]:
    return {
        split: {row["sample_id"] for row in tables.decode(store.read(layout.dataset_part(split, 0)))} for split in layout.SPLITS
    }


def test_a_plan_without_judges_is_the_plan_it_was_and_a_batch_has_none() -> None:
    with start_simulator() as server:
        teacher = simulated(server)
        plan = planning.make_plan(settings(), "simulator", teacher, seed=1, total_samples=3, prompt_version=1)
        assert "judges" not in plan.as_json() and not plan.is_judged(0)
        store = open_store("memory://judged-batch")
        batch = teacher.model_copy(update={"mode": "batch"})
        plan_with(store, batch, None, share=1.0)
        with pytest.raises(ConfigError, match=r"generation_settings\.judges"):
            run(store, batch, None)
