"""kubectl, Helm and the plugin as the tests of a cluster use them, each aimed at one namespace.

What a cluster needs to be told of is in the environment:

KUBECONFIG               the cluster; without it these tests skip, or fail where MEDKD_REQUIRE_CLUSTER=1
MEDKD_LOAD_IMAGE         command that puts an image on the nodes, called with its name: `kind load docker-image --name medkd`;
                         empty: the images are there, or nodes pull them
MEDKD_WORKER_IMAGE, MEDKD_TRAINER_IMAGE, MEDKD_OBJECTSTORE_IMAGE      names other than medkd-worker:dev and so on
MEDKD_NODE               command for faults of nodes, called with `stop|start|cut|mend NUMBER`; without it such tests skip
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest

from medkd.store.files import Store, open_store
from tests.chart.rendering import CHART, ROOT, helm

T = TypeVar("T")
Object = dict[str, Any]
Result = subprocess.CompletedProcess[str]

DEV_NAMESPACE = "medkd-dev"
DEV_KEY, DEV_SECRET = "medkd", "development-only"
COMMAND_SECONDS = 300


def image(kind: str) -> str:
    """The image of a kind: worker, trainer or objectstore."""
    return os.environ.get(f"MEDKD_{kind.upper()}_IMAGE") or f"medkd-{kind}:dev"


def require_cluster() -> None:
    """Skip the test where there is no cluster, or fail it where one was promised."""
    if not os.environ.get("KUBECONFIG"):
        _missing("needs a cluster: set KUBECONFIG")
    if shutil.which("kubectl") is None:
        _missing("needs kubectl on the PATH")
    if helm(4) is None and helm(3) is None:
        _missing("needs Helm 3 or 4: on the PATH, or named by MEDKD_HELM3 or MEDKD_HELM4")
    answer = run(["kubectl", "get", "--raw", "/readyz", "--request-timeout=30s"], check=False)
    if answer.returncode:
        _missing(f"the cluster of KUBECONFIG does not answer: {answer.stderr.strip()}")


def _missing(reason: str) -> NoReturn:
    if os.environ.get("MEDKD_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"{reason} (MEDKD_REQUIRE_CLUSTER=1: no test of the cluster may skip)")
    pytest.skip(reason)


def run(command: list[str], *, text: str | None = None, check: bool = True, seconds: float = COMMAND_SECONDS) -> Result:
    """A command's result; fails with what it said where it fails and `check` is set."""
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])}
    result = subprocess.run(
        command, input=text, stdin=None if text is not None else subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=seconds, env=environment,
    )  # fmt: skip
    if check and result.returncode:
        pytest.fail(f"{shlex.join(command)} left with {result.returncode}: {result.stderr}{result.stdout}")
    return result


def wait_until(what: str, condition: Callable[[], T], seconds: float, every: float = 0.5) -> T:
    """What the condition gives once it is true; fails where it never is."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s: {what}")
        time.sleep(every)
    return found


@cache
def load_image(name: str) -> None:
    """Put an image on the nodes, once for all tests."""
    command = os.environ.get("MEDKD_LOAD_IMAGE")
    if command:
        run([*shlex.split(command), name], seconds=900)


def break_node(what: str, number: int) -> None:
    """Do something to a node: stop, start, cut or mend."""
    command = os.environ.get("MEDKD_NODE")
    if not command:
        _missing("needs MEDKD_NODE, a command that stops and cuts off nodes")
    run([*shlex.split(command), what, str(number)])


@dataclass(frozen=True)
class Space:
    """A namespace of the cluster, the tools aimed at it, and the services of k8s/dev in it."""

    name: str
    ports: dict[str, tuple[subprocess.Popen[str], str]] = field(default_factory=dict)

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> Result:
        return run(["kubectl", "-n", self.name, *arguments], text=text, check=check)

    def helm(self, *arguments: str, major: int | None = None, text: str | None = None, check: bool = True) -> Result:
        binary = helm(major) if major else helm(4) or helm(3)
        assert binary, f"no Helm {major}"
        return run([binary, *arguments, "-n", self.name], text=text, check=check)

    def medkd(self, verb: str, *arguments: str, check: bool = True, seconds: float = COMMAND_SECONDS) -> Result:
        """`kubectl medkd VERB`, as a person types it."""
        return run(["kubectl", "medkd", verb, *arguments, "-n", self.name], check=check, seconds=seconds)

    def install(
        self, release: str, values: Mapping[str, Any] | None = None, *, check: bool = True, major: int | None = None
    ) -> Result:
        """The chart with `ci/dev-values.yaml`, aimed at this namespace's services, and values over that."""
        dev = (CHART / "ci" / "dev-values.yaml").read_text().replace(DEV_NAMESPACE, self.name)
        folder = Path(os.environ.get("TMPDIR", "/tmp"))
        file = folder / f"{self.name}-{release}.yaml"
        file.write_text(dev)
        try:
            flags = ["-f", str(file), *_image_flags(), "-f", "-"]
            return self.helm("install", release, str(CHART), *flags, text=json.dumps(values or {}), check=check, major=major)
        finally:
            file.unlink()

    def get(self, kind: str, name: str) -> Object | None:
        """An object, None where it is not there."""
        found = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(found.stdout) if found.stdout.strip() else None

    def list(self, kind: str, selector: str = "") -> list[Object]:
        flags = ["-l", selector] if selector else []
        return list(json.loads(self.kubectl("get", kind, *flags, "-o", "json").stdout)["items"])

    def pods(self, job: str, index: int | None = None) -> list[Object]:
        """Pods of a Job, of one index where it is given."""
        selector = f"batch.kubernetes.io/job-name={job}"
        if index is not None:
            selector += f",batch.kubernetes.io/job-completion-index={index}"
        return self.list("pods", selector)

    def running_pod(self, job: str, index: int | None = None) -> str | None:
        """The name of a pod of a Job that runs and is not going away."""
        for pod in self.pods(job, index):
            if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]:
                return str(pod["metadata"]["name"])
        return None

    def condition(self, job: str, kind: str) -> Object | None:
        """A true condition of a Job: Complete, Failed, FailureTarget, Suspended."""
        found = self.get("job", job) or {}
        for condition in found.get("status", {}).get("conditions") or []:
            if condition["type"] == kind and condition["status"] == "True":
                return dict(condition)
        return None

    # --- services of k8s/dev ------------------------------------------------------------------------------------------

    def forwarded(self, target: str, port: int) -> str:
        """URL at which a port of a pod is reached from here. Kept for this namespace; opened again where its pod is another."""
        key = f"{target}:{port}"
        if key in self.ports and self.ports[key][0].poll() is None:
            return self.ports[key][1]
        process, url = wait_until(f"port {port} of {target} is forwarded", lambda: _forward(self.name, target, port), 120)
        self.ports[key] = (process, url)
        return url

    def close_ports(self) -> None:
        for process, _ in self.ports.values():
            process.kill()
            process.wait()
        self.ports.clear()

    def store(self, run_name: str) -> Store:
        """What lies under a run's prefix in this namespace's S3 server."""
        options = {
            "key": DEV_KEY,
            "secret": DEV_SECRET,
            "client_kwargs": {"endpoint_url": self.forwarded("deployment/objectstore", 8333), "region_name": "us-east-1"},
        }
        return open_store(f"s3://medkd/runs/{run_name}", options)

    def teacher(self, path: str) -> dict[str, Any]:
        """What the simulated teacher says of itself: /stats or /billed."""
        url = self.forwarded("deployment/teacher", 8765)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url + path, timeout=60) as reply:
            return dict(json.load(reply))

    def story(self) -> str:
        """What there is and what happened, for somebody who has to find out why a test failed."""
        parts = []
        for command in (
            ["get", "jobs,pods", "-o", "wide"],
            ["get", "events", "--sort-by=.lastTimestamp"],
            ["logs", "-l", "app.kubernetes.io/component", "--tail=25", "--prefix", "--max-log-requests=20"],
            ["get", "configmaps", "-l", "app.kubernetes.io/component=driver", "-o", "jsonpath={.items[*].data.status\\.json}"],
        ):
            result = self.kubectl(*command, check=False)
            parts.append(f"--- kubectl {' '.join(command)}\n{result.stdout[-12000:]}{result.stderr[-1000:]}")
        return "\n".join(parts)


def _image_flags() -> list[str]:
    flags = []
    for kind in ("worker", "trainer"):
        repository, _, tag = image(kind).rpartition(":")
        flags += ["--set", f"images.{kind}.repository={repository},images.{kind}.tag={tag}"]
    return flags


def _forward(namespace: str, target: str, port: int) -> tuple[subprocess.Popen[str], str] | None:
    command = ["kubectl", "-n", namespace, "port-forward", target, f":{port}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True)
    assert process.stdout
    line = process.stdout.readline()  # Forwarding from 127.0.0.1:40123 -> 8333
    if "->" in line:
        return process, f"http://{line.split('Forwarding from ')[1].split(' ->')[0]}"
    process.kill()
    process.wait()
    return None


def apply_dev(
    space: Space, *, latency_seconds: float | None = None, teacher_flags: Sequence[str] = (), node: str | None = None
) -> None:
    """An S3 server and the simulated teacher of k8s/dev in this namespace, on `node` if one is named; wait until both answer."""
    for kind in ("worker", "objectstore"):
        load_image(image(kind))
    text = run(["kubectl", "kustomize", str(ROOT / "k8s" / "dev")]).stdout.replace(DEV_NAMESPACE, space.name)
    for kind in ("worker", "objectstore"):
        text = text.replace(f"image: medkd-{kind}:dev", f"image: {image(kind)}")
    if latency_seconds is not None:
        text = text.replace("--latency=0.05", f"--latency={latency_seconds}")
    if teacher_flags:
        lines = [f"        - {flag}\n" for flag in ("--host=0.0.0.0", *teacher_flags)]
        text = text.replace("        - --host=0.0.0.0\n", "".join(lines))
    if node:
        text = text.replace(
            "      automountServiceAccountToken: false\n", f"      automountServiceAccountToken: false\n      nodeName: {node}\n"
        )
    run(["kubectl", "apply", "-f", "-"], text=text)
    space.kubectl("rollout", "status", "deployment/objectstore", "deployment/teacher", "--timeout=240s")


@contextmanager
def new_space(name: str) -> Iterator[Space]:
    """A namespace that enforces Pod Security `restricted`; it is deleted with everything in it, unless MEDKD_KEEP_NAMESPACE=1."""
    labels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
    run(["kubectl", "create", "namespace", name])
    run(["kubectl", "label", "namespace", name, *labels])
    space = Space(name)
    try:
        yield space
    finally:
        space.close_ports()
        if os.environ.get("MEDKD_KEEP_NAMESPACE") != "1":
            run(["kubectl", "delete", "namespace", name, "--wait=false"], check=False)
