"""Removing a run: all that it wrote, nothing else, and not while somebody works on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medkd.errors import ConfigError
from medkd.stages import ownership
from medkd.stages.purge import check_not_live, contents, purge
from medkd.store import layout
from medkd.store.files import LocalStore, Store
from tests.generation import Worker, planned, simulated, start_simulator


@pytest.fixture
def run(store: Store) -> Store:
    """A run whose one shard is complete."""
    with start_simulator() as server:
        teacher = simulated(server)
        planned(store, teacher, samples=4)
        Worker(store, teacher).run()
    return store


def test_everything_of_the_run_goes_and_everything_else_stays(run: Store) -> None:
    run.replace("notes.txt", b"a person's")
    run.replace("other-run/plan.json", b"{}")
    run.replace("logs/plan.log", b"x")
    before = {file.path: file.bytes for file in run.list_files()}
    found = contents(run)
    assert found.files == len(before) - 2 and found.others == 2
    assert found.bytes == sum(size for path, size in before.items() if path not in ("notes.txt", "other-run/plan.json"))
    assert {part.name for part in found.parts} >= {"plan.json", "generate", "logs"}
    purge(run, "me", found)
    assert [file.path for file in run.list_files(unfinished=True)] == ["notes.txt", "other-run/plan.json"]
    with pytest.raises(ConfigError, match="no run lies here, nothing was removed"):
        contents(run)


def test_a_folder_is_left_without_a_trace_unfinished_writes_included(run: Store) -> None:
    if not isinstance(run, LocalStore):
        pytest.skip("only a folder has unfinished writes and empty folders")
    shard = Path(run.root, "generate", "shard-00000")
    (shard / ".samples.parquet.0123").write_bytes(b"patient")
    Path(run.root, ".plan.json.4567").write_bytes(b"half")
    (shard / "journal").mkdir(exist_ok=True)
    purge(run, "me", contents(run))
    assert not Path(run.root).exists()


def test_a_purge_that_was_interrupted_is_done_by_the_next_one(run: Store) -> None:
    found = contents(run)

    def interrupt(removed: int) -> None:
        raise KeyboardInterrupt

    run.replace("generate/shard-00001/samples.parquet", b"left over")
    with pytest.raises(KeyboardInterrupt):
        purge(run, "me", found, interrupt)
    left = {file.path for file in run.list_files()}
    assert layout.OWNER in left and layout.PLAN not in left and len(left) == 2
    purge(run, "me", contents(run))
    assert run.list_files() == []


def test_a_run_that_somebody_works_on_is_left_alone(run: Store) -> None:
    check_not_live(run)
    ownership.take(run, "release:clinic/flu")
    with pytest.raises(ConfigError, match=r"release:clinic/flu works here .* stop it first"):
        check_not_live(run)
    run.replace(layout.OWNER, json.dumps({"format": 1, "owner": "release:clinic/flu", "at": time.time() - 3600}).encode())
    check_not_live(run)
    for state, age, live in (("running", 5, True), ("parked", 5, True), ("running", 500, False), ("stopped", 5, False)):
        progress = {"shard": 0, "state": state, "at": time.time() - age}
        run.replace(layout.shard_file(0, "progress.json"), json.dumps(progress).encode())
        if live:
            with pytest.raises(ConfigError, match=r"shard 0 is at work .* nothing was removed"):
                check_not_live(run)
        else:
            check_not_live(run)


def command(prefix: Path, *more: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "medkd", "purge", "--prefix", str(prefix), *more]
    return subprocess.run(line, capture_output=True, text=True, input=typed, timeout=100, env=dict(os.environ), check=False)


def test_the_command_asks_for_the_runs_name_and_says_what_it_removed(tmp_path: Path) -> None:
    prefix = tmp_path / "flu"
    (prefix / "generate").mkdir(parents=True)
    (prefix / "plan.json").write_text("{}")
    (prefix / "generate" / "x").write_bytes(b"1" * 20_000)
    refusals = [
        (tmp_path, "no run lies here", 78),
        (prefix, "its name was not typed, nothing was removed", 64),
    ]
    for where, words, code in refusals:
        finished = command(where, typed="yes\n")
        assert finished.returncode == code and words in finished.stderr
    assert (prefix / "plan.json").exists()
    finished = command(prefix, typed="flu\n")
    assert finished.returncode == 0, finished.stderr
    assert "generate" in finished.stdout and "removed 2 files, 0.02 MB: the run flu is gone" in finished.stdout
    assert not prefix.exists()
    prefix.mkdir()
    (prefix / "plan.json").write_text("{}")
    assert command(prefix, "--yes").returncode == 0 and not prefix.exists()
