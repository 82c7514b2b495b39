"""The front desk: takes an HTTP request, lets the clinic answer it, and decides how the answer goes out.

Order as at a vendor: key, form, model, fault, limits, then the completion, which is billed the moment it is made.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

from medkd.errors import ConfigError
from medkd.samples import sha256_hex
from medkd.simulator import anthropic_protocol, batch_anthropic, batch_openai, clinic, openai_protocol
from medkd.simulator.batch_desk import BatchDesk
from medkd.simulator.faults import FAULTS, LINE, LOST, FaultPlan, chance, parse_faults, split_model
from medkd.simulator.gold import GoldFile
from medkd.simulator.ledger import Ledger
from medkd.simulator.limits import RateLimits
from medkd.simulator.options import SimulatorOptions
from medkd.simulator.refusals import REFUSALS, Asked, Protocol
from medkd.simulator.replies import Call, Reply, VendorError, count_tokens, cut_to_limit
from medkd.simulator.spoilers import FINISHES, RECORD_SPOILERS, SPOILERS
from medkd.simulator.wire import TRAVELS, HttpReply, HttpRequest
from medkd.telemetry import event

Send = Callable[[HttpReply], Awaitable[bool]]

_COMPLETIONS = {"/chat/completions": openai_protocol, "/messages": anthropic_protocol}


class FrontDesk:
    """Everything one server remembers: its counts, its limits and the gold it has written."""

    def __init__(self, options: SimulatorOptions) -> None:
        self.options = options
        self.ledger = Ledger(grace_seconds=options.grace_seconds)
        self._limits = RateLimits(
            requests_per_minute=options.requests_per_minute,
            tokens_per_minute=options.tokens_per_minute,
            kind=options.limiter,
        )
        self._gold = GoldFile(options.write_gold) if options.write_gold else None
        self._num_replies = 0
        self._batches = BatchDesk(
            seconds=options.batch_seconds, expire=options.batch_expire, seed=options.seed, complete=self._complete_item
        )
        self.set_faults(options.faults)

    def set_faults(self, spec: str) -> None:
        """From now on these faults strike, and call numbers count anew; ConfigError for a wrong spec."""
        self._faults = FaultPlan(seed=self.options.seed, occasions=parse_faults(spec))
        self._spec = spec
        self._calls_before = self.ledger.requests

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
        if path == "/faults" and request.method in ("GET", "PUT"):
            return self._control_faults(request)
        vendor = anthropic_protocol if "anthropic-version" in request.headers else openai_protocol
        try:
            vendor.check_key(request.headers, self.options.api_key)
            if path.startswith(("/files", "/batches", "/messages/batches")):
                return self._serve_batches(vendor, path, request)
            if request.method == "GET" and path == "/models":
                return _json_reply(200, vendor.render_models(self.options.models), self._headers(vendor))
            if request.method == "GET" and path.startswith("/models/"):
                self._check_model(path.removeprefix("/models/"))
                return _json_reply(200, vendor.render_model(path.removeprefix("/models/")), self._headers(vendor))
            raise VendorError(status=404, message=f"Invalid URL ({request.method} {request.path})")
        except VendorError as error:
            return self._refusal(vendor, error)

    def _serve_batches(self, vendor: ModuleType, path: str, request: HttpRequest) -> HttpReply:
        protocol = batch_anthropic if path.startswith("/messages") else batch_openai
        answer = protocol.serve(self._batches, request, path)
        if isinstance(answer, bytes):
            return HttpReply(status=200, body=answer, headers=self._headers(vendor), content_type="application/octet-stream")
        return _json_reply(200, answer, self._headers(vendor))

    def _complete_item(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body for one request of a batch, billed like a call; what happens on the line does not happen to it."""
        vendor = anthropic_protocol if "anthropic-version" in headers else openai_protocol
        digest = sha256_hex(body)
        call_number, occurrence = self.ledger.arrived(digest)
        try:
            item = HttpRequest(method="POST", path="", headers=headers, body=body)
            reply, usable = self._complete(vendor, item, digest, call_number - self._calls_before, occurrence)
        except VendorError as error:
            reply, usable = self._refusal(vendor, error), False
        finally:
            self.ledger.left()
        if usable:
            self.ledger.answered(digest)
        return reply.status, reply.body

    def _control_faults(self, request: HttpRequest) -> HttpReply:
        """`PUT /faults` with a spec as its body sets the faults, `GET /faults` tells them and all there are."""
        if request.method == "PUT":
            try:
                self.set_faults(request.body.decode("utf-8", "replace"))
            except ConfigError as error:
                return _json_reply(400, {"error": {"message": str(error)}})
        return _json_reply(200, {"faults": self._spec, "known": sorted(FAULTS)})

    async def _serve_completion(self, vendor: ModuleType, request: HttpRequest, send: Send) -> bool:
        digest = sha256_hex(request.body)
        call_number, occurrence = self.ledger.arrived(digest)
        try:
            try:
                reply, usable = self._complete(vendor, request, digest, call_number - self._calls_before, occurrence)
            except VendorError as error:
                reply, usable = self._refusal(vendor, error), False
            except Exception as error:  # a body of a shape nobody thought of must not end the connection without a reply
                event("simulator_failed", level=logging.ERROR, error=type(error).__name__)
                failed = VendorError(status=500, message="Internal error.", kind="server_error")
                reply, usable = self._refusal(vendor, failed), False
            if usable:
                await self._think(digest, occurrence)
            self.ledger.answering(reply.status)
            goes_on = await send(reply)
            if usable:
                self.ledger.answered(digest)
            return goes_on
        finally:
            self.ledger.left()

    async def _think(self, digest: str, occurrence: int) -> None:
        seconds, jitter = self.options.latency_seconds, self.options.latency_jitter
        if seconds > 0:
            swing = 2 * chance(f"{self.options.seed} latency {digest} {occurrence}") - 1
            await asyncio.sleep(seconds * (1 + jitter * swing))

    def _complete(
        self, vendor: ModuleType, request: HttpRequest, digest: str, call_number: int, occurrence: int
    ) -> tuple[HttpReply, bool]:
        """The reply to one call for a completion, billed if one was made, and whether the call need not be sent again.

        VendorError where the vendor refuses.
        """
        vendor.check_key(request.headers, self.options.api_key)
        call: Call = vendor.parse_call(_json_object(request.body), request.headers)
        plan = self._check_model(call.model)
        fault = plan.choose(call_number=call_number, digest=digest, occurrence=occurrence)
        if not call.question.wants_json and (fault in RECORD_SPOILERS or (fault in REFUSALS and REFUSALS[fault].records_only)):
            fault = None
        if fault is not None:
            self.ledger.fault(fault)
        if fault in REFUSALS:
            self._refuse_by(fault, vendor, request, call)
        if fault == "reset_before":
            return HttpReply(status=500, body=b"", travels="reset"), False
        prompt_tokens = sum(count_tokens(text) for _, text in call.question.messages)
        room = call.reply_limit or 0
        self._check_limits(prompt_tokens + room)
        reply = self._bill(call, digest, prompt_tokens, fault)
        self._limits.give_back(room - reply.completion_tokens)
        http_reply = _json_reply(200, vendor.render_reply(call, reply, digest), self._headers(vendor))
        return _on_the_line(http_reply, fault), not (fault in LOST or fault in FINISHES)

    def _refuse_by(self, fault: str, vendor: ModuleType, request: HttpRequest, call: Call) -> None:
        refusal = REFUSALS[fault]
        if refusal.ends:
            self.ledger.ended()
        if refusal.wait_seconds:
            self.ledger.ordered_wait(refusal.wait_seconds)
        key = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        text = next((text for role, text in reversed(call.question.messages) if role == "user"), "")
        protocol: Protocol = "anthropic" if vendor is anthropic_protocol else "openai"
        raise refusal.error(Asked(protocol=protocol, key=key.strip(), text=text))

    def _check_model(self, model: str) -> FaultPlan:
        """The faults of a model that exists, its name's own before those of the server."""
        missing = f"The model `{model}` does not exist or you do not have access to it."
        try:
            name, occasions = split_model(model)
        except ConfigError as error:
            raise VendorError(status=404, message=str(error), code="model_not_found") from error
        if name not in self.options.models:
            raise VendorError(status=404, message=missing, code="model_not_found")
        return replace(self._faults, occasions=(*occasions, *self._faults.occasions)) if occasions else self._faults

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
        if answer.gold is not None and finish == "stop" and self._gold:
            self._gold.add(text, answer.gold)
        reply = SPOILERS[fault](reply) if fault in SPOILERS else reply
        # What the usage says is what the bill says, also where it looks wrong.
        self.ledger.bill(digest, prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
        return reply

    def _headers(self, vendor: ModuleType) -> dict[str, str]:
        self._num_replies += 1
        headers: dict[str, str] = vendor.reply_headers(f"req_{self._num_replies:012d}", self._limits.allowance())
        return headers

    def _refusal(self, vendor: ModuleType, error: VendorError) -> HttpReply:
        headers = self._headers(vendor)
        request_id = headers.get("request-id", headers.get("x-request-id", ""))
        headers = {**headers, **error.headers}
        if isinstance(error.body, str):
            return HttpReply(status=error.status, body=error.body.encode(), headers=headers, content_type=error.content_type)
        return _json_reply(error.status, error.body or vendor.render_error(error, request_id), headers)


def _on_the_line(reply: HttpReply, fault: str | None) -> HttpReply:
    if fault == "byte_order_mark":
        return replace(reply, body=b"\xef\xbb\xbf" + reply.body)
    if fault == "wrong_charset":
        return replace(reply, content_type="application/json; charset=iso-8859-1")
    return replace(reply, travels=TRAVELS[fault]) if fault in LINE else reply


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
