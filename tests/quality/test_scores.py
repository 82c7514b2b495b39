"""Scores: counts by hand, and the properties that make them trustworthy."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.quality.scores import Scores, compare, pairs, score
from medkd.records import NOT_PROVIDED, PATIENT_RECORD
from tests.quality.examples import RECORD, changed, records

SCHEMA = PATIENT_RECORD


def scores_of(gold: dict[str, Any], predicted: dict[str, Any] | None) -> Scores:
    return score([(gold, predicted, predicted is not None, predicted is not None)], SCHEMA)


def shuffled(record: dict[str, Any], seed: int) -> dict[str, Any]:
    chance, other = random.Random(seed), copy.deepcopy(record)
    lists = [*other["medical_history"].values(), other["current_diagnosis"]["symptoms"], other["prescription"]]
    for entries in lists:
        chance.shuffle(entries)
    return other


def test_one_wrong_dose_costs_one_pair_and_one_item() -> None:
    scores = scores_of(RECORD, changed("prescription[].dose", "25 mg"))
    assert (scores.micro.matched, scores.micro.predicted, scores.micro.expected) == (15, 16, 16)
    assert scores.fields["prescription[].dose"].f1 == 0
    assert scores.fields["prescription[].drug"].f1 == 1
    assert scores.items["prescription"].matched == 0
    assert (scores.hallucinated, scores.omitted, scores.exact_match) == (1, 1, 0)


def test_a_forgotten_fact_is_omitted_and_an_invented_one_hallucinated() -> None:
    forgotten, invented = scores_of(RECORD, changed("patient_details.age", NOT_PROVIDED)), copy.deepcopy(RECORD)
    invented["medical_history"]["conditions"].append("asthma")
    assert (forgotten.hallucinated, forgotten.omitted) == (0, 1)
    assert forgotten.micro.precision == 1
    assert (scores_of(RECORD, invented).hallucinated, scores_of(RECORD, invented).omitted) == (1, 0)


def test_spelling_of_numbers_and_units_does_not_count() -> None:
    assert scores_of(RECORD, changed("prescription[].dose", "12.5 milligrams")).exact_match == 1
    assert scores_of(RECORD, changed("current_diagnosis.duration", "3 weeks")).exact_match == 1


def test_an_invalid_prediction_predicts_nothing() -> None:
    scores = score([(RECORD, None, True, False), (RECORD, RECORD, True, True)], SCHEMA)
    assert (scores.valid_json, scores.valid_schema, scores.exact_match) == (1, 0.5, 0.5)
    assert (scores.micro.precision, scores.micro.recall) == (1, 0.5)
    assert scores.abstention_accuracy == 0.5
    assert scores_of(SCHEMA.empty(), None).exact_match == 0


def test_abstention_is_scored_apart_from_the_pairs() -> None:
    silent = scores_of(RECORD, SCHEMA.empty())
    assert (silent.micro.predicted, silent.micro.f1, silent.abstention.expected) == (0, 0, 0)
    both = scores_of(SCHEMA.empty(), SCHEMA.empty())
    assert (both.micro.expected, both.micro.f1, both.abstention.recall, both.abstention_accuracy) == (0, 1, 1, 1)


def test_an_explicit_denial_is_a_claim() -> None:
    scores = scores_of(RECORD, changed("medical_history.allergies", []))
    assert scores.fields["medical_history.allergies"].recall == 0
    assert scores.abstention.precision == 0


@given(records(), records())
def test_f1_is_one_exactly_where_the_claims_are_equal(gold: dict[str, Any], predicted: dict[str, Any]) -> None:
    equal = pairs(gold, SCHEMA) == pairs(predicted, SCHEMA)
    assert (scores_of(gold, predicted).micro.f1 == 1) == equal


@given(records(), records(), st.integers())
def test_the_order_of_lists_and_items_does_not_matter(gold: dict[str, Any], predicted: dict[str, Any], seed: int) -> None:
    assert scores_of(gold, predicted) == scores_of(shuffled(gold, seed), shuffled(predicted, seed + 1))
    assert scores_of(gold, shuffled(gold, seed)).exact_match == 1


@given(st.lists(st.tuples(records(), st.none() | records()), max_size=4))
def test_every_figure_keeps_its_bounds_and_every_count_adds_up(rows: list[tuple[dict[str, Any], dict[str, Any] | None]]) -> None:
    scores = score([(gold, predicted, predicted is not None, predicted is not None) for gold, predicted in rows], SCHEMA)
    agreements = [scores.micro, scores.abstention, *scores.fields.values(), *scores.items.values()]
    for agreement in agreements:
        assert 0 <= agreement.matched <= min(agreement.predicted, agreement.expected)
        assert all(0 <= ratio <= 1 for ratio in (agreement.precision, agreement.recall, agreement.f1))
    assert all(0 <= share <= 1 for share in (scores.valid_json, scores.exact_match, scores.abstention_accuracy))
    assert scores.micro.matched == sum(agreement.matched for agreement in scores.fields.values())
    assert json.loads(json.dumps(asdict(scores), allow_nan=False)) == asdict(scores)


@given(records(), records())
def test_precision_of_one_direction_is_recall_of_the_other(one: dict[str, Any], other: dict[str, Any]) -> None:
    there, back = compare(one, other, SCHEMA).agreement, compare(other, one, SCHEMA).agreement
    assert there.precision == pytest.approx(back.recall)
    assert there.f1 == pytest.approx(back.f1)
