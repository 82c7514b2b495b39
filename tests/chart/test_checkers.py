"""The checkers of this folder find what they are for, in objects that were right before one thing was changed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.chart.pod_security import violations
from tests.chart.rendering import RENDERED, Object, objects
from tests.chart.semantics import problems


def job(items: list[Object], stage: str) -> Object:
    return next(item for item in items if item["kind"] == "Job" and item["metadata"]["name"] == f"flu-{stage}")


def one(items: list[Object], kind: str, name: str) -> Object:
    return next(item for item in items if item["kind"] == kind and item["metadata"]["name"] == name)


def pod(items: list[Object], stage: str) -> Object:
    found: Object = job(items, stage)["spec"]["template"]["spec"]
    return found


WRONG: dict[str, tuple[Callable[[list[Object]], object], str]] = {
    "unsorted exit codes": (
        lambda items: job(items, "plan")["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"].update(values=[78, 64]),
        "not sorted",
    ),
    "exit codes of another container": (
        lambda items: job(items, "plan")["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"].update(containerName="proxy"),
        "no container",
    ),
    "ignored exit codes": (
        lambda items: job(items, "plan")["spec"]["podFailurePolicy"]["rules"][1].update(action="Ignore"),
        "without end",
    ),
    "a condition without status": (
        lambda items: job(items, "plan")["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0].pop("status"),
        "without status",
    ),
    "FailIndex without a count by index": (lambda items: job(items, "generate")["spec"].pop("backoffLimitPerIndex"), "FailIndex"),
    "restarts in place": (lambda items: pod(items, "plan").update(restartPolicy="OnFailure"), "restartPolicy"),
    "a stage that starts by itself": (lambda items: job(items, "train")["spec"].update(suspend=False), "suspended and gated"),
    "a stage without its gate": (lambda items: job(items, "train")["metadata"].pop("annotations"), "suspended and gated"),
    "a suspended driver": (lambda items: job(items, "driver")["spec"].update(suspend=True), "nobody would start it"),
    "a stage that vanishes": (lambda items: job(items, "plan")["spec"].update(ttlSecondsAfterFinished=60), "vanish"),
    "a name that is too long": (lambda items: job(items, "plan")["metadata"].update(name="a" * 63), "DNS label"),
    "a Service that starts with a digit": (
        lambda items: one(items, "Service", "flu-driver")["metadata"].update(name="2flu"),
        "starts with a letter",
    ),
    "two objects of one name": (lambda items: items.append(copy.deepcopy(items[0])), "2 times"),
    "rights on another Job": (
        lambda items: one(items, "Role", "flu-driver")["rules"][0]["resourceNames"].append("flu-extra"),
        "rights on jobs",
    ),
    "the right to create Jobs": (
        lambda items: one(items, "Role", "flu-driver")["rules"][0]["verbs"].append("create"),
        "may do too much",
    ),
    "rights on another ConfigMap": (
        lambda items: one(items, "Role", "flu-driver")["rules"][1]["resourceNames"].append("other"),
        "not rendered",
    ),
    "a selector that selects nothing": (
        lambda items: one(items, "Service", "flu-driver")["spec"].update(selector={"app": "other"}),
        "selects no pod",
    ),
    "a mount without a volume": (
        lambda items: pod(items, "plan")["containers"][0]["volumeMounts"].append({"name": "x", "mountPath": "/x"}),
        "has no volume",
    ),
    "a volume that nobody mounts": (lambda items: pod(items, "plan")["volumes"].append({"name": "x"}), "mounted nowhere"),
    "a required Secret": (
        lambda items: pod(items, "plan")["volumes"].append({"name": "scratch", "secret": {"secretName": "x"}}),
        "not optional",
    ),
    "a token for a worker": (lambda items: pod(items, "plan").update(automountServiceAccountToken=True), "has a token"),
    "a ConfigMap that is missing": (lambda items: items.remove(one(items, "ConfigMap", "flu-train")), "is not rendered"),
    "a credential in the chart": (
        lambda items: items.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}}),
        "may not be in a chart",
    ),
    "a gang that names another first pod": (
        lambda items: next(
            variable for variable in pod(items, "train")["containers"][0]["env"] if variable["name"] == "PET_MASTER_ADDR"
        ).update(value="other-0.other"),
        "PET_MASTER_ADDR",
    ),
    "a gang of another size": (lambda items: job(items, "train")["spec"].update(parallelism=1), "PET_NNODES"),
    "a gang that nobody names": (
        lambda items: one(items, "Service", "flu-train")["spec"].pop("publishNotReadyAddresses"),
        "headless Service",
    ),
}

INSECURE: dict[str, tuple[Callable[[Object], object], str]] = {
    "host network": (lambda spec: spec.update(hostNetwork=True), "hostNetwork"),
    "a host path": (lambda spec: spec["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "hostPath"),
    "privileged": (lambda spec: spec["containers"][0]["securityContext"].update(privileged=True), "privileged"),
    "escalation": (lambda spec: spec["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"), "allowPrivilege"),
    "capabilities": (lambda spec: spec["containers"][0]["securityContext"].pop("capabilities"), "capabilities.drop"),
    "a capability": (
        lambda spec: spec["containers"][0]["securityContext"].update(capabilities={"drop": ["ALL"], "add": ["IPC_LOCK"]}),
        "capabilities.add",
    ),
    "root": (lambda spec: spec["securityContext"].update(runAsUser=0), "runAsUser 0"),
    "perhaps root": (lambda spec: spec["securityContext"].pop("runAsNonRoot"), "runAsNonRoot"),
    "no seccomp": (lambda spec: spec["securityContext"].pop("seccompProfile"), "seccompProfile"),
    "a host port": (lambda spec: spec["containers"][0].update(ports=[{"hostPort": 80}]), "hostPort"),
    "a sysctl": (lambda spec: spec["securityContext"].update(sysctls=[{"name": "kernel.msgmax"}]), "kernel.msgmax"),
    "an init container": (lambda spec: spec.update(initContainers=[{"name": "setup"}]), "setup"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_found(case: str) -> None:
    change, words = WRONG[case]
    items = objects((RENDERED / "dev.yaml").read_text())
    assert problems(items) == []
    change(items)
    assert any(words in problem for problem in problems(items)), problems(items)


@pytest.mark.parametrize("case", INSECURE)
def test_what_pod_security_does_not_allow_is_found(case: str) -> None:
    change, words = INSECURE[case]
    spec = pod(objects((RENDERED / "dev.yaml").read_text()), "train")
    assert violations(spec) == []
    change(spec)
    assert any(words in violation for violation in violations(spec))
