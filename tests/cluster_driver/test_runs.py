"""What people ask of a run with `kubectl medkd`: through real processes, a kubeconfig and HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from medkd.cluster import board as boards
from medkd.cluster import names, runs
from medkd.cluster.board import Board, StageBoard
from medkd.cluster.diagnosis import Problem
from medkd.cluster.metrics import metrics
from medkd.cluster.screen import duration, screen
from medkd.cluster.web import Web
from medkd.commands.flags import build_parser
from medkd.errors import ConfigError, UsageError
from medkd.store import layout
from medkd.store.files import open_store
from tests.cluster_driver.conftest import FULL, RUN, STUDENT, connect, write_student_part
from tests.cluster_driver.fake_api import NAMESPACE, FakeApi, ended, job, pod

pytestmark = [pytest.mark.driver, pytest.mark.timeout(300)]


def medkd(api: FakeApi, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`kubectl medkd ...` as kubectl starts it."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": api.url}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": NAMESPACE}}],
    }
    path = folder / "kubeconfig.json"
    path.write_text(json.dumps(config))
    command = [sys.executable, "-m", "medkd", *arguments]
    environment = {**os.environ, "KUBECONFIG": str(path)}
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False)


def some_board(**changes: object) -> Board:
    now = time.time()
    stages = tuple(StageBoard(name=stage, phase="waiting") for stage in names.STAGES)
    values = {
        "run": RUN, "namespace": NAMESPACE, "prefix": "s3://runs/flu", "student": "tiny-t5", "phase": "running",
        "updated_at": now, "stages": stages, "shards": {"total": 4, "done": 1, "failed": 0, "active": 2, "parked": 0},
        "samples": {"total": 40, "accepted": 12, "short": 0, "rejected": 3},
        "money": {"spent_usd": 1.5, "possibly_usd": 0.1, "estimate_usd": 5.0},
    }  # fmt: skip
    return Board(**{**values, **changes})  # type: ignore[arg-type]


def publish(api: FakeApi, board: Board) -> None:
    with api.lock:
        api.objects["configmaps", names.status_config_map(FULL)]["data"] = {names.STATUS_KEY: boards.to_json(board)}


def test_status_says_where_the_run_is_what_is_wrong_and_what_to_do(api: FakeApi, tmp_path: Path) -> None:
    api.install(FULL, RUN, shards=4)
    publish(api, some_board())
    api.suspend("flu-generate", False)
    with api.lock:
        api.objects["jobs", "flu-generate"]["metadata"]["annotations"] = {}
    api.start("flu-generate", ready=1)
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes: 1 Insufficient cpu.",
    }
    api.create("pods", pod("flu-generate", 3, phase="Pending", conditions=[condition]))
    answer = medkd(api, tmp_path, "status", RUN)
    assert answer.returncode == 0, answer.stderr
    assert "run flu in clinic: RUNNING" in answer.stdout
    assert "12 of 40 accepted" in answer.stdout and "$1.50 spent" in answer.stdout
    assert "wrong     generate: no node for the pod: 0/1 nodes: 1 Insufficient cpu" in answer.stdout
    assert "do      add nodes with more cpu" in answer.stdout
    assert len(answer.stdout.splitlines()) < 30


def test_status_finds_what_keeps_the_driver_itself_from_starting(api: FakeApi, tmp_path: Path) -> None:
    api.install(FULL, RUN)
    api.start("flu-driver", ready=0)
    waiting = {"waiting": {"reason": "ErrImagePull"}}
    container = {"name": "main", "image": "medkd-worker:typo", "state": waiting}
    api.create("pods", pod("flu-driver", 0, phase="Pending", containerStatuses=[container]))
    assert "image medkd-worker:typo cannot be pulled" in medkd(api, tmp_path, "status").stdout


def test_a_run_that_is_not_there_is_answered_with_those_that_are(api: FakeApi, tmp_path: Path) -> None:
    api.install(FULL, RUN)
    answer = medkd(api, tmp_path, "status", "grippe")
    assert answer.returncode == 78 and "no run grippe; there: flu" in answer.stderr


@pytest.mark.parametrize(("phase", "code"), [("complete", 0), ("failed", 1), ("running", 2)])
def test_wait_leaves_with_how_the_run_ended(api: FakeApi, tmp_path: Path, phase: str, code: int) -> None:
    api.install(FULL, RUN)
    publish(api, some_board(phase=phase, failure="stage train failed" if phase == "failed" else ""))
    assert medkd(api, tmp_path, "wait", RUN, "--timeout", "1").returncode == code


def test_a_run_whose_driver_failed_for_good_is_not_waited_for(api: FakeApi, tmp_path: Path) -> None:
    api.install(FULL, RUN)
    publish(api, some_board())
    api.fail("flu-driver", "PodFailurePolicy")
    answer = medkd(api, tmp_path, "wait", RUN, "--timeout", "90")
    assert answer.returncode == 1 and "the driver failed (PodFailurePolicy)" in answer.stdout
    assert "run flu in clinic: FAILED" in medkd(api, tmp_path, "status", RUN).stdout


def test_logs_are_the_failed_shard_s_first(api: FakeApi, tmp_path: Path) -> None:
    api.install(FULL, RUN, shards=4)
    api.start("flu-generate")
    api.suspend("flu-generate", False)
    for index in range(4):
        made = pod("flu-generate", index, **(ended(65, "medkd: shard 2: bad") if index == 2 else {"phase": "Running"}))
        api.create("pods", made)
        api.logs[made["metadata"]["name"]] = f"log of shard {index}\n"
    answer = medkd(api, tmp_path, "logs", RUN)
    assert answer.stdout.splitlines()[:2] == ["==> flu-generate-2-x7k2p (Failed) <==", "log of shard 2"]
    assert medkd(api, tmp_path, "logs", RUN, "--shard", "3").stdout.splitlines()[1:] == ["log of shard 3"]


def test_approve_asks_the_driver_of_a_held_run(api: FakeApi, tmp_path: Path) -> None:
    api.install(FULL, RUN)
    publish(api, some_board())
    assert "not held" in medkd(api, tmp_path, "approve", RUN).stdout
    publish(api, some_board(phase="held"))
    assert medkd(api, tmp_path, "approve", RUN).returncode == 0
    assert names.ANNOTATION_APPROVED in api.job("flu-generate")["metadata"]["annotations"]


def test_retry_starts_the_failed_stage_and_the_driver_anew_and_leaves_the_others(api: FakeApi, tmp_path: Path) -> None:
    api.install(FULL, RUN, queue="team-a")
    for stage in ("plan", "generate"):
        with api.lock:
            api.objects["jobs", f"flu-{stage}"]["metadata"]["annotations"] = {names.ANNOTATION_PROGRESS: "old"}
        api.suspend(f"flu-{stage}", False)
    api.complete("flu-plan")
    api.fail("flu-generate", "PodFailurePolicy")
    before = {stage: api.job(f"flu-{stage}") for stage in (*names.STAGES, names.DRIVER)}
    answer = medkd(api, tmp_path, "retry", RUN)
    assert answer.returncode == 0, answer.stderr
    after = {stage: api.job(f"flu-{stage}") for stage in before}
    again = [stage for stage in after if after[stage]["metadata"]["uid"] != before[stage]["metadata"]["uid"]]
    assert again == ["generate", "driver"]
    generate, driver = after["generate"], after["driver"]
    assert generate["metadata"]["annotations"] == {names.ANNOTATION_GATE: names.GATE}
    assert generate["metadata"]["labels"] == before["generate"]["metadata"]["labels"]
    assert generate["spec"]["suspend"] is True and driver["spec"]["suspend"] is False
    assert generate["status"] == {}


def test_retry_without_a_failure_asks_for_the_stage(api: FakeApi, tmp_path: Path) -> None:
    api.install(FULL, RUN)
    answer = medkd(api, tmp_path, "retry", RUN)
    assert answer.returncode == 78 and "name the one to do again with --stage" in answer.stderr


def test_a_fresh_manifest_has_nothing_of_the_first_life_and_keeps_fields_nobody_here_knows() -> None:
    lived = job("flu", "flu", "train", 2)
    lived["metadata"] |= {"uid": "u", "resourceVersion": "9", "generation": 3, "finalizers": ["x"], "managedFields": [{}]}
    lived["spec"] |= {"suspend": False, "selector": {"matchLabels": {}}, "someday": {"new": True}}
    lived["spec"]["template"]["metadata"]["labels"] |= {"controller-uid": "u", "batch.kubernetes.io/controller-uid": "u"}
    fresh = runs.fresh_manifest({**lived, "status": {"active": 2}}, "train")
    assert set(fresh["metadata"]) == {"name", "labels", "annotations"}
    assert "selector" not in fresh["spec"] and "status" not in fresh and fresh["spec"]["someday"] == {"new": True}
    assert fresh["spec"]["suspend"] and not {"controller-uid"} & set(fresh["spec"]["template"]["metadata"]["labels"])
    assert lived["metadata"]["uid"] == "u", "the original stays as it is"


def test_an_ended_stage_whose_work_did_not_verify_is_the_one_to_retry(api: FakeApi) -> None:
    api.install(FULL, RUN)
    for stage in ("plan", "generate"):
        api.complete(f"flu-{stage}")
        with api.lock:
            api.objects["jobs", f"flu-{stage}"]["metadata"]["annotations"] = {}
    note = boards.Note(at=1.0, stage="generate", reason="StageFailed", text="a file is missing")
    board = some_board(phase="failed", failure="stage generate ended, but ...", notes=(note,))
    run = runs.find_run(connect(api), RUN)
    assert runs.stages_to_retry(run, board, None) == ["generate", "driver"]
    with pytest.raises(ConfigError):
        runs.stages_to_retry(run, some_board(), None)


def test_results_are_copied_from_the_run_s_store(api: FakeApi, tmp_path: Path) -> None:
    api.install(FULL, RUN)
    store = open_store(str(tmp_path / "run"))
    write_student_part(store, "model")
    publish(api, some_board(prefix=str(tmp_path / "run")))
    answer = medkd(api, tmp_path, "results", RUN, "--what", "model", "--output", str(tmp_path / "out"))
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "out" / "model" / "data.bin").read_bytes() == b"data"
    early = medkd(api, tmp_path, "results", RUN, "--what", "report", "--output", str(tmp_path / "out"))
    assert early.returncode == 78 and "nothing there yet" in early.stderr


def test_results_of_a_prefix_are_those_of_its_only_student(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "run"))
    store.replace(layout.REPORT, b"page")
    line = ["results", "--prefix", str(tmp_path / "run"), "--output", str(tmp_path / "out"), "--what"]

    def results(*what: str) -> int:
        args = build_parser().parse_args([*line, *what])
        return int(args.verb(args, threading.Event()))

    assert results("report") == 0
    with pytest.raises(UsageError, match="there is none yet"):
        results("model")
    write_student_part(store, "model")
    assert results("model") == 0 and (tmp_path / "out" / "model" / "data.bin").exists()
    store.replace("students/other/model/data.bin", b"data")
    with pytest.raises(UsageError, match=f"there are other, {STUDENT}"):
        results("model")


def test_a_student_below_its_bar_is_not_among_the_results_unless_asked_for(api: FakeApi, tmp_path: Path) -> None:
    api.install(FULL, RUN)
    store = open_store(str(tmp_path / "run"))
    write_student_part(store, "model")
    write_student_part(store, "evaluate")
    checks = [{"what": "micro.f1", "bar": 0.8, "got": 0.71, "passed": False}]
    said = {"format": 1, "student": STUDENT, "bars": {"passed": False, "checks": checks}}
    store.replace(layout.student_evaluation(STUDENT), json.dumps(said).encode())
    publish(api, some_board(prefix=str(tmp_path / "run")))
    line = ["results", RUN, "--what", "model", "scores", "--output", str(tmp_path / "out")]
    refused = medkd(api, tmp_path, *line)
    assert refused.returncode == 79, refused.stderr
    assert "micro.f1: got 0.71, the bar is 0.8" in refused.stderr and "--below-bar" in refused.stderr
    assert (tmp_path / "out" / "scores" / "data.bin").exists() and not (tmp_path / "out" / "model").exists()
    assert medkd(api, tmp_path, *line, "--below-bar").returncode == 0
    assert (tmp_path / "out" / "model" / "evaluation.json").exists()


def test_boards_survive_publishing_and_unreadable_ones_count_as_none() -> None:
    problem = Problem(stage="train", kind="image", what="w", do="d")
    board = some_board(problems=(problem,), notes=(boards.Note(at=1.0, stage="plan", reason="R", text="t"),))
    assert boards.from_json(boards.to_json(board)) == board
    assert boards.from_json("") is None and boards.from_json('{"format": 2}') is None


def test_the_verdict_on_the_student_stands_on_the_screen() -> None:
    board = some_board(verdict="below its bar (micro.f1: got 0.71, the bar is 0.8)")
    assert "verdict   tiny-t5: below its bar (micro.f1: got 0.71, the bar is 0.8)" in screen(board, time.time())
    assert boards.from_json(boards.to_json(board)) == board
    assert "verdict" not in screen(some_board(), time.time())
    assert 'medkd_student_verdict{run="flu",student="tiny-t5",verdict="below its bar"} 1' in metrics(board)
    assert "medkd_student_verdict" not in metrics(some_board())


def test_a_silent_driver_is_said_after_a_while() -> None:
    now = time.time()
    assert "the driver has said nothing for 5 min" in screen(some_board(updated_at=now - 300), now)
    assert "said nothing" not in screen(some_board(phase="complete", updated_at=now - 300), now)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (900, "15 min"), (3700, "1 h 1 min"), (90000, "1 d 1 h")],
)
def test_spans_of_time_are_as_exact_as_one_wants_to_know(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_metrics_name_no_shard_and_no_pod_and_escape_what_they_quote() -> None:
    text = metrics(some_board(run='a"b', training={"step": 3, "total_steps": 9, "loss": None}))
    assert 'medkd_shards{run="a\\"b",state="active"} 2' in text
    assert "medkd_training_loss" not in text and 'medkd_training_step{run="a\\"b"} 3' in text
    declared = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(declared) == len(set(declared)), "a family is declared once, its samples together"


def test_the_page_is_whole_in_itself_and_the_health_answer_follows_the_loop() -> None:
    healthy = [True]
    with Web("127.0.0.1", 0, lambda: healthy[0]) as web:
        url = f"http://127.0.0.1:{web.port}"

        def get(path: str) -> tuple[int, str]:
            try:
                with urllib.request.urlopen(url + path, timeout=60) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, ""

        assert get("/metrics")[0] == 503
        web.show(some_board())
        assert get("/healthz") == (200, "ok\n") and get("/nothing")[0] == 404
        assert json.loads(get("/status.json")[1])["summary"].startswith("running, ")
        page = get("/")[1]
        assert "http://" not in page and "https://" not in page and "src=" not in page
        healthy[0] = False
        assert get("/healthz")[0] == 503
