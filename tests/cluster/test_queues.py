"""A run whose Jobs wait for a queue: nothing starts before the driver lifts a stage's gate and somebody else lets it run.

Kueue itself is not needed: the test does to a Job what Kueue does when it admits it, and when it takes it back.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from medkd.cluster import names
from tests.cluster.tools import Object, Space, wait_until

pytestmark = pytest.mark.cluster

PATIENCE_SECONDS = 300
SMALL = {"plan": {"numSamples": 4, "numTopics": 2}, "generate": {"shards": 1, "parallelism": 1}}
# A queue of the run's own; and the label that a cluster with a LocalQueue called `default` puts on every new Job by itself.
RUNS: dict[str, dict[str, Any]] = {
    "queued": {"kueue": {"queueName": "clinic", "releaseMode": "gate"}},
    "labelled": {"commonLabels": {names.LABEL_QUEUE: "default"}},
}


def stage_job(space: Space, release: str, stage: str) -> Object:
    found = space.get("job", names.job_name(release, stage))
    assert found
    return found


def gated(job: Object) -> bool:
    return names.ANNOTATION_GATE in job["metadata"].get("annotations", {})


def suspend(space: Space, release: str, stage: str, value: bool) -> None:
    """As Kueue does when it admits a Job, and when it takes it back."""
    space.kubectl("patch", "job", names.job_name(release, stage), "-p", json.dumps({"spec": {"suspend": value}}))


def test_nothing_runs_before_the_driver_lifts_the_gate_and_the_queue_admits(dev: Space) -> None:
    for release, values in RUNS.items():
        dev.install(release, {**SMALL, **values})
    for release in RUNS:
        wait_until(
            f"the gate of {release}'s plan is lifted", lambda r=release: not gated(stage_job(dev, r, "plan")), PATIENCE_SECONDS
        )
    # Released and not admitted: the driver leaves it to the queue, and says so.
    time.sleep(5)
    for release in RUNS:
        assert not dev.list("pods", f"{names.LABEL_RUN}={release},{names.LABEL_STAGE}"), "a pod has started"
        for stage in names.STAGES:
            job = stage_job(dev, release, stage)
            assert job["spec"]["suspend"]
            assert gated(job) == (stage != "plan")
            assert job["metadata"]["labels"][names.LABEL_QUEUE] in ("clinic", "default")
        said = lambda r=release: "waits for admission" in dev.medkd("status", r).stdout  # noqa: E731
        wait_until(f"status of {release} says that it waits", said, PATIENCE_SECONDS, every=2)

    # Admitted, preempted, admitted again: never a failure.
    for admitted in (True, False, True):
        for release in RUNS:
            suspend(dev, release, "plan", not admitted)
    for release in RUNS:
        plan = names.job_name(release, "plan")
        wait_until(f"{plan} is complete", lambda p=plan: dev.condition(p, "Complete"), PATIENCE_SECONDS, every=1)
        following = lambda r=release: not gated(stage_job(dev, r, "generate"))  # noqa: E731
        wait_until(f"the gate of {release}'s generate is lifted", following, PATIENCE_SECONDS)
        assert stage_job(dev, release, "generate")["spec"]["suspend"]
        assert gated(stage_job(dev, release, "prepare"))
