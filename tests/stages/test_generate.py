"""One shard at a time against the simulator over real HTTP, on every kind of store."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from medkd.config import Prices
from medkd.errors import BudgetError, ConfigError, FencedError, MedkdError, RefusedError, StoppedError
from medkd.samples import data_set_hash
from medkd.simulator.server import Server
from medkd.stages import control
from medkd.stages.plan import ConversationSource
from medkd.store import journal, layout, tables
from medkd.store.budget import Budget
from medkd.store.conversations import Columns, survey
from medkd.store.files import Store, open_store
from medkd.store.manifests import Manifest
from tests.benchmarks.fault_menu import set_faults
from tests.generation import Worker, planned, simulated, start_simulator

CHEAP = Prices(input=1.0, output=4.0)


@pytest.fixture
def server() -> Iterator[Server]:
    with start_simulator() as server:
        yield server


def samples_of(store: Store, *manifests: Manifest) -> list[dict]:
    return [row for manifest in manifests for row in tables.read(store, [manifest.files[0]])]


def rejected_of(store: Store, manifest: Manifest) -> list[dict]:
    return tables.read(store, [manifest.files[1]])


def calls_of(store: Store, manifest: Manifest) -> list[dict]:
    return tables.read(store, [manifest.files[2]])


def test_a_shard_ends_with_every_sample_accepted_and_its_manifest_verifies(store: Store, server: Server) -> None:
    teacher = simulated(server)
    plan, _ = planned(store, teacher, samples=12)
    manifest = Worker(store, teacher).run()
    rows = samples_of(store, manifest)
    assert [row["sample_id"] for row in rows] == [plan.spec(index, 0).sample_id for index in range(12)]
    assert manifest.counts["accepted"] == 12
    assert all(json.loads(row["output"])["patient_details"] for row in rows)
    assert server.counters.stats()["bodies_billed_more_than_once"] == 0
    assert server.counters.stats()["billed_total"] == manifest.counts["calls"] == len(calls_of(store, manifest))
    assert not store.list_files(layout.journal_folder(0)), "segments of a finished shard are gone"


def test_a_finished_shard_asks_nothing_again(store: Store, server: Server) -> None:
    teacher = simulated(server)
    planned(store, teacher)
    first = Worker(store, teacher).run()
    asked = server.counters.stats()["requests"]
    assert Worker(store, teacher).run() == first
    assert server.counters.stats()["requests"] == asked


@pytest.mark.parametrize("shards", [1, 4, 7])
def test_any_number_of_shards_gives_the_same_samples(server: Server, shards: int) -> None:
    teacher = simulated(server)
    one, many = open_store("memory://one"), open_store(f"memory://many-{shards}")
    planned(one, teacher, samples=30)
    planned(many, teacher, samples=30, shards=shards)
    alone = samples_of(one, Worker(one, teacher).run())
    cut = samples_of(many, *(Worker(many, teacher).run(shard) for shard in range(shards)))
    assert data_set_hash(alone) == data_set_hash(cut)
    assert len(cut) == 30


def test_a_rejected_sample_is_topped_up_with_a_variation_of_itself(server: Server) -> None:
    with start_simulator(faults="refusal:0.3") as faulty:
        teacher, store = simulated(faulty), open_store("memory://refusals")
        plan, _ = planned(store, teacher, samples=20)
        manifest = Worker(store, teacher).run()
    rejected = rejected_of(store, manifest)
    assert manifest.counts["accepted"] + manifest.counts["short"] == 20
    assert rejected and {row["reason"] for row in rejected} == {"refused"}
    for row in samples_of(store, manifest):
        earlier = [other for other in rejected if other["sample_id"] == row["sample_id"]]
        assert len(earlier) == row["variation"]
        assert row["topic"] == plan.spec(int(row["sample_id"]), 0).topic, "a variation stays in its cell"


def test_a_hallucinated_drug_is_never_accepted(server: Server) -> None:
    with start_simulator(faults="hallucinate:0.3") as faulty:
        teacher, store = simulated(faulty), open_store("memory://hallucinations")
        planned(store, teacher, samples=30)
        manifest = Worker(store, teacher).run()
    told = [call for call in calls_of(store, manifest) if call["repair"] > 0]
    assert told, "an ungrounded record is sent back"
    for row in samples_of(store, manifest):
        spoken = row["input"].lower()
        assert all(item["drug"].lower() in spoken for item in json.loads(row["output"])["prescription"])


def test_a_stopped_shard_goes_on_and_asks_nothing_durable_again(store: Store) -> None:
    with start_simulator(latency_seconds=0.05) as server:
        teacher = simulated(server)
        planned(store, teacher, samples=40)
        worker = Worker(store, teacher)

        def stop_midway(progress: dict) -> None:
            if progress["accepted"] >= 8:
                worker.stop.set()

        with pytest.raises(StoppedError):
            worker.run(on_progress=stop_midway)
        manifest = Worker(store, teacher).run()
        assert manifest.counts["accepted"] == 40
        stats = server.counters.stats()
        assert stats["billed_total"] == manifest.counts["calls"], "calls in flight at a stop end and are kept"
        assert stats["bodies_billed_more_than_once"] == 0
    assert manifest.money["possibly_usd"] == 0


def test_calls_that_a_terminal_verdict_finds_unsent_are_not_booked_as_possibly_spent() -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    with start_simulator(latency_seconds=0.05, faults="money@12-") as server:
        teacher = simulated(server, prices=CHEAP)
        planned(store, teacher, samples=20, budget_usd=5.0)
        with pytest.raises(RefusedError):
            Worker(store, teacher, budget_usd=5.0).run()
        set_faults(server, "")
        manifest = Worker(store, teacher, budget_usd=5.0).run()
        stats = server.counters.stats()
    billed = (stats["billed_prompt_tokens"] * CHEAP.input + stats["billed_completion_tokens"] * CHEAP.output) / 1e6
    assert manifest.money["spent_usd"] == pytest.approx(billed)
    assert manifest.money["possibly_usd"] == 0


def test_calls_that_a_stop_finds_parked_are_not_booked_as_possibly_spent() -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    with start_simulator(latency_seconds=0.05, faults="rate_limit_long@12-") as server:
        teacher = simulated(server, prices=CHEAP)
        planned(store, teacher, samples=20, budget_usd=5.0)
        parked = Worker(store, teacher, budget_usd=5.0)
        with pytest.raises(StoppedError):
            parked.run(on_progress=lambda progress: progress["state"] == "parked" and parked.stop.set())
        set_faults(server, "")
        manifest = Worker(store, teacher, budget_usd=5.0).run()
    assert manifest.counts["accepted"] == 20
    assert manifest.money["possibly_usd"] == 0


def test_a_second_writer_fences_the_first_and_nothing_is_doubled(store: Store) -> None:
    with start_simulator(latency_seconds=0.05) as server:
        teacher = simulated(server)
        planned(store, teacher, samples=60)
        outcomes: list[Manifest | MedkdError] = []
        started = threading.Event()

        def first() -> None:
            try:
                outcomes.append(Worker(store, teacher).run(on_progress=lambda progress: progress["accepted"] and started.set()))
            except MedkdError as error:
                outcomes.append(error)

        thread = threading.Thread(target=first)
        thread.start()
        assert started.wait(30)
        manifest = Worker(store, teacher).run()
        thread.join(30)
    (fenced,) = outcomes
    assert isinstance(fenced, FencedError) and fenced.exit_code == 75
    rows = samples_of(store, manifest)
    assert len({row["sample_id"] for row in rows}) == len(rows) == 60


def test_the_ledger_is_what_the_teacher_billed(server: Server) -> None:
    teacher, store = simulated(server, prices=CHEAP), open_store("memory://ledger")
    planned(store, teacher, samples=10, budget_usd=5.0)
    manifest = Worker(store, teacher, budget_usd=5.0).run()
    calls = calls_of(store, manifest)
    by_tokens = sum(call["prompt_tokens"] * CHEAP.input + call["completion_tokens"] * CHEAP.output for call in calls) / 1e6
    assert manifest.money["spent_usd"] == pytest.approx(by_tokens)
    assert manifest.money["possibly_usd"] == 0
    assert sum(row["cost_usd"] for row in samples_of(store, manifest)) == pytest.approx(by_tokens)


def test_a_chunk_that_a_killed_writer_took_and_did_not_journal_is_spent_by_the_next_one(server: Server) -> None:
    teacher, store = simulated(server, prices=CHEAP), open_store(f"memory://{uuid.uuid4().hex}")
    _, cut = planned(store, teacher, samples=10, budget_usd=5.0)
    killed = Budget(store=store, shard=0, writer="killed", budget_usd=cut.chunk_usd, chunk_usd=cut.chunk_usd)
    assert killed.take() and not killed.take(), "all that this run may cost"
    manifest = Worker(store, teacher, budget_usd=cut.chunk_usd).run()
    assert manifest.counts["accepted"] == 10
    assert manifest.money["possibly_usd"] == 0 and manifest.money["taken_usd"] == cut.chunk_usd
    returned = json.loads(store.read(layout.budget_return(0)))["usd"]
    assert returned == pytest.approx(cut.chunk_usd - manifest.money["spent_usd"])


def test_the_budget_stops_all_shards_and_a_larger_one_goes_on() -> None:
    dear = Prices(input=40.0, output=160.0)
    with start_simulator() as server:
        teacher, store = simulated(server, prices=dear, max_concurrency=4), open_store("memory://broke")
        plan, _ = planned(store, teacher, samples=400, shards=2, budget_usd=100.0)
        budget = 13.0  # one chunk
        for shard in range(2):
            with pytest.raises(BudgetError) as stopped:
                Worker(store, teacher, budget_usd=budget).run(shard)
            assert stopped.value.exit_code == 77
        journals = [journal.replay_shard(store, shard, plan.hash) for shard in range(2)]
        spent = sum(entry["cost_usd"] for replay in journals for entry in replay.done.values())
        assert budget / 2 < spent <= budget
        assert sum(len(replay.done) for replay in journals) == server.counters.stats()["billed_total"]
        manifests = [Worker(store, teacher, budget_usd=1000.0).run(shard) for shard in range(2)]
        assert sum(manifest.counts["accepted"] for manifest in manifests) == 400
        assert server.counters.stats()["bodies_billed_more_than_once"] == 0


def test_a_monstrous_conversation_is_rejected_alone_and_a_long_one_is_bought_at_any_concurrency(
    tmp_path: Path, server: Server
) -> None:
    store = open_store("memory://monster")
    teacher = simulated(server, prices=CHEAP, max_concurrency=1)
    line = "Doctor: How are you?\nPatient: I have had a cough for three days.\n"
    sizes = {"short": 1, "long": 1_500, "monstrous": 20_000, "last": 1}
    file = tmp_path / "visits.jsonl"
    rows = [{"id": name, "conversation": line * times} for name, times in sizes.items()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = Columns(id="id")
    source = ConversationSource(files=tuple(survey([str(file)], columns)), columns=columns, contains_phi=False)
    _, cut = planned(store, teacher, samples=None, source=source, budget_usd=2.0)
    assert len(line) * 1_500 / 1e6 < cut.chunk_usd < len(line) * 20_000 / 1e6, "what the sizes are about"
    manifest = Worker(store, teacher, budget_usd=2.0).run()
    assert [row["source_id"] for row in samples_of(store, manifest)] == ["short", "long", "last"]
    assert [(row["source_id"], row["reason"]) for row in rejected_of(store, manifest)] == [("monstrous", "too_dear")]
    assert server.counters.stats()["billed_total"] == 3


def test_a_priced_run_parks_all_but_its_pilot_until_the_decision(server: Server) -> None:
    teacher, store = simulated(server, prices=CHEAP), open_store("memory://pilot")
    planned(store, teacher, samples=1000, shards=2, budget_usd=50.0)
    assert control.read_control(store).state == "pilot"
    pilot, other = Worker(store, teacher, budget_usd=50.0), Worker(store, teacher, budget_usd=50.0)
    seen: dict[int, list[dict]] = {0: [], 1: []}
    threads = [threading.Thread(target=swallow, args=(worker, shard, seen[shard])) for shard, worker in enumerate((pilot, other))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while not (decision := control.decide_pilot(store)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert decision and decision.state == "run", decision
    time.sleep(0.5)
    for worker in (pilot, other):
        worker.stop.set()
    for thread in threads:
        thread.join(30)
    assert seen[0][-1]["accepted"] == control.PILOT_SAMPLES
    assert seen[1][-1]["calls"] == 0
    assert any(progress["state"] == "parked" and progress["parked_for"] == "pilot" for progress in seen[1])


def test_a_pilot_whose_teacher_misses_the_gold_is_held_until_somebody_approves(tmp_path: Path, server: Server) -> None:
    from medkd.records import PATIENT_RECORD

    teacher, store = simulated(server, prices=CHEAP), open_store("memory://gold-pilot")
    wrong = PATIENT_RECORD.empty() | {"current_diagnosis": {**PATIENT_RECORD.empty()["current_diagnosis"], "condition": "gout"}}
    talk = "Doctor: Hello. What is it?\nPatient: I have had a cough for three days."
    file = tmp_path / "visits.jsonl"
    row = json.dumps({"conversation": talk, "gold": wrong}) + "\n"
    file.write_text(row * 1000)
    columns = Columns(gold="gold")
    source = ConversationSource(files=tuple(survey([str(file)], columns)), columns=columns, contains_phi=False)
    planned(store, teacher, samples=None, source=source, budget_usd=50.0)
    worker, seen = Worker(store, teacher, budget_usd=50.0), []
    thread = threading.Thread(target=swallow, args=(worker, 0, seen))
    thread.start()
    deadline = time.monotonic() + 60
    while not (decision := control.decide_pilot(store)) and time.monotonic() < deadline:
        time.sleep(0.1)
    worker.stop.set()
    thread.join(60)
    assert decision and decision.state == "hold", decision
    assert "expected at least 0.70" in decision.reason and "gold of 50 conversations" in decision.reason
    control.write_control(store, control.Control(state="run", reason="approved"))
    more = Worker(store, teacher, budget_usd=50.0)
    with pytest.raises(StoppedError):
        more.run(on_progress=lambda progress: progress["accepted"] > 60 and more.stop.set())


def swallow(worker: Worker, shard: int, seen: list[dict]) -> None:
    try:
        worker.run(shard, on_progress=seen.append)
    except StoppedError:
        return


def test_a_shard_that_is_parked_too_long_leaves_to_be_resumed(server: Server) -> None:
    teacher, store = simulated(server), open_store("memory://held")
    planned(store, teacher)
    control.write_control(store, control.Control(state="hold", reason="a person looks"))
    with pytest.raises(StoppedError, match="parked too long"):
        Worker(store, teacher, max_park_seconds=0.5).run()
    assert server.counters.stats()["requests"] == 0


def test_existing_conversations_skip_the_first_call_and_keep_their_ids(tmp_path, server: Server) -> None:
    teacher, store = simulated(server), open_store("memory://imported")
    file = tmp_path / "visits.jsonl"
    lines = [
        {
            "id": f"visit-{n}",
            "text": f"Doctor: Hello. What is it?\nPatient: I have had a cough for {n + 2} days. \u2028\U0001fa7a",
        }
        for n in range(5)
    ]
    file.write_text("\n".join([*(json.dumps(line) for line in lines), "{broken"]) + "\n")
    columns = Columns(conversation="text", id="id")
    source = ConversationSource(files=tuple(survey([str(file)], columns)), columns=columns, contains_phi=False)
    planned(store, teacher, samples=None, source=source)
    manifest = Worker(store, teacher).run()
    rows = samples_of(store, manifest)
    assert [row["source_id"] for row in rows] == [f"visit-{n}" for n in range(5)]
    assert [row["input"] for row in rows] == [line["text"] for line in lines], "not a character is lost"
    assert {(row["source"], row["reference"], row["gold"]) for row in rows} == {("imported", "teacher", None)}
    (broken,) = rejected_of(store, manifest)
    assert broken["reason"] == "unreadable" and f"{file}:6" in broken["detail"]
    assert {call["step"] for call in calls_of(store, manifest)} == {"extraction"}


def test_conversations_with_records_ask_no_teacher_and_pass_the_same_checks(tmp_path, server: Server) -> None:
    from medkd.records import PATIENT_RECORD

    teacher, store = simulated(server), open_store("memory://labelled")
    right = PATIENT_RECORD.empty() | {
        "patient_details": {"name": "Ann Lee", "age": "41", "sex": "NOT PROVIDED", "occupation": "NOT PROVIDED"}
    }
    wrong = right | {"prescription": [{"drug": "warfarin", "dose": "5 mg", "frequency": "daily", "duration": "NOT PROVIDED"}]}
    talk = "Doctor: Who are you?\nPatient: Ann Lee, forty one."
    file = tmp_path / "labelled.jsonl"
    file.write_text("".join(json.dumps({"conversation": talk, "record": record}) + "\n" for record in (right, wrong, "nonsense")))
    columns = Columns(record="record")
    source = ConversationSource(files=tuple(survey([str(file)], columns)), columns=columns, contains_phi=False)
    planned(store, teacher, samples=None, source=source)
    manifest = Worker(store, teacher).run()
    (row,) = samples_of(store, manifest)
    assert (row["reference"], json.loads(row["gold"])) == ("human", right)
    assert [rejection["reason"] for rejection in rejected_of(store, manifest)] == ["ungrounded", "not_json"]
    assert server.counters.stats()["requests"] == 0


def test_gold_that_came_along_is_kept_and_the_teacher_asked_all_the_same(tmp_path, server: Server) -> None:
    from medkd.records import PATIENT_RECORD

    teacher, store = simulated(server), open_store("memory://gold")
    gold = PATIENT_RECORD.empty() | {
        "patient_details": {"name": "Ann Lee", "age": "41", "sex": "NOT PROVIDED", "occupation": "NOT PROVIDED"}
    }
    talk = "Doctor: Who are you?\nPatient: I am Ann Lee, forty one years old."
    lines = [{"id": "a", "text": talk, "true": gold}, {"id": "b", "text": talk + " Yes."}, {"id": "c", "text": talk, "true": "x"}]
    file = tmp_path / "gold.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    columns = Columns(conversation="text", id="id", gold="true")
    source = ConversationSource(files=tuple(survey([str(file)], columns)), columns=columns, contains_phi=False)
    planned(store, teacher, samples=None, source=source)
    manifest = Worker(store, teacher).run()
    rows = samples_of(store, manifest)
    assert [(row["source_id"], row["reference"], row["gold"] and json.loads(row["gold"])) for row in rows] == [
        ("a", "teacher", gold),
        ("b", "teacher", None),
    ]
    (broken,) = rejected_of(store, manifest)
    assert (broken["source_id"], broken["reason"]) == ("c", "gold_invalid") and f"{file}:3: gold: " in broken["detail"]
    assert len(calls_of(store, manifest)) == 2, "nothing is paid for a row whose gold is broken"


def test_patient_data_reach_no_teacher_without_an_agreement(tmp_path, server: Server) -> None:
    teacher, store = simulated(server), open_store("memory://phi")
    file = tmp_path / "visits.jsonl"
    file.write_text(json.dumps({"conversation": "Doctor: Hello.\nPatient: I have had a cough for 3 days."}) + "\n")
    columns = Columns()
    source = ConversationSource(files=tuple(survey([str(file)], columns)), columns=columns, contains_phi=True)
    planned(store, teacher, samples=None, source=source)
    with pytest.raises(ConfigError, match=r"teacher_models\.simulator\.phi_agreement: got false"):
        Worker(store, teacher).run()
    assert server.counters.stats()["requests"] == 0
    agreed = teacher.model_copy(update={"phi_agreement": True})
    assert Worker(store, agreed).run().counts["samples"] == 1


def test_a_shard_that_the_run_does_not_have_is_refused(store: Store, server: Server) -> None:
    teacher = simulated(server)
    planned(store, teacher, shards=2)
    with pytest.raises(ConfigError, match="--shard-index: got 2, allowed: 0 to 1"):
        Worker(store, teacher).run(2)


def test_no_key_prompt_or_conversation_reaches_the_log(store: Store, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    from medkd.telemetry import log

    log.propagate = True
    caplog.set_level("DEBUG")
    with start_simulator(api_key="canary-key-1234", faults="http_500:0.1,fenced_json:0.1,cut_json:0.1") as guarded:
        teacher = simulated(guarded).model_copy(update={"auth": "bearer", "api_key_env": "K"})
        planned(store, teacher, samples=6)
        manifest = Worker(store, teacher, api_key="canary-key-1234").run()
    written = "\n".join(record.getMessage() + str(record.__dict__) for record in caplog.records)
    assert written
    assert "canary-key-1234" not in written
    for row in samples_of(store, manifest):
        assert row["input"][:40] not in written
        assert "Write the patient's record" not in written
    stored = b"".join(store.read(file.path) for file in store.list_files())
    assert b"canary-key-1234" not in stored
