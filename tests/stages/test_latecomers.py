"""Processes that come too late: the shard they work on has been finished, its segments are gone, their numbers free again."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from medkd.errors import ConfigError
from medkd.simulator.server import Server
from medkd.store import journal, layout, manifests, tables
from medkd.store.files import MemoryStore, Store, open_store
from tests.generation import Worker, planned, simulated, start_simulator

MANIFEST = layout.shard_file(0, "manifest.json")


@pytest.fixture
def server() -> Iterator[Server]:
    with start_simulator() as server:
        yield server


def memory_store(kind: type[MemoryStore] = MemoryStore) -> MemoryStore:
    memory = open_store(f"memory://{uuid.uuid4().hex}")
    return kind(memory.url, memory.filesystem, memory.root)


class LateStore(MemoryStore):
    """The first look at the manifest comes before the other process has written it, all others after."""

    looked = False

    def read(self, path: str) -> bytes:
        if path == MANIFEST and not self.looked:
            self.looked = True
            raise FileNotFoundError(path)
        return super().read(path)


def test_a_process_that_saw_no_manifest_a_moment_too_early_buys_nothing_again(server: Server) -> None:
    store, teacher = memory_store(), simulated(server)
    planned(store, teacher)
    finished = Worker(store, teacher).run()
    billed = server.counters.stats()["billed_total"]
    assert Worker(LateStore(store.url, store.filesystem, store.root), teacher).run() == finished
    assert server.counters.stats()["billed_total"] == billed
    assert store.list_files(layout.journal_folder(0)) == [], "its claim is gone as well"


def test_a_process_that_slept_while_another_finished_its_shard_stops_at_its_next_progress(server: Server) -> None:
    store, teacher = memory_store(), simulated(server, max_concurrency=1)
    planned(store, teacher, samples=200)
    sleeper = Worker(store, teacher, progress_seconds=0.0)
    finished: list[manifests.Manifest] = []

    def sleep(progress: dict[str, object]) -> None:
        """While this process sleeps, another one takes the shard over and finishes it."""
        if progress["accepted"] and not finished:
            finished.append(Worker(store, simulated(server, max_concurrency=16)).run())

    assert sleeper.run(on_progress=sleep) == finished[0]
    bought = server.counters.stats()["billed_total"] - finished[0].counts["calls"]
    assert bought <= 5, "one call at a time until the next look at the manifest"
    assert journal.replay_shard(store, 0, finished[0].plan_hash).num_segments == 0


def test_a_control_file_that_nobody_can_follow_stops_a_shard_with_its_answers_durable(store: Store, server: Server) -> None:
    teacher = simulated(server, max_concurrency=1)
    plan, _ = planned(store, teacher, samples=50)

    def spoil(progress: dict[str, object]) -> None:
        if progress["accepted"]:
            store.replace(layout.CONTROL, b'{"state": "stop"}')

    with pytest.raises(ConfigError, match=r"control\.json: expected a state of pilot, run, hold"):
        Worker(store, teacher, progress_seconds=0.0).run(on_progress=spoil)
    replay = journal.replay_shard(store, 0, plan.hash)
    assert len(replay.done) == server.counters.stats()["billed_total"]
    store.delete(layout.CONTROL)
    manifest = Worker(store, teacher).run()
    assert len(tables.read(store, [manifest.files[0]])) == 50
    assert server.counters.stats()["bodies_billed_more_than_once"] == 0
