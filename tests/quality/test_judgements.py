"""From what stands in a filled row to a judgement or to what is wrong with it, and from several judgements to a decision."""

from __future__ import annotations

import json
from typing import Any

import pytest

from medkd.quality.judgements import Judgement, Shown, UnusableRow, decide, implied_verdicts, is_filled, read_judgement
from medkd.records import NOT_PROVIDED, PATIENT_RECORD, Record

LEAVES = PATIENT_RECORD.leaves()


def record(name: str = "Ann Lee", age: str = "52", symptoms: tuple[str, ...] = (), drugs: tuple[str, ...] = ()) -> Record:
    found = PATIENT_RECORD.empty()
    found["patient_details"] |= {"name": name, "age": age}
    found["current_diagnosis"]["symptoms"] = list(symptoms)
    found["prescription"] = [
        {"drug": drug, "dose": dose, "frequency": NOT_PROVIDED, "duration": NOT_PROVIDED}
        for drug, dose in (text.split("/") for text in drugs)
    ]
    return found


def judged(shown: Record | None = None, no_record: bool = False, **values: Any) -> Judgement:
    row = {"reviewer": "ada", **values}
    return read_judgement(row, Shown(sample_id="a", record=None if no_record else shown or record()), PATIENT_RECORD)


def problems(**values: Any) -> str:
    with pytest.raises(UnusableRow) as caught:
        judged(**values)
    return "; ".join(caught.value.problems)


def test_the_same_row_from_csv_and_from_json_lines_is_one_judgement() -> None:
    right = record(age="25")
    csv_cells = dict.fromkeys((f"verdict:{path}" for path in LEAVES), "Right") | {"verdict:patient_details.age": " WRONG "}
    from_csv = judged(**csv_cells, corrected_record=json.dumps(right, indent=2), comment=" said twice ")
    verdicts = dict.fromkeys(LEAVES, "right") | {"patient_details.age": "wrong"}
    assert from_csv == judged(verdicts=verdicts, corrected_record=right, comment="said twice")
    assert (from_csv.whole, from_csv.corrected, from_csv.comment) == ("wrong", right, "said twice")


def test_whole_right_stands_for_all_fields_and_a_part_of_the_fields_is_no_whole() -> None:
    assert judged(whole="right").verdicts == dict.fromkeys(LEAVES, "right")
    part = judged(verdicts={LEAVES[0]: "right"})
    assert (part.whole, part.verdicts) == (None, {LEAVES[0]: "right"})
    assert judged(verdicts={LEAVES[0]: "not_said"}).whole == "wrong"


@pytest.mark.parametrize(
    ("shown", "corrected", "path", "verdict"),
    [
        (record(age="25"), record(), "patient_details.age", "wrong"),
        (record(age=NOT_PROVIDED), record(), "patient_details.age", "missing"),
        (record(), record(age=NOT_PROVIDED), "patient_details.age", "not said"),
        (record(symptoms=("cough", "fever")), record(symptoms=("cough",)), "current_diagnosis.symptoms", "not said"),
        (record(symptoms=("cough",)), record(symptoms=("fever", "cough")), "current_diagnosis.symptoms", "missing"),
        (record(symptoms=("cough", "rash")), record(symptoms=("fever", "cough")), "current_diagnosis.symptoms", "wrong"),
        (record(drugs=("a/1 mg", "b/2 mg")), record(drugs=("a/2 mg", "b/1 mg")), "prescription[].drug", "wrong"),
    ],
)
def test_a_correction_says_what_was_the_matter(shown: Record, corrected: Record, path: str, verdict: str) -> None:
    found = implied_verdicts(shown, corrected, PATIENT_RECORD)
    assert found == dict.fromkeys(LEAVES, "right") | {path: verdict}
    assert judged(shown, corrected_record=corrected).verdicts == found


def test_a_correction_that_changes_nothing_confirms() -> None:
    same = judged(record(symptoms=("cough", "fever")), corrected_record=record(symptoms=("Fever", "cough")))
    assert (same.whole, same.corrected) == ("right", None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"verdicts": {LEAVES[0]: "perhaps"}}, f'verdict:{LEAVES[0]}: got "perhaps", expected right, wrong, not said, missing'),
        ({"verdicts": {"patient.name": "right"}}, "verdict:patient.name: no such field; fields are patient_details.name"),
        ({"verdicts": ["right"]}, "verdicts: got list, expected an object"),
        ({"whole": "missing"}, 'whole: got "missing", expected right, wrong or nothing'),
        ({"whole": "right", "reviewer": " "}, "reviewer: missing"),
        ({"whole": "right", "verdicts": {LEAVES[0]: "wrong"}}, f"whole: got right, but verdict:{LEAVES[0]} is wrong"),
        ({"whole": "wrong", "verdicts": dict.fromkeys(LEAVES, "right")}, "whole: got wrong, but every field is right"),
        ({"corrected_record": "{"}, "corrected_record: not JSON at line 1"),
        ({"corrected_record": record(age="old")}, 'corrected_record: patient_details.age: got "old", expected digits'),
        ({"corrected_record": {"age": "1"}}, "corrected_record: the answer: missing patient_details"),
        (
            {"corrected_record": record(age="25"), "verdicts": {"patient_details.age": "right"}},
            "verdict:patient_details.age: got right, but corrected_record says something else",
        ),
        (
            {"corrected_record": record(age="25"), "verdicts": {"patient_details.name": "wrong"}},
            "verdict:patient_details.name: got wrong, but corrected_record says the same",
        ),
        ({"no_record": True, "whole": "right"}, "this row shows no record that could be right"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_is_allowed(values: dict[str, Any], words: str) -> None:
    assert words in problems(**values)


def test_a_conversation_that_slipped_into_another_column_is_not_repeated() -> None:
    found = problems(whole="Doctor: Good morning, Ms. Canary. How are you today?")
    assert found == "whole: got a text of 52 characters, expected right, wrong or nothing"


def test_all_problems_of_a_row_are_said_at_once() -> None:
    found = problems(reviewer="", whole="no", verdicts={LEAVES[0]: "x"}, corrected_record="[")
    assert found.count(";") >= 3


def test_a_row_without_a_record_can_be_written_or_given_up() -> None:
    assert judged(no_record=True, corrected_record=record()).corrected == record()
    given_up = judged(no_record=True, whole="wrong")
    assert (given_up.whole, given_up.corrected) == ("wrong", None)


def test_a_name_alone_fills_nothing_in() -> None:
    empty = {"reviewer": "ada", "verdicts": dict.fromkeys(LEAVES, ""), "whole": "", "corrected_record": None, "comment": " "}
    assert not is_filled(empty)
    assert is_filled({**empty, "comment": "unclear"}) and is_filled({"verdict:a": "right"})


def decided(*rows: dict[str, Any], adjudicator: str | None = None, shown: Record | None = None) -> tuple[str, Record | None]:
    found = shown or record(age="25")
    judgements = [judged(found, **row) for row in rows]
    outcome = decide(judgements, Shown(sample_id="a", record=found), PATIENT_RECORD, adjudicator)
    return outcome.decision, outcome.record


def test_what_becomes_of_a_row() -> None:
    confirms, corrects = {"whole": "right"}, {"corrected_record": record()}
    rejects, other = {"whole": "wrong"}, {"corrected_record": record(age="53")}
    ben = {"reviewer": "ben"}
    assert decided(confirms) == ("confirmed", record(age="25"))
    assert decided(corrects) == decided(corrects, rejects | ben) == decided(corrects, corrects | ben) == ("corrected", record())
    assert decided(rejects) == ("wrong", None)
    assert decided({"verdicts": {LEAVES[0]: "right"}}) == ("open", None)
    assert decided(confirms, {"verdicts": {LEAVES[0]: "right"}} | ben) == ("confirmed", record(age="25"))
    for second in (corrects, rejects):
        assert decided(confirms, second | ben) == ("disputed", None)
    assert decided(corrects, other | ben) == ("disputed", None)
    assert decided(confirms, corrects | ben, adjudicator="ben") == ("corrected", record())
    assert decided(confirms, corrects | ben, adjudicator="cleo") == ("disputed", None)
