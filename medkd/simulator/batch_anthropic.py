"""Anthropic's message batches: paths, shapes, and the list of results."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from medkd.simulator.batch_desk import BatchDesk, HeldBatch, Item
from medkd.simulator.replies import VendorError, required
from medkd.simulator.wire import HttpRequest

PREFIX = "msgbatch"


def serve(desk: BatchDesk, request: HttpRequest, path: str) -> Any:
    """The answer to a request below `/messages/batches`: a JSON value, or the bytes of a list. VendorError where refused."""
    method, headers, body = request.method, request.headers, request.body
    parts = path.strip("/").split("/")[2:]
    if not headers.get("anthropic-version"):
        raise VendorError(status=400, message="anthropic-version: header is required")
    if method == "POST" and not parts:
        items = [_item(raw) for raw in required(json.loads(body), "requests", list)]
        if len({item.custom_id for item in items}) != len(items):
            raise VendorError(status=400, message="requests: custom_id must be unique")
        return _shown(desk.make(PREFIX, items, headers))
    if method == "GET" and not parts:
        page = desk.page(PREFIX, request.query, cursor="after_id")
        data = [_shown(batch) for batch in page.batches]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
        return {"data": data, "has_more": page.has_more, **ends}
    batch = desk.get(parts[0])
    if batch is None:
        raise VendorError(status=404, message="Message batch not found.")
    if method == "POST" and parts[1:] == ["cancel"]:
        batch.cancelled = True
        return _shown(desk.get(batch.id) or batch)
    if method == "GET" and parts[1:] == ["results"]:
        if not batch.ended:
            raise VendorError(status=404, message="The results of this batch are not available yet.")
        return "".join(json.dumps(_line(batch, item)) + "\n" for item in reversed(batch.items)).encode()
    if method == "DELETE" and len(parts) == 1:
        del desk.batches[batch.id]
        return {"id": batch.id, "type": "message_batch_deleted"}
    if method == "GET" and len(parts) == 1:
        return _shown(batch)
    raise VendorError(status=404, message="Not found.")


def _item(raw: dict[str, Any]) -> Item:
    body = json.dumps(required(raw, "params", dict), ensure_ascii=False, separators=(",", ":")).encode()
    return Item(custom_id=required(raw, "custom_id", str), body=body)


def _shown(batch: HeldBatch) -> dict[str, Any]:
    counts = batch.counts()
    created = datetime.fromtimestamp(batch.created_at, UTC).isoformat().replace("+00:00", "Z")
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "ended" if batch.ended else "in_progress",
        "request_counts": {
            "processing": counts["waiting"],
            "succeeded": counts["succeeded"],
            "errored": counts["errored"],
            "canceled": counts["expired"] if batch.cancelled else 0,
            "expired": 0 if batch.cancelled else counts["expired"],
        },
        "created_at": created,
        "results_url": f"/v1/messages/batches/{batch.id}/results" if batch.ended else None,
    }


def _line(batch: HeldBatch, item: Item) -> dict[str, Any]:
    result: dict[str, Any]
    if item.status == 0:
        result = {"type": "canceled" if batch.cancelled else "expired"}
    elif item.status == 200:
        result = {"type": "succeeded", "message": item.answer}
    else:
        result = {"type": "errored", "error": item.answer}
    return {"custom_id": item.custom_id, "result": result}
