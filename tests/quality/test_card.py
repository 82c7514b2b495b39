"""The data set's card says where rows are missing and what they cost, in tables that hold any name."""

from __future__ import annotations

from medkd.quality.card import data_set_card
from medkd.quality.statistics import Statistics
from medkd.records import PATIENT_RECORD

STATISTICS = {**Statistics(PATIENT_RECORD).summary(), "duplicates": {}, "data_set_hash": "d", "plan_hash": "p"}


def short(topic: str, accepted: int) -> dict[str, object]:
    return {"topic": topic, "mood": "calm", "planned": 30, "accepted": accepted, "reasons": {"refused": 8, "not_json": 4}}


def test_acceptance_and_short_cells_are_tables() -> None:
    nothing = {"samples": 3, "tries": 9, "accepted": 0, "acceptance": 0.0, "cost_usd": 0.1, "cost_per_accepted_usd": None}
    some = {"samples": 3, "tries": 4, "accepted": 3, "acceptance": 0.75, "cost_usd": 0.3, "cost_per_accepted_usd": 0.1}
    acceptance = {"teacher": {"clinic": some}, "topic": {"a|b": nothing}, "mood": {}}
    cells = [short(f"topic {number:02}", number) for number in range(25)]
    card = data_set_card({**STATISTICS, "acceptance": acceptance, "short_cells": cells})
    assert "| clinic | 4 | 3 | 75.0% | $0.100000 |" in card
    assert "| a\\|b | 9 | 0 | 0.0% | - |" in card
    assert "| topic 00 | calm | 30 | 0 | refused 8, not_json 4 |" in card
    assert "topic 19" in card and "topic 20" not in card and "5 more are in `statistics.json`." in card


def test_rows_that_no_teacher_wrote_have_no_table() -> None:
    assert "| --- |" not in data_set_card(STATISTICS)
