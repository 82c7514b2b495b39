"""Generation is killed without warning at random moments; nothing accepted may be lost, doubled or bought without need."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medkd.errors import StoppedError
from medkd.simulator.server import Server
from medkd.store import journal, layout, manifests, tables
from medkd.store.files import Store, open_store
from tests.generation import planned, simulated, start_simulator

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

SAMPLES = 240
CONCURRENCY = 16
# What a commit group may hold, see `ShardOptions.group_limit`.
GROUP = 32
TRIPLE = ("sample_id", "instruction", "input", "output")


def start(prefix: Path, server: Server) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "medkd", "generate", "--prefix", str(prefix), "--teacher-url", f"{server.url}/v1"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def triples(store: Store) -> list[tuple[str, ...]]:
    manifest = manifests.read(store, layout.shard_file(0, "manifest.json"))
    assert manifest
    return [tuple(row[name] for name in TRIPLE) for row in tables.read(store, [manifest.files[0]])]


def undisturbed(server: Server, folder: Path, seed: int) -> list[tuple[str, ...]]:
    store = open_store(str(folder))
    planned(store, simulated(server, max_concurrency=CONCURRENCY), samples=SAMPLES, seed=seed)
    process = start(folder, server)
    assert process.wait(120) == 0, process.stderr and process.stderr.read()
    return triples(store)


@pytest.mark.parametrize(
    "seed", [random.SystemRandom().randrange(10**6) for _ in range(6)], ids=[f"fresh-{number}" for number in range(6)]
)
def test_a_kill_at_a_random_moment_costs_at_most_what_was_in_flight(tmp_path: Path, seed: int) -> None:
    luck = random.Random(seed)
    with start_simulator() as server:
        expected = undisturbed(server, tmp_path / "undisturbed", seed)
    with start_simulator(latency_seconds=0.05, latency_jitter=0.5) as server:
        folder = tmp_path / "disturbed"
        store = open_store(str(folder))
        plan, _ = planned(store, simulated(server, max_concurrency=CONCURRENCY), samples=SAMPLES, seed=seed)
        process = start(folder, server)
        wait_for_calls(server, luck.randrange(1, SAMPLES * 2 - 40))
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        wait_until_idle(server)
        billed = server.counters.stats()["billed_total"]
        durable = len(journal.replay_shard(store, 0, plan.hash).done)
        lost = billed - durable
        assert 0 <= lost <= CONCURRENCY + GROUP, f"{billed} billed, {durable} durable"
        process = start(folder, server)
        assert process.wait(120) == 0, process.stderr and process.stderr.read()
        assert server.counters.stats()["billed_total"] == 2 * SAMPLES + lost, "only what was lost is asked again"
    assert triples(store) == expected


def wait_for_calls(server: Server, number: int) -> None:
    while server.counters.stats()["billed_total"] < number:
        time.sleep(0.005)


def wait_until_idle(server: Server) -> None:
    while server.counters.stats()["active"]:
        time.sleep(0.05)


def test_of_two_processes_on_one_shard_one_leaves_with_75_and_nothing_is_doubled(tmp_path: Path) -> None:
    with start_simulator(latency_seconds=0.3) as server:
        store = open_store(str(tmp_path))
        planned(store, simulated(server, max_concurrency=CONCURRENCY), samples=SAMPLES)
        first = start(tmp_path, server)
        wait_for_calls(server, 60)
        second = start(tmp_path, server)
        codes = {first.wait(120), second.wait(120)}
    assert codes == {StoppedError.exit_code, os.EX_OK}
    ids = [triple[0] for triple in triples(store)]
    assert len(set(ids)) == len(ids) == SAMPLES
