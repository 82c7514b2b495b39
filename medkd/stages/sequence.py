"""The sequence of stages and the one rule that moves a run on, on a cluster and on one machine alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

STAGES = ("plan", "generate", "prepare", "train", "evaluate")

Phase = Literal["waiting", "queued", "running", "succeeded", "failed"]
"""queued: released, and not yet let run by whoever shares the cluster out."""


@dataclass(frozen=True)
class Action:
    """What to do next: `release` starts the stage, `wait` lets it run, `fail` ends the run for the reason, `done` ends it."""

    kind: Literal["release", "wait", "fail", "done"]
    stage: str = ""
    reason: str = ""


def next_action(phases: Mapping[str, Phase], verified: Mapping[str, bool]) -> Action:
    """The next action from each stage's phase and from whether its manifest stands and its files are there.

    A stage is released only when its predecessor succeeded and verifies; nothing follows a failed stage.
    """
    for stage in STAGES:
        phase = phases[stage]
        if phase == "failed":
            return Action("fail", stage, f"stage {stage} failed")
        if phase in ("running", "queued"):
            return Action("wait", stage)
        if phase == "waiting":
            return Action("release", stage)
        if not verified[stage]:
            return Action("fail", stage, f"stage {stage} ended, but what its manifest names is not all there")
    return Action("done")
