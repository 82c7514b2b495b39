"""The one rule that moves a run on."""

from __future__ import annotations

from itertools import product

import pytest

from medkd.stages.sequence import STAGES, Action, Phase, next_action

PHASES: tuple[Phase, ...] = ("waiting", "running", "succeeded", "failed")
EVERY_STATE = [
    (dict(zip(STAGES, phases, strict=True)), dict(zip(STAGES, verified, strict=True)))
    for phases in product(PHASES, repeat=len(STAGES))
    for verified in product((True, False), repeat=len(STAGES))
]


def state(*phases: Phase, verified: bool = True) -> tuple[dict[str, Phase], dict[str, bool]]:
    """The phases of the first stages, the others waiting."""
    filled = (*phases, *("waiting",) * (len(STAGES) - len(phases)))
    return dict(zip(STAGES, filled, strict=True)), dict.fromkeys(STAGES, verified)


def test_no_stage_is_ever_released_on_a_predecessor_that_has_not_succeeded_and_verified() -> None:
    for phases, verified in EVERY_STATE:
        action = next_action(phases, verified)
        before = STAGES[: STAGES.index(action.stage)] if action.stage else STAGES
        assert all(phases[stage] == "succeeded" and verified[stage] for stage in before)
        if action.kind == "release":
            assert phases[action.stage] == "waiting", "what runs or has run is not started again"


def test_a_run_is_done_only_when_every_stage_has_succeeded_and_verified() -> None:
    for phases, verified in EVERY_STATE:
        complete = set(phases.values()) == {"succeeded"} and all(verified.values())
        assert (next_action(phases, verified).kind == "done") == complete


def test_a_run_walks_through_its_stages_in_order() -> None:
    phases, verified = state(verified=False)
    for stage in STAGES:
        assert next_action(phases, verified) == Action("release", stage)
        phases[stage] = "running"
        assert next_action(phases, verified) == Action("wait", stage)
        phases[stage], verified[stage] = "succeeded", True
    assert next_action(phases, verified) == Action("done")


def test_a_failed_stage_ends_the_run_and_is_named() -> None:
    assert next_action(*state("succeeded", "failed")) == Action("fail", "generate", "stage generate failed")


def test_a_stage_whose_files_are_gone_ends_the_run_rather_than_being_built_upon() -> None:
    phases, verified = state("succeeded", "succeeded")
    verified["generate"] = False
    action = next_action(phases, verified)
    assert (action.kind, action.stage) == ("fail", "generate")
    assert "manifest" in action.reason


def test_a_stage_that_nobody_reported_is_an_error_and_not_a_release() -> None:
    with pytest.raises(KeyError):
        next_action({"plan": "succeeded"}, {"plan": True})
