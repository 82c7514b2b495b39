"""A board as one screen of text, for `kubectl medkd status`."""

from __future__ import annotations

import time
from collections.abc import Iterator

from medkd.cluster.board import Board, StageBoard, stage_words

_SHOWN = {"waiting": "waiting", "queued": "queued", "running": "running", "succeeded": "done", "failed": "FAILED"}
QUIET_SECONDS = 90.0
"""A driver writes at least every half minute; after so long it is not there."""


def screen(board: Board, now: float) -> str:
    """Stages, shards, money, what is left, what is wrong and what to do."""
    return "\n".join(_lines(board, now)) + "\n"


def _lines(board: Board, now: float) -> Iterator[str]:
    age = now - board.updated_at
    yield f"run {board.run} in {board.namespace}: {board.phase.upper()}   ({_ago(age)})"
    yield f"  at {board.prefix}, student {board.student}"
    yield ""
    for stage in board.stages:
        yield _stage_line(stage, now)
    yield ""
    yield from _figures(board, now)
    cause = next((problem for problem in board.problems if problem.fatal), None) if board.failure else None
    if board.failure:
        yield f"failed    {board.failure}"
    if cause:
        # What ended the run is said once, by the failure.
        yield f"  do      {cause.do}"
    for problem in board.problems:
        if problem is cause:
            continue
        yield f"wrong     {problem.stage}: {problem.what}"
        yield f"  do      {problem.do}"
    if board.phase in ("running", "waiting", "held") and age > QUIET_SECONDS:
        yield f"wrong     the driver has said nothing for {duration(age)}"
        yield f"  do      kubectl -n {board.namespace} get pods -l medkd.io/run={board.run}"
    if board.phase == "failed":
        yield f"  then    kubectl medkd retry {board.run} -n {board.namespace}   (goes on from the store, pays nothing twice)"
    if board.phase == "complete":
        yield f"results   kubectl medkd results {board.run} -n {board.namespace}"


def _stage_line(stage: StageBoard, now: float) -> str:
    took = ""
    if stage.started_at and stage.phase in ("running", "succeeded", "failed"):
        took = duration((stage.ended_at or now) - stage.started_at)
    count = f"{stage.done}/{stage.total}" if stage.total > 1 and stage.phase != "waiting" else ""
    return f"  {stage.name:<9} {_SHOWN[stage.phase]:<8} {count:>11}  {took:>10}  {stage.detail}".rstrip()


def _figures(board: Board, now: float) -> Iterator[str]:
    samples, shards, money = board.samples, board.shards, board.money
    if samples:
        rest = f", {samples['short']:,} short" if samples["short"] else ""
        yield f"samples   {samples['accepted']:,} of {samples['total']:,} accepted, {samples['rejected']:,} rejected{rest}"
        for cell in board.short_cells:
            yield f"  short   {cell}"
        parts = [f"{shards['done']} of {shards['total']} done", f"{shards['active']} active"]
        parts += [f"{shards[kind]} {kind}" for kind in ("failed", "parked") if shards[kind]]
        yield f"shards    {', '.join(parts)}" + (f"; the run goes on without {board.gaps}" if board.gaps else "")
        estimate = f", estimated ${money['estimate_usd']:.2f}" if money["estimate_usd"] else ""
        yield f"money     ${money['spent_usd']:.2f} spent, possibly ${money['possibly_usd']:.2f} more{estimate}"
    if board.training:
        yield f"training  {', '.join(stage_words(board, stage) for stage in board.stages if stage.name == 'train')}"
    if board.verdict:
        yield f"verdict   {board.student}: {board.verdict}"
    if board.parked_until and board.parked_until > now:
        yield f"parked    until {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(board.parked_until))} UTC, as the teacher asked"
    if board.eta_seconds is not None and board.current:
        yield f"left      about {duration(board.eta_seconds)} of stage {board.current.name}"


def duration(seconds: float) -> str:
    """A span of time, as exact as one wants to know it."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes >= 10:
        return f"{minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _ago(seconds: float) -> str:
    return "now" if seconds < 5 else f"{duration(seconds)} ago"
