"""What a plan will take: calls, tokens, money and hours, before anything is paid. Pure functions of plan and configuration.

Without a run that measured it no repair and no further try of a rejected sample is counted: nobody knows their share.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from medkd.config import TeacherConfig
from medkd.errors import ConfigError
from medkd.samples import canonical_json
from medkd.teacher import prompts

if TYPE_CHECKING:
    from medkd.stages.measured import Measured
    from medkd.stages.plan import Plan

# What a call costs beyond the words it carries, in bytes at most: instructions and the description of the record.
_PROMPT_BYTES = 4000
BYTES_PER_TOKEN = 4
# Measured on simulated and real dialogues: a turn is about 15 words.
TOKENS_PER_EXCHANGE = 45
TOKENS_PER_RECORD = 250
# Prompts are built for so many samples; they differ by a few words.
_PROMPTS_LOOKED_AT = 20
SECONDS_PER_CALL = 10.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a plan will take in all. Money is US dollars."""

    teacher: str
    model: str
    samples: int
    calls: int
    """All of them, with second extractions; so are the tokens."""
    second_extractions: int
    judge: str | None
    """Another teacher that makes those; None: there are none, or the same one makes them."""
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
    seconds_per_call: float | None = None,
    judge: TeacherConfig | None = None,
    measured: Measured | None = None,
) -> Estimate:
    """What the plan will take with this teacher at its configured limits.

    parallel: shards that run at once. seconds_per_call: how long the teacher takes, for the limit of calls in flight; else
    as measured, or assumed. measured: what calls of another run took, used in place of what is assumed otherwise.
    """
    first, rests_on = _measured_volume(plan, teacher, measured) if measured else _volume(plan, teacher)
    second = _second_extractions(plan, judge or teacher)
    seconds_per_call, about_time = _seconds(seconds_per_call, measured)
    prices = teacher.prices
    cheapest = (first.tokens_in * prices.input + first.tokens_out * prices.output) / 1e6
    cheapest += judges_usd(plan, judge or teacher) / (judge or teacher).prices.peak_multiplier
    cost = _usd(teacher, first) + judges_usd(plan, judge or teacher)
    floor = 0.0 if cost == 0 else max(cost, 5 * dearest_call_usd(plan, teacher, judge))
    if second.calls:
        again = f"assumed: {100 * float((plan.judges or {})['share']):g}% of the samples are extracted a second time"
        rests_on = [*rests_on, f"{again}, for ${judges_usd(plan, judge or teacher):,.2f}"]
    at_once = min(parallel, num_shards)
    in_flight = max(1, at_once) * max(1, teacher.limits.max_concurrency // parallel)
    # A shard's slots ask both teachers; each has its own limits by the minute.
    both = first.beside(second)
    hours = _hours_in_flight(both, in_flight, seconds_per_call)
    hours |= _hours(teacher, first if judge else both)
    if judge and second.calls:
        hours |= {f"{name} of {_judge_name(plan)}": value for name, value in _hours(judge, second).items()}
    return Estimate(
        teacher=str(plan.teacher["name"]),
        model=teacher.model,
        samples=plan.total_samples,
        calls=both.calls,
        second_extractions=second.calls,
        judge=_judge_name(plan) if judge and second.calls else None,
        prompt_tokens=round(both.tokens_in),
        completion_tokens=round(both.tokens_out),
        cost_usd=cost,
        cheapest_usd=cheapest,
        budget_usd=floor,
        hours_by_limit=hours if both.calls else {},
        rests_on=(*rests_on, about_time + ("" if measured else ", no repairs, no sample tried again")),
    )


def estimate_usd(plan: Plan, teacher: TeacherConfig, judge: TeacherConfig | None = None) -> float:
    """What the run should cost at the dearest price tier. judge: another teacher that extracts samples a second time."""
    first, _ = _volume(plan, teacher)
    return _usd(teacher, first) + judges_usd(plan, judge or teacher)


def judges_usd(plan: Plan, judge: TeacherConfig) -> float:
    """What the second extractions should cost at the dearest price tier."""
    return _usd(judge, _second_extractions(plan, judge))


def _second_extractions(plan: Plan, judge: TeacherConfig) -> _Volume:
    if not plan.judges or not asks_teacher(plan):
        return _Volume(0, 0.0, 0.0)
    count, conversation = float(plan.judges["share"]) * plan.total_samples, _conversation_tokens(plan)[0]
    extraction = prompts.extraction_request("", plan.schema, judge, seed=0)
    tokens_in = _prompt_tokens(extraction) + _schema_tokens(extraction, judge) + conversation
    return _Volume(round(count), count * tokens_in, count * TOKENS_PER_RECORD)


def _judge_name(plan: Plan) -> str:
    return str(((plan.judges or {}).get("teacher") or plan.teacher)["name"])


def _usd(teacher: TeacherConfig, volume: _Volume) -> float:
    dollars = volume.tokens_in * teacher.prices.input + volume.tokens_out * teacher.prices.output
    return dollars * teacher.prices.peak_multiplier / 1e6


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
    by = f" by {found.judge}" if found.judge else ""
    again = f", {found.second_extractions:,} of them second extractions{by}" if found.second_extractions else ""
    yield f"calls     {found.calls:,}{again}"
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


@dataclass(frozen=True)
class _Volume:
    """What is asked and answered."""

    calls: int
    tokens_in: float
    tokens_out: float

    def beside(self, other: _Volume) -> _Volume:
        return _Volume(self.calls + other.calls, self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out)


def _volume(plan: Plan, teacher: TeacherConfig) -> tuple[_Volume, list[str]]:
    """The first asking of the whole plan, and what it rests on."""
    if not asks_teacher(plan):
        return _Volume(0, 0.0, 0.0), ["all records are there: no call is made"]
    samples = plan.total_samples
    conversation, about = _conversation_tokens(plan)
    extraction = prompts.extraction_request("", plan.schema, teacher, seed=0)
    tokens_in = _prompt_tokens(extraction) + _schema_tokens(extraction, teacher) + conversation
    tokens_out = float(TOKENS_PER_RECORD)
    basis = [about, f"assumed: {TOKENS_PER_RECORD} tokens a record, {BYTES_PER_TOKEN} bytes a token"]
    if plan.source:
        basis.insert(0, "built: the prompt of the extraction")
        return _Volume(samples, samples * tokens_in, samples * tokens_out), basis
    step = max(1, samples // _PROMPTS_LOOKED_AT)
    looked_at = [prompts.conversation_request(plan.spec(index, 0), teacher, plan.schema) for index in range(0, samples, step)]
    tokens_in += sum(map(_prompt_tokens, looked_at)) / len(looked_at)
    tokens_out += conversation
    basis.insert(0, f"built: the prompts of {len(looked_at)} samples of the plan")
    return _Volume(2 * samples, samples * tokens_in, samples * tokens_out), basis


def _measured_volume(plan: Plan, teacher: TeacherConfig, measured: Measured) -> tuple[_Volume, list[str]]:
    """The same from another run's calls for each accepted sample, its repairs and rejected tries included."""
    if not asks_teacher(plan):
        return _volume(plan, teacher)
    _check_comparable(measured, plan)
    basis = [
        f"measured: {measured.accepted:,} accepted samples of {measured.run} by {measured.teacher} ({measured.model}), "
        f"{measured.rejected_share:.1%} of the tries rejected",
        *(
            f"measured: {step.calls:.2f} calls of kind {name} an accepted sample, "
            f"{step.prompt_tokens:,.0f} tokens in and {step.completion_tokens:,.0f} out each"
            for name, step in measured.steps.items()
        ),
    ]
    if (measured.teacher, measured.model) != (plan.teacher["name"], teacher.model):
        basis.append(f"assumed: {plan.teacher['name']} ({teacher.model}) takes as many calls and tokens as that teacher")
    samples = plan.total_samples
    volume = _Volume(round(samples * measured.calls), samples * measured.prompt_tokens, samples * measured.completion_tokens)
    return volume, basis


def _check_comparable(measured: Measured, plan: Plan) -> None:
    """ConfigError where the plan's samples take other calls than those measured."""
    if measured.imported != (plan.source is not None):
        kinds = ("generated conversations", "conversations that it was given")
        raise ConfigError(
            f"--from: {measured.run} worked on {kinds[measured.imported]}, this plan on {kinds[not measured.imported]}; "
            "name a run of the same kind, or leave --from out"
        )


def _seconds(said: float | None, measured: Measured | None) -> tuple[float, str]:
    """How long a call takes, and what that rests on."""
    if said is not None:
        return said, f"said: {said:g} s a call (--seconds-per-call)"
    if measured and measured.seconds_per_call:
        found = round(measured.seconds_per_call, 2)
        return found, f"measured: {found:g} s a call, the median from a conversation's answer to its extraction's"
    return SECONDS_PER_CALL, f"assumed: {SECONDS_PER_CALL:g} s a call (--seconds-per-call)"


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


def _hours_in_flight(volume: _Volume, in_flight: int, seconds_per_call: float) -> dict[str, float]:
    return {f"{in_flight} calls in flight of {seconds_per_call:g} s": volume.calls * seconds_per_call / in_flight / 3600}


def _hours(teacher: TeacherConfig, volume: _Volume) -> dict[str, float]:
    """By the teacher's limits of a minute."""
    limits, found = teacher.limits, {}
    if limits.requests_per_minute:
        found[f"{limits.requests_per_minute:,} requests a minute"] = volume.calls / limits.requests_per_minute / 60
    if limits.tokens_per_minute:
        # Anthropic counts replies apart, with a limit of their own.
        counted = volume.tokens_in + (0.0 if teacher.protocol == "anthropic" else volume.tokens_out)
        found[f"{limits.tokens_per_minute:,} tokens a minute"] = counted / limits.tokens_per_minute / 60
    return found


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.0f} min" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"
