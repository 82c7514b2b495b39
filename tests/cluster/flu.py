"""The run `flu` on a cluster: what is done to it on its way, and what has to be true of it afterwards."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from medkd.cluster import names
from medkd.store import layout
from medkd.store.files import Store
from tests.cluster.laptop import Plan, accepted, calls, data_set_hash, metrics, possibly_usd
from tests.cluster.tools import Space, run, wait_until

Say = Callable[[str], None]

RUN, STUDENT = "flu", "tiny-t5"
STAGE_SECONDS = 600
CHECKPOINT_STEPS = 10


def values(*, num_epochs: int = 3) -> dict[str, Any]:
    """Over ci/dev-values.yaml: a price, so that there is money to account for, and steps enough to fall between checkpoints."""
    overrides = {
        "teacher_models": {"simulator": {"prices": {"input": 1.0, "output": 2.0}}},
        "student_models": {STUDENT: {"num_epochs": num_epochs, "checkpoint_every_steps": CHECKPOINT_STEPS}},
    }
    return {"models": {"overrides": overrides}, "teacher": {"budgetUsd": 20}}


def job(stage: str) -> str:
    return names.job_name(RUN, stage)


# --- on its way -------------------------------------------------------------------------------------------------------


def wait_for(space: Space, stage: str) -> None:
    """Until a stage is complete; fails where it, or one before it, failed."""

    def ended() -> dict[str, Any] | None:
        for name in names.STAGES[: names.STAGES.index(stage) + 1]:
            if failed := space.condition(job(name), "Failed"):
                pytest.fail(f"stage {name} failed: {failed}")
        return space.condition(job(stage), "Complete")

    wait_until(f"stage {stage} is complete", ended, STAGE_SECONDS, every=1)


def shard_at_work(space: Space, plan: Plan) -> int:
    """A shard whose journal grows in a pod that runs."""

    def found() -> list[int]:
        store = space.store(RUN)
        return [
            shard
            for shard in range(plan.shards)
            if len(store.list_files(layout.journal_folder(shard))) > 3 and space.running_pod(job("generate"), shard)
        ]

    return wait_until("a shard is at work", found, STAGE_SECONDS, every=0.2)[0]


def wait_for_checkpoint(space: Space) -> None:
    latest = f"{layout.student_folder(STUDENT)}/checkpoints/LATEST"
    wait_until("a checkpoint is whole", lambda: space.store(RUN).exists(latest), STAGE_SECONDS, every=0.2)


def delete_pod(space: Space, stage: str, index: int | None = None, *, grace: bool = False) -> None:
    """A pod of a stage, or of the driver; without grace unless it is asked for."""
    pod = wait_until(f"a pod of {stage} runs", lambda: space.running_pod(job(stage), index), STAGE_SECONDS)
    space.kubectl("delete", "pod", pod, "--wait=false", *([] if grace else ["--grace-period=0", "--force"]))


# --- afterwards -------------------------------------------------------------------------------------------------------


def check_samples(store: Store, undisturbed: Store, plan: Plan) -> None:
    """Every sample that was asked for, each once, and the same as without any fault on another store."""
    rows = accepted(store, plan)
    assert len(rows) == plan.samples
    assert rows == accepted(undisturbed, plan)
    assert data_set_hash(store) == data_set_hash(undisturbed)


def check_money(space: Space, store: Store, plan: Plan, say: Say) -> None:
    """What the teacher billed is in the ledger, but for what the run itself says may be missing."""
    ledger = [float(str(row["cost_usd"])) for row in calls(store, plan)]
    # What preflight pays, in stage plan and in `helm test`, is booked beside the shards' ledgers.
    booked = [json.loads(store.read(file.path)) for file in store.list_files(layout.PREFLIGHT)]
    ledger += [float(entry["spent_usd"]) for entry in booked]
    possibly, billed = possibly_usd(store, plan), space.teacher("/stats")["billed_total"]
    others = billed - len(ledger)
    say(f"billed {billed} calls, {len(ledger)} in the ledger: ${sum(ledger):.4f}; the {others} others possibly ${possibly:.4f}")
    assert others >= 0
    assert others * max(ledger) <= possibly + 1e-9


def check_training(space: Space, store: Store, say: Say) -> None:
    """The curve goes on where a checkpoint was: each step once, and the loss falls."""
    lines = metrics(store, STUDENT)
    curve = {int(line["step"]): line["loss"] for line in lines if "loss" in line}
    logged = space.kubectl("logs", "-l", f"{names.LABEL_JOB}={job('train')}", "--tail=-1").stdout.splitlines()
    resumed = [json.loads(text)["step"] for text in logged if '"training resumed"' in text]
    say(f"training resumed from step {resumed}; loss by step {curve}")
    assert resumed and min(resumed) >= CHECKPOINT_STEPS
    assert len(curve) == sum("loss" in line for line in lines), "no step is written twice"
    assert list(curve) == sorted(curve) and next(iter(curve)) == 10 and max(curve) == lines[-1]["step"]
    assert all(later < earlier * 1.2 for earlier, later in itertools.pairwise(curve.values()))
    assert list(curve.values())[-1] < next(iter(curve.values())) / 2


def objects(space: Space) -> set[str]:
    """All objects of the namespace, but for what the cluster itself keeps of the past."""
    kinds = run(["kubectl", "api-resources", "--verbs=list", "--namespaced", "-o", "name"]).stdout.split()
    passing = {"events", "events.events.k8s.io", "leases.coordination.k8s.io"}
    listed = space.kubectl("get", ",".join(sorted(set(kinds) - passing)), "-o", "name", "--ignore-not-found")
    return set(listed.stdout.split())


def uninstall(space: Space, before: set[str]) -> None:
    """Helm takes the release away, and nothing of it stays."""
    space.helm("uninstall", RUN)
    wait_until("nothing of the release is left", lambda: objects(space) == before, 180, every=2)
