"""The same run on a folder of this machine, up to its data set: what a run on the cluster is compared with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from medkd.stages import standing
from medkd.store import layout, manifests, tables
from medkd.store.files import Store, open_store
from tests.cluster.tools import wait_until

SECONDS = 300
COLUMNS = ("sample_id", "topic", "mood", "instruction", "input", "output")


@dataclass(frozen=True)
class Plan:
    """What ci/dev-values.yaml plans, and the flags that plan the same."""

    samples: int = 400
    shards: int = 8

    @property
    def flags(self) -> list[str]:
        return f"--num-samples {self.samples} --num-shards {self.shards} --num-topics 20 --exchanges 4-6".split()


@dataclass
class LaptopRun:
    process: subprocess.Popen[str]
    folder: Path

    def data_set(self) -> Store:
        """Its store, once the data set is there; the run is then ended, as nobody needs its student."""
        store = open_store(str(self.folder))

        def is_there() -> bool:
            if self.process.poll() not in (None, 0) and not store.exists(layout.DATASET_MANIFEST):
                pytest.fail(f"medkd run left with {self.process.returncode}: {self.process.communicate()[1][-3000:]}")
            return store.exists(layout.DATASET_MANIFEST)

        wait_until("medkd run on a folder has its data set", is_there, SECONDS)
        self.end()
        return store

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=120)


@contextmanager
def laptop_run(folder: Path, plan: Plan) -> Iterator[LaptopRun]:
    """`medkd run` of this plan with a simulated teacher of its own, at work beside the block."""
    medkd = [sys.executable, "-m", "medkd"]
    command = [*medkd, "simulate", "--port", "0", "--", *medkd, "run", "--prefix", str(folder), *plan.flags]
    process = subprocess.Popen(
        [*command, "--teacher", "simulator", "--student", "tiny-t5"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = LaptopRun(process, folder)
    try:
        yield run
    finally:
        run.end()


def accepted(store: Store, plan: Plan) -> list[tuple[str, ...]]:
    """What all shards accepted, in the plan's order; fails where a shard has not finished or differs from its manifest."""
    finished = standing.shard_manifests(store, range(plan.shards))
    assert sorted(finished) == list(range(plan.shards))
    rows = [row for manifest in finished.values() for row in tables.read(store, _named(manifest, "samples.parquet"))]
    return sorted(tuple(row[name] for name in COLUMNS) for row in rows)


def calls(store: Store, plan: Plan) -> list[dict[str, object]]:
    """The ledger: every call that the run paid for."""
    finished = standing.shard_manifests(store, range(plan.shards))
    return [row for manifest in finished.values() for row in tables.read(store, _named(manifest, "calls.parquet"))]


def possibly_usd(store: Store, plan: Plan) -> float:
    """What the run says that it may have spent beside its ledger."""
    return sum(manifest.money["possibly_usd"] for manifest in standing.shard_manifests(store, range(plan.shards)).values())


def data_set_hash(store: Store) -> str:
    return str(manifests.require(store, layout.DATASET_MANIFEST, "prepare").counts["data_set_hash"])


def metrics(store: Store, student: str) -> list[dict[str, float]]:
    """The lines of a training's metrics."""
    text = store.read(f"{layout.student_folder(student)}/train/metrics.jsonl").decode()
    return [json.loads(line) for line in text.splitlines()]


def _named(manifest: manifests.Manifest, name: str) -> list[manifests.FileEntry]:
    return [file for file in manifest.files if file.path.endswith(f"/{name}")]
