"""A real API server takes what the chart renders: a server-side dry run of every scenario, in the cluster of KUBECONFIG."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator

import pytest
import yaml

from tests.chart.rendering import NAMESPACE, RELEASE, ROOT, objects, rendered
from tests.cluster.tools import require_cluster

pytestmark = pytest.mark.cluster


def kubectl(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """An empty namespace that enforces Pod Security `restricted` and warns of what is not."""
    require_cluster()
    name = f"medkd-render-{uuid.uuid4().hex[:8]}"
    made = kubectl("create", "namespace", name)
    assert made.returncode == 0, made.stderr
    for mode in ("enforce", "warn"):
        kubectl("label", "namespace", name, f"pod-security.kubernetes.io/{mode}=restricted")
    # Pods of a dry run are refused without their account, which is not kept either.
    kubectl("create", "serviceaccount", f"{RELEASE}-worker", "-n", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def test_every_object_is_taken_without_a_warning(namespace: str, major: int, scenario: str) -> None:
    account = {"kind": "ServiceAccount", "name": f"{RELEASE}-worker"}
    known = [
        item
        for item in objects(rendered(major, scenario))
        if not item["apiVersion"].startswith("monitoring.coreos.com/")
        and {"kind": item["kind"], "name": item["metadata"]["name"]} != account
    ]
    text = yaml.safe_dump_all(known).replace(f"namespace: {NAMESPACE}\n", f"namespace: {namespace}\n")
    result = kubectl("create", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", "-", text=text)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    assert len(result.stdout.splitlines()) == len(known)


def test_the_development_environment_is_taken() -> None:
    require_cluster()
    result = kubectl("kustomize", str(ROOT / "k8s" / "dev"))
    assert result.returncode == 0, result.stderr
    assert {item["kind"] for item in objects(result.stdout)} == {"Namespace", "Secret", "Deployment", "Service"}
