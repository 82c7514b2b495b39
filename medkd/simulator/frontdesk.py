"""The front desk: takes an HTTP request, lets the clinic answer it, and decides how the answer goes out.

Order as at a vendor: key, form, model, fault, limits, then the completion, which is billed the moment it is made.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from medkd.records import PATIENT_RECORD, Record
from medkd.samples import conversation_sha256, sha256_hex
from medkd.simulator import anthropic_protocol, clinic, faults, openai_protocol
from medkd.simulator.faults import FaultPlan, chance, parse_faults
from medkd.simulator.ledger import Ledger
from medkd.simulator.limits import RateLimits
from medkd.simulator.options import SimulatorOptions
from medkd.simulator.replies import Call, Reply, VendorError, count_tokens, cut_to_limit
from medkd.simulator.wire import HttpReply, HttpRequest
from medkd.telemetry import event

Send = Callable[[HttpReply], Awaitable[bool]]

_COMPLETIONS = {"/chat/completions": openai_protocol, "/messages": anthropic_protocol}
_HTML_502 = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


class FrontDesk:
    """Everything one server remembers: its counts, its limits and the gold it has written."""

    def __init__(self, options: SimulatorOptions) -> None:
        self.options = options
        self.ledger = Ledger()
        self._limits = RateLimits(requests_per_minute=options.requests_per_minute, tokens_per_minute=options.tokens_per_minute)
        self._faults = FaultPlan(seed=options.seed, occasions=parse_faults(options.faults))
        self._gold = GoldFile(options.write_gold) if options.write_gold else None
        self._num_replies = 0

    def close(self) -> None:
        if self._gold:
            self._gold.close()

    async def serve(self, request: HttpRequest, send: Send) -> bool:
        """Answer one request; says whether the connection can go on."""
        path = request.path.removeprefix("/v1")
        if request.method == "POST" and path in _COMPLETIONS:
            return await self._serve_completion(_COMPLETIONS[path], request, send)
        return await send(self._look_up(path, request))

    def _look_up(self, path: str, request: HttpRequest) -> HttpReply:
        if request.method == "GET" and path == "/stats":
            return _json_reply(200, self.ledger.stats())
        if request.method == "GET" and path == "/billed":
            return _json_reply(200, self.ledger.billed())
        vendor = anthropic_protocol if "anthropic-version" in request.headers else openai_protocol
        try:
            vendor.check_key(request.headers, self.options.api_key)
            if request.method == "GET" and path == "/models":
                return _json_reply(200, vendor.render_models(self.options.models), self._headers(vendor))
            if request.method == "GET" and path.startswith("/models/"):
                self._check_model(path.removeprefix("/models/"))
                return _json_reply(200, vendor.render_model(path.removeprefix("/models/")), self._headers(vendor))
            raise VendorError(status=404, message=f"Invalid URL ({request.method} {request.path})")
        except VendorError as error:
            return self._refusal(vendor, error)

    async def _serve_completion(self, vendor: ModuleType, request: HttpRequest, send: Send) -> bool:
        digest = sha256_hex(request.body)
        call_number, occurrence = self.ledger.arrived(digest)
        try:
            fault = self._faults.choose(call_number=call_number, digest=digest, occurrence=occurrence)
            try:
                reply = self._complete(vendor, request, digest, fault)
            except VendorError as error:
                return await send(self._refusal(vendor, error))
            except Exception as error:  # a body of a shape nobody thought of must not end the connection without a reply
                event("simulator_failed", level=logging.ERROR, error=type(error).__name__)
                return await send(self._refusal(vendor, VendorError(status=500, message="Internal error.", kind="server_error")))
            if reply.status == 200:
                await self._think(digest, occurrence)
            return await send(reply)
        finally:
            self.ledger.left()

    async def _think(self, digest: str, occurrence: int) -> None:
        seconds, jitter = self.options.latency_seconds, self.options.latency_jitter
        if seconds > 0:
            swing = 2 * chance(f"{self.options.seed} latency {digest} {occurrence}") - 1
            await asyncio.sleep(seconds * (1 + jitter * swing))

    def _complete(self, vendor: ModuleType, request: HttpRequest, digest: str, fault: str | None) -> HttpReply:
        """The reply to one call for a completion, billed if one was made; VendorError where the vendor refuses."""
        vendor.check_key(request.headers, self.options.api_key)
        call: Call = vendor.parse_call(_json_object(request.body), request.headers)
        self._check_model(call.model)
        if fault in ("reset_before", "html_502"):
            self.ledger.fault(fault)
            if fault == "html_502":
                return HttpReply(status=502, body=_HTML_502, content_type="text/html")
            return HttpReply(status=500, body=b"", travels="reset")
        if fault in faults.REFUSALS:
            self._refuse_by(fault, vendor)
        prompt_tokens = sum(count_tokens(text) for _, text in call.question.messages)
        self._check_limits(prompt_tokens + (call.reply_limit or 0))
        reply = self._bill(call, digest, prompt_tokens, fault)
        http_reply = _json_reply(200, vendor.render_reply(call, reply, digest), self._headers(vendor))
        return self._on_the_line(http_reply, fault)

    def _refuse_by(self, fault: str, vendor: ModuleType) -> None:
        self.ledger.fault(fault)
        if fault in faults.TERMINAL:
            self.ledger.ended()
        if fault in faults.WAITS:
            self.ledger.ordered_wait(faults.WAITS[fault])
        raise faults.REFUSALS[fault]("anthropic" if vendor is anthropic_protocol else "openai")

    def _check_model(self, model: str) -> None:
        if model not in self.options.models:
            message = f"The model `{model}` does not exist or you do not have access to it."
            raise VendorError(status=404, message=message, code="model_not_found")

    def _check_limits(self, tokens: int) -> None:
        wait = self._limits.take(tokens)
        if wait > 0:
            self.ledger.ordered_wait(wait)
            raise VendorError(
                status=429,
                message=f"Rate limit reached. Please try again in {wait:.3f}s.",
                kind="requests",
                code="rate_limit_exceeded",
                headers={"retry-after": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))},
            )

    def _bill(self, call: Call, digest: str, prompt_tokens: int, fault: str | None) -> Reply:
        """Make the completion. From here on it costs, whatever becomes of the reply."""
        answer = clinic.answer(call.question)
        text, finish = cut_to_limit(answer.text, call.reply_limit)
        reply = Reply(text=text, finish=finish, prompt_tokens=prompt_tokens, completion_tokens=count_tokens(text))
        self.ledger.bill(digest)
        if answer.gold is not None and finish == "stop" and self._gold:
            self._gold.add(text, answer.gold)
        if fault in faults.SPOILERS and (call.question.wants_json or fault not in faults.RECORD_SPOILERS):
            self.ledger.fault(fault)
            return faults.SPOILERS[fault](reply)
        return reply

    def _on_the_line(self, reply: HttpReply, fault: str | None) -> HttpReply:
        match fault:
            case "reset_after":
                reply = replace(reply, travels="reset")
            case "cut_body":
                reply = replace(reply, travels="cut")
            case "hang":
                reply = replace(reply, travels="hang")
            case "blank_lines":
                reply = replace(reply, travels="blank_lines")
            case _:
                return reply
        self.ledger.fault(fault)
        return reply

    def _headers(self, vendor: ModuleType) -> dict[str, str]:
        self._num_replies += 1
        headers: dict[str, str] = vendor.reply_headers(f"req_{self._num_replies:012d}", self._limits.allowance())
        return headers

    def _refusal(self, vendor: ModuleType, error: VendorError) -> HttpReply:
        headers = self._headers(vendor)
        request_id = headers.get("request-id", headers.get("x-request-id", ""))
        return _json_reply(error.status, vendor.render_error(error, request_id), {**headers, **error.headers})


class GoldFile:
    """Appends one line for each different conversation, also across restarts."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._known = set(_known_conversations(path))
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def add(self, conversation: str, record: Record) -> None:
        digest = conversation_sha256(conversation.strip())
        if digest not in self._known:
            self._known.add(digest)
            ordered = json.loads(PATIENT_RECORD.canonical(record))
            line = json.dumps({"conversation_sha256": digest, "record": ordered})
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def _known_conversations(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [json.loads(line)["conversation_sha256"] for line in path.read_text("utf-8").splitlines() if line.strip()]


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise VendorError(status=400, message="We could not parse the JSON body of your request.") from error
    if not isinstance(value, dict):
        raise VendorError(status=400, message="The body of your request must be a JSON object.")
    return value


def _json_reply(status: int, value: object, headers: dict[str, str] | None = None) -> HttpReply:
    try:
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # a lone surrogate can only travel escaped
        body = json.dumps(value, separators=(",", ":")).encode()
    return HttpReply(status=status, body=body, headers=headers or {})
