"""`medkd run`: the stages as processes on this machine, interrupted and continued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from medkd.commands.flags import build_parser
from medkd.config import Bars, ScoreBar, StudentConfig, config_hash
from medkd.samples import conversation_sha256
from medkd.simulator.server import Server
from medkd.stages import standing
from medkd.stages.evaluate import evaluate
from medkd.store import layout, manifests, tables
from medkd.store.files import open_store
from medkd.store.gold_files import Gold
from tests.generation import start_simulator

SAMPLES = 160


def run_command(prefix: Path, server: Server, *more: str) -> subprocess.Popen[str]:
    flags = f"--num-samples {SAMPLES} --num-shards 4 --num-topics 4 --exchanges 4-4 --ranks 2".split()
    line = [sys.executable, "-m", "medkd", "run", "--prefix", str(prefix), "--teacher-url", f"{server.url}/v1", *flags, *more]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def accepted(prefix: Path) -> int:
    return sum(json.loads(file.read_text())["accepted"] for file in prefix.glob("generate/shard-*/progress.json"))


def wait_until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def test_ctrl_c_leaves_a_run_that_the_same_command_continues(tmp_path: Path) -> None:
    with start_simulator(latency_seconds=0.15) as server:
        prefix = tmp_path / "run"
        for _ in range(2):
            process = run_command(prefix, server)
            before = accepted(prefix)
            wait_until(lambda floor=before: accepted(prefix) > floor)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 75, errors
            assert errors.splitlines()[-1] == "medkd: stopped; the same command goes on from here"
            assert not (prefix / "owner.json").exists(), "the next one need not wait"
            assert f"/{SAMPLES} accepted" in errors, "it says how far it came"
        assert server.counters.stats()["bodies_billed_more_than_once"] == 0
        assert not [line for line in processes_of(prefix) if "generate" in line], "no shard process is left behind"


def processes_of(prefix: Path) -> list[str]:
    return [
        text.replace("\0", " ")
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and str(prefix) in (text := read_quietly(entry / "cmdline"))
    ]


def read_quietly(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_a_second_run_on_a_live_prefix_is_refused_and_on_a_dead_one_takes_over(tmp_path: Path) -> None:
    with start_simulator(latency_seconds=0.2) as server:
        prefix = tmp_path / "run"
        first = run_command(prefix, server)
        wait_until(lambda: accepted(prefix) > 0)
        second = run_command(prefix, server)
        _, errors = second.communicate(timeout=60)
        assert second.returncode == 78 and "works here" in errors and "--take-over" in errors
        first.kill()
        first.communicate()
        third = run_command(prefix, server)
        wait_until(lambda: (prefix / "owner.json").exists() and str(third.pid) in (prefix / "owner.json").read_text())
        third.send_signal(signal.SIGTERM)
        third.communicate(timeout=60)
        assert third.returncode == 75
        # The killed run took its shards' processes with it.
        wait_until(lambda: not [line for line in processes_of(prefix) if "generate" in line])


def test_a_killed_shard_is_started_again_and_the_run_goes_on(tmp_path: Path) -> None:
    with start_simulator(latency_seconds=0.15) as server:
        prefix = tmp_path / "run"
        process = run_command(prefix, server)
        wait_until(lambda: accepted(prefix) > 0)
        victims = [pid for pid in children(process.pid) if "--shard-index\0002" in read_quietly(Path(f"/proc/{pid}/cmdline"))]
        os.kill(victims[0], signal.SIGKILL)
        store = open_store(str(prefix))
        wait_until(lambda: all(store.exists(layout.shard_file(shard, "manifest.json")) for shard in range(4)), 90)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert "generate-00002 ended with signal 9; starting it again (1 of 6)" in errors
        counts = [manifests.require(store, layout.shard_file(shard, "manifest.json"), "generate").counts for shard in range(4)]
        assert sum(count["accepted"] for count in counts) == SAMPLES


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


@pytest.mark.torch
@pytest.mark.timeout(400)
def test_a_whole_run_ends_with_a_report_and_a_second_student_adds_only_its_own_stages(tmp_path: Path) -> None:
    raw = json.loads((Path(__file__).parent.parent / "configs" / "model_configs.json").read_text())
    for name in ("tiny-t5", "tiny-gpt2"):
        raw["student_models"][name] |= {"num_epochs": 1}
    config = tmp_path / "config.json"
    config.write_text(json.dumps(raw))
    prefix = tmp_path / "run"
    with start_simulator() as server:
        first = run_command(prefix, server, "--config", str(config))
        output, errors = first.communicate(timeout=200)
        assert first.returncode == 0, errors + "".join(log.read_text()[-2000:] for log in prefix.glob("logs/*.log"))
        assert output.splitlines()[-1].endswith("report/index.html")
        assert "student tiny-t5: no bar set" in output
        calls = server.counters.stats()["billed_total"]
        second = run_command(prefix, server, "--config", str(config), "--student", "tiny-gpt2")
        output, errors = second.communicate(timeout=200)
        assert second.returncode == 0, errors
        assert server.counters.stats()["billed_total"] == calls
        _ask_a_teacher_with_examples(prefix, config, server)
    assert "generate" not in errors and "train" in errors
    page = (prefix / "report" / "index.html").read_text()
    assert "tiny-gpt2" in page
    _score_on_its_own_training_rows(prefix, tmp_path / "known.jsonl")
    for student in ("tiny-t5", "tiny-gpt2"):
        scores = json.loads((prefix / "students" / student / "evaluate" / "scores.json").read_text())
        card = (prefix / "students" / student / "model" / "README.md").read_text()
        assert "Verdict: **no bar set**." in card and f"{scores['intervals']['student']['low']:.3f} to" in card
        assert scores["num_samples"] > 0 and set(scores["scores"]) == {
            *("student", "untrained", "constant", "lexicon"),
            *(["few_shot_student"] if student == "tiny-gpt2" else []),
        }
    _judge_again(prefix, raw)


def _ask_a_teacher_with_examples(prefix: Path, config: Path, server: Server) -> None:
    flags = ["--few-shot-teacher", "simulator", "--few-shot-rows", "4", "--teacher-url", f"{server.url}/v1"]
    line = ["evaluate", "--prefix", str(prefix), "--config", str(config), "--student", "tiny-gpt2", *flags]
    args = build_parser().parse_args(line)
    assert args.verb(args, threading.Event()) == 0
    folder = prefix / "students" / "tiny-gpt2" / "evaluate"
    found = json.loads((folder / "scores.json").read_text())["few_shot_teacher"]
    assert found["num_samples"] == 4 and found["scores"]["few_shot_teacher"]["micro"]["f1"] > 0.5
    written = tables.decode((folder / "predictions.parquet").read_bytes())
    assert sum(row["model"] == "few_shot_teacher" for row in written) == 4


def _judge_again(prefix: Path, raw: dict[str, Any]) -> None:
    """A bar that is set later is judged from the predictions that stand; nobody answers again."""
    store, student = open_store(str(prefix)), StudentConfig.model_validate(raw["student_models"]["tiny-t5"])
    folder = prefix / "students" / "tiny-t5" / "evaluate"
    before = json.loads((folder / "scores.json").read_text())
    answers = (folder / "predictions.parquet").stat()
    for bar, passed in ((1.0, False), (0.0, True)):
        bars = Bars(evaluate=(ScoreBar(score="valid_json", at_least=bar),))
        wanted = standing.Wanted(student="tiny-t5", config_hash=config_hash(student), bars=bars)
        assert "was judged by other bars" in standing.shortfall(store, "evaluate", wanted)
        scores = evaluate(
            store, student_name="tiny-t5", student=student, gold=Gold(), bars=bars.evaluate, few_shot=3, stop=threading.Event()
        )
        assert scores["bars"]["passed"] == passed and scores["scores"] == before["scores"]
        assert json.loads((prefix / "students/tiny-t5/model/evaluation.json").read_text())["bars"] == scores["bars"]
        assert bool(standing.shortfall(store, "evaluate", wanted)) == (not passed)
    assert (folder / "predictions.parquet").stat() == answers


def of_split(prefix: Path, split: str) -> list[dict[str, Any]]:
    return [row for file in prefix.glob(f"dataset/{split}-*.parquet") for row in tables.decode(file.read_bytes())]


def _score_on_its_own_training_rows(prefix: Path, known: Path) -> None:
    """A set from elsewhere gets a folder of its own and is told to have been seen; the run's own evaluation stays as it is."""
    own = {path: path.read_bytes() for path in prefix.glob("students/tiny-t5/*/*") if path.is_file()}
    file = prefix / "generate" / "shard-00001" / "samples.parquet"
    rows = tables.decode(file.read_bytes())[:10]
    gold = [{"conversation_sha256": conversation_sha256(row["input"]), "record": json.loads(row["output"])} for row in rows]
    known.write_text("".join(json.dumps(row) + "\n" for row in gold))
    wanted = ["--conversations", str(file)]
    flags = ["--gold", str(known), "--conversation-column", "input", "--gold-source", "teacher", "--set-name", "again"]
    args = build_parser().parse_args(["evaluate", "--prefix", str(prefix), *wanted, *flags])
    assert args.verb(args, threading.Event()) == 0
    scores = json.loads((prefix / "students" / "tiny-t5" / "evaluate" / "again" / "scores.json").read_text())
    splits = {row["conversation_sha256"] for split in ("train", "validation") for row in of_split(prefix, split)}
    assert scores["num_samples"] == 10 and scores["reference"] == "teacher"
    assert scores["counts"]["seen_in_training"] == sum(row["conversation_sha256"] in splits for row in gold) > 0
    assert set(scores["scores"]) == {"student", "constant", "lexicon"}
    assert {path: path.read_bytes() for path in own} == own
