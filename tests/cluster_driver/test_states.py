"""Jobs and pods as the API shows them, turned into phases, problems and words."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.cluster import names
from medkd.cluster.diagnosis import problems
from medkd.cluster.states import (
    JobState,
    acceptable_gaps,
    count_indexes,
    index_set,
    indexes,
    job_state,
    started_indexes,
)
from tests.cluster_driver.fake_api import ended, job, moment, pod


def state_of(suspend: bool = False, gated: bool = False, **status: Any) -> JobState:
    made = job("flu", "flu", "generate", 8)
    made["metadata"]["annotations"] = {names.ANNOTATION_GATE: names.GATE} if gated else {}
    made["spec"]["suspend"] = suspend
    return job_state("generate", {**made, "status": status})


def condition(kind: str, reason: str = "", status: str = "True") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "lastTransitionTime": moment()}


def test_a_job_that_its_gate_holds_back_waits_and_one_that_a_queue_holds_back_is_queued() -> None:
    assert state_of(suspend=True, gated=True).phase == "waiting"
    assert state_of(suspend=True).phase == "queued"
    assert state_of(suspend=False).phase == "running"


def test_only_a_final_condition_ends_a_stage() -> None:
    failing = state_of(conditions=[condition("FailureTarget", "PodFailurePolicy")])
    assert failing.phase == "running" and failing.failing and failing.reason == "PodFailurePolicy"
    assert state_of(conditions=[condition("SuccessCriteriaMet")]).phase == "running"
    assert state_of(conditions=[condition("Complete", status="False")]).phase == "running"
    assert state_of(suspend=True, conditions=[condition("Failed", "FailedIndexes")]).phase == "failed"


def test_gaps_are_acceptable_only_where_all_other_shards_ran_to_their_end() -> None:
    lost_two = state_of(conditions=[condition("Failed", "FailedIndexes")], failedIndexes="1,5")
    assert acceptable_gaps(lost_two, 2) == (1, 5)
    assert acceptable_gaps(lost_two, 1) == ()
    stopped = state_of(conditions=[condition("Failed", "MaxFailedIndexesExceeded")], failedIndexes="1")
    assert acceptable_gaps(stopped, 5) == ()


@given(st.sets(st.integers(0, 300)))
def test_index_sets_say_the_same_in_both_forms(numbers: set[int]) -> None:
    text = index_set(numbers)
    assert sorted(numbers) == list(indexes(text))
    assert count_indexes(text) == len(numbers)


def test_index_sets_are_read_as_the_controller_writes_them() -> None:
    assert list(indexes("1,3-5,7")) == [1, 3, 4, 5, 7]
    assert index_set([7, 5, 4, 3, 1]) == "1,3-5,7"


def test_started_shards_are_the_lowest_unfinished_ones_and_those_that_failed_pods_left() -> None:
    assert started_indexes(state_of(active=3, completedIndexes="0-1", failedIndexes="3")) == [2, 4, 5]
    assert started_indexes(state_of(active=2, completedIndexes="0", failed=2)) == [1, 2, 3, 4]


def said(state: JobState, *pods: Any) -> list[tuple[str, str, bool]]:
    return [(problem.kind, problem.what, problem.fatal) for problem in problems(state, pods, time.time())]


def unscheduled(message: str) -> dict[str, Any]:
    return {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}],
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": "main", "image": "medkd-worker:x", "state": state}]}


def test_pods_without_a_node_are_said_once_with_what_they_lack() -> None:
    message = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available"
    pods = [pod("flu-generate", index, **unscheduled(message)) for index in (2, 3, 5)]
    found = problems(state_of(active=3), pods, time.time())
    assert [problem.what for problem in found] == [
        "no node for the pod: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu (index 2-3,5)"
    ]
    assert "more nvidia.com/gpu" in found[0].do


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_named(reason: str) -> None:
    assert said(state_of(active=1), pod("flu-generate", 0, **waiting(reason))) == [
        ("image", "image medkd-worker:x cannot be pulled (index 0)", False)
    ]


def test_a_missing_secret_is_said_in_the_words_of_kubelet_or_process() -> None:
    kubelet = pod("flu-generate", 0, **waiting("CreateContainerConfigError", 'secret "teacher" not found'))
    assert said(state_of(active=1), kubelet)[0][1] == 'container cannot start: secret "teacher" not found (index 0)'
    process = pod("flu-generate", 1, **ended(78, "x\nmedkd: teacher deepseek: no key; set DEEPSEEK_API_KEY"))
    failing = state_of(conditions=[condition("FailureTarget", "PodFailurePolicy")])
    assert said(failing, process) == [("failed", "teacher deepseek: no key; set DEEPSEEK_API_KEY (index 1)", True)]


def test_a_failure_that_is_tried_again_is_not_fatal_and_stops_are_no_problem() -> None:
    again = pod("flu-generate", 0, **ended(69, "medkd: teacher did not answer"))
    assert said(state_of(active=1), again) == [("failed", "teacher did not answer (index 0)", False)]
    assert said(state_of(active=1), pod("flu-generate", 0, **ended(75))) == []
    evicted = pod("flu-generate", 0, **ended(137))
    evicted["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
    assert said(state_of(active=1), evicted) == []


def test_what_an_index_suffered_before_it_went_on_or_was_completed_is_past() -> None:
    failed, running = pod("flu-generate", 0, **ended(1)), pod("flu-generate", 0, phase="Running", conditions=[])
    failed["metadata"]["creationTimestamp"] = moment(time.time() - 60)
    assert said(state_of(active=1, failed=1), running, failed) == []
    assert said(state_of(completedIndexes="0", failed=1), failed) == []


def test_memory_limits_are_told_from_other_kills() -> None:
    assert said(state_of(), pod("flu-generate", 0, **ended(137, reason="OOMKilled")))[0][1].startswith(
        "killed by its memory limit"
    )


def test_a_pod_on_a_node_that_does_not_answer_is_told_from_one_that_starts() -> None:
    container = {"name": "main", "state": {"running": {"startedAt": moment()}}}
    lost = pod(
        "flu-generate", 4, phase="Running", conditions=[{"type": "Ready", "status": "False"}], containerStatuses=[container]
    )
    assert said(state_of(active=1), lost) == [("lost node", "node node-1 does not answer (index 4)", False)]
    lost["metadata"]["deletionTimestamp"] = moment()
    assert "out-of-service" in problems(state_of(active=1), [lost], time.time())[0].do
    starting = pod("flu-generate", 4, phase="Pending", conditions=[{"type": "PodScheduled", "status": "True"}])
    assert said(state_of(active=1), starting) == []
    starting["metadata"]["creationTimestamp"] = moment(time.time() - 600)
    assert said(state_of(active=1), starting)[0][0] == "slow"
