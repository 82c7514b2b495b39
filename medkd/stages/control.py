"""The run's control file: whether shards may spend, and the decision after the pilot.

`control.json` holds `{format, state, reason}`. A priced run of 1,000 samples or more starts as `pilot`: shard 0 buys its first
samples while all others park. The pilot then decides: `run`, or `hold` until somebody approves. `medkd run` and the cluster's
driver ask the same `decide_pilot`, which reads nothing but the prefix: the bars were written into the control file by stage plan.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from medkd.errors import ConfigError
from medkd.store import layout
from medkd.store.files import Store

PILOT_FROM_SAMPLES = 1000
PILOT_SAMPLES = 50
MIN_ACCEPTANCE = 0.7
MAX_COST_RATIO = 1.5


State = Literal["pilot", "run", "hold"]


@dataclass(frozen=True, kw_only=True)
class Control:
    """What writers may do now."""

    state: State
    reason: str = ""
    pilot_samples: int = PILOT_SAMPLES
    min_gold_f1: float = 0.0
    """What the teacher's records have to agree with gold by, where the pilot's conversations came with some."""
    format: int = 1


@dataclass(frozen=True, kw_only=True)
class PilotResult:
    """What the pilot's samples came to."""

    ended: int
    accepted: int
    spent_usd: float
    estimate_usd_per_sample: float
    gold_samples: int = 0
    """Accepted samples whose conversations came with gold."""
    gold_f1: float = 1.0
    """Micro-F1 of the fields of the teacher's records against that gold."""
    min_gold_f1: float = 0.0


def first_control(num_samples: int, shard_zero_samples: int, priced: bool, min_gold_f1: float = 0.0) -> Control:
    """How a run starts."""
    if priced and num_samples >= PILOT_FROM_SAMPLES:
        return Control(
            state="pilot",
            reason="the first samples show what the rest will cost",
            pilot_samples=min(PILOT_SAMPLES, shard_zero_samples),
            min_gold_f1=min_gold_f1,
        )
    return Control(state="run")


def decide(pilot: PilotResult) -> Control:
    """Whether the run goes on after its pilot."""
    acceptance = pilot.accepted / max(1, pilot.ended)
    if acceptance < MIN_ACCEPTANCE:
        return Control(
            state="hold",
            reason=f"pilot accepted {acceptance:.0%} of {pilot.ended} samples, expected at least {MIN_ACCEPTANCE:.0%}",
        )
    cost = pilot.spent_usd / max(1, pilot.accepted)
    if cost > MAX_COST_RATIO * pilot.estimate_usd_per_sample:
        return Control(
            state="hold",
            reason=f"pilot cost ${cost:.4f} per accepted sample, expected at most {MAX_COST_RATIO} x the estimated "
            f"${pilot.estimate_usd_per_sample:.4f}",
        )
    gold = f"micro-F1 {pilot.gold_f1:.2f} against the gold of {pilot.gold_samples} conversations" if pilot.gold_samples else ""
    if pilot.gold_samples and pilot.gold_f1 < pilot.min_gold_f1:
        return Control(state="hold", reason=f"the teacher's records came to {gold}, expected at least {pilot.min_gold_f1:.2f}")
    known = f", {gold}" if gold else ""
    return Control(state="run", reason=f"pilot accepted {acceptance:.0%} at ${cost:.4f} a sample{known}")


def read_control(store: Store) -> Control:
    """The control file; a run without one runs. ConfigError where it says nothing that a writer could follow."""
    try:
        data = store.read(layout.CONTROL)
    except FileNotFoundError:
        return Control(state="run")
    try:
        found = Control(**json.loads(data))
    except (ValueError, TypeError):
        found = None
    if found is None or found.state not in get_args(State):
        raise ConfigError(
            f"{store.url}/{layout.CONTROL}: expected a state of {', '.join(get_args(State))}; write it anew with: medkd approve"
        )
    return found


def write_control(store: Store, control: Control) -> None:
    """Replace the control file; writers see it with their next progress write."""
    store.replace(layout.CONTROL, json.dumps(asdict(control)).encode())


def create_control(store: Store, control: Control) -> None:
    """Write how the run starts; a run that has started before keeps its control."""
    store.create(layout.CONTROL, json.dumps(asdict(control)).encode())


def decide_pilot(store: Store) -> Control | None:
    """The decision after the pilot, or None while shard 0 has not ended its pilot samples."""
    state = read_control(store)
    try:
        progress = json.loads(store.read(layout.shard_file(0, "progress.json")))
        cut = json.loads(store.read(layout.LAYOUT))
        total = json.loads(store.read(layout.PLAN))["total_samples"]
    except FileNotFoundError:
        return None
    ended = progress["accepted"] + progress["short"]
    if ended < state.pilot_samples:
        return None
    return decide(
        PilotResult(
            ended=ended,
            accepted=progress["accepted"],
            spent_usd=progress["spent_usd"],
            estimate_usd_per_sample=cut["estimate_usd"] / total,
            gold_samples=progress.get("gold_samples", 0),
            gold_f1=progress.get("gold_f1") or 0.0,
            min_gold_f1=state.min_gold_f1,
        )
    )
