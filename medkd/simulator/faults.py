"""What can go wrong at a teacher, by name, with a rate or at given calls.

A spec is a comma-separated list: `reset_after:0.05` (rate), `rate_limit@3-5` (calls 3 to 5), `money@100-` (from call 100
on), `http_500@7`. Calls count from 1 over the server's life. The first fault of the list that applies wins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from medkd.errors import ConfigError
from medkd.records import Record
from medkd.samples import sha256_hex
from medkd.simulator.replies import Reply, VendorError

Protocol = Literal["openai", "anthropic"]


@dataclass(frozen=True, kw_only=True)
class Occasion:
    """When one fault strikes. `calls` is an inclusive range of call numbers, None for a rate over all calls."""

    fault: str
    rate: float
    calls: tuple[int, float] | None


_ENTRY = re.compile(r"(?P<fault>\w+)(?::(?P<rate>[\d.]+)|@(?P<first>\d+)(?P<open>-(?P<last>\d+)?)?)?")


def parse_faults(spec: str) -> tuple[Occasion, ...]:
    """The occasions of a spec, in its order; ConfigError names the entry that is wrong."""
    return tuple(_occasion(entry.strip()) for entry in spec.split(",") if entry.strip())


def _occasion(entry: str) -> Occasion:
    match = _ENTRY.fullmatch(entry)
    if match is None or match["fault"] not in FAULTS:
        raise ConfigError(
            f"faults: got {entry!r}, expected NAME, NAME:RATE or NAME@CALLS, NAME one of {', '.join(sorted(FAULTS))}"
        )
    try:
        rate = float(match["rate"] or 1)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise ConfigError(f"faults: got {entry!r}, expected a rate from 0 to 1")
    if match["first"] is None:
        return Occasion(fault=match["fault"], rate=rate, calls=None)
    first = int(match["first"])
    last = float(match["last"]) if match["last"] else (float("inf") if match["open"] else first)
    return Occasion(fault=match["fault"], rate=1.0, calls=(first, last))


@dataclass(frozen=True, kw_only=True)
class FaultPlan:
    """Which call meets which fault: pure in the seed, the body, how often the body was sent, and the call's number."""

    seed: int
    occasions: Sequence[Occasion]

    def choose(self, *, call_number: int, digest: str, occurrence: int) -> str | None:
        """The fault of one call, None for a good one. A repeated body draws anew, so that retries can succeed."""
        for occasion in self.occasions:
            if occasion.calls is not None:
                if occasion.calls[0] <= call_number <= occasion.calls[1]:
                    return occasion.fault
            elif chance(f"{self.seed} {occasion.fault} {digest} {occurrence}") < occasion.rate:
                return occasion.fault
        return None


def chance(what: str) -> float:
    """A number in [0, 1) that is pure in `what` and otherwise as good as random."""
    return int(sha256_hex(what)[:12], 16) / 16**12


# Refusals: nothing is done and nothing is billed.


def _rate_limit(wait: str, **headers: str) -> Callable[[Protocol], VendorError]:
    def refusal(protocol: Protocol) -> VendorError:
        message = f"Rate limit reached for requests.{wait}"
        return VendorError(status=429, message=message, kind="requests", code="rate_limit_exceeded", headers=headers)

    return refusal


def _money(protocol: Protocol) -> VendorError:
    if protocol == "anthropic":
        return VendorError(status=402, message="Your credit balance is too low to access the API.")
    message = "You exceeded your current quota, please check your plan and billing details."
    return VendorError(status=429, message=message, kind="insufficient_quota", code="insufficient_quota")


def _insufficient_balance(protocol: Protocol) -> VendorError:
    return VendorError(status=402, message="Insufficient Balance", kind="unknown_error", code="invalid_request_error")


def _bad_key(protocol: Protocol) -> VendorError:
    if protocol == "anthropic":
        return VendorError(status=401, message="invalid x-api-key")
    return VendorError(status=401, message="Incorrect API key provided: sk-abcde****wxyz.", code="invalid_api_key")


def _dead_model(protocol: Protocol) -> VendorError:
    return VendorError(status=404, message="The model does not exist or you do not have access to it.", code="model_not_found")


def _http_500(protocol: Protocol) -> VendorError:
    return VendorError(status=500, message="The server had an error while processing your request.", kind="server_error")


def _overloaded(protocol: Protocol) -> VendorError:
    if protocol == "anthropic":
        return VendorError(status=529, message="Overloaded")
    message = "That model is currently overloaded with other requests."
    return VendorError(status=503, message=message, kind="overloaded_error", code="overloaded")


def _slow_down(protocol: Protocol) -> VendorError:
    return VendorError(status=503, message="Please slow down.", kind="server_error", code="slow_down")


def _loading(protocol: Protocol) -> VendorError:
    return VendorError(status=503, message="Loading model", kind="unavailable_error")


REFUSALS: dict[str, Callable[[Protocol], VendorError]] = {
    "rate_limit": _rate_limit(" Please try again in 1s.", **{"retry-after": "1"}),
    "rate_limit_ms": _rate_limit("", **{"retry-after-ms": "200"}),
    "rate_limit_text": _rate_limit(" Please try again in 0.4s."),
    "rate_limit_none": _rate_limit(""),
    "rate_limit_junk": _rate_limit("", **{"retry-after": "soon"}),
    "rate_limit_long": _rate_limit("", **{"retry-after": "7200"}),
    "money": _money,
    "insufficient_balance": _insufficient_balance,
    "bad_key": _bad_key,
    "dead_model": _dead_model,
    "http_500": _http_500,
    "overloaded": _overloaded,
    "slow_down": _slow_down,
    "loading": _loading,
}
TERMINAL = ("money", "insufficient_balance", "bad_key", "dead_model")
WAITS = {"rate_limit": 1.0, "rate_limit_ms": 0.2, "rate_limit_text": 0.4, "rate_limit_long": 7200.0}
"""Seconds that a refusal orders the client to wait."""


# Spoilt answers: the completion is made and billed, and what is sent is not what was asked for.


def _fenced(text: str) -> str:
    return f"```json\n{text}\n```"


def _cut(text: str) -> str:
    return text[: len(text) * 2 // 3]


def _with_nan(text: str) -> str:
    """The first string value becomes NaN, which Python's parser takes and JSON forbids."""
    return re.sub(r':"(?:[^"\\]|\\.)*"', ":NaN", text, count=1)


def _with_duplicate_key(text: str) -> str:
    return re.sub(r"^\{(\s*\"[^\"]*\")", r"{\1:null,\1", text, count=1)


def _hallucinated(text: str) -> str:
    """The record with a medicine that nobody mentioned."""
    try:
        record: Record = json.loads(text)
        items = record["prescription"]
    except (ValueError, KeyError, TypeError):
        return text
    wrong = {"drug": "zanubrutinib", "dose": "160 mg", "frequency": "twice daily", "duration": "30 days"}
    return json.dumps({**record, "prescription": [*items[:-1], wrong]}, ensure_ascii=False, separators=(",", ":"))


def _text(change: Callable[[str], str]) -> Callable[[Reply], Reply]:
    return lambda reply: replace(reply, text=change(reply.text))


RECORD_SPOILERS: dict[str, Callable[[Reply], Reply]] = {
    "fenced_json": _text(_fenced),
    "cut_json": _text(_cut),
    "nan_json": _text(_with_nan),
    "duplicate_keys": _text(_with_duplicate_key),
    "not_json": _text(lambda text: "Here is what I found: the patient seems to be fine."),
    "hallucinate": _text(_hallucinated),
}
"""Strike answers in JSON only; other calls pass unharmed."""

SPOILERS: dict[str, Callable[[Reply], Reply]] = {
    **RECORD_SPOILERS,
    "empty_content": _text(lambda text: ""),
    "whitespace_content": _text(lambda text: " \n \n"),
    "finish_length": lambda reply: replace(reply, text=_cut(reply.text), finish="length"),
    "refusal": lambda reply: replace(reply, text="I can't help with that.", finish="refusal"),
    "missing_usage": lambda reply: replace(reply, shows_usage=False),
}

# Troubles of the line. `reset_before` strikes before anything is done, the others after the completion was billed;
# `html_502` is a gateway that lost the answer before it was made.
TRANSPORT = ("reset_before", "reset_after", "cut_body", "hang", "blank_lines", "html_502")

FAULTS = frozenset((*REFUSALS, *SPOILERS, *TRANSPORT))
