"""Why a stage does not move, in words: pure functions from pods to problems, each with what to do about it.

Job status cannot tell an unschedulable pod, an image that cannot be pulled and a slow start apart; pods can.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from medkd.cluster import names
from medkd.cluster.states import JobState, index_set, indexes, timestamp

Pod = Mapping[str, Any]

SLOW_START_SECONDS = 120.0
"""How long a container may be in the making before that is said."""

_PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
# A Job's template cannot be changed, so that new values need a new release; what is under the prefix stays.
_NEW_VALUES = "then helm uninstall, and install again under the same name: it goes on from the store"
_RETRY = "then: kubectl medkd retry"
_WHAT_TO_DO = {
    64: f"mend the values, {_NEW_VALUES}",
    65: f"look at the data that it names, {_RETRY}",
    69: "check that teacher and store can be reached from the cluster; it is tried again by itself",
    77: f"mend key or permission, {_RETRY}; for a larger budget mend the values, {_NEW_VALUES}",
    78: f"mend a Secret that it names, {_RETRY}; for values, mend them, {_NEW_VALUES}",
    79: f"look at the bars in the report; for other bars mend models.overrides.bars, {_NEW_VALUES}",
    137: "something killed it, perhaps its node's memory; it is tried again by itself",
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that keeps a stage from going on, or made it fail."""

    stage: str
    kind: str
    what: str
    do: str
    fatal: bool = False
    """It ended a process for good; the others may pass by themselves."""


def problems(state: JobState, pods: Iterable[Pod], now: float) -> list[Problem]:
    """What is wrong with a stage's pods, the same trouble of many pods said once, what ended the stage first."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for pod in _newest_of_each_index(state, pods):
        trouble = _trouble(pod, now)
        if trouble:
            found.setdefault(trouble, []).append(_index(pod))
    listed = [_problem(state, *trouble, places) for trouble, places in found.items()]
    return sorted(listed, key=lambda problem: not problem.fatal)


def _newest_of_each_index(state: JobState, pods: Iterable[Pod]) -> Iterable[Pod]:
    """One pod of each unfinished index: earlier tries say nothing about now."""
    completed = {str(index) for index in indexes(state.completed_indexes)}
    newest: dict[str, Pod] = {}
    for pod in sorted(pods, key=lambda pod: pod["metadata"].get("creationTimestamp") or ""):
        newest[_index(pod)] = pod
    return [pod for index, pod in newest.items() if index not in completed]


def _problem(state: JobState, kind: str, what: str, do: str, places: list[str]) -> Problem:
    numbers = [int(place) for place in places if place.isdigit()]
    where = f" (index {index_set(numbers)})" if numbers and state.completions > 1 else ""
    ended = state.failing or state.phase == "failed" or bool({*numbers} & {*indexes(state.failed_indexes)})
    return Problem(stage=state.stage, kind=kind, what=f"{what}{where}", do=do, fatal=kind == "failed" and ended)


def _trouble(pod: Pod, now: float) -> tuple[str, str, str] | None:
    """Kind, words and advice for one pod; None where it does well."""
    status = pod.get("status") or {}
    phase = status.get("phase")
    if phase == "Failed":
        return _failure(status)
    if phase == "Pending":
        return _unscheduled(status) or _not_starting(pod, status, now)
    return _lost(pod, status) if phase in ("Running", "Unknown") else None


def _unscheduled(status: Mapping[str, Any]) -> tuple[str, str, str] | None:
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            if condition.get("reason") == "SchedulingGated":
                return "gated", "pod waits for a scheduling gate to be taken away", "look at who set it: kubectl describe pod"
            message = condition.get("message") or "no node fits"
            # The first sentence; the others tell what could be evicted in favour of this pod.
            return "unschedulable", f"no node for the pod: {_one_line(message.partition('. ')[0])}", _room_advice(message)
    return None


def _room_advice(message: str) -> str:
    if "Insufficient" in message:
        lacking = ", ".join(sorted(set(re.findall(r"Insufficient ([\w./-]+)", message))))
        return f"add nodes with more {lacking.rstrip('.')}, or lower the stage's resources, {_NEW_VALUES}"
    if "taint" in message or "selector" in message or "affinity" in message:
        return f"add such nodes, or mend the stage's nodeSelector, affinity or tolerations, {_NEW_VALUES}"
    return f"add nodes, or lower what the stage asks for, {_NEW_VALUES}"


def _not_starting(pod: Pod, status: Mapping[str, Any], now: float) -> tuple[str, str, str] | None:
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), _one_line(waiting.get("message", ""))
        if reason in _PULLING:
            image = container.get("image", "")
            return (
                "image",
                f"image {image} cannot be pulled",
                f"push it or mend imagePullSecrets, and it goes on by itself; else mend the values, {_NEW_VALUES}",
            )
        if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
            return "container", f"container cannot start: {message or reason}", "create the Secret or ConfigMap that it names"
    created = timestamp(pod["metadata"].get("creationTimestamp"))
    scheduled = any(one["type"] == "PodScheduled" and one["status"] == "True" for one in status.get("conditions") or [])
    if scheduled and created and now - created > SLOW_START_SECONDS:
        node = pod.get("spec", {}).get("nodeName", "its node")
        return "slow", f"pod has been starting on {node} for minutes", "kubectl describe pod says why: image, volume or node"
    return None


def _lost(pod: Pod, status: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """A container said to run in a pod said not to be ready: its node stopped answering.

    Stage pods have no readiness probes, so that nothing else takes their readiness away.
    """
    ready = {one["type"]: one["status"] for one in status.get("conditions") or []}.get("Ready")
    running = any("running" in (one.get("state") or {}) for one in status.get("containerStatuses") or [])
    if status.get("reason") != "NodeLost" and not (ready in ("False", "Unknown") and running):
        return None
    node = pod.get("spec", {}).get("nodeName", "?")
    if pod["metadata"].get("deletionTimestamp"):
        advice = (
            f"if the node is gone for good: kubectl taint node {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute "
            "(or delete the node); the index is then started elsewhere"
        )
    else:
        advice = "it is started elsewhere once Kubernetes gives the node up; nothing durable is lost"
    return "lost node", f"node {node} does not answer", advice


def _failure(status: Mapping[str, Any]) -> tuple[str, str, str] | None:
    if any(one["type"] == "DisruptionTarget" and one["status"] == "True" for one in status.get("conditions") or []):
        return None
    for container in status.get("containerStatuses") or []:
        ended = (container.get("state") or {}).get("terminated")
        if ended and container.get("name") == names.CONTAINER:
            return _exit(ended)
    reason = status.get("reason") or "unknown reason"
    return "failed", f"pod failed: {_one_line(status.get('message') or reason)}", "kubectl medkd logs"


def _exit(ended: Mapping[str, Any]) -> tuple[str, str, str] | None:
    code = int(ended.get("exitCode", 1))
    if code in (75, 143):
        return None
    if ended.get("reason") == "OOMKilled":
        return "failed", "killed by its memory limit", f"raise the stage's memory, {_NEW_VALUES}"
    said = error_line(ended.get("message") or "")
    return "failed", said or f"exit code {code}", _WHAT_TO_DO.get(code, f"see kubectl medkd logs, {_RETRY}")


def error_line(log: str) -> str:
    """The error with which the program left, from the end of its log; empty where there is none."""
    lines = [line for line in log.splitlines() if line.startswith("medkd: ")]
    return _one_line(lines[-1].removeprefix("medkd: ")) if lines else ""


def _index(pod: Pod) -> str:
    return str((pod["metadata"].get("annotations") or {}).get(names.ANNOTATION_INDEX, pod["metadata"].get("name", "")))


def _one_line(text: str, limit: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
