"""The development environment around a run: its own pods are restricted, too, and the dev scenario finds what it deploys."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from medkd.commands.flags import build_parser
from tests.chart.pod_security import violations
from tests.chart.rendering import CHART, ROOT, Object, objects, pods_of

DEV = ROOT / "k8s" / "dev"
VALUES = yaml.safe_load((CHART / "ci" / "dev-values.yaml").read_text())
KUSTOMIZATION = yaml.safe_load((DEV / "kustomization.yaml").read_text())


def manifests(folder: Path) -> list[Object]:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return [item for name in kustomization["resources"] for item in objects((folder / name).read_text())]


def service(name: str) -> Object:
    return next(item for item in manifests(DEV) if item["kind"] == "Service" and item["metadata"]["name"] == name)


def test_pods_pass_pod_security_restricted_which_the_namespace_enforces() -> None:
    items = manifests(DEV)
    namespace = next(item for item in items if item["kind"] == "Namespace")
    assert namespace["metadata"]["name"] == KUSTOMIZATION["namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert [violations(template["spec"]) for _, template in pods_of(items)] == [[], []]


def test_objects_pass_the_strict_schemas_of_kubernetes() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for item in manifests(DEV):
        kubernetes_validate.validate(item, "1.34", strict=True)


@pytest.mark.parametrize(
    ("url", "name"), [(VALUES["storage"]["endpoint"], "objectstore"), (VALUES["teacher"]["baseUrl"], "teacher")]
)
def test_the_dev_scenario_finds_the_services(url: str, name: str) -> None:
    address = urlsplit(url)
    assert address.hostname == f"{name}.{KUSTOMIZATION['namespace']}"
    assert address.port == service(name)["spec"]["ports"][0]["port"]


def test_the_dev_scenario_has_the_key_of_a_user_of_the_object_store() -> None:
    secret = next(item for item in KUSTOMIZATION["secretGenerator"] if item["name"] == VALUES["storage"]["existingSecret"])
    key = dict(literal.split("=", 1) for literal in secret["literals"])
    users = json.loads((DEV / "users.json").read_text())["identities"]
    allowed = {one["accessKey"]: (one["secretKey"], user["actions"]) for user in users for one in user["credentials"]}
    secret_key, actions = allowed[key["AWS_ACCESS_KEY_ID"]]
    assert secret_key == key["AWS_SECRET_ACCESS_KEY"]
    assert "Write" in actions


def test_the_simulated_teacher_runs_a_verb_that_the_program_takes() -> None:
    teacher = next(item for item in manifests(DEV) if item["kind"] == "Deployment" and item["metadata"]["name"] == "teacher")
    arguments = build_parser().parse_args(teacher["spec"]["template"]["spec"]["containers"][0]["args"])
    assert (arguments.name, arguments.host, arguments.port) == ("simulate", "0.0.0.0", 8765)


def test_queues_of_the_kueue_scenario_are_among_the_examples() -> None:
    wanted = yaml.safe_load((CHART / "ci" / "kueue-values.yaml").read_text())["kueue"]
    items = manifests(ROOT / "k8s" / "kueue")
    local = {item["metadata"]["name"] for item in items if item["kind"] == "LocalQueue"}
    cluster = {item["metadata"]["name"] for item in items if item["kind"] == "ClusterQueue"}
    priorities = {item["metadata"]["name"] for item in items if item["kind"] == "WorkloadPriorityClass"}
    assert {wanted["queueName"], wanted["driverQueueName"], *(stage["queueName"] for stage in wanted["stages"].values())} <= local
    assert {stage["priorityClass"] for stage in wanted["stages"].values()} <= priorities
    assert {item["spec"]["clusterQueue"] for item in items if item["kind"] == "LocalQueue"} <= cluster
