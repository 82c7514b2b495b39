"""A board in Prometheus' text format. Labels name run, stage, state; never pods or shards, which would be series without end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from medkd.cluster.board import Board

STAGE_PHASES = ("waiting", "queued", "running", "succeeded", "failed")
RUN_PHASES = ("waiting", "running", "held", "complete", "failed")

_HELP = {
    "medkd_run_phase": "1 for the phase that the run is in",
    "medkd_stage_phase": "1 for the phase that the stage is in",
    "medkd_stage_start_time_seconds": "when the stage was let run, seconds since 1970",
    "medkd_stage_end_time_seconds": "when the stage ended, seconds since 1970",
    "medkd_stage_failed_pods": "pods of the stage that failed, also those that were started again",
    "medkd_shards": "shards of stage generate by state",
    "medkd_samples": "samples of the run by state",
    "medkd_money_usd": "US dollars: spent, possibly spent beside that, and the plan's estimate",
    "medkd_training_step": "optimizer step that training has reached",
    "medkd_training_steps": "optimizer steps that training will take",
    "medkd_training_loss": "loss of the last logged step",
    "medkd_student_verdict": "1 for the verdict on the student's bars: passed, below its bar or no bar set",
    "medkd_last_progress_time_seconds": "when a stage last wrote down how far it is, seconds since 1970",
    "medkd_eta_seconds": "seconds until the current stage's end at its pace so far",
    "medkd_problems": "what keeps the run from going on, by stage and kind",
}


def metrics(board: Board) -> str:
    """The text that a scrape of the driver returns."""
    lines, named = [], set()
    for name, labels, value in _samples(board):
        if name not in named:
            named.add(name)
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge"]
        shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in {"run": board.run, **labels}.items())
        lines.append(f"{name}{{{shown}}} {value:.10g}")
    return "\n".join(lines) + "\n"


def _samples(board: Board) -> Iterator[tuple[str, Mapping[str, str], float]]:
    for run_phase in RUN_PHASES:
        yield "medkd_run_phase", {"phase": run_phase}, board.phase == run_phase
    for stage in board.stages:
        for phase in STAGE_PHASES:
            yield "medkd_stage_phase", {"stage": stage.name, "phase": phase}, stage.phase == phase
    for stage in board.stages:
        if stage.started_at:
            yield "medkd_stage_start_time_seconds", {"stage": stage.name}, stage.started_at
    for stage in board.stages:
        if stage.ended_at:
            yield "medkd_stage_end_time_seconds", {"stage": stage.name}, stage.ended_at
    for stage in board.stages:
        yield "medkd_stage_failed_pods", {"stage": stage.name}, stage.failed_pods
    for state, count in board.shards.items():
        yield "medkd_shards", {"state": state}, count
    for state, count in board.samples.items():
        yield "medkd_samples", {"state": state}, count
    for kind, usd in board.money.items():
        yield "medkd_money_usd", {"kind": kind.removesuffix("_usd")}, usd
    for name, value in (
        ("medkd_training_step", board.training.get("step")),
        ("medkd_training_steps", board.training.get("total_steps")),
        ("medkd_training_loss", board.training.get("loss")),
        ("medkd_last_progress_time_seconds", board.last_progress_at),
        ("medkd_eta_seconds", board.eta_seconds),
    ):
        if value is not None:
            yield name, {}, value
    if board.verdict:
        yield "medkd_student_verdict", {"student": board.student, "verdict": board.verdict.partition(" (")[0]}, 1
    for (where, kind), count in Counter((problem.stage, problem.kind) for problem in board.problems).items():
        yield "medkd_problems", {"stage": where, "kind": kind}, count


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
