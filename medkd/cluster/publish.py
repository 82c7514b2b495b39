"""What the driver changes on the cluster: the release of a stage, the status ConfigMap, Job annotations and Events."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from medkd.cluster import board as boards
from medkd.cluster import names
from medkd.cluster.api import Cluster, Object
from medkd.cluster.board import Board
from medkd.errors import MedkdError
from medkd.telemetry import event

WRITE_SECONDS = 3.0
"""Between two writes of a ConfigMap that changes."""
ALIVE_SECONDS = 30.0
"""Between two writes of one that does not: readers see from its time that the driver lives."""
ANNOTATE_SECONDS = 15.0

ReleaseMode = Literal["gate", "label"]


def release_patch(job: Object, mode: ReleaseMode) -> Object:
    """What lets a suspended, gated Job run: by itself, or when the queue that its label names admits it.

    Whether it is queued is read from the live Job: a cluster may set the label itself.
    """
    metadata = job["metadata"]
    queue = (metadata.get("annotations") or {}).get(names.ANNOTATION_QUEUE)
    patch: Object = {"metadata": {"annotations": {names.ANNOTATION_GATE: None}}}
    if names.LABEL_QUEUE in (metadata.get("labels") or {}):
        return patch
    if mode == "label" and queue:
        patch["metadata"]["labels"] = {names.LABEL_QUEUE: queue}
        return patch
    return {**patch, "spec": {"suspend": False}}


def event_body(namespace: str, job: str, uid: str, reason: str, text: str, *, warning: bool, at: float) -> Object:
    """An Event about a stage's Job. Equal events have equal names, so that a driver that starts again repeats none."""
    digest = hashlib.sha256(f"{uid}:{reason}:{text}".encode()).hexdigest()[:16]
    moment = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{job}.{digest}", "namespace": namespace},
        "involvedObject": {"apiVersion": "batch/v1", "kind": "Job", "name": job, "namespace": namespace, "uid": uid},
        "reason": reason,
        "message": text[:1000],
        "type": "Warning" if warning else "Normal",
        "source": {"component": names.FIELD_MANAGER},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


class Publisher:
    """Writes a run's board to the cluster, no more often than readers need. Failing to is logged and tried again later."""

    def __init__(self, cluster: Cluster, full_name: str) -> None:
        self._cluster = cluster
        self._full_name = full_name
        self._written: Board | None = None
        self._written_at = 0.0
        self._annotated: dict[str, str] = {}
        self._annotated_at = 0.0

    def earlier(self) -> Board | None:
        """The board as it was last published, also by a driver before this one."""
        found = self._cluster.config_map(names.status_config_map(self._full_name)) or {}
        return boards.from_json((found.get("data") or {}).get(names.STATUS_KEY, ""))

    def write(self, board: Board, *, now: bool = False) -> None:
        """Bring ConfigMap and annotation up to date where that is due."""
        elapsed = time.monotonic() - self._written_at
        changed = self._written is None or replace(board, updated_at=0.0) != replace(self._written, updated_at=0.0)
        if now or elapsed > ALIVE_SECONDS or (changed and elapsed > WRITE_SECONDS):
            self._written, self._written_at = board, time.monotonic()
            data = {names.STATUS_KEY: boards.to_json(board), names.SUMMARY_KEY: boards.summary(board)}
            self._quietly(lambda: self._cluster.patch_config_map(names.status_config_map(self._full_name), data))
        if now or time.monotonic() - self._annotated_at > ANNOTATE_SECONDS:
            self._annotated_at = time.monotonic()
            self._annotate(board)

    def event(self, stage: str, uid: str, reason: str, text: str, *, warning: bool) -> None:
        """Publish an Event about a stage's Job, and log it."""
        event(reason, level=logging.WARNING if warning else logging.INFO, about=stage, text=text)
        job = names.job_name(self._full_name, stage)
        body = event_body(self._cluster.namespace, job, uid, reason, text, warning=warning, at=time.time())
        self._quietly(lambda: self._cluster.create_event(body))

    def _annotate(self, board: Board) -> None:
        for stage in board.stages:
            words = boards.stage_words(board, stage)
            if words and self._annotated.get(stage.name) != words:
                self._annotated[stage.name] = words
                body = {"metadata": {"annotations": {names.ANNOTATION_PROGRESS: words}}}
                self._quietly(partial(self._cluster.patch_job, self._job(stage.name), body))

    def _job(self, stage: str) -> str:
        return names.job_name(self._full_name, stage)

    def _quietly(self, action: Callable[[], object]) -> None:
        try:
            action()
        except MedkdError as error:
            event("not published", level=logging.WARNING, reason=str(error))


def as_json(board: Board) -> bytes:
    """The body of `/status.json`, with the line that says it all."""
    return json.dumps({**json.loads(boards.to_json(board)), "summary": boards.summary(board)}).encode()
