"""What a Job's own fields say about a stage: pure functions from the API's dictionaries to small values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from medkd.cluster import names

Phase = Literal["waiting", "queued", "running", "succeeded", "failed"]
"""waiting: held back by its gate; queued: released, and suspended by whoever admits it; the others as they say."""


@dataclass(frozen=True, kw_only=True)
class JobState:
    """A stage's Job at one moment."""

    stage: str
    phase: Phase
    uid: str = ""
    completions: int = 1
    parallelism: int = 1
    active: int = 0
    ready: int = 0
    terminating: int = 0
    succeeded: int = 0
    failed_pods: int = 0
    """Pods that failed since the Job was created, also those whose index went on to succeed."""
    completed_indexes: str = ""
    failed_indexes: str = ""
    reason: str = ""
    """The controller's word for a failure, for example FailedIndexes."""
    message: str = ""
    failing: bool = False
    """The failure is decided, pods are still ending."""
    released: bool = False
    """The gate has been taken away."""
    started_at: float | None = None
    ended_at: float | None = None
    approved: bool = False

    @property
    def num_failed_indexes(self) -> int:
        return count_indexes(self.failed_indexes)

    @property
    def looks_wrong(self) -> bool:
        """Whether the Job's figures give a reason to look at its pods."""
        return self.active != self.ready or self.terminating > 0 or self.failed_pods > 0 or self.failing


def job_state(stage: str, job: Mapping[str, Any]) -> JobState:
    """The state of a stage from its Job as the API shows it."""
    metadata, spec, status = job["metadata"], job["spec"], job.get("status") or {}
    annotations = metadata.get("annotations") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or [] if one.get("status") == "True"}
    ended = conditions.get("Complete") or conditions.get("Failed")
    failure = conditions.get("Failed") or conditions.get("FailureTarget") or {}
    gated = annotations.get(names.ANNOTATION_GATE) == names.GATE
    return JobState(
        stage=stage,
        phase=_phase(conditions, suspended=bool(spec.get("suspend")), gated=gated),
        uid=metadata.get("uid", ""),
        completions=spec.get("completions", 1),
        parallelism=spec.get("parallelism", 1),
        active=status.get("active") or 0,
        ready=status.get("ready") or 0,
        terminating=status.get("terminating") or 0,
        succeeded=status.get("succeeded") or 0,
        failed_pods=status.get("failed") or 0,
        completed_indexes=status.get("completedIndexes") or "",
        failed_indexes=status.get("failedIndexes") or "",
        reason=failure.get("reason", ""),
        message=failure.get("message", ""),
        failing="FailureTarget" in conditions and ended is None,
        released=not gated,
        started_at=timestamp(status.get("startTime")),
        ended_at=timestamp(ended.get("lastTransitionTime")) if ended else None,
        approved=names.ANNOTATION_APPROVED in annotations,
    )


def _phase(conditions: Mapping[str, Any], *, suspended: bool, gated: bool) -> Phase:
    if "Complete" in conditions:
        return "succeeded"
    if "Failed" in conditions:
        return "failed"
    if suspended:
        return "waiting" if gated else "queued"
    return "running"


def acceptable_gaps(state: JobState, max_failed: int) -> tuple[int, ...]:
    """The failed shards of stage generate, where all others ran to their end and these are few enough to go on without.

    The Job then says Failed, with reason FailedIndexes: one failed index is enough for that, whatever its limits are.
    """
    if state.phase != "failed" or state.reason != "FailedIndexes":
        return ()
    return tuple(indexes(state.failed_indexes)) if state.num_failed_indexes <= max_failed else ()


def indexes(text: str) -> Iterable[int]:
    """The numbers in Kubernetes' short form of index sets, for example `1,3-5`."""
    for first, last in _ranges(text):
        yield from range(first, last + 1)


def count_indexes(text: str) -> int:
    """How many numbers an index set holds."""
    return sum(last - first + 1 for first, last in _ranges(text))


def index_set(numbers: Iterable[int]) -> str:
    """The short form of a set of numbers."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _ranges(text: str) -> Iterable[tuple[int, int]]:
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield int(first), int(last or first)


def started_indexes(state: JobState) -> list[int]:
    """Indexes that may be running: the lowest unfinished ones, which the controller starts first.

    Indexes that wait for their next try are among the lowest, too; each failed pod may have left one.
    """
    finished = {*indexes(state.completed_indexes), *indexes(state.failed_indexes)}
    window = state.active + min(state.failed_pods, 16)
    unfinished = (index for index in range(state.completions) if index not in finished)
    return [index for index, _ in zip(unfinished, range(window), strict=False)]


def timestamp(text: str | None) -> float | None:
    """Seconds since 1970 of a time as the API writes it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else None
