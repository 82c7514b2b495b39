"""What a run of many shards costs the control plane: requests of the driver, its memory and CPU, and how fast it reacts.

python -m tests.benchmarks.many_shards [--shards 500]

The real driver, as a process with its own ServiceAccount, against the real API server of KUBECONFIG. No pod runs: the Jobs carry
`managedBy`, so that the Job controller leaves them alone; this program writes their status, and what shards leave in the store.
Requests are counted by the API server itself, in a flow schema that only this account falls into. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medkd.cluster import names
from medkd.store import layout
from medkd.store.files import open_store
from tests.cluster.tools import Object, Space, new_space, run, wait_until
from tests.cluster_driver.conftest import STUDENT, write_plan, write_progress, write_shard
from tests.cluster_driver.fake_api import job, moment

RELEASE = "many"
STARTED = moment()
RULES = [
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "watch", "patch"]},
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch"]},
    {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=500)
    parser.add_argument("--parallel", type=int, default=50)
    args = parser.parse_args()
    with new_space(f"medkd-many-{int(time.time()) % 100000}") as space, tempfile.TemporaryDirectory() as folder:
        measure(space, Path(folder), args.shards, args.parallel)


def measure(space: Space, folder: Path, shards: int, parallel: int) -> None:
    for stage in names.STAGES:
        create_job(space, stage, shards if stage == "generate" else 1, parallel)
    space.kubectl("create", "configmap", names.status_config_map(RELEASE))
    store = open_store(str(folder / "run"))
    with flow_schema(space) as schema, driver(space, folder) as process:
        finish(space, store, "plan", shards)
        released(space, "generate")
        started, before = time.monotonic(), requests(schema)
        for shard in range(parallel):
            write_progress(store, shard)
        step = max(1, shards // 20)
        for done in range(step, shards + 1, step):
            for shard in range(done - step, done):
                write_shard(store, shard)
            active = min(parallel, shards - done)
            status(space, "generate", succeeded=done, completedIndexes=f"0-{done - 1}", active=active, ready=active)
            time.sleep(3)
        seconds, made = time.monotonic() - started, requests(schema) - before
        finish(space, store, "generate", shards)
        reaction = released(space, "prepare")
        asked, spent = time.monotonic(), children_cpu()
        space.medkd("status", RELEASE)
        shown, status_cpu = time.monotonic() - asked, children_cpu() - spent
        cpu, memory = usage(process.pid)
    print(f"{shards} shards, {parallel} at once, in {seconds:.0f} s:")
    print(f"  requests to the API server   {made} ({made / shards:.2f} a shard, {made / seconds:.1f} a second)")
    print(f"  driver                       {memory:.0f} MiB at most, {cpu:.1f} s of CPU since it started")
    print(f"  next stage released          {reaction:.1f} s after its predecessor's end was written")
    print(f"  kubectl medkd status         {shown:.1f} s, {status_cpu:.1f} s of CPU")


def create_job(space: Space, stage: str, completions: int, parallel: int) -> None:
    made = job(RELEASE, RELEASE, stage, completions)
    spec = made["spec"]
    spec |= {"managedBy": "medkd.io/benchmark", "parallelism": min(parallel, completions), "backoffLimitPerIndex": 6}
    spec["template"]["spec"]["restartPolicy"] = "Never"
    space.kubectl("create", "-f", "-", text=json.dumps({"apiVersion": "batch/v1", "kind": "Job", **made}))


def finish(space: Space, store: Any, stage: str, shards: int) -> None:
    """End a stage as its pods and the Job controller would."""
    released(space, stage)
    count = shards if stage == "generate" else 1
    if stage == "plan":
        write_plan(store, shards, samples=10 * shards)
        # The driver keeps up the sign of life of the owner that stage plan wrote.
        store.delete(layout.OWNER)
    done = {"succeeded": count, "completedIndexes": f"0-{count - 1}" if count > 1 else "0", "active": 0, "ready": 0}
    condition = {"type": "SuccessCriteriaMet", "status": "True", "lastTransitionTime": moment()}
    status(space, stage, **done, conditions=[condition])
    complete = {**condition, "type": "Complete"}
    status(space, stage, **done, completionTime=moment(), conditions=[condition, complete])


def status(space: Space, stage: str, **fields: Any) -> None:
    body = json.dumps({"status": {"startTime": STARTED, "uncountedTerminatedPods": {}, **fields}})
    space.kubectl("patch", "job", names.job_name(RELEASE, stage), "--subresource=status", "--type=merge", "-p", body)


def released(space: Space, stage: str) -> float:
    """Seconds until the stage is let run."""
    started = time.monotonic()
    name = names.job_name(RELEASE, stage)
    wait_until(f"{stage} is released", lambda: not (space.get("job", name) or {})["spec"]["suspend"], 120, every=0.1)
    return time.monotonic() - started


@contextmanager
def flow_schema(space: Space) -> Iterator[str]:
    """The driver's account with its rights, and a flow schema by which the API server counts what it asks."""
    account = f"{RELEASE}-driver"
    subject: Object = {"kind": "ServiceAccount", "serviceAccount": {"name": account, "namespace": space.name}}
    rules = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]
    space.kubectl("create", "serviceaccount", account)
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": account}, "rules": RULES}
    space.kubectl("create", "-f", "-", text=json.dumps(role))
    space.kubectl("create", "rolebinding", account, f"--role={account}", f"--serviceaccount={space.name}:{account}")
    schema = {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": space.name},
        "spec": {
            "matchingPrecedence": 500,
            "priorityLevelConfiguration": {"name": "workload-low"},
            "rules": [{"subjects": [subject], "resourceRules": rules}],
        },
    }
    run(["kubectl", "create", "-f", "-"], text=json.dumps(schema))
    try:
        yield space.name
    finally:
        run(["kubectl", "delete", "flowschema", space.name], check=False)


def requests(schema: str) -> int:
    """How many requests of the flow schema the API server has taken so far."""
    text = run(["kubectl", "get", "--raw", "/metrics"]).stdout
    pattern = rf'^apiserver_flowcontrol_dispatched_requests_total{{[^}}]*flow_schema="{schema}"[^}}]*}} ([0-9.e+]+)$'
    return sum(int(float(value)) for value in re.findall(pattern, text, flags=re.M))


@contextmanager
def driver(space: Space, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The driver as a process of this machine, with the rights of its ServiceAccount and no others."""
    token = space.kubectl("create", "token", f"{RELEASE}-driver", "--duration=1h").stdout.strip()
    config = json.loads(run(["kubectl", "config", "view", "--raw", "--minify", "-o", "json"]).stdout)
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    kubeconfig = folder / "kubeconfig"
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(json.dumps(config))
    command = [
        sys.executable,
        "-m",
        "medkd",
        "driver",
        "--prefix",
        str(folder / "run"),
        "--run",
        RELEASE,
        "--job-prefix",
        RELEASE,
    ]
    command += ["--namespace", space.name, "--student", STUDENT, "--listen", "127.0.0.1:0", "--kubeconfig", str(kubeconfig)]
    with (folder / "driver.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def children_cpu() -> float:
    """CPU seconds of the commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def usage(pid: int) -> tuple[float, float]:
    """CPU seconds and the largest resident memory, in MiB, of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return ticks / os.sysconf("SC_CLK_TCK"), int(peak.group(1)) / 1024 if peak else 0.0


if __name__ == "__main__":
    main()
