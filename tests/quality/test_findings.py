"""Intervals, mistakes by kind, topics and calibration."""

from __future__ import annotations

import random
from typing import Any

import pytest

from medkd.config import Bars, DataSetBars, ScoreBar
from medkd.errors import ConfigError
from medkd.quality.bars import check_names, judge_scores
from medkd.quality.findings import Judged, by_topic, calibration, mistakes
from medkd.quality.intervals import f1_interval, paired_f1_interval, ratio_interval
from medkd.quality.scores import compare
from medkd.quality.verdicts import shortfalls, verdict_line
from medkd.records import PATIENT_RECORD
from tests.quality.examples import RECORD, changed


def judged(predicted: dict[str, Any] | None, *, topic: str = "gout", confidence: float | None = None, name: str = "0") -> Judged:
    comparison = compare(RECORD, predicted, PATIENT_RECORD)
    return Judged(sample_id=name, topic=topic, gold=RECORD, predicted=predicted, comparison=comparison, confidence=confidence)


def counts(num: int, share: float, seed: int) -> list[tuple[int, int, int]]:
    chance = random.Random(seed)
    return [(sum(chance.random() < share for _ in range(10)), 10, 10) for _ in range(num)]


def test_an_interval_holds_the_score_and_narrows_with_more_conversations() -> None:
    few, many = f1_interval(counts(30, 0.8, 1)), f1_interval(counts(3000, 0.8, 1))
    assert few.low < 0.8 < few.high and many.low < 0.8 < many.high
    assert many.high - many.low < (few.high - few.low) / 4


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = sum(found.low <= 0.8 <= found.high for found in (f1_interval(counts(100, 0.8, seed)) for seed in range(60)))
    assert 50 <= covered <= 60


def test_mistakes_that_come_together_widen_the_interval() -> None:
    apart = [(9, 10, 10)] * 100
    together = [(10, 10, 10)] * 90 + [(0, 10, 10)] * 10
    assert f1_interval(apart).low == f1_interval(apart).high == 0.9
    assert f1_interval(together).high - f1_interval(together).low > 0.1


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    one = counts(200, 0.7, 3)
    better = [(min(10, matched + 1), predicted, expected) for matched, predicted, expected in one]
    difference = paired_f1_interval(better, one)
    assert 0 < difference.low <= difference.high < 0.11
    assert f1_interval(better).low < f1_interval(one).high + 0.1
    with pytest.raises(ValueError, match="expected the same ones"):
        paired_f1_interval(one, one[1:])


def test_nothing_predicted_and_nothing_expected_is_right_and_no_conversation_is_no_error() -> None:
    assert f1_interval([(0, 0, 0)] * 5).low == 1.0
    assert (f1_interval([]).low, ratio_interval([(1, 2), (1, 2)]).high) == (1.0, 0.5)


def test_each_mistake_has_its_kind_field_and_example() -> None:
    wrong = changed("patient_details.age", "55")
    wrong["medical_history"]["conditions"] = []
    wrong["medical_history"]["medications"] = ["metformin", "aspirin"]
    wrong["patient_details"]["occupation"] = "Ms. Clarke"
    found = {row["kind"]: row for row in mistakes([judged(wrong, name="7"), judged(None), judged(RECORD)], PATIENT_RECORD)}
    assert {kind: row["count"] for kind, row in found.items()} == {
        "omitted": 2,
        "wrong value": 1,
        "wrong field": 1,
        "invented": 1,
        "not a record": 1,
    }
    assert found["wrong value"]["examples"] == [
        {"sample_id": "7", "field": "patient_details.age", "reference": "54", "predicted": "55"}
    ]
    assert found["wrong field"]["by_field"] == {"patient_details.occupation": 1}
    assert found["invented"]["examples"][0]["predicted"] == "aspirin"


def test_topics_come_worst_first_and_add_up() -> None:
    rows = by_topic([judged(RECORD), judged(changed("patient_details.age", "9"), topic="asthma"), judged(RECORD)], PATIENT_RECORD)
    assert [(row["topic"], row["num_samples"]) for row in rows] == [("asthma", 1), ("gout", 2)]
    assert (rows[0]["hallucinated"], rows[0]["omitted"]) == (1, 1)
    assert rows[1]["f1"] == rows[1]["low"] == rows[1]["high"] == 1.0


def test_confidence_that_is_right_is_calibrated_and_what_gives_none_is_not_judged() -> None:
    assert calibration([judged(RECORD)]) is None
    sure = calibration([judged(RECORD, confidence=1.0, name=str(number)) for number in range(20)])
    assert sure and sure["error"] == 0 and len(sure["bins"]) == 10
    overconfident = calibration([judged(None, confidence=0.9, name=str(number)) for number in range(20)])
    assert overconfident and overconfident["error"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    "score",
    ["micro.f1", "fields.patient_details.age.recall", "items.prescription.precision", "exact_match", "abstention_accuracy"],
)
def test_a_bar_is_cleared_by_the_lower_end_only(score: str) -> None:
    check_names(Bars(evaluate=(ScoreBar(score=score, at_least=0.5),)), PATIENT_RECORD)
    right, wrong = (compare(RECORD, record, PATIENT_RECORD) for record in (RECORD, None))
    comparisons = [right] * 45 + [wrong] * 5
    verdict = judge_scores([ScoreBar(score=score, at_least=0.5), ScoreBar(score=score, at_least=0.97)], comparisons)
    assert [check["passed"] for check in verdict["checks"]] == ([True, False] if "precision" not in score else [True, True])
    assert verdict["passed"] is all(check["passed"] for check in verdict["checks"])
    near = judge_scores([ScoreBar(score="exact_match", at_least=0.89)], comparisons)
    assert near["checks"][0]["got"] < 0.89 < 0.9 and not near["passed"]
    assert shortfalls(near).startswith("exact_match: got 0.8")
    assert verdict_line(near) == f"below its bar ({shortfalls(near)})"
    good = judge_scores([ScoreBar(score="exact_match", at_least=0.5)], [right] * 4)
    assert verdict_line(good) == "passed (exact_match: got 1, the bar is 0.5)"


@pytest.mark.parametrize("score", ["f1", "micro.f2", "fields.name.f1", "items.drugs.f1"])
def test_a_bar_on_a_score_that_there_is_not_is_named(score: str) -> None:
    with pytest.raises(ConfigError, match=r"bars\.evaluate\.score: got .* known: exact_match"):
        judge_scores([ScoreBar(score=score, at_least=0.5)], [compare(RECORD, RECORD, PATIENT_RECORD)])
    with pytest.raises(ConfigError, match=r"bars\.evaluate\.score: got .* known: exact_match"):
        check_names(Bars(evaluate=(ScoreBar(score=score, at_least=0.5),)), PATIENT_RECORD)


def test_a_data_set_bar_on_a_field_that_there_is_not_is_named() -> None:
    with pytest.raises(ConfigError, match=r"bars\.prepare\.share_stated: got 'orders', known: current_diagnosis"):
        check_names(Bars(prepare=DataSetBars(share_stated={"orders": 0.5})), PATIENT_RECORD)


def test_no_bars_are_cleared() -> None:
    assert judge_scores([], []) == {"passed": True, "checks": []}
    assert verdict_line(judge_scores([], [])) == "no bar set"
