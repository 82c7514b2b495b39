"""Whether shards may spend, and the decision after the pilot."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from medkd.errors import ConfigError
from medkd.stages.control import (
    PILOT_SAMPLES,
    Control,
    PilotResult,
    create_control,
    decide,
    decide_pilot,
    first_control,
    read_control,
    write_control,
)
from medkd.store import layout
from medkd.store.files import Store


def result(**changes: Any) -> PilotResult:
    values = {"ended": 50, "accepted": 50, "spent_usd": 0.5, "estimate_usd_per_sample": 0.01}
    return PilotResult(**{**values, **changes})


@pytest.mark.parametrize(
    ("samples", "priced", "state"), [(999, True, "run"), (1000, True, "pilot"), (1000, False, "run"), (10**6, False, "run")]
)
def test_only_large_runs_that_cost_money_start_with_a_pilot(samples: int, priced: bool, state: str) -> None:
    assert first_control(samples, 100, priced=priced).state == state


def test_a_pilot_never_waits_for_more_samples_than_the_first_shard_has() -> None:
    assert first_control(1000, 500, priced=True).pilot_samples == PILOT_SAMPLES
    assert first_control(1000, 2, priced=True).pilot_samples == 2


@pytest.mark.parametrize(
    ("pilot", "state", "reason"),
    [
        (result(), "run", r"pilot accepted 100% at \$0\.0100 a sample"),
        (result(accepted=35), "run", "accepted 70%"),
        (result(accepted=34), "hold", "pilot accepted 68% of 50 samples, expected at least 70%"),
        (result(accepted=0, spent_usd=0.0), "hold", "accepted 0%"),
        (result(spent_usd=0.75), "run", ""),
        (result(spent_usd=0.76), "hold", r"cost \$0\.0152 per accepted sample, expected at most 1\.5 x the estimated \$0\.0100"),
        (result(accepted=40, spent_usd=0.62), "hold", r"cost \$0\.0155"),
        (result(ended=1, accepted=1, spent_usd=0.01), "run", ""),
        (result(gold_samples=40, gold_f1=0.8, min_gold_f1=0.7), "run", r", micro-F1 0\.80 against the gold of 40 conversations"),
        (result(gold_samples=40, gold_f1=0.69, min_gold_f1=0.7), "hold", r"micro-F1 0\.69 .*, expected at least 0\.70"),
        (result(gold_samples=40, gold_f1=0.0), "run", "micro-F1 0"),
        (result(gold_f1=0.0, min_gold_f1=0.7), "run", "accepted 100%"),
    ],
)
def test_a_pilot_goes_on_or_holds_with_its_reason(pilot: PilotResult, state: str, reason: str) -> None:
    decision = decide(pilot)
    assert decision.state == state
    assert re.search(reason, decision.reason)


def pilot_store(store: Store, **progress: Any) -> Store:
    """A run of 1,000 samples estimated at 10 dollars, whose shard 0 has come this far."""
    create_control(store, first_control(1000, 100, priced=True))
    store.replace(layout.PLAN, json.dumps({"total_samples": 1000}).encode())
    store.replace(layout.LAYOUT, json.dumps({"estimate_usd": 10.0}).encode())
    values = {"accepted": 50, "short": 0, "spent_usd": 0.5, **progress}
    store.replace(layout.shard_file(0, "progress.json"), json.dumps(values).encode())
    return store


def test_the_pilot_is_decided_when_its_samples_have_ended_and_not_before(store: Store) -> None:
    assert decide_pilot(store) is None, "nothing is there yet"
    assert decide_pilot(pilot_store(store, accepted=40, short=9)) is None
    decision = decide_pilot(pilot_store(store, accepted=40, short=10))
    assert decision
    assert decision.state == "run"


def test_the_teacher_is_scored_on_the_gold_of_the_pilots_conversations(store: Store) -> None:
    create_control(store, first_control(1000, 100, True, min_gold_f1=0.7))
    assert read_control(store).min_gold_f1 == 0.7
    decision = decide_pilot(pilot_store(store, gold_samples=50, gold_f1=0.4))
    assert decision and decision.state == "hold" and "0.40 against the gold of 50 conversations" in decision.reason


def test_samples_that_ended_without_an_acceptance_count_against_the_pilot(store: Store) -> None:
    decision = decide_pilot(pilot_store(store, accepted=30, short=20))
    assert decision
    assert decision.state == "hold"


def test_control_is_read_back_and_a_run_without_one_runs(store: Store) -> None:
    assert read_control(store) == Control(state="run")
    written = Control(state="hold", reason="ümläut", pilot_samples=7)
    write_control(store, written)
    assert read_control(store) == written


def test_a_run_that_started_before_keeps_its_control(store: Store) -> None:
    write_control(store, Control(state="hold", reason="by hand"))
    create_control(store, Control(state="run"))
    assert read_control(store).state == "hold"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"state": "stop"}', b'{"state": "Hold"}', b'{"state": null}', b'{"state": "run", "x": 1}'],
)
def test_a_control_that_cannot_be_followed_stops_instead_of_spending(store: Store, content: bytes) -> None:
    store.replace(layout.CONTROL, content)
    with pytest.raises(
        ConfigError, match=r"control\.json: expected a state of pilot, run, hold; write it anew with: medkd approve"
    ):
        read_control(store)
