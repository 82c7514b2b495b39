"""What calls of a run took, measured from its ledgers: what an estimate of the next run rests on in place of assumptions.

A pilot will do: a shard's journal counts while it is open, its calls.parquet once it has finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from medkd.errors import ConfigError
from medkd.stages import standing
from medkd.stages.plan import load_plan
from medkd.stages.sample_steps import JUDGE
from medkd.store import journal, layout, tables
from medkd.store.files import Store

_COLUMNS = ("sample_id", "variation", "step", "repair", "prompt_tokens", "completion_tokens", "at")
LEAST_ACCEPTED = 10
"""Of fewer accepted samples no share or mean says anything."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Calls of one kind: how many an accepted sample took, repairs and rejected tries included, and the mean call's tokens."""

    calls: float
    prompt_tokens: float
    completion_tokens: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a run's calls came to for each accepted sample."""

    run: str
    teacher: str
    model: str
    imported: bool
    """Whether its conversations came along, so that one kind of call was made."""
    accepted: int
    rejected_share: float
    """Of all tries."""
    steps: Mapping[str, Step]
    """By kind of call; second extractions are not among them."""
    seconds_per_call: float | None
    """Median time from a conversation's answer to that of its extraction, commit and waiting included; None where no sample
    has both."""

    @property
    def calls(self) -> float:
        return sum(step.calls for step in self.steps.values())

    @property
    def prompt_tokens(self) -> float:
        return sum(step.calls * step.prompt_tokens for step in self.steps.values())

    @property
    def completion_tokens(self) -> float:
        return sum(step.calls * step.completion_tokens for step in self.steps.values())


def measure(store: Store) -> Measured:
    """What the run at the prefix measured so far; ConfigError where too little of it is there."""
    plan, cut = load_plan(store)
    calls: list[Mapping[str, Any]] = []
    accepted = tries_rejected = 0
    finished = standing.shard_manifests(store, range(cut.num_shards))
    for shard in range(cut.num_shards):
        if manifest := finished.get(shard):
            table = next(file for file in manifest.files if file.path.endswith("/calls.parquet"))
            calls += tables.read(store, [table], _COLUMNS)
            counts: Mapping[str, Any] = manifest.counts
        else:
            found = journal.replay_shard(store, shard, plan.hash).done.values()
            calls += [{name: call[name] for name in _COLUMNS} for call in found]
            counts = _progress(store, shard)
        accepted += counts.get("accepted", 0)
        tries_rejected += counts.get("rejected", 0)
    calls = [call for call in calls if call["step"] != JUDGE]
    if accepted < LEAST_ACCEPTED or not calls:
        raise ConfigError(
            f"--from: {store.url} has {accepted} accepted samples and {len(calls)} calls; expected {LEAST_ACCEPTED} samples "
            "or more that a teacher was asked for"
        )
    return Measured(
        run=store.url,
        teacher=str(plan.teacher["name"]),
        model=str(plan.teacher["model"]),
        imported=plan.source is not None,
        accepted=accepted,
        rejected_share=tries_rejected / (accepted + tries_rejected),
        steps={step: _step(of_step, accepted) for step, of_step in _by_step(calls)},
        seconds_per_call=_seconds_per_call(calls),
    )


def _progress(store: Store, shard: int) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(store.read(layout.shard_file(shard, "progress.json")))
    except FileNotFoundError:
        return {}
    return found


def _by_step(calls: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for call in calls:
        found.setdefault(call["step"], []).append(call)
    yield from sorted(found.items())


def _step(calls: list[Mapping[str, Any]], accepted: int) -> Step:
    return Step(
        calls=len(calls) / accepted,
        prompt_tokens=sum(call["prompt_tokens"] for call in calls) / len(calls),
        completion_tokens=sum(call["completion_tokens"] for call in calls) / len(calls),
    )


def _seconds_per_call(calls: Iterable[Mapping[str, Any]]) -> float | None:
    answered: dict[tuple[str, int], dict[str, datetime]] = {}
    for call in calls:
        if call["repair"] == 0 and call["at"]:
            answered.setdefault((call["sample_id"], call["variation"]), {})[call["step"]] = datetime.fromisoformat(call["at"])
    both = [at for at in answered.values() if {"conversation", "extraction"} <= set(at)]
    return median((at["extraction"] - at["conversation"]).total_seconds() for at in both) if both else None
