"""OpenAI's files and batches: paths, shapes, and the two result files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from medkd.simulator.batch_desk import BatchDesk, HeldBatch, Item, Page
from medkd.simulator.replies import VendorError, required
from medkd.simulator.wire import HttpRequest

PREFIX = "batch"


def serve(desk: BatchDesk, request: HttpRequest, path: str) -> Any:
    """The answer to a request below `/files` or `/batches`: a JSON value, or the bytes of a file. VendorError where refused."""
    method, headers, body = request.method, request.headers, request.body
    parts = path.strip("/").split("/")
    if parts[0] == "files":
        return _files(desk, method, parts[1:], headers, body)
    if method == "POST" and len(parts) == 1:
        return _shown(desk, _make(desk, headers, body))
    if method == "GET" and len(parts) == 1:
        return _page(desk, desk.page(PREFIX, request.query, cursor="after"))
    batch = desk.get(parts[1])
    if batch is None:
        raise VendorError(status=404, message=f"No batch found with id '{parts[1]}'.")
    if method == "POST" and parts[2:] == ["cancel"]:
        batch.cancelled = True
        return _shown(desk, desk.get(batch.id) or batch)
    if method == "GET" and len(parts) == 2:
        return _shown(desk, batch)
    raise VendorError(status=404, message=f"Invalid URL ({method} /v1{path})")


def _page(desk: BatchDesk, page: Page) -> dict[str, Any]:
    data = [_shown(desk, batch) for batch in page.batches]
    return {
        "object": "list",
        "data": data,
        "has_more": page.has_more,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def _files(desk: BatchDesk, method: str, parts: list[str], headers: Mapping[str, str], body: bytes) -> Any:
    if method == "POST" and not parts:
        form = _form(headers.get("content-type", ""), body)
        if form.get("purpose") != b"batch" or "file" not in form:
            raise VendorError(status=400, message="'file' and 'purpose' are required.", param="purpose")
        file_id = desk.keep(form["file"])
        return {"id": file_id, "object": "file", "bytes": len(form["file"]), "filename": "batch.jsonl", "purpose": "batch"}
    if not parts or parts[0] not in desk.files:
        raise VendorError(status=404, message="No such File object.")
    if method == "GET" and parts[1:] == ["content"]:
        return desk.files[parts[0]]
    if method == "DELETE" and len(parts) == 1:
        del desk.files[parts[0]]
        return {"id": parts[0], "object": "file", "deleted": True}
    raise VendorError(status=404, message="Invalid URL")


def _form(content_type: str, body: bytes) -> dict[str, bytes]:
    boundary = re.search(r"boundary=([^;]+)", content_type)
    if not boundary:
        raise VendorError(status=400, message="Expected multipart/form-data.")
    found = {}
    for part in body.split(b"--" + boundary[1].strip('"').encode()):
        head, _, data = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]+)"', head)
        if name:
            found[name[1].decode()] = data.removesuffix(b"\r\n")
    return found


def _make(desk: BatchDesk, headers: Mapping[str, str], body: bytes) -> HeldBatch:
    fields = json.loads(body)
    file_id = required(fields, "input_file_id", str)
    if required(fields, "endpoint", str) != "/v1/chat/completions" or required(fields, "completion_window", str) != "24h":
        raise VendorError(status=400, message="Invalid value for 'endpoint' or 'completion_window'.", code="invalid_value")
    if file_id not in desk.files:
        raise VendorError(status=400, message="input_file_id: no such file", param="input_file_id")
    lines = [json.loads(line) for line in desk.files[file_id].splitlines() if line.strip()]
    if len({line["custom_id"] for line in lines}) != len(lines):
        raise VendorError(status=400, message="Duplicate custom_id.", code="duplicate_custom_id")
    items = [Item(custom_id=line["custom_id"], body=_encoded(line["body"])) for line in lines]
    return desk.make(PREFIX, items, headers, metadata=dict(fields.get("metadata") or {}), input_file=file_id)


def _encoded(value: Any) -> bytes:
    """As the client writes a call's body, so that a request counts as the same however it came."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _shown(desk: BatchDesk, batch: HeldBatch) -> dict[str, Any]:
    counts = batch.counts()
    outputs: dict[str, str | None] = {"output_file_id": None, "error_file_id": None}
    status = "in_progress"
    if batch.ended:
        status = "cancelled" if batch.cancelled else "expired" if counts["expired"] else "completed"
        good = [item for item in batch.items if item.status == 200]
        bad = [item for item in batch.items if item.status != 200]
        for name, items in (("output", good), ("error", bad)):
            file_id = f"file-{name}-{batch.id}"
            if items and file_id not in desk.files:
                # In an order of its own: only the custom_id says whose answer a line is.
                lines = [json.dumps(_line(batch, item)) for item in reversed(items)]
                desk.files[file_id] = "\n".join(lines).encode() + b"\n"
            outputs[f"{name}_file_id"] = file_id if items else None
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "errors": None,
        "input_file_id": batch.input_file,
        "completion_window": "24h",
        "status": status,
        **outputs,
        "created_at": int(batch.created_at),
        "request_counts": {"total": len(batch.items), "completed": counts["succeeded"], "failed": counts["errored"]},
        "metadata": batch.metadata,
    }


def _line(batch: HeldBatch, item: Item) -> dict[str, Any]:
    head = {"id": f"batch_req_{item.custom_id[-12:]}", "custom_id": item.custom_id}
    if item.status == 0:
        code = "batch_cancelled" if batch.cancelled else "batch_expired"
        return {**head, "response": None, "error": {"code": code, "message": "This request was not executed in time."}}
    response = {"status_code": item.status, "request_id": f"req_{item.custom_id[-12:]}", "body": item.answer}
    return {**head, "response": response, "error": None}
