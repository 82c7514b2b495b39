"""The driver's loop: look at the Jobs, decide, release or end."""

from __future__ import annotations

import logging
import threading
import time

from medkd.cluster import names
from medkd.cluster.api import Cluster
from medkd.cluster.board import Board, summary
from medkd.cluster.diagnosis import Problem
from medkd.cluster.publish import Publisher, release_patch
from medkd.cluster.states import JobState, acceptable_gaps, index_set, job_state
from medkd.cluster.web import Web
from medkd.driver.diary import Diary
from medkd.driver.options import DriverOptions
from medkd.driver.view import compose
from medkd.driver.watch import Watch
from medkd.errors import ConfigError, InputError, MedkdError, RefusedError, StoppedError
from medkd.stages import gaps, ownership, standing
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
REFUSED_SECONDS = 60.0
STORE_PATIENCE_SECONDS = 5.0
"""The loop turns on without the store; what it could not read it reads with the next turn."""
HEALTHY_SECONDS = 120.0


def drive(store: Store, cluster: Cluster, options: DriverOptions, stop: threading.Event) -> int:
    """Bring the run to its end: 0 when it is complete or deleted, 2 when a stage failed.

    Raises StoppedError after `stop` was set, and ConfigError where the driver lacks a right or another release took the prefix.
    """
    store.patience_seconds = min(store.patience_seconds, STORE_PATIENCE_SECONDS)
    driver = Driver(store, cluster, options, stop)
    with Web(options.host, options.port, driver.is_turning) as web:
        event("driver started", run=options.run, port=web.port)
        return driver.work(web)


class Driver:
    """One driver's view of its run."""

    def __init__(self, store: Store, cluster: Cluster, options: DriverOptions, stop: threading.Event) -> None:
        self.store = store
        self.cluster = cluster
        self.options = options
        self.stop = stop
        self.wanted = standing.Wanted(student=options.student)
        self.publisher = Publisher(cluster, options.full_name)
        self.diary = Diary(self.publisher)
        self.watch = Watch(store, cluster, options, self.diary)
        self.states: dict[str, JobState] = {}
        self.at_stage = STAGES[0]
        self.missing_since: dict[str, float] = {}
        # By the Job's uid: a Job that was replaced is looked at anew.
        self.shortfalls: dict[str, str] = {}
        self.gaps: tuple[int, ...] = ()
        self.trouble: Problem | None = None
        self.failure = ""
        self.last_all = self.last_read = self.last_beat = -float("inf")
        self.refused_since: float | None = None
        self.turned = time.monotonic()

    def is_turning(self) -> bool:
        return time.monotonic() - self.turned < HEALTHY_SECONDS

    # --- the loop -----------------------------------------------------------------------------------------------------

    def work(self, web: Web) -> int:
        """Turn until the run has ended, was deleted, or `stop` is set."""
        self.diary.remember()
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
            self.watch.read(action.stage, self.states)
            self.watch.diagnose(self.states.get(action.stage))
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
            found = [self.cluster.job(self.options.job(stage)) for stage in (STAGES[0], STAGES[-1])]
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
        job = self.cluster.job(self.options.job(stage))
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

    def _release(self, stage: str) -> None:
        job = self.cluster.job(self.options.job(stage))
        if job is None:
            self.missing_since.setdefault(stage, time.monotonic())
            return
        changed = self.cluster.patch_job(self.options.job(stage), release_patch(job, self.options.release_mode))
        if changed:
            self.states[stage] = job_state(stage, changed)
            why = "the run begins" if stage == STAGES[0] else "what comes before it is complete and verified"
            self._say(stage, "StageReleased", f"released: {why}")

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
            try:
                found = self._verify_shards(state) if stage == "generate" else standing.shortfall(self.store, stage, self.wanted)
            except InputError as error:
                found = str(error)
            self.shortfalls[state.uid] = found
            if not found:
                self._say(stage, "StageSucceeded", "complete, and every file that its manifest names is there")
        return self.shortfalls[state.uid]

    def _verify_shards(self, state: JobState) -> str:
        reader = self.watch.reader
        finished = reader.read_all_finished()
        # A shard whose last pod was lost after its manifest is no gap.
        self.gaps = tuple(shard for shard in self._allowed_gaps(state) if shard not in finished)
        found = standing.shards_shortfall(self.store, reader.num_shards, finished, self.gaps)
        if not found:
            gaps.record(self.store, self.gaps)
            self.watch.read_shards(state)
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
            said = [problem.what for problem in self.watch.problems if problem.fatal]
            text = f"{action.reason}: {said[0] if said else state.message or state.reason}"
            if state.num_failed_indexes and state.completions > 1 and action.stage == "generate":
                text += f"; {state.num_failed_indexes} shards failed, {self.options.max_failed_shards} may"
        self.failure = text
        self._say(action.stage, "StageFailed", text, warning=True)

    # --- prefix, words, board -------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """The sign of life under the prefix, once stage plan has taken it."""
        if self.states["plan"].phase != "succeeded" or time.monotonic() - self.last_beat < BEAT_SECONDS:
            return
        there = ownership.owner(self.store)
        if there not in (None, self.options.owner):
            raise ConfigError(f"{self.store.url}: {there} has taken this prefix over; this release stops")
        ownership.beat(self.store, self.options.owner)
        self.last_beat = time.monotonic()

    def _say(self, stage: str, reason: str, text: str, *, warning: bool = False) -> None:
        self.diary.say(self.states[stage], reason, text, warning=warning)

    def _board(self, action: Action | None) -> Board:
        return compose(
            self.options,
            self.cluster.namespace,
            self.store.url,
            states=self.states,
            watch=self.watch,
            action=action,
            gaps=self.gaps,
            failure=self.failure,
            problems=(*([self.trouble] if self.trouble else []), *self.watch.problems),
            notes=self.diary.notes,
        )
