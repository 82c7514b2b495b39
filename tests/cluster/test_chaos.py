"""One run through everything that may happen to it on a cluster: a quarter of an hour. MEDKD_NODE breaks the nodes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from medkd.store import layout
from tests.cluster import flu
from tests.cluster.flu import RUN, Say
from tests.cluster.laptop import Plan, laptop_run
from tests.cluster.tools import Space, apply_dev, break_node, image, load_image, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(3000)]

PLAN = Plan(samples=1600)
SAFE, BROKEN = "node-1", 2
FAULTS = "http_500:0.05,http_500:0.004x10,rate_limit:0.05"
"""At the teacher: single 500s, bursts of ten, and 429s."""


def test_a_run_outlives_lost_pods_nodes_cables_servers_and_preemption(space: Space, tmp_path: Path, say: Say) -> None:
    load_image(image("trainer"))
    # Server and teacher stay on a node that is left alone: they have no second copy, and the teacher's counts are in its memory.
    apply_dev(space, latency_seconds=1.0, teacher_flags=[f"--faults={FAULTS}"], node=SAFE)
    values = {**flu.values(num_epochs=2), "plan": {"numSamples": PLAN.samples}}
    with laptop_run(tmp_path / "laptop", PLAN) as laptop:
        space.install(RUN, values)
        flu.wait_for(space, "plan")
        disturb_generation(space, say)
        undisturbed = laptop.data_set()
    flu.wait_for(space, "prepare")
    say("generate and prepare are complete")
    disturb_training(space, say)
    flu.wait_for(space, "evaluate")
    assert space.medkd("wait", RUN, "--timeout", "300").returncode == 0
    say(f"complete\n{space.medkd('status', RUN).stdout}")
    store = space.store(RUN)
    flu.check_samples(store, undisturbed, PLAN)
    flu.check_money(space, store, PLAN, say)
    flu.check_training(space, store, say)
    assert store.exists(layout.REPORT)


def disturb_generation(space: Space, say: Say) -> None:
    flu.delete_pod(space, "generate", flu.shard_at_work(space, PLAN))
    flu.delete_pod(space, "driver")
    say("generate: a shard's pod and the driver's deleted without grace")
    flu.delete_pod(space, "generate", flu.shard_at_work(space, PLAN), grace=True)
    say("generate: a shard's pod deleted with grace")
    preempt(space, "generate")
    say("generate: its Job was suspended and resumed")
    flu.shard_at_work(space, PLAN)
    restart_store(space)
    say("generate: the S3 server was killed and came back")
    flu.shard_at_work(space, PLAN)
    break_node("cut", BROKEN)
    time.sleep(15)
    break_node("mend", BROKEN)
    say(f"generate: node {BROKEN} was without network for 15 s")
    flu.delete_pod(space, "driver")
    flu.shard_at_work(space, PLAN)
    break_node("stop", BROKEN)
    wait_until("the lost node is noticed", lambda: not ready(space, BROKEN), 120)
    break_node("start", BROKEN)
    say(f"generate: node {BROKEN} lost power and came back; the driver was deleted again")


def disturb_training(space: Space, say: Say) -> None:
    flu.wait_for_checkpoint(space)
    flu.delete_pod(space, "train", 1)
    flu.delete_pod(space, "driver")
    say("train: the second trainer's pod and the driver's deleted without grace")
    wait_until("the gang is back", lambda: all(space.running_pod(flu.job("train"), index) for index in (0, 1)), 300)
    preempt(space, "train")
    say("train: its Job was suspended and resumed")


def preempt(space: Space, stage: str) -> None:
    """As Kueue does: suspend the Job, and let it go on when its pods are gone."""
    space.kubectl("patch", "job", flu.job(stage), "--type=merge", "-p", '{"spec": {"suspend": true}}')

    def is_idle() -> bool:
        status = (space.get("job", flu.job(stage)) or {}).get("status", {})
        return not status.get("active") and not status.get("terminating") and bool(space.condition(flu.job(stage), "Suspended"))

    wait_until(f"no pod of {stage} is left", is_idle, 300)
    assert "QUEUED" in space.medkd("status", RUN).stdout.upper()
    space.kubectl("patch", "job", flu.job(stage), "--type=merge", "-p", '{"spec": {"suspend": false}}')


def restart_store(space: Space) -> None:
    """Kill the server; its container comes back with what was on its disk."""

    def restarts() -> int:
        (pod,) = space.list("pods", "app.kubernetes.io/name=objectstore")
        (container,) = pod["status"]["containerStatuses"]
        return int(container["restartCount"]) if container["ready"] else -1

    before = restarts()
    space.kubectl("exec", "deployment/objectstore", "--", "sh", "-c", "kill 1")
    wait_until("the S3 server is back", lambda: restarts() > before, 180)


def ready(space: Space, node: int) -> bool:
    conditions = (space.get("node", f"node-{node}") or {})["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
