"""How far the run is and what keeps it from going on: the driver's reading of progress files and pods, and its pilot decision."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from medkd.cluster import names
from medkd.cluster.api import Cluster
from medkd.cluster.diagnosis import Problem, problems
from medkd.cluster.states import JobState, indexes, started_indexes
from medkd.driver.diary import Diary
from medkd.driver.options import DriverOptions
from medkd.errors import RefusedError
from medkd.stages import control, progress
from medkd.stages.control import Control
from medkd.store.files import Store

STUCK_SECONDS = 30.0
"""How long a problem stands before it is an Event."""
SILENT_SECONDS = 600.0
"""Shards at work that wrote nothing for so long are said to be silent."""
PACE_SECONDS = 15.0
"""How long a count is watched before its pace says something."""


@dataclass(frozen=True)
class _Pace:
    """Since when a count is watched, and what it was then."""

    at: float
    done: int


class Watch:
    """What is known of the run beside its Jobs."""

    def __init__(self, store: Store, cluster: Cluster, options: DriverOptions, diary: Diary) -> None:
        self.generation: progress.Generation | None = None
        self.training: progress.Training | None = None
        self.verdict = ""
        """On the student, in words; empty before stage evaluate has ended."""
        self.problems: list[Problem] = []
        """Of the stage that is next."""
        self._store = store
        self._cluster = cluster
        self._options = options
        self._diary = diary
        self._reader: progress.ShardReader | None = None
        self._control: Control | None = None
        self._pace: dict[str, _Pace] = {}
        self._since: dict[tuple[str, str, str], float] = {}

    # --- progress -----------------------------------------------------------------------------------------------------

    @property
    def reader(self) -> progress.ShardReader:
        """Reads the run's shards; not before stage plan has ended."""
        self._reader = self._reader or progress.ShardReader(self._store)
        return self._reader

    @property
    def held(self) -> bool:
        return self._control is not None and self._control.state == "hold"

    @property
    def pilot(self) -> str:
        """What the run waits for while its pilot is under way; else empty."""
        if self._control is None or self._control.state != "pilot":
            return ""
        return f"pilot: shard 0 buys the first {self._control.pilot_samples} samples, the others wait for them"

    def read(self, stage: str, states: Mapping[str, JobState]) -> None:
        """What the store says of the stage that is next, and of generate once after a start."""
        generate = states["generate"]
        planned = states["plan"].phase == "succeeded" and generate.released
        if planned and (stage == "generate" or self.generation is None):
            self.read_shards(generate)
            self._steer(generate)
        if stage in ("train", "evaluate", ""):
            self.training = progress.training(self._store, self._options.student)
        if states["evaluate"].phase in ("succeeded", "failed"):
            self.verdict = progress.verdict(self._store, self._options.student)

    def read_shards(self, generate: JobState) -> None:
        """Bring the figures of stage generate up to date."""
        ended = {*indexes(generate.completed_indexes), *indexes(generate.failed_indexes)}
        self.generation = self.reader.read(ended, started_indexes(generate))

    def _steer(self, generate: JobState) -> None:
        """The decision after the pilot, and the lifting of a hold by somebody with rights on the Job."""
        self._control = control.read_control(self._store)
        if self._control.state == "pilot":
            decision = control.decide_pilot(self._store)
            if decision:
                self._decide(decision)
                text = f"{decision.state}: {decision.reason}"
                self._diary.say(generate, "PilotDecided", text, warning=decision.state == "hold")
        if self._control.state == "hold" and generate.approved:
            self._decide(Control(state="run", reason=f"approved (was held: {self._control.reason})"))
            self._diary.say(generate, "HoldLifted", "approved by kubectl medkd approve")

    def _decide(self, decision: Control) -> None:
        control.write_control(self._store, decision)
        self._control = decision

    def eta(self, stage: str) -> float | None:
        """Seconds until the stage's end at the pace seen so far; None where that says nothing yet."""
        if stage == "generate" and self.generation and not self.generation.parked:
            done, total = self.generation.samples.ended, self.generation.samples.total
        elif stage == "train" and self.training:
            done, total = self.training.step, self.training.total_steps
        else:
            return None
        now = time.monotonic()
        pace = self._pace.setdefault(stage, _Pace(now, done))
        if done < pace.done:
            # A training that went back to its checkpoint.
            self._pace[stage] = _Pace(now, done)
        if now - pace.at < PACE_SECONDS or done <= pace.done:
            return None
        return (total - done) * (now - pace.at) / (done - pace.done)

    # --- what is wrong ------------------------------------------------------------------------------------------------

    def diagnose(self, state: JobState | None) -> None:
        """Find what is wrong with the stage that is next; what went away is forgotten."""
        self.problems = []
        if state is None:
            return
        # Pods are looked at only where the Job's own figures say that something may be wrong.
        if state.phase == "failed" or (state.phase == "running" and state.looks_wrong):
            self.problems += self._pod_problems(state)
        self.problems += self._other_problems(state)
        self._say_stuck(state)

    def _pod_problems(self, state: JobState) -> list[Problem]:
        selector = f"{names.LABEL_JOB}={self._options.job(state.stage)}"
        try:
            return problems(state, self._cluster.unfinished_pods(selector), time.time())
        except RefusedError:
            # Values may deny the driver its look at pods; Job status then has to do.
            return []

    def _other_problems(self, state: JobState) -> list[Problem]:
        found = []
        if state.failing and not any(problem.fatal for problem in self.problems):
            found.append(_problem(state, "failing", f"is failing ({state.reason}): {state.message}", "kubectl medkd logs"))
        if state.phase == "queued":
            found.append(
                _problem(state, "queued", "waits for admission", "kubectl get workloads shows the queue; nothing is wrong")
            )
        if state.stage == "generate" and state.phase == "running":
            if self._control and self.held:
                run = f"{self._options.run} -n {self._cluster.namespace}"
                advice = f"look at the samples under the prefix, then: kubectl medkd approve {run}"
                found.append(_problem(state, "held", f"held after its pilot: {self._control.reason}", advice))
            if self.generation:
                found += _shard_problems(state, self.generation)
        return found

    def _say_stuck(self, state: JobState) -> None:
        """An Event for what has been wrong for a while."""
        now = time.monotonic()
        keys = {(state.uid, problem.kind, problem.what): problem for problem in self.problems}
        self._since = {key: self._since.get(key, now) for key in keys}
        for key, problem in keys.items():
            stuck = problem.kind not in ("queued", "held", "parked") and not problem.fatal
            if stuck and now - self._since[key] > STUCK_SECONDS:
                self._diary.say(state, "RunStuck", f"{problem.what}; {problem.do}", warning=True)


def _shard_problems(state: JobState, generation: progress.Generation) -> list[Problem]:
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


def _problem(state: JobState, kind: str, what: str, do: str) -> Problem:
    return Problem(stage=state.stage, kind=kind, what=what, do=do)
