"""The board of a run, put together from its Jobs and from what the driver read of its progress."""

from __future__ import annotations

import time
from collections.abc import Mapping

from medkd.cluster.board import Board, Note, RunPhase, StageBoard, stage_board
from medkd.cluster.diagnosis import Problem
from medkd.cluster.states import JobState, index_set
from medkd.driver.options import DriverOptions
from medkd.driver.watch import Watch
from medkd.stages import progress
from medkd.stages.sequence import STAGES, Action
from medkd.stages.tallies import shown_cells


def compose(
    options: DriverOptions,
    namespace: str,
    prefix: str,
    *,
    states: Mapping[str, JobState],
    watch: Watch,
    action: Action | None,
    gaps: tuple[int, ...],
    failure: str,
    problems: tuple[Problem, ...],
    notes: tuple[Note, ...],
) -> Board:
    """How the run is now. `action` is what the last turn decided, None where it was cut short."""
    generation, training = watch.generation, watch.training
    if generation and not generation.num_shards:
        # A run that uses another one's data set has nothing to count here.
        generation = None
    return Board(
        run=options.run,
        namespace=namespace,
        prefix=prefix,
        student=options.student,
        phase=_run_phase(states, watch, action, failure),
        updated_at=time.time(),
        stages=tuple(_stage(stage, states.get(stage), training, gaps, watch.pilot) for stage in STAGES),
        shards=_shard_counts(states.get("generate"), generation),
        samples=vars(generation.samples).copy() if generation else {},
        money=vars(generation.money).copy() if generation else {},
        training={"step": training.step, "total_steps": training.total_steps, "loss": training.loss} if training else {},
        eta_seconds=watch.eta(action.stage) if action and action.kind == "wait" else None,
        parked_until=generation.parked_until if generation else None,
        last_progress_at=_newest(generation.last_at if generation else None, training.at if training else None),
        short_cells=shown_cells(generation.short_cells) if generation else (),
        verdict=watch.verdict,
        gaps=index_set(gaps),
        failure=failure,
        problems=problems,
        notes=notes,
    )


def _run_phase(states: Mapping[str, JobState], watch: Watch, action: Action | None, failure: str) -> RunPhase:
    if action and action.kind == "done":
        return "complete"
    if failure:
        return "failed"
    generate = states.get("generate")
    if watch.held and generate and generate.phase == "running":
        return "held"
    return "running" if any(state.phase != "waiting" for state in states.values()) else "waiting"


def _stage(
    stage: str, state: JobState | None, training: progress.Training | None, gaps: tuple[int, ...], pilot: str
) -> StageBoard:
    if state is None:
        return StageBoard(name=stage, phase="waiting")
    if stage == "train" and training and state.phase in ("running", "succeeded"):
        return stage_board(state, done=training.step, total=training.total_steps)
    if stage == "generate":
        return stage_board(state, gaps=len(gaps), detail=pilot if state.phase == "running" else "")
    return stage_board(state)


def _shard_counts(state: JobState | None, generation: progress.Generation | None) -> dict[str, int]:
    if state is None or generation is None:
        return {}
    counts = {"total": generation.num_shards, "done": generation.done, "failed": state.num_failed_indexes}
    return {**counts, "active": state.active, "parked": generation.parked}


def _newest(*moments: float | None) -> float | None:
    return max((moment for moment in moments if moment), default=None)
