"""A run from `helm install` to its report on two nodes, with three faults on its way; then gone without a trace, then again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from medkd.cluster import names
from medkd.store import layout
from tests.cluster import flu
from tests.cluster.flu import RUN, STUDENT, Say
from tests.cluster.laptop import Plan, data_set_hash, laptop_run
from tests.cluster.tools import Space, apply_dev, image, load_image

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

PLAN = Plan()


def test_a_run_with_three_faults_gives_what_an_undisturbed_one_gives(space: Space, tmp_path: Path, say: Say) -> None:
    load_image(image("trainer"))
    # Slow enough that a shard is caught at work.
    apply_dev(space, latency_seconds=0.4)
    before = flu.objects(space)
    with laptop_run(tmp_path / "laptop", PLAN) as laptop:
        assert f"kubectl medkd status {RUN} -n {space.name}" in space.install(RUN, flu.values()).stdout
        say("helm test: " + next(line for line in space.helm("test", RUN).stdout.splitlines() if "Phase" in line))
        flu.wait_for(space, "plan")
        flu.delete_pod(space, "generate", flu.shard_at_work(space, PLAN))
        flu.delete_pod(space, "driver")
        say("a shard's pod and then the driver's were deleted without grace")
        undisturbed = laptop.data_set()
    flu.wait_for(space, "prepare")
    say("prepare is complete")
    flu.wait_for_checkpoint(space)
    flu.delete_pod(space, "train", 1)
    say("a trainer's pod was deleted without grace after a checkpoint")
    flu.wait_for(space, "evaluate")
    assert space.medkd("wait", RUN, "--timeout", "300").returncode == 0
    say(f"complete\n{space.medkd('status', RUN).stdout}")
    say(space.kubectl("get", "jobs", "-l", f"{names.LABEL_RUN}={RUN}", "-L", names.LABEL_STAGE).stdout)

    store = space.store(RUN)
    flu.check_samples(store, undisturbed, PLAN)
    flu.check_money(space, store, PLAN, say)
    flu.check_training(space, store, say)
    for path in (layout.REPORT, f"{layout.student_folder(STUDENT)}/evaluate/scores.json"):
        assert store.exists(path)

    asked = space.teacher("/stats")["requests"]
    flu.uninstall(space, before)
    say("uninstalled: no object is left. Installed again under the same name")
    started = time.monotonic()
    space.install(RUN, flu.values())
    assert space.medkd("wait", RUN, "--timeout", "900", seconds=960).returncode == 0
    say(f"complete again after {time.monotonic() - started:.0f} s")
    assert space.teacher("/stats")["requests"] == asked, "nothing that lies in the store is asked again"
    assert data_set_hash(store) == data_set_hash(undisturbed)
    flu.uninstall(space, before)
