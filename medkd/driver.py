"""The cluster's driver: releases a run's stages one after the other and says how the run is. What `medkd driver` does.

It keeps no state: everything is read again from the stages' Jobs and from what lies under the run's prefix, so that it may be
ended and started anywhere at any time. Jobs are polled by name, once a second the stage that is next, rarely the others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass

from medkd.cluster import names
from medkd.cluster.api import Cluster
from medkd.cluster.board import NUM_NOTES, Board, Note, RunPhase, StageBoard, stage_board, summary
from medkd.cluster.diagnosis import Problem, problems
from medkd.cluster.publish import Publisher, ReleaseMode, release_patch
from medkd.cluster.states import JobState, acceptable_gaps, index_set, indexes, job_state, started_indexes
from medkd.cluster.web import Web
from medkd.errors import ConfigError, MedkdError, RefusedError, StoppedError
from medkd.stages import control, gaps, ownership, progress, standing
from medkd.stages.control import Control
from medkd.stages.sequence import STAGES, Action, Phase, next_action
from medkd.store.files import Store
from medkd.telemetry import event

PIPELINE_FAILED = 2
TICK_SECONDS = 1.0
ALL_JOBS_SECONDS = 10.0
READ_SECONDS = 5.0
BEAT_SECONDS = 60.0
GONE_SECONDS = 10.0
"""A Job missing for so long has been deleted; for less, somebody may be replacing it."""
STUCK_SECONDS = 30.0
"""How long a problem stands before it is an Event."""
SILENT_SECONDS = 600.0
"""Shards at work that wrote nothing for so long are said to be silent."""
REFUSED_SECONDS = 60.0
STORE_PATIENCE_SECONDS = 5.0
"""The loop turns on without the store; what it could not read it reads with the next turn."""


@dataclass(frozen=True, kw_only=True)
class DriverOptions:
    """How one driver works."""

    run: str
    full_name: str
    """Start of the names of all objects of the release."""
    student: str
    owner: str
    """Who the run's prefix belongs to, as stage plan wrote it."""
    max_failed_shards: int = 0
    release_mode: ReleaseMode = "gate"
    host: str = "0.0.0.0"
    port: int = 8080


def drive(store: Store, cluster: Cluster, options: DriverOptions, stop: threading.Event) -> int:
    """Bring the run to its end: 0 when it is complete or deleted, 2 when a stage failed.

    Raises StoppedError after `stop` was set, and ConfigError where the driver lacks a right or another release took the prefix.
    """
    store.patience_seconds = min(store.patience_seconds, STORE_PATIENCE_SECONDS)
    driver = Driver(store, cluster, options, stop)
    with Web(options.host, options.port, driver.is_turning) as web:
        event("driver started", run=options.run, port=web.port)
        return driver.work(web)


@dataclass
class _Pace:
    """Since when a count is watched, and what it was then."""

    at: float
    done: int


class Driver:
    """One driver's view of its run."""

    def __init__(self, store: Store, cluster: Cluster, options: DriverOptions, stop: threading.Event) -> None:
        self.store = store
        self.cluster = cluster
        self.options = options
        self.stop = stop
        self.wanted = standing.Wanted(student=options.student)
        self.publisher = Publisher(cluster, options.full_name)
        self.states: dict[str, JobState] = {}
        self.at_stage = STAGES[0]
        self.missing_since: dict[str, float] = {}
        # By the Job's uid: a Job that was replaced is looked at anew.
        self.shortfalls: dict[str, str] = {}
        self.gaps: tuple[int, ...] = ()
        self.reader: progress.ShardReader | None = None
        self.generation: progress.Generation | None = None
        self.training: progress.Training | None = None
        self.control: Control | None = None
        self.pace: dict[str, _Pace] = {}
        self.problems: dict[str, list[Problem]] = {}
        self.problem_since: dict[tuple[str, str, str], float] = {}
        self.trouble: Problem | None = None
        self.notes: deque[Note] = deque(maxlen=NUM_NOTES)
        self.failure = ""
        self.last_all = self.last_read = self.last_beat = -float("inf")
        self.refused_since: float | None = None
        self.turned = time.monotonic()

    def is_turning(self) -> bool:
        return time.monotonic() - self.turned < 120

    # --- the loop -----------------------------------------------------------------------------------------------------

    def work(self, web: Web) -> int:
        """Turn until the run has ended, was deleted, or `stop` is set."""
        self._remember()
        while True:
            started = time.monotonic()
            action = self._turn_safely()
            self.turned = time.monotonic()
            board = self._board(action)
            web.show(board)
            ended = action is not None and action.kind in ("done", "fail")
            self.publisher.write(board, now=ended or self.stop.is_set())
            if self._deleted() or self.stop.is_set():
                return self._leave()
            if action and ended:
                self._give_up_prefix()
                event("driver ends", outcome=action.kind, summary=summary(board))
                return 0 if action.kind == "done" else PIPELINE_FAILED
            self.stop.wait(max(0.05, TICK_SECONDS - (time.monotonic() - started)))

    def _turn_safely(self) -> Action | None:
        """One turn; None where something out of reach cut it short. What lasts ends the driver."""
        try:
            action = self._turn()
        except ConfigError:
            raise
        except MedkdError as error:
            if self.stop.is_set():
                return None
            self._note_trouble(error)
            return None
        self.refused_since, self.trouble = None, None
        return action

    def _note_trouble(self, error: MedkdError) -> None:
        if isinstance(error, RefusedError):
            self.refused_since = self.refused_since or time.monotonic()
            if time.monotonic() - self.refused_since > REFUSED_SECONDS:
                raise ConfigError(str(error)) from error
        if self.trouble is None:
            event("turn cut short", level=logging.WARNING, reason=str(error))
        self.trouble = Problem(
            stage=names.DRIVER, kind="driver", what=str(error), do="it is tried again by itself; stages that run are not touched"
        )

    def _turn(self) -> Action | None:
        self._observe()
        if len(self.states) < len(STAGES):
            return None
        action = self._decide()
        self.at_stage = action.stage or STAGES[-1]
        if action.kind == "release":
            self._release(action.stage)
        if time.monotonic() - self.last_read >= READ_SECONDS or action.kind in ("done", "fail"):
            self.last_read = time.monotonic()
            self._read_progress(action.stage)
            self._diagnose(action.stage)
            self._beat()
        if action.kind == "fail":
            self._failed(action)
        if action.kind == "done":
            self._say("evaluate", "RunComplete", "all stages are complete and verified")
        return action

    def _deleted(self) -> bool:
        return any(time.monotonic() - since > GONE_SECONDS for since in self.missing_since.values())

    def _leave(self) -> int:
        """The end before the run's end: quiet where the release was taken away, resumable otherwise."""
        if not self._deleted() and not self._being_deleted():
            raise StoppedError("driver stopped; the next one goes on from the Jobs and the store")
        event("run deleted, driver ends")
        self._give_up_prefix()
        return 0

    def _being_deleted(self) -> bool:
        try:
            found = [self.cluster.job(self._job(stage)) for stage in (STAGES[0], STAGES[-1])]
        except MedkdError:
            return False
        return any(job is None or job["metadata"].get("deletionTimestamp") for job in found)

    def _give_up_prefix(self) -> None:
        try:
            if ownership.owner(self.store) == self.options.owner:
                ownership.release(self.store, self.options.owner)
        except (MedkdError, FileNotFoundError) as error:
            event("prefix not given up", level=logging.WARNING, reason=str(error))

    # --- Jobs ---------------------------------------------------------------------------------------------------------

    def _observe(self) -> None:
        """Read the Job of the stage that is next, now and then all of them."""
        stages = [self.at_stage]
        if len(self.states) < len(STAGES) or time.monotonic() - self.last_all >= ALL_JOBS_SECONDS:
            self.last_all = time.monotonic()
            stages = list(STAGES)
        for stage in stages:
            self._read_job(stage)

    def _read_job(self, stage: str) -> None:
        job = self.cluster.job(self._job(stage))
        if job is None:
            self.missing_since.setdefault(stage, time.monotonic())
            return
        self.missing_since.pop(stage, None)
        before, self.states[stage] = self.states.get(stage), job_state(stage, job)
        self._say_change(before, self.states[stage])

    def _say_change(self, before: JobState | None, now: JobState) -> None:
        if before is None or before.phase == now.phase:
            return
        if now.phase == "queued":
            self._say(now.stage, "StageQueued", "released; waits to be admitted")
        elif now.phase == "running" and before.phase == "queued":
            self._say(now.stage, "StageAdmitted", "admitted; pods start")

    def _job(self, stage: str) -> str:
        return names.job_name(self.options.full_name, stage)

    def _release(self, stage: str) -> None:
        job = self.cluster.job(self._job(stage))
        if job is None:
            self.missing_since.setdefault(stage, time.monotonic())
            return
        changed = self.cluster.patch_job(self._job(stage), release_patch(job, self.options.release_mode))
        if changed:
            self.states[stage] = job_state(stage, changed)
            self._say(stage, "StageReleased", "released: what comes before it is complete and verified")

    # --- deciding -----------------------------------------------------------------------------------------------------

    def _decide(self) -> Action:
        phases: dict[str, Phase] = {stage: self._phase(self.states[stage]) for stage in STAGES}
        verified: dict[str, bool] = dict.fromkeys(STAGES, False)
        for stage in STAGES:
            if phases[stage] != "succeeded":
                break
            verified[stage] = not self._shortfall(stage)
            if not verified[stage]:
                break
        return next_action(phases, verified)

    def _phase(self, state: JobState) -> Phase:
        """A stage's phase; a failure that leaves gaps which are allowed counts as an end to go on from."""
        return "succeeded" if state.stage == "generate" and self._allowed_gaps(state) else state.phase

    def _allowed_gaps(self, state: JobState) -> tuple[int, ...]:
        return acceptable_gaps(state, self.options.max_failed_shards)

    def _shortfall(self, stage: str) -> str:
        """What the ended stage's work lacks; looked at once for each Job."""
        state = self.states[stage]
        if state.uid not in self.shortfalls:
            found = self._verify_shards(state) if stage == "generate" else standing.shortfall(self.store, stage, self.wanted)
            self.shortfalls[state.uid] = found
            if not found:
                self._say(stage, "StageSucceeded", "complete, and every file that its manifest names is there")
        return self.shortfalls[state.uid]

    def _verify_shards(self, state: JobState) -> str:
        reader = self._shard_reader()
        finished = reader.read_all_finished()
        # A shard whose last pod was lost after its manifest is no gap.
        self.gaps = tuple(shard for shard in self._allowed_gaps(state) if shard not in finished)
        found = standing.shards_shortfall(self.store, reader.num_shards, finished, self.gaps)
        if not found:
            gaps.record(self.store, self.gaps)
            if self.gaps:
                allowed = f"{len(self.gaps)} of {reader.num_shards} failed, {self.options.max_failed_shards} may"
                self._say(state.stage, "GapsAccepted", f"goes on without shards {index_set(self.gaps)}: {allowed}", warning=True)
        return found

    def _failed(self, action: Action) -> None:
        """Say why the run ends here, in the words of the process that failed where there are such."""
        state = self.states[action.stage]
        if state.phase != "failed":
            text = f"{action.reason}: {self._shortfall(action.stage)}"
        else:
            said = [problem.what for problem in self.problems.get(action.stage, []) if problem.fatal]
            text = f"{action.reason}: {said[0] if said else state.message or state.reason}"
            if state.num_failed_indexes and state.completions > 1 and action.stage == "generate":
                text += f"; {state.num_failed_indexes} shards failed, {self.options.max_failed_shards} may"
        self.failure = text
        self._say(action.stage, "StageFailed", text, warning=True)

    # --- progress -----------------------------------------------------------------------------------------------------

    def _shard_reader(self) -> progress.ShardReader:
        self.reader = self.reader or progress.ShardReader(self.store)
        return self.reader

    def _read_progress(self, stage: str) -> None:
        """What the store says of the stage that runs, and of generate once after a start."""
        state = self.states["generate"]
        if self.states["plan"].phase == "succeeded" and (stage == "generate" or self.generation is None) and state.released:
            ended = set(indexes(state.completed_indexes)) | set(indexes(state.failed_indexes))
            self.generation = self._shard_reader().read(ended, started_indexes(state))
            self._steer()
        if stage in ("train", "evaluate", ""):
            self.training = progress.training(self.store, self.options.student)

    def _steer(self) -> None:
        """The decision after the pilot, and the lifting of a hold by somebody with rights on the Job."""
        self.control = control.read_control(self.store)
        if self.control.state == "pilot":
            decision = control.decide_pilot(self.store)
            if decision:
                self._control(decision)
                self._say("generate", "PilotDecided", f"{decision.state}: {decision.reason}", warning=decision.state == "hold")
        if self.control.state == "hold" and self.states["generate"].approved:
            self._control(Control(state="run", reason=f"approved (was held: {self.control.reason})"))
            self._say("generate", "HoldLifted", "approved by kubectl medkd approve")

    def _control(self, decision: Control) -> None:
        control.write_control(self.store, decision)
        self.control = decision

    def _beat(self) -> None:
        """The sign of life under the prefix, once stage plan has taken it."""
        if self.states["plan"].phase != "succeeded" or time.monotonic() - self.last_beat < BEAT_SECONDS:
            return
        there = ownership.owner(self.store)
        if there not in (None, self.options.owner):
            raise ConfigError(f"{self.store.url}: {there} has taken this prefix over; this release stops")
        ownership.beat(self.store, self.options.owner)
        self.last_beat = time.monotonic()

    # --- what is wrong ------------------------------------------------------------------------------------------------

    def _diagnose(self, stage: str) -> None:
        """Look at pods only where the Job's own figures say that something may be wrong."""
        self.problems = {}
        state = self.states.get(stage)
        if state is None:
            return
        if state.phase == "failed" or (state.phase == "running" and _looks_wrong(state)):
            self.problems[stage] = self._pod_problems(state)
        self.problems.setdefault(stage, []).extend(self._other_problems(state))
        self._say_stuck()

    def _pod_problems(self, state: JobState) -> list[Problem]:
        selector = f"{names.LABEL_JOB}={self._job(state.stage)}"
        try:
            return problems(state, self.cluster.unfinished_pods(selector), time.time())
        except RefusedError:
            # Values may deny the driver its look at pods; Job status then has to do.
            return []

    def _other_problems(self, state: JobState) -> list[Problem]:
        found = []
        run = f"{self.options.run} -n {self.cluster.namespace}"
        if state.failing and not any(problem.fatal for problem in self.problems.get(state.stage, [])):
            found.append(_problem(state, "failing", f"is failing ({state.reason}): {state.message}", "kubectl medkd logs"))
        if state.phase == "queued":
            found.append(
                _problem(state, "queued", "waits for admission", "kubectl get workloads shows the queue; nothing is wrong")
            )
        if state.stage == "generate" and state.phase == "running":
            if self.control and self.control.state == "hold":
                advice = f"look at the samples under the prefix, then: kubectl medkd approve {run}"
                found.append(_problem(state, "held", f"held: {self.control.reason}", advice))
            found += _shard_problems(state, self.generation)
        return found

    def _say_stuck(self) -> None:
        """An Event for what has been wrong for a while; what went away is forgotten."""
        now = time.monotonic()
        there = {(self.states[one.stage].uid, one.kind, one.what): one for listed in self.problems.values() for one in listed}
        self.problem_since = {key: self.problem_since.get(key, now) for key in there}
        for key, problem in there.items():
            stuck = problem.kind not in ("queued", "held", "parked") and not problem.fatal
            if stuck and now - self.problem_since[key] > STUCK_SECONDS:
                self._say(problem.stage, "RunStuck", f"{problem.what}; {problem.do}", warning=True)

    # --- what is said -------------------------------------------------------------------------------------------------

    def _remember(self) -> None:
        """Take over what an earlier driver of this run noted."""
        try:
            earlier = self.publisher.earlier()
        except MedkdError:
            return
        if earlier:
            self.notes.extend(earlier.notes)

    def _say(self, stage: str, reason: str, text: str, *, warning: bool = False) -> None:
        """Note and publish what happened to a stage's present Job, once."""
        uid = self.states[stage].uid
        if any((note.stage, note.reason, note.text, note.uid) == (stage, reason, text, uid) for note in self.notes):
            return
        self.notes.append(Note(at=time.time(), stage=stage, reason=reason, text=text, uid=uid))
        self.publisher.event(stage, uid, reason, text, warning=warning)

    def _board(self, action: Action | None) -> Board:
        generation, training = self.generation, self.training
        listed = [problem for found in self.problems.values() for problem in found]
        return Board(
            run=self.options.run,
            namespace=self.cluster.namespace,
            prefix=self.store.url,
            student=self.options.student,
            phase=self._run_phase(action),
            updated_at=time.time(),
            stages=tuple(self._stage_board(stage) for stage in STAGES),
            shards=_shard_counts(self.states.get("generate"), generation),
            samples=_sample_counts(generation),
            money=vars(generation.money).copy() if generation else {},
            training={"step": training.step, "total_steps": training.total_steps, "loss": training.loss} if training else {},
            eta_seconds=self._eta(action.stage if action and action.kind == "wait" else ""),
            parked_until=generation.parked_until if generation else None,
            last_progress_at=max(
                (at for at in (generation and generation.last_at, training and training.at) if at), default=None
            ),
            gaps=index_set(self.gaps),
            failure=self.failure,
            problems=(*([self.trouble] if self.trouble else []), *listed),
            notes=tuple(self.notes),
        )

    def _run_phase(self, action: Action | None) -> RunPhase:
        if action and action.kind == "done":
            return "complete"
        if self.failure:
            return "failed"
        generate = self.states.get("generate")
        if self.control and self.control.state == "hold" and generate and generate.phase == "running":
            return "held"
        return "running" if any(state.phase != "waiting" for state in self.states.values()) else "waiting"

    def _stage_board(self, stage: str) -> StageBoard:
        state = self.states.get(stage)
        if state is None:
            return StageBoard(name=stage, phase="waiting")
        if stage == "train" and self.training and state.phase in ("running", "succeeded"):
            return stage_board(state, done=self.training.step, total=self.training.total_steps)
        return stage_board(state, gaps=len(self.gaps) if stage == "generate" else 0)

    def _eta(self, stage: str) -> float | None:
        """Seconds until the stage's end at the pace seen so far; None where that says nothing yet."""
        if stage == "generate" and self.generation and not self.generation.parked:
            done, total = self.generation.samples.ended, self.generation.samples.total
        elif stage == "train" and self.training:
            done, total = self.training.step, self.training.total_steps
        else:
            return None
        now = time.monotonic()
        pace = self.pace.setdefault(stage, _Pace(now, done))
        if done < pace.done:
            self.pace[stage] = _Pace(now, done)
        if now - pace.at < 15 or done <= pace.done:
            return None
        return (total - done) * (now - pace.at) / (done - pace.done)


def _looks_wrong(state: JobState) -> bool:
    return state.active != state.ready or state.terminating > 0 or state.failed_pods > 0 or state.failing


def _problem(state: JobState, kind: str, what: str, do: str) -> Problem:
    return Problem(stage=state.stage, kind=kind, what=what, do=do)


def _shard_problems(state: JobState, generation: progress.Generation | None) -> list[Problem]:
    if generation is None:
        return []
    found = []
    if generation.parked and generation.parked_until and generation.parked_until > time.time() + 60:
        until = time.strftime("%H:%M:%S", time.gmtime(generation.parked_until))
        what = f"{generation.parked} shards are parked until {until} UTC, as the teacher asked"
        found.append(_problem(state, "parked", what, "wait, or raise the limits of the teacher's account"))
    silent = time.time() - generation.last_at if generation.last_at else 0.0
    if silent > SILENT_SECONDS and state.ready:
        what = f"no shard has written its progress for {silent / 60:.0f} minutes"
        found.append(_problem(state, "silent", what, "kubectl medkd logs"))
    return found


def _shard_counts(state: JobState | None, generation: progress.Generation | None) -> dict[str, int]:
    if state is None or generation is None:
        return {}
    counts = {"total": generation.num_shards, "done": generation.done, "failed": state.num_failed_indexes}
    return {**counts, "active": state.active, "parked": generation.parked}


def _sample_counts(generation: progress.Generation | None) -> dict[str, int]:
    return vars(generation.samples).copy() if generation else {}
