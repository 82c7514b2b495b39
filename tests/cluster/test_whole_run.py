"""A run from `helm install` to its report on two nodes, with three faults on its way; then gone without a trace, then again."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medkd.cluster import names
from medkd.store import layout
from medkd.store.files import Store
from tests.cluster.laptop import Plan, accepted, calls, data_set_hash, laptop_run, metrics, possibly_usd
from tests.cluster.tools import Space, apply_dev, image, load_image, run, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

RUN, STUDENT = "flu", "tiny-t5"
PLAN = Plan()
STAGE_SECONDS = 600
# A price, so that there is money to account for; and enough steps that a fault falls between two checkpoints.
VALUES = {
    "models": {
        "overrides": {
            "teacher_models": {"simulator": {"prices": {"input": 1.0, "output": 2.0}}},
            "student_models": {STUDENT: {"num_epochs": 3, "checkpoint_every_steps": 10}},
        }
    },
    "teacher": {"budgetUsd": 20},
}
Say = Callable[[str], None]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """Progress of a test that takes minutes, shown while it runs."""
    started = time.monotonic()

    def show(text: str) -> None:
        with capsys.disabled():
            print(f"\n[{time.monotonic() - started:4.0f} s] {text}", end="", flush=True)

    yield show


def test_a_run_with_three_faults_gives_what_an_undisturbed_one_gives(space: Space, tmp_path: Path, say: Say) -> None:
    load_image(image("trainer"))
    # Slow enough that a shard is caught at work.
    apply_dev(space, latency_seconds=0.4)
    before = objects(space)
    with laptop_run(tmp_path / "laptop", PLAN) as laptop:
        said = space.install(RUN, VALUES).stdout
        assert f"kubectl medkd status {RUN} -n {space.name}" in said
        say("installed; a shard's pod is killed without grace, then the driver's")
        store = space.store(RUN)
        kill_a_shard(space, store)
        kill_without_grace(space, job("driver"))
        undisturbed = laptop.data_set()
    wait_for(space, "prepare", say)
    kill_a_trainer(space, store)
    say("a trainer's pod was killed without grace after a checkpoint")
    wait_for(space, "evaluate", say)
    ended = space.medkd("wait", RUN, "--timeout", "300")
    assert ended.stdout.startswith("complete") or "complete" in ended.stdout, ended.stdout
    say(f"complete\n{space.medkd('status', RUN).stdout}{space.kubectl('get', 'jobs', '-l', f'{names.LABEL_RUN}={RUN}').stdout}")

    assert data_set_hash(store) == data_set_hash(undisturbed)
    assert accepted(store, PLAN) == accepted(undisturbed, PLAN)
    assert len(accepted(store, PLAN)) == PLAN.samples
    check_money(space, store, say)
    check_training(space, store, say)
    for path in (layout.REPORT, f"{layout.student_folder(STUDENT)}/evaluate/scores.json"):
        assert store.exists(path)

    billed = space.teacher("/stats")["requests"]
    uninstall(space, before)
    say("uninstalled, no object is left; installed again under the same name")
    space.install(RUN, VALUES)
    started = time.monotonic()
    assert space.medkd("wait", RUN, "--timeout", str(STAGE_SECONDS), seconds=STAGE_SECONDS + 60).returncode == 0
    assert space.teacher("/stats")["requests"] == billed, "nothing that lies in the store is asked again"
    assert data_set_hash(store) == data_set_hash(undisturbed)
    say(f"complete again after {time.monotonic() - started:.0f} s, no call to the teacher")
    uninstall(space, before)


# --- faults -----------------------------------------------------------------------------------------------------------


def kill_a_shard(space: Space, store: Store) -> None:
    """A shard's pod, while its journal grows."""

    def at_work() -> int | None:
        for shard in range(PLAN.shards):
            if len(store.list_files(layout.journal_folder(shard))) > 3 and space.running_pod(job("generate"), shard):
                return shard
        return None

    shard = wait_until("a shard is at work", lambda: (found := at_work()) is not None and [found], STAGE_SECONDS, every=0.2)[0]
    kill_without_grace(space, job("generate"), shard)


def kill_a_trainer(space: Space, store: Store) -> None:
    """The second trainer's pod, once a checkpoint is whole."""
    latest = f"{layout.student_folder(STUDENT)}/checkpoints/LATEST"
    wait_until("a checkpoint is saved", lambda: store.exists(latest), STAGE_SECONDS, every=0.2)
    kill_without_grace(space, job("train"), 1)


def kill_without_grace(space: Space, job_name: str, index: int | None = None) -> None:
    pod = wait_until(f"a pod of {job_name} runs", lambda: space.running_pod(job_name, index), STAGE_SECONDS)
    space.kubectl("delete", "pod", pod, "--grace-period=0", "--force")


# --- what is looked at ------------------------------------------------------------------------------------------------


def job(stage: str) -> str:
    return names.job_name(RUN, stage)


def wait_for(space: Space, stage: str, say: Say) -> None:
    def ended() -> dict[str, Any] | None:
        for name in names.STAGES:
            failed = space.condition(job(name), "Failed")
            if failed:
                pytest.fail(f"{name} failed: {failed}")
            if name == stage:
                break
        return space.condition(job(stage), "Complete")

    wait_until(f"stage {stage} is complete", ended, STAGE_SECONDS, every=1)
    say(f"{stage} is complete")


def check_money(space: Space, store: Store, say: Say) -> None:
    """What the teacher billed is in the ledger, but for what the run itself says may be missing."""
    ledger = calls(store, PLAN)
    spent, possibly = sum(float(str(row["cost_usd"])) for row in ledger), possibly_usd(store, PLAN)
    dearest = max(float(str(row["cost_usd"])) for row in ledger)
    billed = space.teacher("/stats")["billed_total"]
    missing = billed - len(ledger)
    say(f"billed {billed} calls, {len(ledger)} in the ledger: ${spent:.4f}, possibly ${possibly:.4f} for the {missing} others")
    assert missing >= 0
    assert missing * dearest <= possibly + 1e-9


def check_training(space: Space, store: Store, say: Say) -> None:
    """The curve goes on where the checkpoint was: each step once, loss falling."""
    lines = [line for line in metrics(store, STUDENT) if "loss" in line]
    steps, losses = [line["step"] for line in lines], [line["loss"] for line in lines]
    logged = space.kubectl("logs", "-l", f"{names.LABEL_JOB}={job('train')}", "--tail=-1").stdout.splitlines()
    resumed = [json.loads(text) for text in logged if '"training resumed"' in text]
    say(f"resumed from step {[line['step'] for line in resumed]}; loss by step: {dict(zip(steps, losses, strict=True))}")
    assert resumed and all(line["step"] >= 10 for line in resumed)
    assert steps == sorted(set(steps)) and steps[0] == 10
    assert steps[-1] == max(line["step"] for line in metrics(store, STUDENT))
    assert all(later < earlier * 1.2 for earlier, later in itertools.pairwise(losses))
    assert losses[-1] < losses[0] / 2


def objects(space: Space) -> set[str]:
    """All objects of the namespace, but for what the cluster itself keeps of the past."""
    kinds = run(["kubectl", "api-resources", "--verbs=list", "--namespaced", "-o", "name"]).stdout.split()
    passing = {"events", "events.events.k8s.io", "pods.metrics.k8s.io", "leases.coordination.k8s.io"}
    listed = space.kubectl("get", ",".join(sorted(set(kinds) - passing)), "-o", "name", "--ignore-not-found")
    return set(listed.stdout.split())


def uninstall(space: Space, before: set[str]) -> None:
    """Helm takes the release away, and nothing of it stays."""
    space.helm("uninstall", RUN)
    wait_until("nothing of the release is left", lambda: objects(space) == before, 180, every=2)
