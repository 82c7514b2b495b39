"""The client against the simulated teacher: both protocols, its faults, and the two books compared at the end."""

from __future__ import annotations

import json
import threading

import pytest

from medkd.config import Limits, Prices
from medkd.errors import RefusedError
from medkd.records import PATIENT_RECORD
from medkd.samples import SampleSpec
from medkd.simulator.options import SimulatorOptions
from medkd.simulator.server import Server
from medkd.teacher import rates
from medkd.teacher.client import Answer, TeacherClient
from medkd.teacher.prompts import conversation_request, extraction_request
from tests.teacher.scripted import teacher

KEY = "sk-simulated-key"
PROTOCOLS = {
    "openai": {"protocol": "openai", "auth": "bearer", "structured_output": "json_schema", "takes_seed": True},
    "openai json_object": {"protocol": "openai", "auth": "bearer", "structured_output": "json_object"},
    "anthropic": {
        "protocol": "anthropic",
        "auth": "x-api-key",
        "protocol_version": "2023-06-01",
        "structured_output": "output_config",
    },
    "anthropic tool": {
        "protocol": "anthropic",
        "auth": "bearer",
        "protocol_version": "2026-10-21",
        "structured_output": "tool",
    },
}


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch):
    monkeypatch.setattr(rates, "MIN_BACKOFF", 0.001)
    monkeypatch.setattr(rates, "MAX_BACKOFF", 0.05)


def spec(index: int) -> SampleSpec:
    return SampleSpec(
        index=index, variation=0, topic="gout", mood="calm", exchanges=6, age=61, sex="male", style="terse", seed=index
    )


def client_of(server: Server, protocol: str = "openai", **changes):
    settings = {**PROTOCOLS[protocol], "api_key_env": "K", "model": "clinic-1", "base_url": f"{server.url}/v1", **changes}
    config = teacher(**settings)
    return config, TeacherClient(config, api_key=KEY, stop=threading.Event())


def conversations(server: Server, number: int, threads: int, reserve=lambda upper_bound: None, **changes) -> list[Answer]:
    config, client = client_of(server, **changes)
    found: list[Answer] = []
    left = iter(range(number))

    def work() -> None:
        for index in left:
            found.append(client.ask(conversation_request(spec(index), config), reserve))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    client.close()
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_conversation_and_its_record_are_had(protocol):
    with Server(SimulatorOptions(port=0, api_key=KEY)) as server:
        config, client = client_of(server, protocol)
        assert client.models() == ["clinic-1"]
        assert client.probe(conversation_request(spec(0), config)).outcome in ("reply", "repair")
        talk = client.ask(conversation_request(spec(1), config), lambda upper_bound: None)
        assert talk.reply is not None and talk.reply.text.startswith("Doctor:") and "Patient:" in talk.reply.text
        record = client.ask(extraction_request(talk.reply.text, PATIENT_RECORD, config, seed=1), lambda upper_bound: None)
        assert record.reply is not None
        assert set(json.loads(record.reply.text)) == {field.name for field in PATIENT_RECORD.fields}
        assert talk.cost_usd > 0 and talk.possibly_usd == 0 and talk.reply.usage is not None
        client.close()


@pytest.mark.parametrize(
    "fault", ["reset_after", "cut_body", "http_500", "html_502", "slow_down", "reset_before", "missing_usage"]
)
def test_the_books_agree_under_faults(fault):
    """All answers are there, and no completion was billed that no reservation covered."""
    reserved: list[float] = []
    with Server(SimulatorOptions(port=0, api_key=KEY, faults=f"{fault}:0.2", seed=3)) as server:
        limits, prices = Limits(max_concurrency=8), Prices(input=1.0, output=1.0)
        found = conversations(server, 60, threads=8, prices=prices, limits=limits, reserve=reserved.append)
        billed = server.counters.stats()["billed_total"]
    assert [answer.outcome for answer in found] == ["reply"] * 60
    if fault == "reset_before":  # from outside no different from a reset after the completion was billed
        assert billed == 60 < len(reserved)
    else:
        assert billed == len(reserved)
    lost = len(reserved) - 60 if fault != "missing_usage" else sum(answer.cost_usd == 0 for answer in found)
    assert sum(answer.possibly_usd for answer in found) == pytest.approx(lost * reserved[0], rel=0.1)


def test_a_storm_of_rate_limits_is_sat_out():
    options = SimulatorOptions(port=0, api_key=KEY, faults="rate_limit_ms@10-14,rate_limit_text@40,rate_limit_none@50-52")
    with Server(options) as server:
        found = conversations(server, 80, threads=16, limits=Limits(max_concurrency=16))
        stats = server.counters.stats()
    assert [answer.outcome for answer in found] == ["reply"] * 80 and {answer.attempts for answer in found} == {1}
    # Two orders; what was under way when each was given may still arrive, and of 80 calls nothing else.
    assert stats["calls_during_wait"] <= 2 * 15
    assert stats["billed_total"] == 80 and stats["bodies_billed_more_than_once"] == 0


@pytest.mark.parametrize("fault", ["money", "insufficient_balance", "bad_key", "dead_model"])
@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_a_terminal_error_ends_all_calls(fault, protocol):
    with Server(SimulatorOptions(port=0, api_key=KEY, faults=f"{fault}@20-", latency_seconds=0.01)) as server:
        config, client = client_of(server, protocol, limits=Limits(max_concurrency=16))
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for index in range(number * 100, number * 100 + 50):
                    client.ask(conversation_request(spec(index), config), lambda upper_bound: None)
            except Exception as error:
                errors.append(error)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(12)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        client.close()
        stats = server.counters.stats()
    assert len(errors) == 12 and len({type(error) for error in errors}) == 1
    assert isinstance(errors[0], RefusedError) or fault == "dead_model"
    assert stats["calls_after_end"] == 0
    assert stats["requests"] < 20 + 12


def test_a_vendors_own_limits_are_kept_by_waiting():
    with Server(SimulatorOptions(port=0, api_key=KEY, requests_per_minute=600)) as server:
        found = conversations(server, 130, threads=8, limits=Limits(max_concurrency=8))
        stats = server.counters.stats()
    assert [answer.outcome for answer in found] == ["reply"] * 130
    assert stats["calls_during_wait"] <= 7 * (stats["requests"] - 130) and stats["billed_total"] == 130
