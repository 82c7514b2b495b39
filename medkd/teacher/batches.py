"""A provider's batches over HTTP: make one, find one whose id was lost, watch it, read its results, drop it.

A wait, a retry and a stop follow the same verdicts as calls do. All methods end with StoppedError soon after `stop` is set.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from medkd.config import TeacherConfig
from medkd.errors import ConfigError, StoppedError, UnreachableError
from medkd.teacher import batch_protocols, protocols, verdicts
from medkd.teacher.batch_protocols import Batch, Item, Result
from medkd.teacher.rates import backoff_seconds
from medkd.teacher.stops import stop_error
from medkd.teacher.transport import Failure, Transport
from medkd.telemetry import event

CLOCK_SKEW_SECONDS = 120.0


class LostError(Exception):
    """The request that makes a batch had no usable answer: there may be a batch, or none."""


class Batches:
    """The batches of one API key."""

    def __init__(
        self, teacher: TeacherConfig, transport: Transport, label: str, stop: threading.Event, unreachable_seconds: float = 600
    ) -> None:
        self._teacher = teacher
        self._transport = transport
        self._label = label
        self._stop = stop
        self._unreachable_seconds = unreachable_seconds
        self._path = batch_protocols.batches_path(teacher)

    def make(self, tag: str, items: Sequence[Item]) -> Batch:
        """Hand the requests in as one batch marked with the tag; LostError where nobody knows whether it was made."""
        lines = [batch_protocols.item_line(self._teacher, item) for item in items]
        file_id = ""
        if self._teacher.protocol == "openai":
            body, content_type = batch_protocols.upload(lines)
            file_id = protocols.identifier(self._json("POST", "/files", body, content_type).get("id"))
        return batch_protocols.batch_in(
            self._teacher,
            self._json("POST", self._path, batch_protocols.create_body(self._teacher, tag, lines, file_id), lost=True),
        )

    def find(self, tag: str, size: int, since: float, known: set[str]) -> Batch | None:
        """The batch with the tag, made at Unix time `since` or later; None where there is none.

        Anthropic keeps no marks: a batch that may be the one is watched until its results show whose they are.
        known: ids that belong to others.
        """
        for batch in list(self._listed(since)):
            if self._teacher.protocol == "openai":
                if batch.tag == tag:
                    return batch
            elif batch.id not in known and batch.size == size and self._is_ours(batch, tag):
                return batch
        return None

    def state(self, batch_id: str) -> Batch:
        """How the batch stands now; ConfigError where its provider has forgotten it."""
        return batch_protocols.batch_in(self._teacher, self._json("GET", f"{self._path}/{batch_id}"))

    def results(self, batch: Batch) -> list[Result]:
        """The results of a batch that has ended, in any order; requests that were never done may be missing."""
        return [
            result for path in batch.results for result in batch_protocols.results_in(self._teacher, self._exchange("GET", path))
        ]

    def cancel(self, batch_id: str) -> None:
        """Ask the provider to do no more of it; what it has done is paid."""
        self._json("POST", f"{self._path}/{batch_id}/cancel", b"{}")

    def forget(self, batch: Batch) -> None:
        """Delete what the batch left with the provider, as far as it lets us."""
        for path in batch.files:
            self._transport.exchange("DELETE", path)

    def _is_ours(self, batch: Batch, tag: str) -> bool:
        while not batch.ended:
            if self._stop.wait(self._teacher.limits.batch_poll_seconds):
                raise StoppedError(f"{self._label}: stopped while a batch was waited for")
            batch = self.state(batch.id)
        return any(result.custom_id.startswith(tag) for result in self.results(batch))

    def _listed(self, since: float) -> Iterator[Batch]:
        more = "?limit=100"
        while more:
            found, cursor = batch_protocols.batches_in(self._teacher, self._json("GET", self._path + more))
            yield from (batch for batch in found if batch.created_at >= since - CLOCK_SKEW_SECONDS)
            # Newest first: a page that reaches back further is the last one of use.
            too_old = any(batch.created_at < since - CLOCK_SKEW_SECONDS for batch in found)
            more = f"?limit=100{cursor}" if cursor and not too_old else ""

    def _json(
        self, method: Literal["GET", "POST"], path: str, body: bytes | None = None, content_type: str = "", lost: bool = False
    ) -> dict[str, Any]:
        try:
            found = protocols.parse(self._exchange(method, path, body, content_type, lost))
        except protocols.NotAReply:
            found = None
        if not isinstance(found, dict):
            if lost:
                raise LostError
            raise ConfigError(f"{self._label}: answers {path.partition('?')[0]} with something else than JSON; has it batches?")
        return found

    def _exchange(
        self, method: Literal["GET", "POST"], path: str, body: bytes | None = None, content_type: str = "", lost: bool = False
    ) -> bytes:
        """The body of the 200 that comes at last; LostError, with `lost`, where it is unknown what came of the request."""
        began, tries = time.monotonic(), 0
        while True:
            if self._stop.is_set():
                raise StoppedError(f"{self._label}: stopped")
            found = self._transport.exchange(method, path, body, content_type)
            if isinstance(found, Failure):
                verdict = verdicts.of_failure(found.kind, found.reason)
            elif found.status == 200:
                return found.body
            else:
                verdict = verdicts.classify(self._teacher.protocol, found.status, found.headers, found.body, now=time.time())
            event("teacher_batch", verdict=verdict.kind, reason=verdict.reason, status=verdict.status, code=verdict.code)
            if verdict.kind == "stop":
                raise stop_error(self._label, verdict)
            if verdict.kind not in ("wait", "retry"):
                raise ConfigError(f"{self._label}: refuses a batch (HTTP {verdict.status}, {verdict.code or verdict.reason})")
            if lost and verdict.kind == "retry" and verdict.reason != "not_connected":
                raise LostError
            if verdict.wait_seconds is None and time.monotonic() - began > self._unreachable_seconds:
                raise UnreachableError(f"{self._label}: its batches were out of reach for ten minutes ({verdict.reason})")
            self._stop.wait(max(verdict.wait_seconds or 0.0, backoff_seconds(tries)))
            tries += 1
