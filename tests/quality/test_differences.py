"""Two students on the same conversations: what is said of them, and what is not."""

from __future__ import annotations

import random
from typing import Any

import pytest

from medkd.quality.differences import LEAST_OF_TOPIC, Pair, compare_students, difference_lines
from medkd.quality.intervals import paired_f1_differences, paired_f1_interval
from medkd.quality.scores import compare, score
from medkd.records import PATIENT_RECORD, Record


def record(place: int, **details: str) -> Record:
    found = PATIENT_RECORD.empty()
    found["patient_details"] |= {"name": f"Ann {place}", "age": str(20 + place % 60), "sex": "female", **details}
    found["prescription"] = [{"drug": "aspirin", "dose": f"{place} mg", "frequency": "daily", "duration": "NOT PROVIDED"}]
    return found


def pair(gold: Record, first: Record | None, second: Record | None, topic: str = "gout") -> Pair:
    one, other = (compare(gold, said, PATIENT_RECORD) for said in (first, second))
    return Pair(topic=topic, first=one, second=other)


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in rows}


def test_a_gain_in_one_field_and_a_loss_in_another_are_told_apart_from_what_is_alike() -> None:
    pairs = []
    for place in range(60):
        gold = record(place)
        # The first one never knows an age, the second one gets half of the names wrong.
        first, second = record(place, age="NOT PROVIDED"), record(place, name="Bob" if place % 2 else f"Ann {place}")
        pairs.append(pair(gold, first, second))
    found = compare_students(pairs, PATIENT_RECORD)
    fields = by_name(found["fields"])
    assert {name: row["verdict_together"] for name, row in fields.items() if row["verdict"] != "not shown"} == {
        "patient_details.name": "worse",
        "patient_details.age": "better",
    }
    assert (fields["patient_details.age"]["first"], fields["patient_details.age"]["second"]) == (0.0, 1.0)
    assert fields["patient_details.sex"]["low"] == fields["patient_details.sex"]["high"] == 0.0
    assert "medical_history.allergies" not in fields, "nobody says anything there"
    golds = [record(place) for place in range(60)]
    seconds = [record(place, name="Bob" if place % 2 else f"Ann {place}") for place in range(60)]
    whole = score([(one, other, True, True) for one, other in zip(golds, seconds, strict=True)], PATIENT_RECORD)
    assert found["micro"]["second"] == pytest.approx(whole.micro.f1)
    text = "\n".join(difference_lines(found, "one", "other"))
    assert "better in 1 and worse in 1 of 6 fields; 95% intervals, 60 paired conversations" in text
    assert "Of 6 comparisons about 0.3 would leave zero out by chance" in text and "2 of the 2 hold" in text


def test_the_other_way_round_gains_are_losses() -> None:
    chance = random.Random(4)
    pairs = [pair(record(n), record(n + chance.randrange(2)), record(n + chance.randrange(3))) for n in range(40)]
    turned = [Pair(topic=one.topic, first=one.second, second=one.first) for one in pairs]
    for row, other in zip(*(compare_students(found, PATIENT_RECORD)["fields"] for found in (pairs, turned)), strict=True):
        assert (row["low"], row["high"]) == pytest.approx((-other["high"], -other["low"]), abs=2e-4)
        assert row["change"] == pytest.approx(-other["change"])


def test_topics_are_judged_by_their_own_conversations_and_small_ones_not_at_all() -> None:
    pairs = [pair(record(n), None, record(n), "gout") for n in range(LEAST_OF_TOPIC)]
    pairs += [pair(record(n), record(n), None, "asthma") for n in range(LEAST_OF_TOPIC)]
    pairs += [pair(record(n), record(n), None, "migraine") for n in range(LEAST_OF_TOPIC - 1)]
    found = compare_students(pairs, PATIENT_RECORD)
    topics = by_name(found["topics"])
    assert {name: row["verdict"] for name, row in topics.items()} == {"asthma": "worse", "gout": "better"}
    assert found["topics_too_small"] == {"migraine": LEAST_OF_TOPIC - 1}
    assert found["compared"] == len(found["fields"]) + 2
    assert "migraine 9" in "\n".join(difference_lines(found, "a", "b"))


def test_differences_are_those_of_the_paired_interval_and_wider_for_all_at_once() -> None:
    chance = random.Random(2)
    counts = [[(right, 5, 5) for right in (chance.randrange(6) for _ in range(80))] for _ in range(4)]
    found = paired_f1_differences([(counts[0], counts[1]), (counts[2], counts[3])], 20)
    for one, (first, second) in zip(found, ((counts[0], counts[1]), (counts[2], counts[3])), strict=True):
        known = paired_f1_interval(second, first)
        assert (one.interval.low, one.interval.high) == pytest.approx((known.low, known.high), abs=0.02)
        assert one.together.low < one.interval.low <= one.change <= one.interval.high < one.together.high
    with pytest.raises(ValueError, match="expected the same ones"):
        paired_f1_differences([(counts[0], counts[1][:-1])], 1)
    assert paired_f1_differences([], 1) == []


def test_equal_students_seem_different_alone_and_hardly_ever_together() -> None:
    alone = together = trials = 0
    for seed in range(25):
        chance = random.Random(seed)
        columns = [tuple([(int(chance.random() < 0.7), 1, 1) for _ in range(100)] for _ in range(2)) for _ in range(14)]
        found = paired_f1_differences([(one, other) for one, other in columns], 14)
        trials += 1
        alone += any(one.interval.low > 0 or one.interval.high < 0 for one in found)
        together += any(one.together.low > 0 or one.together.high < 0 for one in found)
    assert alone > trials / 4, "one of 14 leaves zero out more often than not"
    assert together <= trials / 5
