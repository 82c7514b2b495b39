"""Generation by the providers' batch APIs: the same samples for half the money, whatever happens to process and batch."""

from __future__ import annotations

import json
import threading
import time
import uuid
from functools import cache
from typing import Any

import pytest

from medkd.config import Prices, TeacherConfig
from medkd.errors import BudgetError, ConfigError, MedkdError, StoppedError
from medkd.samples import data_set_hash
from medkd.simulator.server import Server
from medkd.stages import plan as planning
from medkd.stages.purge import cancel_batches, open_batches
from medkd.stages.sample_steps import Ask, next_step
from medkd.store import journal, tables
from medkd.store.files import Store, open_store
from medkd.store.manifests import Manifest
from medkd.teacher.batch_protocols import Item
from medkd.teacher.client import TeacherClient
from tests.generation import Worker, planned, simulated, start_simulator

PRICES = Prices(input=1.0, output=4.0)
PROTOCOLS = ("openai", "anthropic")
# Batches take their time also where the simulator is quick.
slow = pytest.mark.chaos


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def teacher_of(server: Server, protocol: str, mode: str = "batch", **changes: Any) -> TeacherConfig:
    teacher = simulated(server, prices=PRICES)
    limits = teacher.limits.model_copy(
        update={"batch_size": 10, "batch_poll_seconds": 0.05, "max_concurrency": 20 if mode == "batch" else 8}
    )
    update: dict[str, Any] = {"mode": mode, "limits": limits, **changes}
    if protocol == "anthropic":
        update |= {
            "protocol": protocol,
            "structured_output": "output_config",
            "protocol_version": "2023-06-01",
            "takes_seed": False,
        }
    return teacher.model_copy(update=update).with_traits()


def memory() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}/run")


def run(store: Store, teacher: TeacherConfig, samples: int = 24, budget: float = 50.0) -> Manifest:
    planned(store, teacher, samples=samples, budget_usd=budget)
    return Worker(store, teacher, budget_usd=budget).run()


def rows(store: Store, manifest: Manifest, number: int = 0) -> list[dict[str, Any]]:
    return tables.read(store, [manifest.files[number]])


def serving(**options: Any) -> Server:
    return start_simulator(**{"batch_seconds": 0.1, **options})


@cache
def called(protocol: str) -> tuple[str, float]:
    store = memory()
    with serving() as server:
        manifest = run(store, teacher_of(server, protocol, "call"))
    return data_set_hash(rows(store, manifest)), manifest.money["spent_usd"]


@pytest.fixture
def by_call(protocol: str) -> tuple[str, float]:
    """The data set's hash and the spend of the same plan, call by call."""
    return called(protocol)


def test_batches_give_the_same_data_set_for_half_the_money(protocol: str, by_call: tuple[str, float]) -> None:
    store = memory()
    with serving() as server:
        manifest = run(store, teacher_of(server, protocol))
        stats = server.counters.stats()
    assert data_set_hash(rows(store, manifest)) == by_call[0]
    assert manifest.money["spent_usd"] == pytest.approx(by_call[1] / 2)
    assert manifest.money["possibly_usd"] == 0.0
    assert stats["billed_total"] == manifest.counts["calls"] == 48
    assert stats["bodies_billed_more_than_once"] == 0


@slow
def test_what_expires_is_asked_for_again_and_nothing_else_is(protocol: str, by_call: tuple[str, float]) -> None:
    store = memory()
    with serving(batch_expire=0.4) as server:
        manifest = run(store, teacher_of(server, protocol))
        stats = server.counters.stats()
    assert data_set_hash(rows(store, manifest)) == by_call[0]
    assert stats["billed_total"] == 48 and stats["bodies_billed_more_than_once"] == 0
    assert manifest.money["spent_usd"] == pytest.approx(by_call[1] / 2)
    assert {call["attempts"] for call in rows(store, manifest, 2)} == {1}, "an item that expired was not tried"


@slow
@pytest.mark.parametrize(
    "faults", ["http_500:0.2", "rate_limit:0.2", "fenced_json:0.3", "cut_json:0.2", "whitespace_content:0.2"]
)
def test_items_that_fail_go_the_way_of_calls_that_fail(protocol: str, faults: str) -> None:
    store = memory()
    with serving(faults=faults) as server:
        manifest = run(store, teacher_of(server, protocol))
        billed = server.counters.stats()["billed_total"]
    assert manifest.counts["accepted"] == 24
    calls = rows(store, manifest, 2)
    assert sum(1 for call in calls if call["prompt_tokens"]) == billed
    assert manifest.money["spent_usd"] == pytest.approx(sum(call["cost_usd"] for call in calls))
    assert manifest.money["possibly_usd"] == 0.0


@slow
def test_a_prompt_that_was_cut_is_noticed_in_a_batch_too(protocol: str) -> None:
    store = memory()
    with serving(faults="small_prompt_tokens:1") as server:
        with pytest.raises(ConfigError, match="it cuts prompts without saying so"):
            run(store, teacher_of(server, protocol))
        assert server.counters.stats()["billed_total"] <= 20


@slow
def test_a_teacher_without_money_stops_the_shard_with_77(protocol: str) -> None:
    store = memory()
    with serving(faults="money:1" if protocol == "openai" else "spend_limit:1") as server:
        teacher = teacher_of(server, protocol)
        planned(store, teacher, samples=24, budget_usd=50.0)
        with pytest.raises(MedkdError) as stopped:
            Worker(store, teacher, budget_usd=50.0).run()
        assert stopped.value.exit_code == 77
        assert server.counters.stats()["billed_total"] == 0


@slow
def test_a_stop_is_answered_at_once_while_a_batch_is_parked_and_the_next_start_finds_it(
    protocol: str, by_call: tuple[str, float]
) -> None:
    store = memory()
    with serving(batch_seconds=6.0) as server:
        teacher = teacher_of(server, protocol)
        planned(store, teacher, samples=24, budget_usd=50.0)
        worker = Worker(store, teacher, budget_usd=50.0)
        seen: list[dict[str, Any]] = []
        failures: list[BaseException] = []

        def work() -> None:
            try:
                worker.run(on_progress=seen.append)
            except StoppedError as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        deadline = time.monotonic() + 60
        while not any(progress["parked_for"] == "batch" for progress in seen) and time.monotonic() < deadline:
            time.sleep(0.02)
        parked = next(progress for progress in seen if progress["parked_for"] == "batch")
        assert parked["state"] == "parked" and parked["parked_until"] > time.time() + 3600
        worker.stop.set()
        thread.join(60)
        assert failures and not thread.is_alive()
        manifest = Worker(store, teacher, budget_usd=50.0).run()
        stats = server.counters.stats()
    assert data_set_hash(rows(store, manifest)) == by_call[0]
    assert stats["billed_total"] == 48 and stats["bodies_billed_more_than_once"] == 0
    assert manifest.money["possibly_usd"] == 0.0 and manifest.money["spent_usd"] == pytest.approx(by_call[1] / 2)


def first_asks(store: Store, teacher: TeacherConfig, count: int) -> list[Ask]:
    plan, _ = planning.load_plan(store)
    steps = [next_step(plan, teacher, index, {}, None) for index in range(count)]
    return [step for step in steps if isinstance(step, Ask)]


@slow
@pytest.mark.parametrize("made", [True, False], ids=["made", "never made"])
def test_a_batch_whose_id_was_lost_is_found_by_its_tag_or_asked_anew(
    protocol: str, made: bool, by_call: tuple[str, float]
) -> None:
    store, tag = memory(), uuid.uuid4().hex[:16]
    with serving(batch_seconds=0.5) as server:
        teacher = teacher_of(server, protocol)
        plan, _ = planned(store, teacher, samples=24, budget_usd=50.0)
        asks = first_asks(store, teacher, 10)
        dead = journal.Journal(store, 0, plan.hash, "dead")
        dead.claim()
        entry = {"kind": "batch", "tag": tag, "keys": [ask.key for ask in asks], "at": time.time()}
        dead.commit([entry], {}, 0.0)
        client = TeacherClient(teacher, api_key=None, stop=threading.Event())
        batches = client.batches(threading.Event())
        # Somebody else's batch, made at the same time and as large, is left alone.
        others = [Item(custom_id=f"{'f' * 16}_{ask.key}", request=ask.request) for ask in first_asks(store, teacher, 24)[14:]]
        other = batches.make("f" * 16, others)
        if made:
            batches.make(tag, [Item(custom_id=f"{tag}_{ask.key}", request=ask.request) for ask in asks])
        manifest = Worker(store, teacher, budget_usd=50.0).run()
        assert len(batches.results(batches.state(other.id))) == 10
        client.close()
        stats = server.counters.stats()
    assert data_set_hash(rows(store, manifest)) == by_call[0]
    assert stats["billed_total"] == 48 + 10, "the other ten are somebody else's"
    assert manifest.money["possibly_usd"] == 0.0 and manifest.money["spent_usd"] == pytest.approx(by_call[1] / 2)


def test_a_batch_is_found_on_a_later_page_of_the_list(protocol: str) -> None:
    with serving(batch_seconds=0.0) as server:
        teacher = teacher_of(server, protocol)
        store = memory()
        planned(store, teacher, samples=2, budget_usd=50.0)
        (ask, _) = first_asks(store, teacher, 2)
        client = TeacherClient(teacher, api_key=None, stop=threading.Event())
        batches = client.batches(threading.Event())
        since = time.time()
        tags = [f"{number:016x}" for number in range(105)]
        made = [batches.make(tag, [Item(custom_id=f"{tag}_{ask.key}", request=ask.request)]).id for tag in tags]
        known = set(made[1:])
        found = batches.find(tags[0], 1, since, known if protocol == "anthropic" else set())
        assert found is not None and found.id == made[0]
        assert batches.find("f" * 16, 1, since, set(made)) is None
        client.close()


@slow
@pytest.mark.parametrize("way", [{"faults": "rate_limit:1"}, {"batch_expire": 1.0}], ids=["wait", "expired"])
def test_requests_that_only_ever_wait_or_expire_come_to_an_end(protocol: str, way: dict[str, Any]) -> None:
    store = memory()
    with serving(batch_seconds=0.0, **way) as server:
        manifest = run(store, teacher_of(server, protocol), samples=2)
        billed = server.counters.stats()["billed_total"]
    assert (manifest.counts["accepted"], manifest.counts["short"], billed) == (0, 2, 0)
    assert {call["reason"] for call in rows(store, manifest, 2)} == {"attempts_exhausted"}
    assert manifest.money["spent_usd"] == 0.0 == manifest.money["possibly_usd"]


@slow
def test_a_budget_that_is_spent_stops_the_shard_and_a_larger_one_goes_on(protocol: str, by_call: tuple[str, float]) -> None:
    store = memory()
    with serving() as server:
        teacher = teacher_of(server, protocol)
        plan, _ = planned(store, teacher, samples=24, budget_usd=50.0)
        small = by_call[1] / 4
        with pytest.raises(BudgetError):
            Worker(store, teacher, budget_usd=small).run()
        done = journal.replay_shard(store, 0, plan.hash).done
        assert sum(entry["cost_usd"] for entry in done.values()) <= small
        manifest = Worker(store, teacher, budget_usd=50.0).run()
        stats = server.counters.stats()
    assert data_set_hash(rows(store, manifest)) == by_call[0]
    assert stats["bodies_billed_more_than_once"] == 0


def test_a_key_that_is_refused_stops_with_77_and_no_key_is_written_anywhere(protocol: str) -> None:
    store = memory()
    with serving(api_key="right-key") as server:
        teacher = teacher_of(server, protocol).model_copy(update={"auth": "bearer", "api_key_env": "K"})
        planned(store, teacher, samples=4, budget_usd=50.0)
        with pytest.raises(MedkdError) as stopped:
            Worker(store, teacher, budget_usd=50.0, api_key="canary-key-wrong").run()
        assert stopped.value.exit_code == 77
    assert "canary" not in str(stopped.value)
    assert b"canary" not in b"".join(store.read(file.path) for file in store.list_files())


@slow
def test_nothing_is_left_with_the_provider_when_a_shard_has_ended(protocol: str) -> None:
    store = memory()
    with serving() as server:
        teacher = teacher_of(server, protocol)
        run(store, teacher, samples=6)
        client = TeacherClient(teacher, api_key=None, stop=threading.Event())
        found = client._transport.exchange("GET", "/messages/batches" if protocol == "anthropic" else "/batches")
        listed = json.loads(found.body)["data"]  # type: ignore[union-attr]
        if protocol == "anthropic":
            assert listed == []
        for batch in listed:
            for name in ("input_file_id", "output_file_id"):
                gone = client._transport.exchange("GET", f"/files/{batch[name]}/content")
                assert gone.status == 404 or name == "output_file_id"  # type: ignore[union-attr]
        client.close()


def test_a_batch_costs_half_by_the_price_table() -> None:
    prices = Prices(input=2.0, output=8.0, cached_input=0.4)
    assert prices.in_batches() == Prices(input=1.0, output=4.0, cached_input=0.2, batch_multiplier=1.0)
    assert prices.in_batches().in_batches() == prices.in_batches()


def test_a_purge_cancels_open_batches_and_leaves_nothing_with_the_provider(protocol: str) -> None:
    store = memory()
    with serving(batch_seconds=600.0) as server:
        teacher = teacher_of(server, protocol)
        planned(store, teacher, samples=4, budget_usd=50.0)
        worker = Worker(store, teacher, budget_usd=50.0)

        def stop_when_parked(progress: dict[str, Any]) -> None:
            if progress["parked_for"] == "batch":
                worker.stop.set()

        with pytest.raises(StoppedError):
            worker.run(on_progress=stop_when_parked)
        (batch,) = open_batches(store).values()
        client = TeacherClient(teacher, api_key=None, stop=threading.Event())
        batches = client.batches(threading.Event())
        assert cancel_batches(batches, open_batches(store)) == 1
        if protocol == "anthropic":
            with pytest.raises(MedkdError):
                batches.state(batch.id)
        else:
            assert batches.state(batch.id).ended
        client.close()
        assert server.counters.stats()["billed_total"] == 0
