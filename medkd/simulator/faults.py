"""What can go wrong at a teacher, by name, and when it does.

A spec is a comma-separated list; the first fault of the list that applies to a call wins:

    http_500:0.05     a rate: five calls of a hundred, drawn anew when a body is sent again
    http_500:0.01x8   bursts: one call of a hundred begins a burst of eight calls in a row
    rate_limit@3-5    calls by number, which count from 1 since the faults were set; `@7` one, `@100-` from there on
    money             every call

A spec in a model's name strikes calls for that model alone, whatever else is set: `clinic-1+http_500:0.05+money@100-`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from medkd.errors import ConfigError
from medkd.samples import sha256_hex
from medkd.simulator.refusals import REFUSALS
from medkd.simulator.spoilers import SPOILERS

LINE = (
    "reset_before",
    "reset_after",
    "cut_body",
    "cut_chunked",
    "cut_no_length",
    "hang",
    "blank_lines",
    "blank_lines_forever",
    "idle_close",
    "early_hints",
    "dripping_headers",
    "byte_order_mark",
    "wrong_charset",
)
"""Troubles of the line. `reset_before` strikes before anything is done, the others after the completion was billed."""

LOST = (
    "reset_before",
    "reset_after",
    "cut_body",
    "cut_chunked",
    "cut_no_length",
    "hang",
    "blank_lines_forever",
    "dripping_headers",
)
"""Of these, the ones after which a client has no whole answer."""

FAULTS = frozenset((*REFUSALS, *SPOILERS, *LINE))


@dataclass(frozen=True, kw_only=True)
class Occasion:
    """When one fault strikes."""

    fault: str
    rate: float = 1.0
    calls: tuple[int, float] | None = None
    """Inclusive range of call numbers; None: any call, by rate."""
    burst: int = 1
    """Calls in a row that meet the fault once it strikes by rate."""


_ENTRY = re.compile(r"(?P<fault>\w+)(?::(?P<rate>[\d.]+)(?:x(?P<burst>[1-9]\d*))?|@(?P<first>\d+)(?P<open>-(?P<last>\d+)?)?)?")


def parse_faults(spec: str) -> tuple[Occasion, ...]:
    """The occasions of a spec, in its order; ConfigError names the entry that is wrong."""
    return tuple(_occasion(entry.strip()) for entry in spec.split(",") if entry.strip())


def split_model(model: str) -> tuple[str, tuple[Occasion, ...]]:
    """The model that a name stands for, and the faults that it asks for; ConfigError as for `parse_faults`."""
    name, _, spec = model.partition("+")
    return name, parse_faults(spec.replace("+", ","))


def _occasion(entry: str) -> Occasion:
    match = _ENTRY.fullmatch(entry)
    if match is None or match["fault"] not in FAULTS:
        raise ConfigError(
            f"faults: got {entry!r}, expected NAME, NAME:RATE, NAME:RATExCALLS or NAME@CALLS, "
            f"NAME one of {', '.join(sorted(FAULTS))}"
        )
    if match["first"] is not None:
        first = int(match["first"])
        last = float(match["last"]) if match["last"] else (float("inf") if match["open"] else first)
        return Occasion(fault=match["fault"], calls=(first, last))
    try:
        rate = float(match["rate"] or 1)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise ConfigError(f"faults: got {entry!r}, expected a rate from 0 to 1")
    return Occasion(fault=match["fault"], rate=rate, burst=int(match["burst"] or 1))


@dataclass(frozen=True, kw_only=True)
class FaultPlan:
    """Which call meets which fault: pure in the seed, the body, how often the body was sent, and the call's number."""

    seed: int
    occasions: Sequence[Occasion]

    def choose(self, *, call_number: int, digest: str, occurrence: int) -> str | None:
        """The fault of one call, None for a good one. A repeated body draws anew, so that retries can succeed."""
        for occasion in self.occasions:
            if self._strikes(occasion, call_number, digest, occurrence):
                return occasion.fault
        return None

    def _strikes(self, occasion: Occasion, call_number: int, digest: str, occurrence: int) -> bool:
        if occasion.calls is not None:
            return occasion.calls[0] <= call_number <= occasion.calls[1]
        drawn = f"{self.seed} {occasion.fault}"
        if occasion.burst == 1:
            return chance(f"{drawn} {digest} {occurrence}") < occasion.rate
        begun = range(max(1, call_number - occasion.burst + 1), call_number + 1)
        return any(chance(f"{drawn} burst {number}") < occasion.rate for number in begun)


def chance(what: str) -> float:
    """A number in [0, 1) that is pure in `what` and otherwise as good as random."""
    return int(sha256_hex(what)[:12], 16) / 16**12
