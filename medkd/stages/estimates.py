"""What a plan will take: calls, tokens, money and hours, before anything is paid. Pure functions of plan and configuration.

No repair and no further try of a rejected sample is counted: nobody knows their share before the pilot has measured it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from medkd.config import TeacherConfig
from medkd.samples import canonical_json
from medkd.teacher import prompts

if TYPE_CHECKING:
    from medkd.stages.plan import Plan

# What a call costs beyond the words it carries, in bytes at most: instructions and the description of the record.
_PROMPT_BYTES = 4000
BYTES_PER_TOKEN = 4
# Measured on simulated and real dialogues: a turn is about 15 words.
TOKENS_PER_EXCHANGE = 45
TOKENS_PER_RECORD = 250
# Prompts are built for so many samples; they differ by a few words.
_PROMPTS_LOOKED_AT = 20


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a plan will take in all. Money is US dollars."""

    teacher: str
    model: str
    samples: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    """At the dearest price tier."""
    cheapest_usd: float
    """The same outside the peak hours."""
    budget_usd: float
    """The least --budget-usd that the plan starts with; 0 for a teacher without a price."""
    hours_by_limit: dict[str, float]
    """How long each limit alone would make it take; the largest counts."""
    rests_on: tuple[str, ...]
    """What was measured and what assumed, in words."""

    @property
    def hours(self) -> float:
        return max(self.hours_by_limit.values(), default=0.0)


def estimate(
    plan: Plan,
    teacher: TeacherConfig,
    *,
    num_shards: int,
    parallel: int,
    seconds_per_call: float,
    judge: TeacherConfig | None = None,
) -> Estimate:
    """What the plan will take with this teacher at its configured limits.

    parallel: shards that run at once. seconds_per_call: how long the teacher takes, for the limit of calls in flight.
    """
    calls, tokens_in, tokens_out, rests_on = _volume(plan, teacher)
    prices = teacher.prices
    second = judges_usd(plan, judge or teacher)
    cheapest = (tokens_in * prices.input + tokens_out * prices.output) / 1e6 + second / (judge or teacher).prices.peak_multiplier
    cost = _usd(teacher, tokens_in, tokens_out) + second
    floor = 0.0 if cost == 0 else max(cost, 5 * dearest_call_usd(plan, teacher, judge))
    if plan.judges:
        rests_on = [
            *rests_on,
            f"of the cost ${second:,.2f} for second extractions, whose calls and tokens are not in those above",
        ]
    at_once = min(parallel, num_shards)
    in_flight = max(1, at_once) * max(1, teacher.limits.max_concurrency // parallel)
    return Estimate(
        teacher=str(plan.teacher["name"]),
        model=teacher.model,
        samples=plan.total_samples,
        calls=calls,
        prompt_tokens=round(tokens_in),
        completion_tokens=round(tokens_out),
        cost_usd=cost,
        cheapest_usd=cheapest,
        budget_usd=floor,
        hours_by_limit=_hours(teacher, calls, tokens_in, tokens_out, in_flight, seconds_per_call) if calls else {},
        rests_on=(*rests_on, f"assumed: {seconds_per_call:g} s a call (--seconds-per-call), no repairs, no sample tried again"),
    )


def estimate_usd(plan: Plan, teacher: TeacherConfig, judge: TeacherConfig | None = None) -> float:
    """What the run should cost at the dearest price tier. judge: another teacher that extracts samples a second time."""
    _, tokens_in, tokens_out, _ = _volume(plan, teacher)
    return _usd(teacher, tokens_in, tokens_out) + judges_usd(plan, judge or teacher)


def judges_usd(plan: Plan, judge: TeacherConfig) -> float:
    """What the second extractions should cost at the dearest price tier."""
    if not plan.judges or not asks_teacher(plan):
        return 0.0
    count, conversation = float(plan.judges["share"]) * plan.total_samples, _conversation_tokens(plan)[0]
    extraction = prompts.extraction_request("", plan.schema, judge, seed=0)
    tokens_in = _prompt_tokens(extraction) + _schema_tokens(extraction, judge) + conversation
    return _usd(judge, count * tokens_in, count * TOKENS_PER_RECORD)


def _usd(teacher: TeacherConfig, tokens_in: float, tokens_out: float) -> float:
    return (tokens_in * teacher.prices.input + tokens_out * teacher.prices.output) * teacher.prices.peak_multiplier / 1e6


def dearest_call_usd(plan: Plan, teacher: TeacherConfig, judge: TeacherConfig | None = None) -> float:
    """What the dearest usual call of this plan reserves: the longest prompt, a repair included, at the peak price."""
    return max(_dearest_call_usd(one) for one in (teacher, judge) if one)


def _dearest_call_usd(teacher: TeacherConfig) -> float:
    prices = teacher.prices
    input_price = max(prices.input, prices.cached_input or 0.0, prices.cache_write or 0.0)
    reply_limit = 2 * max(teacher.max_conversation_tokens, teacher.max_record_tokens)
    prompt_bytes = _PROMPT_BYTES + 2 * BYTES_PER_TOKEN * reply_limit
    return (prompt_bytes * input_price + reply_limit * prices.output) * prices.peak_multiplier / 1e6


def default_budget_usd(plan: Plan, teacher: TeacherConfig, judge: TeacherConfig | None = None) -> float:
    """A bound for commands that name no budget: three times the estimate, and room for the calls in flight."""
    in_flight = 2 * teacher.limits.max_concurrency * dearest_call_usd(plan, teacher, judge)
    return max(3 * estimate_usd(plan, teacher, judge), in_flight)


def asks_teacher(plan: Plan) -> bool:
    """Whether any sample needs a call; conversations that bring their records along need none, nor does a run without samples of
    its own."""
    return plan.total_samples > 0 and (plan.source is None or plan.source.columns.record is None)


def shown(found: Estimate) -> Iterator[str]:
    """The estimate as lines of text."""
    yield f"{found.samples:,} samples by teacher {found.teacher} ({found.model})"
    yield f"calls     {found.calls:,}"
    yield f"tokens    {found.prompt_tokens:,} in, {found.completion_tokens:,} out"
    off_peak = f", ${found.cheapest_usd:,.2f} outside its peak hours" if found.cheapest_usd < found.cost_usd else ""
    yield f"cost      ${found.cost_usd:,.2f}{off_peak}"
    if found.budget_usd:
        yield f"budget    --budget-usd {math.ceil(found.budget_usd * 100) / 100:.2f} at least; it is never exceeded"
    limits = sorted(found.hours_by_limit.items(), key=lambda item: -item[1])
    yield f"time      {_duration(found.hours)}" + (f", set by {limits[0][0]}" if limits else "")
    for name, hours in limits[1:]:
        yield f"            {_duration(hours)} by {name} alone"
    for basis in found.rests_on:
        yield f"rests on  {basis}"


def as_json(found: Estimate) -> str:
    return json.dumps({"format": 1, **asdict(found), "hours": found.hours}, indent=1)


def _volume(plan: Plan, teacher: TeacherConfig) -> tuple[int, float, float, list[str]]:
    """Calls, tokens in and out of the whole plan, and what they rest on."""
    if not asks_teacher(plan):
        return 0, 0.0, 0.0, ["all records are there: no call is made"]
    samples = plan.total_samples
    conversation, about = _conversation_tokens(plan)
    extraction = prompts.extraction_request("", plan.schema, teacher, seed=0)
    tokens_in = _prompt_tokens(extraction) + _schema_tokens(extraction, teacher) + conversation
    tokens_out = float(TOKENS_PER_RECORD)
    basis = [about, f"assumed: {TOKENS_PER_RECORD} tokens a record, {BYTES_PER_TOKEN} bytes a token"]
    if plan.source:
        basis.insert(0, "built: the prompt of the extraction")
        return samples, samples * tokens_in, samples * tokens_out, basis
    step = max(1, samples // _PROMPTS_LOOKED_AT)
    looked_at = [prompts.conversation_request(plan.spec(index, 0), teacher) for index in range(0, samples, step)]
    tokens_in += sum(map(_prompt_tokens, looked_at)) / len(looked_at)
    tokens_out += conversation
    basis.insert(0, f"built: the prompts of {len(looked_at)} samples of the plan")
    return 2 * samples, samples * tokens_in, samples * tokens_out, basis


def _conversation_tokens(plan: Plan) -> tuple[float, str]:
    if plan.source:
        num_bytes = sum(file.conversation_bytes for file in plan.source.files) / max(1, plan.source.num_rows)
        return num_bytes / BYTES_PER_TOKEN, f"counted: {num_bytes:,.0f} bytes a conversation in {plan.source.num_rows:,} rows"
    exchanges = (plan.min_exchanges + plan.max_exchanges) / 2
    return (
        exchanges * TOKENS_PER_EXCHANGE,
        f"assumed: {exchanges:g} exchanges a conversation of {TOKENS_PER_EXCHANGE} tokens each",
    )


def _prompt_tokens(request: prompts.Request) -> float:
    return sum(len(message.text.encode()) for message in request.messages) / BYTES_PER_TOKEN


def _schema_tokens(request: prompts.Request, teacher: TeacherConfig) -> float:
    """Of the record's schema where the request carries it: providers bill it like a part of the prompt, own servers do not."""
    carried = teacher.structured_output not in ("json_object", "none")
    return len(canonical_json(request.json_schema)) / BYTES_PER_TOKEN if carried else 0.0


def _hours(
    teacher: TeacherConfig, calls: int, tokens_in: float, tokens_out: float, in_flight: int, seconds_per_call: float
) -> dict[str, float]:
    limits = teacher.limits
    found = {f"{in_flight} calls in flight of {seconds_per_call:g} s": calls * seconds_per_call / in_flight / 3600}
    if limits.requests_per_minute:
        found[f"{limits.requests_per_minute:,} requests a minute"] = calls / limits.requests_per_minute / 60
    if limits.tokens_per_minute:
        # Anthropic counts replies apart, with a limit of their own.
        counted = tokens_in + (0.0 if teacher.protocol == "anthropic" else tokens_out)
        found[f"{limits.tokens_per_minute:,} tokens a minute"] = counted / limits.tokens_per_minute / 60
    return found


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.0f} min" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"
