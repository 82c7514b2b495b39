"""The verbs of a run on a cluster: its driver, and what people ask of it with `kubectl medkd`."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from medkd.commands.settings import open_prefix
from medkd.errors import BelowBarError, ConfigError, MedkdError, UsageError
from medkd.store.files import Store

# What `wait` leaves with.
COMPLETE, FAILED, NOT_YET = 0, 1, 2
WAIT_SECONDS = 2.0

_RESULTS = {"report": "report", "scores": "students/{student}/evaluate", "model": "students/{student}/model"}

_OWN_CREDENTIALS = (
    "The store is read with your own credentials, not the cluster's: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and, "
    "outside of AWS, AWS_ENDPOINT_URL as it is reached from here"
)


def driver(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.cluster import api
    from medkd.driver import DriverOptions, drive

    host, _, port = args.listen.rpartition(":")
    if not port.isdigit():
        raise UsageError(f"--listen: got {args.listen!r}, expected host:port, for example 0.0.0.0:8080")
    if args.kubeconfig:
        cluster = api.from_kubeconfig(args.kubeconfig, args.context, args.namespace, stop, user_agent="medkd-driver")
    else:
        cluster = api.in_cluster(args.namespace, stop)
    options = DriverOptions(
        run=args.run,
        full_name=args.job_prefix,
        student=args.student,
        owner=args.owner or f"release:{args.namespace}/{args.run}",
        max_failed_shards=args.max_failed_shards,
        release_mode=args.release_mode,
        host=host or "0.0.0.0",
        port=int(port),
    )
    return drive(open_prefix(args, stop), cluster, options, stop)


def status(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.cluster import board as boards
    from medkd.cluster import runs
    from medkd.cluster.screen import screen

    cluster = _cluster(args, stop)
    board = runs.live_board(cluster, runs.find_run(cluster, args.run))
    print(boards.to_json(board) if args.json else screen(board, time.time()), end="\n" if args.json else "")
    return 0


def wait(args: argparse.Namespace, stop: threading.Event) -> int:
    """0 when the run is complete, 1 when it failed, 2 when neither came to be within --timeout."""
    from medkd.cluster import board as boards
    from medkd.cluster import runs

    cluster = _cluster(args, stop)
    run = runs.find_run(cluster, args.run)
    deadline = time.monotonic() + args.timeout if args.timeout else float("inf")
    said, board = "", None
    while not stop.is_set() and time.monotonic() < deadline:
        board = runs.published_board(cluster, run)
        if board and board.phase in ("complete", "failed"):
            print(boards.summary(board))
            return COMPLETE if board.phase == "complete" else FAILED
        if runs.driver_failure(run):
            print(runs.driver_failure(run))
            return FAILED
        words = boards.summary(board) if board else "the driver has not said anything yet"
        if words != said:
            print(words, file=sys.stderr, flush=True)
            said = words
        stop.wait(WAIT_SECONDS)
        run = runs.find_run(cluster, run.name)
    return NOT_YET


def logs(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.cluster import runs

    cluster = _cluster(args, stop)
    stage = "generate" if args.shard is not None else args.stage
    for text in runs.logs(cluster, runs.find_run(cluster, args.run), stage, args.shard, args.tail):
        print(text, end="" if text.endswith("\n") else "\n")
    return 0


def approve(args: argparse.Namespace, stop: threading.Event) -> int:
    """Lift a hold: in the store where --prefix is given, else through the run's driver."""
    if args.prefix:
        return _approve_in_store(args, stop)
    from medkd.cluster import names, runs

    cluster = _cluster(args, stop)
    run = runs.find_run(cluster, args.run)
    board = runs.published_board(cluster, run)
    if board is None or board.phase != "held":
        print(f"run {run.name} is not held; nothing to approve")
        return 0
    body = {"metadata": {"annotations": {names.ANNOTATION_APPROVED: f"by {getpass.getuser()}"}}}
    cluster.patch_job(names.job_name(run.full_name, "generate"), body)
    print(f"approved; the driver of {run.name} lets its shards go on within seconds")
    return 0


def _approve_in_store(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages.control import Control, read_control, write_control
    from medkd.store import layout

    store = open_prefix(args, stop)
    if not store.exists(layout.PLAN_MANIFEST):
        raise ConfigError(f"--prefix: {store.url} is no run; expected one whose stage plan has ended")
    before = read_control(store)
    if before.state == "run":
        print(f"{store.url} is not held; nothing to approve")
        return 0
    write_control(store, Control(state="run", reason=f"approved (was {before.state}: {before.reason})"))
    print(f"was {before.state} ({before.reason}); runs now")
    return 0


def retry(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.cluster import runs

    cluster = _cluster(args, stop)
    run = runs.find_run(cluster, args.run)
    stages = runs.stages_to_retry(run, runs.published_board(cluster, run), args.stage)
    manifests = [runs.fresh_manifest(run.jobs[stage], stage) for stage in stages]
    saved = Path(tempfile.mkdtemp(prefix="medkd-retry-"), f"{run.name}.json")
    saved.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}, indent=1))
    print(f"starting again: {', '.join(stages)}", file=sys.stderr)
    try:
        runs.retry(cluster, run, stages)
    except BaseException:
        print(f"interrupted; Jobs that are missing now: kubectl -n {cluster.namespace} create -f {saved}", file=sys.stderr)
        raise
    saved.unlink()
    saved.parent.rmdir()
    print(f"run {run.name} goes on from its store; nothing is paid twice. kubectl medkd status {run.name} -n {cluster.namespace}")
    return 0


def results(args: argparse.Namespace, stop: threading.Event) -> int:
    """Copy report, scores or model of a run to a local folder; of a student below its bar only what says why."""
    from medkd.stages.handover import check_handed_on, evaluation_in
    from medkd.store.layout import student_evaluation

    if not args.prefix:
        _take_prefix(args, stop)
    if args.prefix.startswith("memory:"):
        raise ConfigError(f"--prefix: got {args.prefix}, which lives in the run's own process only")
    try:
        store = open_prefix(args, stop)
        store.patience_seconds = 10.0
        if any("{student}" in _RESULTS[what] for what in args.what):
            args.student = args.student or _only_student(store)
        said = evaluation_in(store, args.student) if "model" in args.what and not args.below_bar else None
        # What says why a student is refused comes first.
        for what in sorted(args.what, key=lambda what: what == "model"):
            if what == "model":
                check_handed_on(said, f"{store.url}/{student_evaluation(args.student)}")
            folder = _RESULTS[what].format(student=args.student)
            target = Path(args.output) / what
            store.download(folder, target)
            if not target.exists():
                raise ConfigError(
                    f"{store.url}/{folder}: nothing there yet; medkd inspect, or kubectl medkd status, says how far the run is"
                )
            print(f"{what}: {target}")
    except BelowBarError:
        raise
    except MedkdError as error:
        hint = f". {_OWN_CREDENTIALS}" if args.prefix.startswith("s3:") else ""
        raise type(error)(f"{error}{hint}") from error
    return 0


def _only_student(store: Store) -> str:
    """The student under a prefix that holds one; UsageError naming those there are."""
    found = store.list_folders("students")
    if len(found) != 1:
        there = f"there are {', '.join(found)}" if found else "there is none yet"
        raise UsageError(f"--student: missing; say whose results to copy from {store.url}, {there}")
    return found[0]


def _take_prefix(args: argparse.Namespace, stop: threading.Event) -> None:
    """Prefix and student of a run as its driver published them."""
    from medkd.cluster import runs

    cluster = _cluster(args, stop)
    board = runs.published_board(cluster, runs.find_run(cluster, args.run))
    if board is None:
        raise ConfigError("the run's driver has not said yet where the run lies; give --prefix")
    args.prefix, args.student = board.prefix, args.student or board.student


def _cluster(args: argparse.Namespace, stop: threading.Event) -> Any:
    from medkd.cluster import api

    return api.from_kubeconfig(args.kubeconfig, args.context, args.namespace, stop)
