"""The two providers' batch APIs, purely: what is sent, and what their answers say.

OpenAI: a file of JSON lines is uploaded, a batch made of it, and results come as an output and an error file. Anthropic: the
requests are in the batch itself, results are one list of JSON lines. Both answer in any order, by `custom_id`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from medkd.config import TeacherConfig
from medkd.teacher import protocols
from medkd.teacher.prompts import Request

MAX_BODY_BYTES = 24 << 20
"""Of the requests of one batch; answers of as many have to fit into one reply that a client reads."""
_BOUNDARY = "medkd-batch-0123456789abcdef"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One request of a batch."""

    custom_id: str
    request: Request


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one request. status 0: it was not done and cost nothing (the batch expired or was cancelled)."""

    custom_id: str
    status: int
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch as its provider describes it."""

    id: str
    tag: str
    """What it was marked with at its making; empty where the provider keeps no such mark."""
    size: int
    """Requests in it; 0 while the provider has not counted them."""
    created_at: float
    ended: bool
    failed: str = ""
    """Code of what made the whole batch fail before anything was done; empty where nothing did."""
    results: tuple[str, ...] = ()
    """Paths of its results below the base URL."""
    files: tuple[str, ...] = ()
    """Paths of what it left with the provider, to be deleted afterwards."""


def batches_path(teacher: TeacherConfig) -> str:
    return "/batches" if teacher.protocol == "openai" else "/messages/batches"


def item_line(teacher: TeacherConfig, item: Item) -> bytes:
    """One request as the batch carries it."""
    path, body = protocols.encode(teacher, item.request)
    if teacher.protocol == "openai":
        head = {"custom_id": item.custom_id, "method": "POST", "url": f"/v1{path}"}
        return json.dumps(head).encode()[:-1] + b', "body": ' + body + b"}"
    return json.dumps({"custom_id": item.custom_id}).encode()[:-1] + b', "params": ' + body + b"}"


def upload(lines: Iterable[bytes]) -> tuple[bytes, str]:
    """Body and content type of the upload of an OpenAI batch's requests."""
    parts = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'.encode(),
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="batch.jsonl"\r\n'.encode(),
        b"Content-Type: application/jsonl\r\n\r\n",
        b"\n".join(lines),
        f"\r\n--{_BOUNDARY}--\r\n".encode(),
    )
    return b"".join(parts), f"multipart/form-data; boundary={_BOUNDARY}"


def create_body(teacher: TeacherConfig, tag: str, lines: Sequence[bytes], file_id: str) -> bytes:
    """The body that makes a batch. Of Anthropic the tag stands in each custom_id alone."""
    if teacher.protocol == "anthropic":
        return b'{"requests": [' + b",".join(lines) + b"]}"
    fields = {
        "input_file_id": file_id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"medkd_batch": tag},
    }
    return json.dumps(fields).encode()


def batch_in(teacher: TeacherConfig, raw: Any) -> Batch:
    """The batch that a parsed body describes; NotAReply where it is none."""
    if not isinstance(raw, dict) or not protocols.identifier(raw.get("id")):
        raise protocols.NotAReply("no batch")
    return _openai_batch(raw) if teacher.protocol == "openai" else _anthropic_batch(raw)


def batches_in(teacher: TeacherConfig, raw: Any) -> tuple[list[Batch], str]:
    """The batches of one page of a list, and the query of the next page, if there is one."""
    listed = raw.get("data") if isinstance(raw, dict) else None
    if not isinstance(listed, list):
        raise protocols.NotAReply("no list of batches")
    found = [batch_in(teacher, batch) for batch in listed]
    cursor = "after" if teacher.protocol == "openai" else "after_id"
    return found, f"&{cursor}={found[-1].id}" if found and raw.get("has_more") else ""


def results_in(teacher: TeacherConfig, body: bytes) -> list[Result]:
    """The results in the lines of an output or error file, or of a list of results; lines that are none are left out."""
    found = []
    for line in body.splitlines():
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError):
            continue
        custom_id = protocols.identifier(raw.get("custom_id")) if isinstance(raw, dict) else ""
        if custom_id:
            found.append(_openai_result(custom_id, raw) if teacher.protocol == "openai" else _anthropic_result(custom_id, raw))
    return found


_OPENAI_ENDS = ("completed", "failed", "expired", "cancelled")


def _openai_batch(raw: dict[str, Any]) -> Batch:
    metadata, counts, errors = (raw.get(name) or {} for name in ("metadata", "request_counts", "errors"))
    ids = [protocols.identifier(raw.get(f"{name}_file_id")) for name in ("output", "error", "input")]
    first = (errors.get("data") or [{}])[0] if isinstance(errors, dict) else {}
    return Batch(
        id=protocols.identifier(raw["id"]),
        tag=protocols.identifier(metadata.get("medkd_batch")) if isinstance(metadata, dict) else "",
        size=int(counts.get("total") or 0),
        created_at=float(raw.get("created_at") or 0),
        ended=raw.get("status") in _OPENAI_ENDS,
        failed=(protocols.identifier(first.get("code")) or "failed") if raw.get("status") == "failed" else "",
        results=tuple(f"/files/{found}/content" for found in ids[:2] if found),
        files=tuple(f"/files/{found}" for found in ids if found),
    )


def _anthropic_batch(raw: dict[str, Any]) -> Batch:
    counts = raw.get("request_counts") or {}
    batch_id = protocols.identifier(raw["id"])
    ended = raw.get("processing_status") == "ended"
    return Batch(
        id=batch_id,
        tag="",
        size=sum(int(count) for count in counts.values()),
        created_at=_seconds(raw.get("created_at")),
        ended=ended,
        results=(f"/messages/batches/{batch_id}/results",) if ended else (),
        files=(f"/messages/batches/{batch_id}",),
    )


def _seconds(moment: Any) -> float:
    try:
        return datetime.fromisoformat(str(moment).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def _openai_result(custom_id: str, raw: dict[str, Any]) -> Result:
    response = raw.get("response")
    if isinstance(response, dict) and isinstance(response.get("status_code"), int):
        return Result(custom_id=custom_id, status=response["status_code"], body=json.dumps(response.get("body")).encode())
    return Result(custom_id=custom_id, status=0)


_ANTHROPIC_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "overloaded_error": 529,
}


def _anthropic_result(custom_id: str, raw: dict[str, Any]) -> Result:
    found = raw.get("result") or {}
    if found.get("type") == "succeeded":
        return Result(custom_id=custom_id, status=200, body=json.dumps(found.get("message")).encode())
    if found.get("type") == "errored":
        error = found.get("error") or {}
        kind = (error.get("error") or {}).get("type") if isinstance(error.get("error"), dict) else error.get("type")
        return Result(custom_id=custom_id, status=_ANTHROPIC_STATUS.get(str(kind), 500), body=json.dumps(error).encode())
    return Result(custom_id=custom_id, status=0)
