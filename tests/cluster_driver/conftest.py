"""A driver in a thread of its own against a fake API server, and what stages leave in the store."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kubernetes")

import kubernetes

from medkd.cluster import names
from medkd.cluster.api import Cluster
from medkd.driver import DriverOptions, drive
from medkd.stages import ownership
from medkd.store import layout, manifests
from medkd.store.files import Store, open_store
from medkd.store.manifests import Manifest
from tests.cluster_driver.fake_api import NAMESPACE, FakeApi

FULL, RUN, STUDENT = "flu", "flu", "tiny-t5"
OWNER = f"release:{NAMESPACE}/{RUN}"


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as server:
        yield server


@pytest.fixture
def prefix(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"))


def connect(api: FakeApi, stop: threading.Event | None = None) -> Cluster:
    configuration = kubernetes.client.Configuration()
    configuration.host = api.url
    configuration.retries = False
    return Cluster(configuration, NAMESPACE, stop or threading.Event(), user_agent="medkd-driver")


@dataclass
class Driving:
    """A driver at work in this process; `code` and `error` once it has ended."""

    api: FakeApi
    store: Store
    options: DriverOptions = field(
        default_factory=lambda: DriverOptions(run=RUN, full_name=FULL, student=STUDENT, owner=OWNER, host="127.0.0.1", port=0)
    )
    stop: threading.Event = field(default_factory=threading.Event)
    code: int | None = None
    error: BaseException | None = None
    thread: threading.Thread | None = None

    def __enter__(self) -> Driving:
        self.thread = threading.Thread(target=self._drive, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        assert self.thread
        self.thread.join(60)

    def _drive(self) -> None:
        try:
            self.code = drive(self.store, connect(self.api, self.stop), self.options, self.stop)
        except BaseException as error:
            self.error = error

    def ends(self, seconds: float = 100.0) -> int | None:
        assert self.thread
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "the driver still drives"
        if self.error:
            raise self.error
        return self.code

    @property
    def board(self) -> dict[str, Any]:
        return self.api.board(FULL)

    def phase(self, stage: str) -> str:
        return next((one["phase"] for one in self.board.get("stages", []) if one["name"] == stage), "")


def driving(api: FakeApi, store: Store, **changes: Any) -> Driving:
    driver = Driving(api, store)
    driver.options = replace(driver.options, **changes)
    return driver


def until(condition: Callable[[], object], seconds: float = 100.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def is_released(api: FakeApi, stage: str) -> bool:
    job = api.job(names.job_name(FULL, stage))
    return names.ANNOTATION_GATE not in job["metadata"]["annotations"] and not job["spec"]["suspend"]


# --- what stages write ------------------------------------------------------------------------------------------------


def write_plan(store: Store, shards: int = 2, samples: int = 20) -> None:
    ownership.take(store, OWNER)
    store.replace(layout.PLAN, json.dumps({"format": 1, "total_samples": samples}).encode())
    store.replace(layout.LAYOUT, json.dumps({"format": 1, "num_shards": shards, "estimate_usd": 1.0, "chunk_usd": 0.1}).encode())
    files = (layout.PLAN, layout.LAYOUT)
    write_manifest(store, layout.PLAN_MANIFEST, "plan", {path: store.read(path) for path in files})


def write_shard(store: Store, shard: int, samples: int = 10) -> None:
    path = layout.shard_file(shard, "samples.parquet")
    counts = {"samples": samples, "accepted": samples, "short": 0, "rejected": 1}
    money = {"spent_usd": 0.25, "possibly_usd": 0.01, "taken_usd": 0.3}
    manifest = layout.shard_file(shard, "manifest.json")
    write_manifest(store, manifest, "generate", {path: b"rows"}, shard=shard, counts=counts, money=money)


def write_progress(store: Store, shard: int, **changes: Any) -> None:
    state = {
        "format": 1, "shard": shard, "state": "running", "parked_until": None, "parked_for": None, "total": 10, "accepted": 4,
        "short": 0, "rejected": 2, "calls": 12, "calls_resumed": 0, "spent_usd": 0.1, "possibly_usd": 0.0, "at": time.time(),
        **changes,
    }  # fmt: skip
    store.replace(layout.shard_file(shard, "progress.json"), json.dumps(state).encode())


def write_student_part(store: Store, part: str, config_hash: str = "c") -> None:
    folder = f"{layout.student_folder(STUDENT)}/{part}"
    write_manifest(store, f"{folder}/manifest.json", part, {f"{folder}/data.bin": b"data"}, config_hash=config_hash)


def write_stage(store: Store, stage: str, shards: int = 2) -> None:
    """What a stage leaves when it is complete."""
    if stage == "plan":
        write_plan(store, shards)
    elif stage == "generate":
        for shard in range(shards):
            write_shard(store, shard)
    elif stage == "prepare":
        write_manifest(store, layout.DATASET_MANIFEST, "prepare", {f"{layout.DATASET}/train-00000.parquet": b"rows"})
        write_student_part(store, "tokens")
    else:
        write_student_part(store, stage)


def write_manifest(store: Store, path: str, stage: str, files: dict[str, bytes], **fields: Any) -> None:
    for name, data in files.items():
        store.replace(name, data)
    entries = tuple(manifests.entry(name, data) for name, data in files.items())
    manifests.write(store, path, Manifest(**{"stage": stage, "plan_hash": "p", "config_hash": "c", "files": entries, **fields}))


def run_stage(api: FakeApi, store: Store, stage: str, shards: int = 2) -> None:
    """Wait until the driver releases the stage, then let it run to its end."""
    until(lambda: is_released(api, stage))
    api.start(names.job_name(FULL, stage))
    write_stage(store, stage, shards)
    api.complete(names.job_name(FULL, stage))
