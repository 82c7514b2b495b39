"""Each fault is what it says, over real HTTP, strikes when it was asked to, and the server's counts stay right."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from medkd.errors import ConfigError
from medkd.samples import conversation_sha256, sha256_hex
from medkd.simulator.faults import FAULTS, LINE, FaultPlan, parse_faults
from medkd.simulator.refusals import REFUSALS
from medkd.simulator.server import Server
from medkd.simulator.spoilers import SPOILERS
from tests.schema_strategy import ORDERS
from tests.simulator.asking import Reply, extracting, send, send_and_leave, writing

Serve = Callable[..., Server]
CHAT = "/v1/chat/completions"
TALK = "Doctor: Take naproxen 250 mg twice a day for 5 days.\nPatient: Okay."


def extract(server: Server) -> Reply:
    return send(server.url, CHAT, extracting(TALK))


@pytest.mark.parametrize(
    ("name", "header", "value"),
    [
        ("rate_limit", "retry-after", "1"),
        ("rate_limit_ms", "retry-after-ms", "800"),
        ("rate_limit_junk", "retry-after", "soon"),
        ("rate_limit_reset", "x-ratelimit-remaining-requests", "0"),
    ],
)
def test_a_rate_limit_carries_its_wait(serve: Serve, name: str, header: str, value: str) -> None:
    reply = extract(serve(faults=name))
    assert reply.status == 429 and reply.headers[header] == value


def test_a_wait_until_a_date_is_relative_to_the_replys_own_date(serve: Serve) -> None:
    headers = extract(serve(faults="rate_limit_date")).headers
    until, sent = (parsedate_to_datetime(headers[name]) for name in ("retry-after", "date"))
    assert (until - sent).total_seconds() == 2


def test_the_two_vendors_say_no_money_differently(serve: Serve) -> None:
    server = serve(faults="money")
    refused = extract(server)
    assert refused.status == 429 and refused.json()["error"]["code"] == "insufficient_quota"
    body = {"model": "clinic-1", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    refused = send(server.url, "/v1/messages", body, anthropic_version="2023-06-01")
    assert refused.status == 402 and refused.json()["error"]["type"] == "billing_error"


def test_spoilt_texts_are_spoilt_as_named(serve: Serve) -> None:
    assert extract(serve(faults="fenced_json")).text.startswith("```json\n{")
    assert "NaN" in extract(serve(faults="nan_json")).text
    assert extract(serve(faults="empty_content")).text == ""
    assert json.loads(extract(serve(faults="hallucinate")).text)["prescription"][0]["drug"] == "zanubrutinib"
    form = {"name": "orders", "strict": True, "schema": ORDERS.json_schema()}
    orders = extracting(f"1. {TALK}", response_format={"type": "json_schema", "json_schema": form})
    orders["messages"][0]["content"] = f"Fields:\n{ORDERS.describe()}"
    invented = json.loads(send(serve(faults="hallucinate").url, CHAT, orders).text)["orders"]
    assert [(order["description"].split()[0], order["supporting_turns"]) for order in invented] == [("zanubrutinib", ["1"])]
    assert "usage" not in extract(serve(faults="missing_usage")).json()
    cut = extract(serve(faults="finish_length")).json()["choices"][0]
    assert cut["finish_reason"] == "length"
    refused = extract(serve(faults="refusal")).json()["choices"][0]["message"]
    assert refused["content"] is None and refused["refusal"]
    for name in ("cut_json", "not_json"):
        with pytest.raises(ValueError):
            json.loads(extract(serve(faults=name)).text)
    pairs = json.loads(extract(serve(faults="duplicate_keys")).text, object_pairs_hook=list)
    assert [key for key, _ in pairs].count("patient_details") == 2


def test_faults_of_records_leave_conversations_alone(serve: Serve) -> None:
    server = serve(faults="fenced_json")
    assert send(server.url, CHAT, writing()).text.startswith("Doctor: ")


@pytest.mark.parametrize(("name", "billed"), [("reset_before", 0), ("reset_after", 1)])
def test_a_reset_leaves_no_reply_and_is_billed_only_after(serve: Serve, name: str, billed: int) -> None:
    server = serve(faults=name)
    with pytest.raises(ConnectionResetError):
        extract(server)
    assert server.counters.stats()["billed_total"] == billed


def test_a_cut_body_is_shorter_than_announced_and_billed(serve: Serve) -> None:
    server = serve(faults="cut_body")
    with pytest.raises(http.client.IncompleteRead):
        extract(server)
    assert server.counters.stats()["billed_total"] == 1


def test_a_hanging_call_never_answers_and_is_billed(serve: Serve) -> None:
    server = serve(faults="hang")
    with pytest.raises(TimeoutError):
        send(server.url, CHAT, extracting(TALK), timeout=0.5)
    assert server.counters.stats()["billed_total"] == 1


def test_a_server_with_hanging_calls_still_stops(serve: Serve) -> None:
    server = serve(faults="hang")
    with pytest.raises(TimeoutError):
        send(server.url, CHAT, extracting(TALK), timeout=0.2)
    start = time.monotonic()
    server.stop()
    assert time.monotonic() - start < 5


def test_blank_lines_come_before_a_good_answer(serve: Serve) -> None:
    reply = extract(serve(faults="blank_lines"))
    assert reply.body.startswith(b"\n\n\n{") and json.loads(reply.text)


def test_a_gateway_answers_in_html(serve: Serve) -> None:
    server = serve(faults="html_502")
    reply = extract(server)
    assert reply.status == 502 and reply.headers["content-type"] == "text/html" and b"<html>" in reply.body
    assert server.counters.stats()["billed_total"] == 0


def test_every_fault_has_one_kind() -> None:
    assert len(FAULTS) == len(REFUSALS) + len(SPOILERS) + len(LINE)


def test_a_fault_strikes_at_the_calls_it_names(serve: Serve) -> None:
    server = serve(faults="http_500@2-3,money@5-")
    assert [send(server.url, CHAT, writing(seed=seed)).status for seed in range(6)] == [200, 500, 500, 200, 429, 429]


def test_a_rate_is_kept_and_a_retry_draws_anew() -> None:
    plan = FaultPlan(seed=1, occasions=parse_faults("http_500:0.3"))
    digests = [sha256_hex(str(index)) for index in range(2000)]
    struck = [digest for digest in digests if plan.choose(call_number=1, digest=digest, occurrence=1)]
    assert 500 < len(struck) < 700
    assert [digest for digest in digests if plan.choose(call_number=9, digest=digest, occurrence=1)] == struck
    again = [digest for digest in struck if plan.choose(call_number=1, digest=digest, occurrence=2)]
    assert len(again) < len(struck) / 2
    other = FaultPlan(seed=2, occasions=parse_faults("http_500:0.3"))
    assert struck != [digest for digest in digests if other.choose(call_number=1, digest=digest, occurrence=1)]


@pytest.mark.parametrize("spec", ["no_such_fault", "http_500:2", "http_500:x", "http_500@", "http_500@x", "http_500:1.2.3"])
def test_a_wrong_spec_is_refused_by_name(spec: str) -> None:
    with pytest.raises(ConfigError, match="faults: got"):
        parse_faults(spec)


def test_equal_requests_get_equal_bytes_from_any_server(serve: Serve) -> None:
    bodies = [send(serve().url, CHAT, writing()).body for _ in range(2)]
    assert bodies[0] == bodies[1]


def test_a_completion_is_billed_though_the_client_vanished(serve: Serve) -> None:
    server = serve(latency_seconds=0.2)
    send_and_leave(server.url, CHAT, writing())
    deadline = time.monotonic() + 5
    while server.counters.stats()["billed_total"] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.counters.billed() == {sha256_hex(json.dumps(writing())): 1}


def test_the_counts_are_served(serve: Serve) -> None:
    server = serve(faults="reset_after@1")
    with pytest.raises(ConnectionResetError):
        send(server.url, CHAT, writing())
    send(server.url, CHAT, writing())
    stats = send(server.url, "/stats").json()
    assert (stats["requests"], stats["billed_total"], stats["billed_bodies"], stats["bodies_billed_more_than_once"]) == (
        2,
        2,
        1,
        1,
    )
    assert send(server.url, "/billed").json() == {sha256_hex(json.dumps(writing())): 2}


def test_calls_during_a_wait_and_after_the_end_are_held_against_the_client(serve: Serve) -> None:
    server = serve(faults="rate_limit@1,money@3")
    for pause in (0.2, 1.1, 0.2, 0):
        send(server.url, CHAT, writing())
        time.sleep(pause)
    stats = server.counters.stats()
    assert (stats["calls_during_wait"], stats["calls_after_end"]) == (1, 1)


def test_latency_is_kept_and_concurrency_is_counted(serve: Serve) -> None:
    server = serve(latency_seconds=0.3)
    start = time.monotonic()
    threads = [threading.Thread(target=send, args=(server.url, CHAT, writing(seed=seed))) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.3 <= time.monotonic() - start < 2
    assert server.counters.stats()["peak_concurrency"] == 8


def gold_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_gold_joins_conversations_and_is_written_once_also_by_a_second_server(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "gold" / "gold.jsonl"
    server = serve(write_gold=path, faults="reset_after@1")
    with pytest.raises(ConnectionResetError):
        send(server.url, CHAT, writing(seed=1))
    texts = [send(server.url, CHAT, writing(seed=seed)).text for seed in (1, 2, 2)]
    send(server.url, CHAT, {**writing(seed=3), "max_tokens": 20})
    extract(server)
    server.stop()
    texts.append(send(serve(write_gold=path).url, CHAT, writing(seed=2)).text)
    lines = gold_lines(path)
    assert [line["conversation_sha256"] for line in lines] == list(dict.fromkeys(map(conversation_sha256, texts)))
    assert all(line["record"]["patient_details"] for line in lines)


def test_what_is_no_http_is_told_so(serve: Serve) -> None:
    host, port = serve().url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    # No body: the server answers as soon as it has the header, and a body could meet a closed connection.
    connection.putrequest("POST", CHAT)
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    assert connection.getresponse().status == 400


def test_a_connection_is_kept_alive(serve: Serve) -> None:
    host, port = serve().url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    used = set()
    for seed in range(3):
        connection.request("POST", CHAT, body=json.dumps(writing(seed=seed)))
        assert connection.getresponse().read()
        used.add(connection.sock.getsockname())
    assert len(used) == 1


SERVE = "from medkd.simulator.server import *; serve_forever(SimulatorOptions(port=0), lambda url: print(url, flush=True))"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_cleanly(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert send(url, CHAT, writing()).status == 200
        process.send_signal(number)
        assert process.wait(10) == 0
