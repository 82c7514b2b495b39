"""A run as a person with kubectl finds it: its Jobs by label, what its driver published, its logs, and its failed Jobs anew."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from medkd.cluster import board as boards
from medkd.cluster import names
from medkd.cluster.api import Cluster, Object
from medkd.cluster.board import Board, StageBoard
from medkd.cluster.diagnosis import Problem, error_line, problems
from medkd.cluster.states import JobState, indexes, job_state
from medkd.errors import ConfigError, RefusedError, UnreachableError

DELETE_SECONDS = 180.0

# What the server adds to a Job, and what one life of it leaves behind.
_SERVER_METADATA = (
    "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink", "deletionTimestamp",
    "deletionGracePeriodSeconds", "finalizers",
)  # fmt: skip
_LIFE_ANNOTATIONS = (names.ANNOTATION_PROGRESS, names.ANNOTATION_APPROVED, "batch.kubernetes.io/job-tracking")
_POD_LABELS = ("controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name")


@dataclass(frozen=True, kw_only=True)
class Run:
    """The Jobs of one run, by stage; `driver` among them."""

    name: str
    full_name: str
    jobs: Mapping[str, Object]


def find_run(cluster: Cluster, name: str | None) -> Run:
    """The run of that name in the namespace, None: the only one there; ConfigError naming what there is."""
    jobs = cluster.jobs(f"{names.LABEL_RUN}={name}" if name else names.LABEL_RUN)
    found = sorted({job["metadata"]["labels"][names.LABEL_RUN] for job in jobs})
    if not found:
        there = sorted({job["metadata"]["labels"][names.LABEL_RUN] for job in cluster.jobs(names.LABEL_RUN)}) if name else []
        asked = f"no run {name}; there: {', '.join(there) or 'none'}" if name else "no run"
        raise ConfigError(f"namespace {cluster.namespace}: {asked}; another namespace is named with -n")
    if len(found) > 1:
        raise ConfigError(f"namespace {cluster.namespace} has several runs, name one: {', '.join(found)}")
    by_stage = {stage: job for job in jobs for stage in (*names.STAGES, names.DRIVER) if _is_of(job, stage)}
    some_stage, some_job = next(iter(by_stage.items()), ("", None))
    if some_job is None:
        raise ConfigError(f"run {found[0]}: its Jobs have other names than this version of medkd gives; use the version it runs")
    full_name = some_job["metadata"]["name"].removesuffix(f"-{some_stage}")
    return Run(name=found[0], full_name=full_name, jobs=by_stage)


def _is_of(job: Object, stage: str) -> bool:
    return str(job["metadata"]["name"]).endswith(f"-{stage}")


# --- status -----------------------------------------------------------------------------------------------------------


def live_board(cluster: Cluster, run: Run) -> Board:
    """What the driver published, corrected by what the Jobs and pods say now: also where the driver itself is in trouble."""
    published = published_board(cluster, run)
    states = {stage: job_state(stage, job) for stage, job in run.jobs.items()}
    gaps = len(list(indexes(published.gaps))) if published else 0
    stages = tuple(_live_stage(stage, states.get(stage), published, gaps) for stage in names.STAGES)
    board = published or Board(
        run=run.name,
        namespace=cluster.namespace,
        prefix="(the driver has not said yet)",
        student="?",
        phase="waiting",
        updated_at=time.time(),
        stages=stages,
    )
    if published is None:
        board = replace(board, problems=(_SILENT,))
    failed = next((stage for stage in stages if stage.phase == "failed"), None)
    over = board.phase in ("complete", "failed")
    phase = "failed" if failed or (driver_failure(run) and not over) else board.phase
    failure = board.failure or (f"stage {failed.name} failed: {failed.detail}" if failed else "" if over else driver_failure(run))
    return replace(board, stages=stages, phase=phase, failure=failure, problems=_live_problems(cluster, run, states, board))


def published_board(cluster: Cluster, run: Run) -> Board | None:
    """The driver's last word; None before its first."""
    found = cluster.config_map(names.status_config_map(run.full_name)) or {}
    return boards.from_json((found.get("data") or {}).get(names.STATUS_KEY, ""))


def driver_failure(run: Run) -> str:
    """Why nobody drives the run any more, though it has not ended; empty where its driver lives or may come back."""
    job = run.jobs.get(names.DRIVER)
    state = job_state(names.DRIVER, job) if job else None
    if state is None or state.phase != "failed":
        return ""
    return f"the driver failed ({state.reason}); kubectl medkd logs --stage driver says why"


def _live_stage(stage: str, state: JobState | None, published: Board | None, gaps: int) -> StageBoard:
    before = next((one for one in published.stages if one.name == stage), None) if published else None
    if state is None:
        return before or StageBoard(name=stage, phase="waiting", detail="its Job is missing")
    if before and stage == "train" and state.phase == before.phase:
        return before
    return boards.stage_board(state, gaps=gaps if stage == "generate" else 0)


def _live_problems(cluster: Cluster, run: Run, states: Mapping[str, JobState], board: Board) -> tuple[Problem, ...]:
    """Problems from pods as they are now, and those that only the driver knows of."""
    # A driver that has said how the run ended leaves with an exit code that says no more.
    silent = board.phase not in ("complete", "failed")
    asked = [
        stage
        for stage, state in states.items()
        if (state.phase == "failed" or (state.phase == "running" and state.looks_wrong)) and (stage != names.DRIVER or silent)
    ]
    try:
        pods = cluster.unfinished_pods(f"{names.LABEL_RUN}={run.name}") if asked else []
    except RefusedError:
        return board.problems
    found: list[Problem] = []
    for stage in asked:
        job = names.job_name(run.full_name, stage)
        own = [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(names.LABEL_JOB) == job]
        found += problems(states[stage], own, time.time())
    known = {(problem.stage, problem.kind) for problem in found}
    return (
        *found,
        *(problem for problem in board.problems if (problem.stage, problem.kind) not in known and problem.kind not in _POD_KINDS),
    )


_SILENT = Problem(
    stage=names.DRIVER, kind="silent", what="has not said anything yet", do="kubectl medkd logs --stage driver, if that lasts"
)
_POD_KINDS = ("unschedulable", "image", "container", "slow", "lost node", "failed", "gated")


# --- logs -------------------------------------------------------------------------------------------------------------


def logs(cluster: Cluster, run: Run, stage: str | None, shard: int | None, last_lines: int) -> Iterator[str]:
    """Texts of pods, what failed first: heading and log of each, three pods at most unless a shard is asked for."""
    stage = stage or _telling_stage(run)
    pods = cluster.pods(f"{names.LABEL_JOB}={names.job_name(run.full_name, stage)}")
    if shard is not None:
        pods = [pod for pod in pods if (pod["metadata"].get("annotations") or {}).get(names.ANNOTATION_INDEX) == str(shard)]
    if not pods:
        yield f"stage {stage}: no pod {'of shard ' + str(shard) if shard is not None else 'yet, or not any more'}\n"
    for pod in sorted(pods, key=_telling)[: 3 if shard is None else None]:
        yield f"==> {pod['metadata']['name']} ({pod['status'].get('phase', '?')}) <==\n"
        yield cluster.pod_log(pod["metadata"]["name"], last_lines) or "(it wrote nothing, or its log is gone)\n"


def _telling_stage(run: Run) -> str:
    """The stage whose logs say most: the failed one, else the one that runs, else the driver."""
    states = [job_state(stage, run.jobs[stage]) for stage in names.STAGES if stage in run.jobs]
    for phase in ("failed", "running"):
        for state in states:
            if state.phase == phase:
                return state.stage
    return names.DRIVER


def _telling(pod: Object) -> tuple[bool, bool, str]:
    """Failed before the others; of those, such as say why they failed; the newest first within each."""
    status = pod["status"]
    ended = [(one.get("state") or {}).get("terminated") or {} for one in status.get("containerStatuses") or []]
    says_why = any(error_line(one.get("message") or "") and one.get("exitCode") != 75 for one in ended)
    newest_first = "".join(chr(0x7F - ord(letter)) for letter in pod["metadata"].get("creationTimestamp") or "")
    return status.get("phase") != "Failed", not says_why, newest_first


# --- retry ------------------------------------------------------------------------------------------------------------


def fresh_manifest(job: Object, stage: str) -> Object:
    """The manifest of a Job as it was before its first life: stages suspended and gated, the driver ready to run."""
    manifest = copy.deepcopy({key: job[key] for key in ("metadata", "spec")})
    metadata, spec = manifest["metadata"], manifest["spec"]
    for key in _SERVER_METADATA:
        metadata.pop(key, None)
    annotations = metadata.setdefault("annotations", {})
    for key in _LIFE_ANNOTATIONS:
        annotations.pop(key, None)
    spec.pop("selector", None)
    template = spec["template"].setdefault("metadata", {})
    template.pop("creationTimestamp", None)
    for label in _POD_LABELS:
        (template.get("labels") or {}).pop(label, None)
    if stage != names.DRIVER:
        spec["suspend"] = True
        annotations[names.ANNOTATION_GATE] = names.GATE
        if names.ANNOTATION_QUEUE in annotations:
            # The driver sets this label again when it releases the stage.
            (metadata.get("labels") or {}).pop(names.LABEL_QUEUE, None)
    return {"apiVersion": "batch/v1", "kind": "Job", **manifest}


def stages_to_retry(run: Run, board: Board | None, first: str | None) -> list[str]:
    """The stage that failed, or `first`, and those after it that have been released; the driver last.

    ConfigError where nothing has failed and no stage is named.
    """
    states = {stage: job_state(stage, run.jobs[stage]) for stage in names.STAGES if stage in run.jobs}
    named = first or _failed_stage(states, board)
    if named is None:
        raise ConfigError(f"run {run.name}: no stage has failed; name the one to do again with --stage")
    later = names.STAGES[names.STAGES.index(named) :]
    again = [stage for stage in later if stage in states and (stage == named or states[stage].phase != "waiting")]
    return [*again, *([names.DRIVER] if names.DRIVER in run.jobs else [])]


def _failed_stage(states: Mapping[str, JobState], board: Board | None) -> str | None:
    """The failed stage; also one that ended without work that verifies, which only the driver can tell."""
    for stage, state in states.items():
        if state.phase == "failed" and not (stage == "generate" and board and board.gaps):
            return stage
    said = next((note.stage for note in reversed(board.notes) if note.reason == "StageFailed"), None) if board else None
    return said if board and board.phase == "failed" else None


def retry(cluster: Cluster, run: Run, stages: list[str], sleep_seconds: float = 0.5) -> None:
    """Delete these Jobs and create them again from their own manifests, the driver when all others stand again."""
    # The driver first: it must not take the deletion of a stage for the end of the run.
    for stage in reversed(stages):
        _delete(cluster, names.job_name(run.full_name, stage), sleep_seconds)
    for stage in stages:
        cluster.create_job(fresh_manifest(run.jobs[stage], stage))


def _delete(cluster: Cluster, name: str, sleep_seconds: float) -> None:
    cluster.delete_job(name)
    deadline = time.monotonic() + DELETE_SECONDS
    while cluster.job(name) is not None:
        if time.monotonic() > deadline:
            raise UnreachableError(f"Job {name}: its pods do not end; look at them, then run this command again")
        time.sleep(sleep_seconds)
