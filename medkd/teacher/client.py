"""The one way to ask a teacher: sends, waits, retries, counts money, and says in plain values what came of it.

    client = TeacherClient(teacher, api_key=key, share=4, stop=stop)
    answer = client.ask(request, reserve)          # from any number of threads

Only errors of `medkd.errors` leave this room, and neither they nor the log ever hold a key, a prompt or an answer.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, NoReturn

from medkd.config import TeacherConfig
from medkd.errors import ConfigError, MedkdError, StoppedError, UnreachableError
from medkd.teacher import endpoints, limit_headers, protocols, verdicts
from medkd.teacher.batches import Batches
from medkd.teacher.pacing import Pacing, Patience, Ticket
from medkd.teacher.prices import cost_usd, upper_bound_usd
from medkd.teacher.prompts import Request
from medkd.teacher.protocols import Reply
from medkd.teacher.rates import TokenEstimate, backoff_seconds
from medkd.teacher.scrubbing import Scrubber
from medkd.teacher.stops import stop_error
from medkd.teacher.transport import Failure, HttpAnswer, Transport
from medkd.teacher.verdicts import Verdict
from medkd.telemetry import event

Reserve = Callable[[float], None]
"""Called before a send with the most it can cost (US dollars); may block, and may raise to prevent the send."""
Release = Callable[[float], None]
"""Told how much of what was reserved for a question no send of it can have cost."""

PROBE_REPLY_LIMIT = 256
MAX_CHARACTERS_PER_TOKEN = 12
"""More than this in any language, and the server cut the prompt."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of one question."""

    outcome: Literal["reply", "repair", "reject"]
    """`reply`: use it; `repair`: ask again with something changed; `reject`: the record cannot be had."""
    reason: str
    """`reply`; `length`, `empty`, `json_validate_failed`; `refused`, `too_long`, `prompt_cut`, `attempts_exhausted`, .."""
    reply: Reply | None
    """Present whenever the teacher wrote one, also for `repair` and `reject`."""
    attempts: int
    """Sends that count against the record: neither ordered waits nor an outage of the teacher do."""
    cost_usd: float
    """What the usage of all attempts says, answers that could not be used included."""
    possibly_usd: float
    """Reservations of attempts whose outcome or usage is unknown."""
    at: str
    """When it was over, RFC 3339 UTC."""
    seconds: float | None = None
    """How long its sends were with the teacher, the waits before and between them left out; None: of a batch."""


def _unreserved(upper_bound_usd: float) -> None:
    """For calls outside any budget."""


def _kept(unspent_usd: float) -> None:
    """For callers who let a reservation stand where no answer comes."""


@dataclass(frozen=True, kw_only=True)
class _Call:
    """One request as it is sent, again and again if need be."""

    record: int
    method: Literal["GET", "POST"]
    path: str
    body: bytes | None = None
    texts: tuple[str, ...] = ()
    """Of the prompt."""
    characters: int = 0
    """Of the prompt, for the estimate of its tokens."""
    reply_limit: int = 0


@dataclass
class _Ledger:
    """What the sends of one question have cost so far."""

    reserve: Reserve
    attempts: int = 0
    cost_usd: float = 0.0
    possibly_usd: float = 0.0
    seconds: float = 0.0
    """With the teacher."""
    reserved_usd: float = 0.0
    held_usd: float | None = None
    """A reservation that no send has used up yet."""

    def cover(self, upper_bound_usd: float) -> None:
        """Make sure that the next send is reserved for; a reservation whose send cost nothing covers the next one too."""
        if self.held_usd is None or self.held_usd < upper_bound_usd:
            self.reserve(upper_bound_usd)
            self.reserved_usd += upper_bound_usd
            self.held_usd = upper_bound_usd

    def settle(self, cost_usd: float, possibly_usd: float) -> None:
        self.cost_usd += cost_usd
        self.possibly_usd += possibly_usd
        if cost_usd or possibly_usd:
            self.held_usd = None

    @property
    def unspent_usd(self) -> float:
        """What was reserved and is not used up by what the sends have cost, or possibly cost; to be asked between sends."""
        return max(0.0, self.reserved_usd - self.cost_usd - self.possibly_usd)


class _RejectedAtStart:
    """Counts records rejected alike before any succeeded: then the request is wrong, and not the records."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._succeeded = False
        self._last: tuple[int, str, str] | None = None
        self._count = 0

    def succeeded(self) -> None:
        self._succeeded = True

    def count(self, verdict: Verdict) -> int:
        """How many records in a row were rejected like this one; 0 once any has succeeded."""
        with self._lock:
            alike = (verdict.status, verdict.code, verdict.field)
            self._count = self._count + 1 if alike == self._last else 1
            self._last = alike
            return 0 if self._succeeded else self._count


_OUTCOMES: dict[str, Literal["reply", "repair", "reject"]] = {"ok": "reply", "repair": "repair", "reject": "reject"}


class TeacherClient:
    """Asks one teacher for all threads of this process. After a verdict that stops the teacher no thread sends anything more."""

    def __init__(
        self,
        teacher: TeacherConfig,
        *,
        api_key: str | None,
        share: int = 1,
        stop: threading.Event,
        max_park_seconds: float = 30 * 3600,
        unreachable_seconds: float = 600,
        max_attempts: int = 5,
        proxies: Mapping[str, str] | None = None,
        ca_bundle: str | None = None,
        on_park: Callable[[float | None], None] = lambda until: None,
    ) -> None:
        """share: processes that use the key at once; this one takes its part of the limits.
        on_park: told the Unix time until which everything waits when a long wait begins or moves, None when it is over.
        ConfigError for a key, URL or CA bundle that cannot work.
        """
        self._teacher = teacher
        self._max_attempts = max_attempts
        self._key = endpoints.checked_key(teacher, api_key)
        endpoints.check(teacher, self._key, ca_bundle)
        self._label = endpoints.label(teacher)
        self._scrubber = Scrubber(self._key)
        self._own_names = (teacher.model, *teacher.extra_body)
        self._transport = Transport(
            teacher.base_url,
            protocols.headers(teacher, self._key),
            threads=max(1, teacher.limits.max_concurrency // share) + 1,
            deadline_seconds=teacher.call_deadline_seconds,
            proxies=proxies,
            ca_bundle=ca_bundle,
        )
        self._pacing = Pacing(
            self._label,
            teacher.limits,
            share=share,
            patience=Patience(unreachable_seconds=unreachable_seconds, max_park_seconds=max_park_seconds),
            stop=stop,
            on_park=on_park,
        )
        self._estimate = TokenEstimate()
        self._records = itertools.count()
        self._start = _RejectedAtStart()

    def ask(self, request: Request, reserve: Reserve, release: Release = _kept) -> Answer:
        """The teacher's answer to `request`, after as many waits and retries as it takes.

        Every send is covered by a reservation of its own, except that one whose send cost nothing serves again. What they add
        up to is never less than the answer's `cost_usd` + `possibly_usd`, as long as the teacher keeps to the reply limit.
        Raises RefusedError, ConfigError or UnreachableError when the teacher is over for this run, StoppedError when the run
        stops; what `reserve` raises passes through, and nothing is sent. `release` is told first what was reserved in vain: most
        calls that an end finds waiting were never sent.
        """
        call = self._call(request)
        ledger = _Ledger(reserve)
        try:
            verdict = self._until_over(call, ledger)
        except MedkdError:
            release(ledger.unspent_usd)
            raise
        return Answer(
            outcome=_OUTCOMES[verdict.kind],
            reason=verdict.reason,
            reply=verdict.reply,
            attempts=ledger.attempts,
            cost_usd=ledger.cost_usd,
            possibly_usd=ledger.possibly_usd,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            seconds=round(ledger.seconds, 3),
        )

    def upper_bound_usd(self, request: Request) -> float:
        """The most that one send of the request can cost."""
        return self._upper_bound_usd(self._call(request))

    def judge(self, request: Request, status: int, body: bytes) -> tuple[Verdict, float, float]:
        """The verdict on an answer that came another way than by `ask`, what it cost and what it possibly cost.

        Raises as `ask` does where the verdict is that this teacher is over for the run.
        """
        call = self._call(request)
        verdict = self._judged(call, HttpAnswer(status=status, headers={}, body=body))
        if verdict.kind == "stop":
            self._stop(verdict)
        if verdict.kind in _OUTCOMES:
            self._stop_if_request_is_wrong(verdict)
        return verdict, *self._price(verdict, self._upper_bound_usd(call), {})

    def batches(self, stop: threading.Event) -> Batches:
        """The provider's batches, for a teacher in `mode: batch`."""
        return Batches(self._teacher, self._transport, self._label, stop)

    def _call(self, request: Request) -> _Call:
        path, body = protocols.encode(self._teacher, request)
        texts = tuple(message.text for message in request.messages)
        return _Call(
            record=next(self._records),
            method="POST",
            path=path,
            body=body,
            texts=texts,
            characters=sum(map(len, texts)),
            reply_limit=request.reply_limit,
        )

    def _upper_bound_usd(self, call: _Call) -> float:
        return upper_bound_usd(self._teacher.prices, len(call.body or b""), call.reply_limit, _hour_utc())

    def probe(self, request: Request, reserve: Reserve = _unreserved, release: Release = _kept) -> Answer:
        """One small call with the parameters of real ones, to fail now and not in the thousandth; ConfigError if refused."""
        answer = self.ask(replace(request, reply_limit=min(request.reply_limit, PROBE_REPLY_LIMIT)), reserve, release)
        if answer.reason == "attempts_exhausted":
            raise UnreachableError(f"{self._label}: no usable answer in {answer.attempts} attempts; check the server's own log")
        if answer.outcome == "reject":
            raise ConfigError(f"{self._label}: rejects the first call ({answer.reason}); check the teacher's parameters")
        return answer

    def models(self) -> list[str]:
        """The model ids that the teacher lists; empty where it has no such list."""
        verdict = self._until_over(
            _Call(record=next(self._records), method="GET", path=protocols.list_path(self._teacher)), _Ledger(_unreserved)
        )
        if verdict.reason == "attempts_exhausted":
            raise UnreachableError(f"{self._label}: does not list its models (HTTP {verdict.status}); check the server's own log")
        return list(verdict.models)

    def state(self) -> dict[str, float | int | None]:
        """`concurrency`, `in_flight`, `calls` and `waits` so far; `paused_until` and, for long pauses alone, `parked_until`
        (Unix time or None)."""
        return self._pacing.state()

    def close(self) -> None:
        """End what is in flight and give back the connections; threads that still wait get a StoppedError."""
        self._pacing.end(StoppedError(f"{self._label}: the client was closed"))
        self._transport.close()

    def _until_over(self, call: _Call, ledger: _Ledger) -> Verdict:
        """The verdict that ends the call: ok, repair or reject. Waits and retries are gone through, a stop is raised."""
        proxy_pages = 0
        while True:
            verdict, counts = self._attempt(call, ledger)
            ledger.attempts += counts
            if verdict.kind == "retry":
                proxy_pages += verdict.reason == "proxy_page"
                if verdict.stop_after is not None and proxy_pages > verdict.stop_after:
                    self._stop(replace(verdict, reason=verdict.stop_reason))
                if ledger.attempts >= self._max_attempts:
                    return replace(verdict, kind="reject", reason="attempts_exhausted")
                self._pacing.rest(max(verdict.wait_seconds or 0.0, backoff_seconds(max(0, ledger.attempts - 1))))
            elif verdict.kind == "stop":
                self._stop(verdict)
            elif verdict.kind != "wait":
                if call.method == "POST":
                    self._stop_if_request_is_wrong(verdict)
                return verdict

    def _attempt(self, call: _Call, ledger: _Ledger) -> tuple[Verdict, bool]:
        """Send once when it is this call's turn. Returns the verdict and whether it counts as an attempt."""
        estimate = self._estimate.tokens(call.characters)
        # Anthropic counts replies apart, as they come: no room for them need be reserved.
        reserved_tokens = estimate if self._teacher.protocol == "anthropic" else estimate + call.reply_limit
        ticket = self._pacing.enter(call.record, reserved_tokens)
        used_tokens = output_tokens = 0
        try:
            verdict, headers = self._send(call, ledger)
            used_tokens, output_tokens = self._used_tokens(call, verdict, ticket)
            self._pacing.saw(limit_headers.levels(headers))
            # Before the slot is free, so that nobody slips through between a verdict and the pause or end it brings.
            counts = self._tell_pacing(ticket, verdict)
        finally:
            self._pacing.leave(ticket, used_tokens, output_tokens)
        self._log(ledger, verdict)
        return verdict, counts

    def _send(self, call: _Call, ledger: _Ledger) -> tuple[Verdict, Mapping[str, str]]:
        """The verdict on one send, and the headers of its answer."""
        upper_bound = self._upper_bound_usd(call)
        ledger.cover(upper_bound)
        self._pacing.hold()
        began = time.monotonic()
        found = self._transport.exchange(call.method, call.path, call.body)
        ledger.seconds += time.monotonic() - began
        headers = found.headers if isinstance(found, HttpAnswer) else {}
        verdict = self._judged(call, found)
        ledger.settle(*self._price(verdict, upper_bound, headers))
        return verdict, headers

    def _judged(self, call: _Call, found: HttpAnswer | Failure) -> Verdict:
        """The verdict on what came back, with the request id of its headers and nothing in it of the key or the prompt."""
        if isinstance(found, Failure):
            return verdicts.of_failure(found.kind, found.reason)
        classify = verdicts.classify_list if call.method == "GET" else verdicts.classify
        verdict = classify(self._teacher.protocol, found.status, found.headers, found.body, now=time.time())
        request_id = protocols.identifier(found.headers.get("x-request-id") or found.headers.get("request-id"))
        reply = verdict.reply
        names = [verdict.code, verdict.field, request_id or (reply.request_id if reply else "")]
        names += [reply.served_model, reply.fingerprint] if reply else []
        code, field, request_id, *about_reply = self._scrubber.clean(names, call.texts, self._own_names)
        if reply is not None:
            reply = replace(reply, request_id=request_id, served_model=about_reply[0], fingerprint=about_reply[1])
            if self._was_cut(call, reply):
                verdict = verdicts.prompt_cut(verdict)
        return replace(verdict, request_id=request_id, reply=reply, code=code, field=field)

    def _was_cut(self, call: _Call, reply: Reply) -> bool:
        """Whether the server cut the prompt: some do so silently, and too few tokens in the usage are the only sign."""
        if not self._teacher.min_tokens_per_word or reply.usage is None or reply.usage.prompt_tokens == 0:
            return False
        words = sum(len(text.split()) for text in call.texts)
        least = max(words * self._teacher.min_tokens_per_word, call.characters / MAX_CHARACTERS_PER_TOKEN)
        return reply.usage.prompt_tokens < least

    def _price(self, verdict: Verdict, upper_bound: float, headers: Mapping[str, str]) -> tuple[float, float]:
        """What a send cost, and what it possibly cost."""
        charged = _dollars(headers.get(self._teacher.cost_header.lower(), "")) if self._teacher.cost_header else 0.0
        if charged > 0:
            return charged, 0.0
        usage = verdict.reply.usage if verdict.reply is not None else None
        if usage is not None:
            return cost_usd(self._teacher.prices, usage, _hour_utc()), 0.0
        return 0.0, upper_bound if verdict.spent or verdict.reply is not None else 0.0

    def _used_tokens(self, call: _Call, verdict: Verdict, ticket: Ticket) -> tuple[int, int]:
        """What a send took of the tokens per minute, and of those for replies alone; its usage also teaches the estimate."""
        usage = verdict.reply.usage if verdict.reply is not None else None
        if usage is None:
            return ticket.tokens if verdict.spent or verdict.reply is not None else 0, 0
        if verdict.reason == "prompt_cut":
            event("teacher_prompt_cut", level=logging.WARNING, teacher=self._label, prompt_tokens=usage.prompt_tokens)
        else:
            self._estimate.learn(call.characters, usage.prompt_tokens)
        if self._teacher.protocol == "anthropic":
            return usage.prompt_tokens - usage.cached_tokens, usage.completion_tokens
        return usage.prompt_tokens + usage.completion_tokens, usage.completion_tokens

    def _tell_pacing(self, ticket: Ticket, verdict: Verdict) -> bool:
        """Let the verdict slow or speed the other threads; returns whether it counts as an attempt of this call."""
        if verdict.kind == "wait":
            self._pacing.ordered(ticket, verdict.wait_seconds)
            return False
        if verdict.kind == "retry":
            return self._pacing.failed(ticket, sent=verdict.reason != "not_connected")
        if verdict.kind == "stop":
            self._pacing.end(stop_error(self._label, verdict))
        else:
            self._pacing.good()
        return True

    def _stop_if_request_is_wrong(self, verdict: Verdict) -> None:
        """One too many of the same rejection before anything succeeded: not the records are wrong."""
        if verdict.kind != "reject":
            self._start.succeeded()
        elif verdict.stop_after is not None and self._start.count(verdict) >= verdict.stop_after:
            self._stop(replace(verdict, reason=verdict.stop_reason))

    def _stop(self, verdict: Verdict) -> NoReturn:
        error = stop_error(self._label, verdict)
        self._pacing.end(error)
        raise error

    def _log(self, ledger: _Ledger, verdict: Verdict) -> None:
        levels = {"ok": logging.DEBUG, "stop": logging.ERROR}
        usage = verdict.reply.usage if verdict.reply is not None else None
        event(
            "teacher_call",
            level=levels.get(verdict.kind, logging.INFO),
            teacher=self._label,
            attempt=ledger.attempts + 1,
            verdict=verdict.kind,
            reason=verdict.reason,
            status=verdict.status,
            code=verdict.code,
            request_id=verdict.request_id,
            prompt_tokens=usage.prompt_tokens if usage is not None else None,
            completion_tokens=usage.completion_tokens if usage is not None else None,
            wait_seconds=verdict.wait_seconds,
        )


def _hour_utc() -> int:
    return datetime.now(UTC).hour


def _dollars(text: str) -> float:
    """The amount in a header, 0 where it holds none."""
    try:
        amount = float(text)
    except ValueError:
        return 0.0
    return amount if math.isfinite(amount) else 0.0
