"""The vendors' batch desk: takes many requests at once, does them when their time has come, and keeps what came of each.

Both protocols' batches are made, watched, listed, cancelled and read here; their shapes are in `batch_openai` and
`batch_anthropic`. An item is answered, billed and spoilt like a single call. A share of a batch's items may expire undone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from medkd.simulator.faults import chance
from medkd.simulator.replies import VendorError

LONGEST_PAGE = 100

Complete = Callable[[bytes, Mapping[str, str]], tuple[int, bytes]]
"""Status and body of the answer to one request's body."""


@dataclass
class Item:
    """One request of a batch. status: None before it is done, 0 where it expired or was cancelled undone."""

    custom_id: str
    body: bytes
    status: int | None = None
    answer: Any = None


@dataclass
class HeldBatch:
    """One batch."""

    id: str
    number: int
    """Of all that were ever made, from 0."""
    created_at: float
    items: list[Item]
    headers: Mapping[str, str]
    metadata: dict[str, str] = field(default_factory=dict)
    input_file: str = ""
    cancelled: bool = False
    ended: bool = False

    def counts(self) -> dict[str, int]:
        """Items by what became of them."""
        states = [item.status for item in self.items]
        done = {"succeeded": states.count(200), "expired": states.count(0), "waiting": states.count(None)}
        return {**done, "errored": len(states) - sum(done.values())}


@dataclass(frozen=True)
class Page:
    """A part of a list of batches, and whether there are more after it."""

    batches: list[HeldBatch]
    has_more: bool


class BatchDesk:
    """All batches of one server."""

    def __init__(self, *, seconds: float, expire: float, seed: int, complete: Complete) -> None:
        """seconds: from making to end. expire: share of items that expire undone; below 1, none in every third batch."""
        self.batches: dict[str, HeldBatch] = {}
        self.files: dict[str, bytes] = {}
        self._num_made = self._num_files = 0
        self._seconds = seconds
        self._expire = expire
        self._seed = seed
        self._complete = complete

    def make(self, prefix: str, items: list[Item], headers: Mapping[str, str], **more: Any) -> HeldBatch:
        number, self._num_made = self._num_made, self._num_made + 1
        batch = HeldBatch(
            id=f"{prefix}_{number:012d}", number=number, created_at=time.time(), items=items, headers=headers, **more
        )
        self.batches[batch.id] = batch
        return batch

    def get(self, batch_id: str) -> HeldBatch | None:
        """The batch as it is by now."""
        batch = self.batches.get(batch_id)
        if batch and not batch.ended and (batch.cancelled or time.time() >= batch.created_at + self._seconds):
            self._end(batch)
        return batch

    def listed(self, prefix: str) -> list[HeldBatch]:
        """Batches of one protocol, newest first."""
        return [found for batch_id in reversed(self.batches) if batch_id.startswith(prefix) and (found := self.get(batch_id))]

    def page(self, prefix: str, query: str, *, cursor: str) -> Page:
        """The page that a request's query asks for: `limit` of the list (20), after the id that stands under `cursor`."""
        asked = dict(parse_qsl(query))
        limit = asked.get("limit", "20")
        if not limit.isdigit() or not 1 <= int(limit) <= LONGEST_PAGE:
            raise VendorError(status=400, message=f"limit: expected 1 to {LONGEST_PAGE}, got {limit!r}", param="limit")
        found = self.listed(prefix)
        ids = [batch.id for batch in found]
        if after := asked.get(cursor):
            if after not in ids:
                raise VendorError(status=400, message=f"{cursor}: no such batch", param=cursor)
            found = found[ids.index(after) + 1 :]
        return Page(found[: int(limit)], len(found) > int(limit))

    def keep(self, data: bytes) -> str:
        """Store a file; its id."""
        self._num_files += 1
        file_id = f"file-{self._num_files:012d}"
        self.files[file_id] = data
        return file_id

    def _end(self, batch: HeldBatch) -> None:
        batch.ended = True
        for item in batch.items:
            lucky = chance(f"{self._seed} batch {batch.number} {item.custom_id.rpartition('_')[2]}") >= self._expire
            spared = batch.number % 3 == 2 and self._expire < 1
            if batch.cancelled or not (lucky or spared):
                item.status = 0
                continue
            item.status, body = self._complete(item.body, batch.headers)
            try:
                item.answer = json.loads(body.removeprefix(b"\xef\xbb\xbf"))
            except ValueError:
                item.answer = {"error": {"message": "", "type": "server_error", "code": None}}
