"""Who works on a prefix, so that two runs never share one unknowingly."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from medkd.errors import ConfigError, StoppedError
from medkd.stages import ownership
from medkd.store import layout
from medkd.store.files import MemoryStore, Store, open_store


def owner_of(store: Store) -> str:
    return str(json.loads(store.read(layout.OWNER))["owner"])


def write_owner(store: Store, owner: str, seconds_ago: float) -> None:
    store.replace(layout.OWNER, json.dumps({"format": 1, "owner": owner, "at": time.time() - seconds_ago}).encode())


def process_that_has_ended() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_free_prefix_is_taken_and_kept(store: Store) -> None:
    ownership.take(store, "release-a")
    ownership.take(store, "release-a")
    assert owner_of(store) == "release-a"


def test_a_second_owner_is_refused_with_what_to_do(store: Store) -> None:
    ownership.take(store, "release-a")
    with pytest.raises(
        ConfigError, match=r"release-a works here \(last sign \d s ago\); wait until it has ended, .* --take-over"
    ):
        ownership.take(store, "release-b")
    assert owner_of(store) == "release-a"


def test_of_two_that_come_at_once_one_is_refused(store: Store) -> None:
    ready = threading.Barrier(4)

    def work(number: int) -> bool:
        ready.wait()
        try:
            ownership.take(store, f"release-{number}")
        except ConfigError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        took = list(threads.map(work, range(4)))
    assert took.count(True) == 1
    assert owner_of(store) == f"release-{took.index(True)}"


def test_ten_minutes_without_a_sign_free_the_prefix(store: Store) -> None:
    write_owner(store, "release-a", 590)
    with pytest.raises(ConfigError, match=r"last sign 59\d s ago"):
        ownership.take(store, "release-b")
    write_owner(store, "release-a", 601)
    ownership.take(store, "release-b")
    assert owner_of(store) == "release-b"


def test_a_heartbeat_keeps_the_prefix(store: Store) -> None:
    write_owner(store, "release-a", 601)
    ownership.beat(store, "release-a")
    with pytest.raises(ConfigError, match="release-a works here"):
        ownership.take(store, "release-b")


def test_whoever_is_told_to_take_over_does_and_the_old_owner_stops_at_its_next_heartbeat(store: Store) -> None:
    ownership.take(store, "release-a")
    ownership.take(store, "release-b", take_over=True)
    with pytest.raises(StoppedError, match="release-b has taken it over"):
        ownership.beat(store, "release-a")
    ownership.release(store, "release-a")
    assert owner_of(store) == "release-b"


def test_a_process_of_this_machine_that_is_gone_frees_the_prefix_at_once(store: Store) -> None:
    ownership.take(store, f"{socket.gethostname()}:{process_that_has_ended()}")
    ownership.take(store, "release-b")
    assert owner_of(store) == "release-b"


def test_a_process_that_lives_or_belongs_to_another_machine_does_not(store: Store) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        for owner in (f"{socket.gethostname()}:{living.pid}", f"elsewhere:{process_that_has_ended()}"):
            write_owner(store, owner, 0)
            with pytest.raises(ConfigError, match="works here"):
                ownership.take(store, "release-b")
        living.communicate(b"\n")


def test_a_released_prefix_is_free_and_releasing_twice_does_nothing(store: Store) -> None:
    ownership.take(store, "release-a")
    ownership.release(store, "release-a")
    ownership.release(store, "release-a")
    ownership.take(store, "release-b")
    assert owner_of(store) == "release-b"


def test_an_owner_that_leaves_while_another_one_looks_leaves_the_prefix_free() -> None:
    class Leaving(MemoryStore):
        def read(self, path: str) -> bytes:
            self.delete(path)
            return super().read(path)

    memory = open_store("memory://leaving")
    ownership.take(memory, "release-a")
    ownership.take(Leaving(memory.url, memory.filesystem, memory.root), "release-b")
    assert owner_of(memory) == "release-b"
