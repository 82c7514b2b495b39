"""What the driver publishes about a run: plain values without I/O, aggregates only, never a conversation or a name of a patient.

One value serves the status ConfigMap, the live page, the metrics and `kubectl medkd status`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Literal

from medkd.cluster.diagnosis import Problem
from medkd.cluster.states import JobState

RunPhase = Literal["waiting", "running", "held", "complete", "failed"]
NUM_NOTES = 20


@dataclass(frozen=True, kw_only=True)
class StageBoard:
    """One stage. done and total count what the stage counts: shards, training steps, or the stage itself."""

    name: str
    phase: str
    done: int = 0
    total: int = 0
    detail: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    failed_pods: int = 0


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that happened once."""

    at: float
    stage: str
    reason: str
    text: str
    uid: str = ""
    """Of the Job that it happened to."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """A run at one moment. Times are seconds since 1970, money is US dollars."""

    run: str
    namespace: str
    prefix: str
    student: str
    phase: RunPhase
    updated_at: float
    stages: tuple[StageBoard, ...]
    shards: dict[str, int] = field(default_factory=dict)
    """total, done, failed, active, parked."""
    samples: dict[str, int] = field(default_factory=dict)
    """total, accepted, short, rejected."""
    money: dict[str, float] = field(default_factory=dict)
    """spent_usd, possibly_usd, estimate_usd."""
    training: dict[str, float | None] = field(default_factory=dict)
    """step, total_steps, loss."""
    eta_seconds: float | None = None
    """Until the current stage's end, at its pace so far."""
    parked_until: float | None = None
    last_progress_at: float | None = None
    short_cells: tuple[str, ...] = ()
    """Cells that fell short, in words, the largest gaps first; at most so many as fit a screen."""
    verdict: str = ""
    """Whether the student clears its bars, in words; empty before it is evaluated."""
    gaps: str = ""
    """Shards that the run goes on without, as an index set."""
    failure: str = ""
    problems: tuple[Problem, ...] = ()
    notes: tuple[Note, ...] = ()
    format: int = 1

    @property
    def current(self) -> StageBoard | None:
        """The stage that is not done; None where all are."""
        return next((stage for stage in self.stages if stage.phase != "succeeded"), None)


def to_json(board: Board) -> str:
    return json.dumps(dataclasses.asdict(board), ensure_ascii=False)


def from_json(text: str) -> Board | None:
    """The board in a published text; None where there is none yet, or one of another format."""
    try:
        raw = json.loads(text)
        if raw["format"] != 1:
            return None
        return Board(
            **{
                **raw,
                "stages": tuple(StageBoard(**stage) for stage in raw["stages"]),
                "problems": tuple(Problem(**problem) for problem in raw["problems"]),
                "notes": tuple(Note(**note) for note in raw["notes"]),
                "short_cells": tuple(raw.get("short_cells", ())),
            }
        )
    except (ValueError, TypeError, KeyError):
        return None


def stage_board(
    state: JobState, *, gaps: int = 0, done: int | None = None, total: int | None = None, detail: str = ""
) -> StageBoard:
    """A stage's line from its Job; `done` and `total` where its progress is known better than from pods."""
    phase = "succeeded" if gaps else state.phase
    return StageBoard(
        name=state.stage,
        phase=phase,
        done=state.succeeded if done is None else done,
        total=state.completions if total is None else total,
        detail=detail or _detail(state, gaps),
        started_at=state.started_at,
        ended_at=state.ended_at,
        failed_pods=state.failed_pods,
    )


def _detail(state: JobState, gaps: int) -> str:
    if gaps:
        return f"went on without {gaps} of {state.completions} shards"
    if state.phase == "queued":
        return "waits for admission"
    if state.phase == "running":
        starting = state.active - state.ready
        return f"{state.ready} pods at work" + (f", {starting} starting" if starting > 0 else "")
    left = re.search(r"exit code \d+", state.message)
    return f"{left.group(0)} ({state.reason})" if left else state.reason


def summary(board: Board) -> str:
    """The run in one line."""
    if board.phase == "complete":
        return f"complete{_gap_words(board)}"
    if board.phase == "failed":
        return f"failed: {board.failure}"
    stage = board.current
    where = f"{stage.name} {stage.phase}" if stage else ""
    return ", ".join(part for part in (board.phase, where, progress_words(board)) if part) + _gap_words(board)


def _gap_words(board: Board) -> str:
    return f", without shards {board.gaps}" if board.gaps else ""


def stage_words(board: Board, stage: StageBoard) -> str:
    """A stage's progress for its Job's annotation; empty where there is nothing to say yet."""
    if stage.name == "generate" and board.samples.get("total"):
        ended = f"{board.samples['accepted']:,}/{board.samples['total']:,} samples"
        return f"{ended}, {board.shards['done']}/{board.shards['total']} shards, ${board.money['spent_usd']:.2f}"
    if stage.name == "train" and board.training:
        loss = f", loss {board.training['loss']:.3f}" if board.training.get("loss") is not None else ""
        return f"step {board.training['step']:,.0f}/{board.training['total_steps']:,.0f}{loss}"
    return ""


def progress_words(board: Board) -> str:
    """How far the current stage is; empty where nothing is known of it."""
    return stage_words(board, board.current) if board.current else ""
