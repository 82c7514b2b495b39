"""What schemas do not know of a rendered run: how its objects refer to one another, and the traps of Jobs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from medkd.cluster import names
from tests.chart.rendering import Object, pods_of

Labels = dict[str, str]
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def problems(items: list[Object]) -> list[str]:
    """Everything that is wrong with a rendered run, each as kind/name and a few words."""
    return [
        *_names(items),
        *(f"{_shown(job)}: {found}" for job in _of_kind(items, "Job") for found in (*_failure_policy(job), *_gate(job))),
        *(f"{_shown(owner)}: {found}" for owner, template in pods_of(items) for found in _pod(template, items)),
        *_rights(items),
        *_selectors(items),
        *_gang(items),
        *(f"{_shown(item)}: a Secret may not be in a chart" for item in _of_kind(items, "Secret")),
    ]


def _names(items: list[Object]) -> Iterator[str]:
    for (kind, name), count in Counter((item["kind"], item["metadata"]["name"]) for item in items).items():
        if count > 1:
            yield f"{kind}/{name}: {count} times"
    for item in items:
        name = item["metadata"]["name"]
        if item["kind"] == "Job":
            name += f"-{item['spec'].get('completions', 1) - 1}"
        if not _LABEL.fullmatch(name) or len(name) > 63:
            yield f"{_shown(item)}: {name} is no DNS label of 63 characters"
        if item["kind"] == "Service" and not name[0].isalpha():
            yield f"{_shown(item)}: a Service's name starts with a letter"


def _failure_policy(job: Object) -> Iterator[str]:
    spec = job["spec"]
    rules = spec["podFailurePolicy"]["rules"]
    containers = {container["name"] for container in spec["template"]["spec"]["containers"]}
    if spec["template"]["spec"].get("restartPolicy") != "Never":
        yield "podFailurePolicy needs restartPolicy Never"
    for rule in rules:
        if ("onExitCodes" in rule) == ("onPodConditions" in rule):
            yield "a rule has exit codes or conditions, and not both"
        if rule["action"] == "FailIndex" and "backoffLimitPerIndex" not in spec:
            yield "FailIndex needs backoffLimitPerIndex"
        if rule["action"] == "Ignore" and "onExitCodes" in rule:
            yield "ignored exit codes are retried without end"
        yield from _exit_codes(rule.get("onExitCodes"), containers)
        if any(condition.get("status") != "True" for condition in rule.get("onPodConditions", [])):
            yield "a condition without status is refused before Kubernetes 1.35"


def _exit_codes(codes: dict[str, Any] | None, containers: set[str]) -> Iterator[str]:
    if codes is None:
        return
    if codes["values"] != sorted(set(codes["values"])) or (codes["operator"] == "In" and 0 in codes["values"]):
        yield f"exit codes {codes['values']} are not sorted, unique and without 0"
    if codes.get("containerName") not in containers:
        yield f"exit codes of {codes.get('containerName')}, which is no container"


def _gate(job: Object) -> Iterator[str]:
    """Stages wait for the driver, the driver for nobody."""
    metadata, spec = job["metadata"], job["spec"]
    stage = metadata["labels"].get(names.LABEL_STAGE)
    gated = metadata.get("annotations", {}).get(names.ANNOTATION_GATE) == names.GATE
    if stage in names.STAGES:
        if not (spec.get("suspend") is True and gated):
            yield "a stage is suspended and gated"
        if spec.get("completionMode") != "Indexed" or "backoffLimitPerIndex" not in spec:
            yield "a stage is an Indexed Job that counts its retries by index"
        if metadata["name"] != names.job_name(metadata["name"].removesuffix(f"-{stage}"), stage):
            yield f"name does not end with {stage}"
    elif spec.get("suspend") or gated:
        yield "nobody would start it"
    if spec.get("ttlSecondsAfterFinished") is not None:
        yield "a finished stage may not vanish before the driver has seen it"


def _pod(template: Object, items: list[Object]) -> Iterator[str]:
    spec = template["spec"]
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    mounts = [mount for container in spec["containers"] for mount in container.get("volumeMounts", [])]
    for mount in mounts:
        if mount["name"] not in volumes:
            yield f"mount {mount['mountPath']} has no volume"
    for name in volumes.keys() - {mount["name"] for mount in mounts}:
        yield f"volume {name} is mounted nowhere"
    for path, count in Counter(mount["mountPath"] for mount in mounts).items():
        if count > 1:
            yield f"{path} is mounted {count} times"
    yield from _secrets(spec)
    driver = template["metadata"]["labels"].get("app.kubernetes.io/component") == names.DRIVER
    if spec.get("automountServiceAccountToken") is not driver:
        yield "the driver has a token, and nobody else"
    config = volumes.get("config", {}).get("configMap", {}).get("name")
    if config and config not in {item["metadata"]["name"] for item in _of_kind(items, "ConfigMap")}:
        yield f"ConfigMap {config} is not rendered"
    if [container["name"] for container in spec["containers"]] != [names.CONTAINER]:
        yield f"the only container is {names.CONTAINER}"


def _secrets(spec: Object) -> Iterator[str]:
    """A pod that waits for a Secret says nothing, so that every reference is optional."""
    for volume in spec.get("volumes", []):
        if "secret" in volume and volume["secret"].get("optional") is not True:
            yield f"volume {volume['name']}: not optional"
    for variable in (variable for container in spec["containers"] for variable in container.get("env", [])):
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference and reference.get("optional") is not True:
            yield f"variable {variable['name']}: not optional"
    repeated = Counter(variable["name"] for container in spec["containers"] for variable in container.get("env", []))
    yield from (f"variable {name} is set twice" for name, count in repeated.items() if count > 1)


def _rights(items: list[Object]) -> Iterator[str]:
    stages = {job["metadata"]["name"] for job in _of_kind(items, "Job") if names.LABEL_STAGE in job["metadata"]["labels"]}
    config_maps = {item["metadata"]["name"] for item in _of_kind(items, "ConfigMap")}
    for role in _of_kind(items, "Role"):
        for rule in role["rules"]:
            named = set(rule.get("resourceNames", []))
            if rule["resources"] == ["jobs"] and named != stages:
                yield f"{_shown(role)}: rights on jobs {sorted(named)}, rendered are {sorted(stages)}"
            if rule["resources"] == ["configmaps"] and not named <= config_maps:
                yield f"{_shown(role)}: rights on ConfigMaps {sorted(named)} that are not rendered"
            creates = "create" in rule["verbs"] and rule["resources"] != ["events"]
            if creates or "*" in [*rule["verbs"], *rule["resources"]]:
                yield f"{_shown(role)}: may do too much with {rule['resources']}"
    accounts = {item["metadata"]["name"] for item in _of_kind(items, "ServiceAccount")}
    for binding in _of_kind(items, "RoleBinding"):
        if {subject["name"] for subject in binding["subjects"]} - accounts:
            yield f"{_shown(binding)}: binds an account that is not rendered"
    for owner, template in pods_of(items):
        if template["spec"].get("serviceAccountName") not in accounts:
            yield f"{_shown(owner)}: runs as an account that is not rendered"


def _selectors(items: list[Object]) -> Iterator[str]:
    pods = [_pod_labels(owner, template) for owner, template in pods_of(items)]
    for item in items:
        for selector in _selectors_of(item):
            if not any(_selects(selector, labels) for labels in pods):
                yield f"{_shown(item)}: selects no pod"


def _pod_labels(owner: Object, template: Object) -> Labels:
    """The labels that pods will have: the Job controller adds its name."""
    return {**template["metadata"]["labels"], **({names.LABEL_JOB: owner["metadata"]["name"]} if owner["kind"] == "Job" else {})}


def _selectors_of(item: Object) -> list[Object]:
    if item["kind"] == "Service":
        return [{"matchLabels": item["spec"]["selector"]}]
    if item["kind"] == "NetworkPolicy":
        return [item["spec"]["podSelector"]]
    if item["kind"] == "PodMonitor":
        return [item["spec"]["selector"]]
    if item["kind"] == "Job":
        spread = item["spec"]["template"]["spec"].get("topologySpreadConstraints", [])
        return [constraint["labelSelector"] for constraint in spread if "labelSelector" in constraint]
    return []


def _selects(selector: Object, labels: Labels) -> bool:
    wanted = selector.get("matchLabels", {}).items()
    within = selector.get("matchExpressions", [])
    equal = all(labels.get(key) == value for key, value in wanted)
    return equal and all(labels.get(expression["key"]) in expression["values"] for expression in within)


def _gang(items: list[Object]) -> Iterator[str]:
    """The trainers find one another: world size, names and Service agree."""
    job = next(job for job in _of_kind(items, "Job") if job["metadata"]["labels"].get(names.LABEL_STAGE) == "train")
    name, spec = job["metadata"]["name"], job["spec"]
    pod = spec["template"]["spec"]
    variables = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
    service = next((item for item in _of_kind(items, "Service") if item["metadata"]["name"] == pod.get("subdomain")), None)
    if service is None or service["spec"].get("clusterIP") != "None" or not service["spec"].get("publishNotReadyAddresses"):
        yield f"{_shown(job)}: has no headless Service that names pods before they are ready"
    if not spec["completions"] == spec["parallelism"] == int(variables["PET_NNODES"] or 0):
        yield f"{_shown(job)}: completions, parallelism and PET_NNODES differ"
    if variables["PET_MASTER_ADDR"] != f"{name}-0.{pod.get('subdomain')}":
        yield f"{_shown(job)}: PET_MASTER_ADDR is not its first pod"
    if spec["maxFailedIndexes"] != 0:
        yield f"{_shown(job)}: a gang cannot miss a member"


def _of_kind(items: list[Object], kind: str) -> list[Object]:
    return [item for item in items if item["kind"] == kind]


def _shown(item: Object) -> str:
    return f"{item['kind']}/{item['metadata']['name']}"
