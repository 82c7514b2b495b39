"""Every fault strikes by rate, by call number and in bursts, in both protocols, and is billed only if a completion was made."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest

from medkd.errors import ConfigError
from medkd.samples import sha256_hex
from medkd.simulator.faults import FAULTS, FaultPlan, parse_faults
from medkd.simulator.refusals import REFUSALS
from medkd.simulator.server import Server, SimulatorOptions
from tests.simulator.asking import extracting, send

TALK = "Doctor: Take naproxen 250 mg twice a day for 5 days.\nPatient: Okay."
SILENT = ("hang", "blank_lines_forever", "dripping_headers")


def bodies() -> dict[str, tuple[str, dict[str, Any], str]]:
    """By protocol: path, body of one extraction, further header lines."""
    openai = extracting(TALK)
    schema = openai["response_format"]["json_schema"]["schema"]
    anthropic = {
        "model": "clinic-1",
        "max_tokens": 1000,
        "messages": openai["messages"][1:],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
    }
    return {
        "openai": ("/v1/chat/completions", openai, "authorization: Bearer sk-1234567890\r\n"),
        "anthropic": ("/v1/messages", anthropic, "anthropic-version: 2023-06-01\r\nx-api-key: sk-1234567890\r\n"),
    }


BODIES = bodies()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(SimulatorOptions(port=0)) as started:
        yield started


def set_faults(server: Server, spec: str) -> None:
    with urlopen(Request(f"{server.url}/faults", data=spec.encode(), method="PUT"), timeout=60) as reply:
        assert json.load(reply)["faults"] == spec


def exchange(server: Server, protocol: str, *, silent: bool) -> bytes:
    """Everything that comes back for one call on a connection of its own; what never ends is left after a moment."""
    path, body, headers = BODIES[protocol]
    data = json.dumps(body).encode()
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\ncontent-length: {len(data)}\r\n\r\n"
    received = b""
    with socket.create_connection((host, int(port)), timeout=0.15 if silent else 60) as connection:
        connection.sendall(head.encode() + data)
        try:
            while piece := connection.recv(65536):
                received += piece
                if silent:
                    break
        except (TimeoutError, ConnectionResetError):
            pass
    return received


def strikes_so_far(server: Server, fault: str) -> int:
    faults: Any = server.counters.stats()["faults"]
    return int(faults.get(fault, 0))


def billed_so_far(server: Server) -> int:
    billed: Any = server.counters.stats()["billed_total"]
    return int(billed)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def without_request_id(raw: bytes) -> bytes:
    return b"\r\n".join(line for line in raw.split(b"\r\n") if not line.lower().startswith((b"request-id", b"x-request-id")))


@pytest.mark.parametrize("protocol", sorted(BODIES))
@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_fault_strikes_by_rate_by_number_and_in_bursts(server: Server, fault: str, protocol: str) -> None:
    set_faults(server, "")
    good = without_request_id(exchange(server, protocol, silent=False))
    assert b" 200 " in good
    paid, billed_before = fault not in REFUSALS and fault != "reset_before", billed_so_far(server)
    earlier, struck = strikes_so_far(server, fault), 0
    for spec, expected in ((f"{fault}:1", [True]), (f"{fault}@2", [False, True]), (f"{fault}:1x2,http_500@1-", [True, True])):
        set_faults(server, spec)
        for strikes in expected:
            got = without_request_id(exchange(server, protocol, silent=strikes and fault in SILENT))
            if strikes and fault != "idle_close":  # which shows only in the connection's end, and these end anyway
                assert got != good
            elif not strikes:
                assert got == good
            struck += strikes
            # A busy server may see a call only after its client, who was to hear nothing, has left.
            wait_until(lambda expected=earlier + struck: strikes_so_far(server, fault) >= expected)
    assert strikes_so_far(server, fault) == earlier + struck
    expected_bill = billed_before + 1 + (struck if paid else 0)
    wait_until(lambda: billed_so_far(server) >= expected_bill)
    assert billed_so_far(server) == expected_bill


def test_a_burst_by_rate_is_calls_in_a_row() -> None:
    plan = FaultPlan(seed=3, occasions=parse_faults("http_500:0.01x5"))
    struck = [plan.choose(call_number=number, digest="d", occurrence=1) is not None for number in range(1, 5001)]
    runs = [len(run) for run in "".join("x" if strikes else " " for strikes in struck).split()]
    assert 150 < sum(struck) < 350 and min(runs[:-1]) >= 5


def test_a_models_name_asks_for_faults_of_its_own(server: Server) -> None:
    set_faults(server, "")
    path, body, _ = BODIES["openai"]
    assert send(server.url, path, {**body, "model": "clinic-1+http_500"}).status == 500
    assert send(server.url, path, {**body, "model": "clinic-1+http_500:0+money@1000-"}).json()["model"].startswith("clinic-1+")
    assert send(server.url, path, body).status == 200
    assert send(server.url, path, {**body, "model": "clinic-1+nonsense"}).status == 404
    assert send(server.url, path, {**body, "model": "clinic-2+http_500"}).status == 404


def test_the_control_endpoint_tells_what_there_is_and_refuses_what_there_is_not(server: Server) -> None:
    set_faults(server, "http_500@7")
    told = send(server.url, "/faults").json()
    assert told["faults"] == "http_500@7" and set(told["known"]) == FAULTS
    with pytest.raises(Exception, match="400"):
        urlopen(Request(f"{server.url}/faults", data=b"nonsense", method="PUT"), timeout=60)
    assert send(server.url, "/faults").json()["faults"] == "http_500@7"


def test_a_key_and_a_prompt_are_echoed_where_the_fault_says_so(server: Server) -> None:
    set_faults(server, "key_echoed@1,prompt_echoed@2")
    assert b"sk-1234567890" in exchange(server, "openai", silent=False)
    assert b"naproxen 250 mg" in exchange(server, "openai", silent=False)


@pytest.mark.parametrize("spec", ["http_500:0.1x0", "http_500:0.1x", "http_500x5", "http_500@2x3"])
def test_a_wrong_burst_is_refused_by_name(spec: str) -> None:
    with pytest.raises(ConfigError, match="faults: got"):
        parse_faults(spec)


def test_a_body_paid_for_after_a_good_answer_is_held_against_the_client() -> None:
    with Server(SimulatorOptions(port=0, faults="reset_after@1,finish_null@2")) as server:
        for _ in range(4):
            exchange(server, "openai", silent=False)
        stats = server.counters.stats()
    assert stats["billed_total"] == 4 and stats["billed_after_a_good_answer"] == 1
    assert stats["answers"] == {"200": 4} and stats["billed_prompt_tokens"] > 0
    assert sha256_hex(json.dumps(BODIES["openai"][1]).encode()) in server.counters.billed()
