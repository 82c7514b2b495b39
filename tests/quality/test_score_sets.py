"""Which scores stand beside which: kinds of reference that are told apart, and the teacher where it has answered."""

from __future__ import annotations

from typing import Any

from medkd.quality.score_sets import Prediction, Reference, score_sets
from medkd.records import PATIENT_RECORD
from medkd.stages.answers import certain, prediction_rows, teachers
from tests.quality.examples import RECORD, changed

OTHER = changed("patient_details.age", "44")


def row(number: int, *, whose: str = "teacher", held_out: bool = False) -> dict[str, Any]:
    output = PATIENT_RECORD.canonical(OTHER)
    about = {"topic": "gout", "held_out_topic": held_out, "reference": whose}
    return {"sample_id": f"{number:09}", "input": "Doctor: Hello.", "output": output, **about}


def scores(rows: list[dict[str, Any]], sources: list[str]) -> dict[str, Any]:
    references = [Reference(OTHER if source == "teacher" else RECORD, source) for source in sources]
    student: list[Prediction | None] = [certain(RECORD, PATIENT_RECORD) for _ in rows]
    found = {"student": student, **teachers(rows, references, PATIENT_RECORD)}
    written = prediction_rows(rows, references, found, PATIENT_RECORD)
    return {**score_sets(rows, references, found, PATIENT_RECORD), "written": written}


def test_a_teacher_is_scored_where_people_have_said_what_is_right_and_others_have_not() -> None:
    # Two rows of a review, and one that nobody has looked at, whose only known record is the teacher's own.
    found = scores([row(0), row(1), row(2)], ["human", "human", "teacher"])
    assert found["reference"] == "human" and set(found["scores"]) == {"student", "teacher"}
    assert found["beside_teacher"]["num_samples"] == 2 and found["beside_teacher"]["share"] > 1
    assert set(found["other_references"]["teacher"]["scores"]) == {"student"}
    assert [line["sample_id"] for line in found["written"] if line["model"] == "teacher"] == ["000000000", "000000001"]


def test_a_teacher_that_has_not_answered_all_of_a_set_stands_only_beside_the_student_there() -> None:
    # The second row was rejected and let in with a person's record.
    found = scores([row(0), row(1, whose="human")], ["human", "human"])
    assert set(found["scores"]) == {"student"} and found["num_samples"] == 2
    assert found["beside_teacher"]["num_samples"] == 1


def test_without_any_record_of_the_teachers_there_is_nothing_beside_the_student() -> None:
    assert "beside_teacher" not in scores([row(0)], ["teacher"])


def test_held_out_topics_with_references_of_several_kinds_are_called_mixed() -> None:
    found = scores([row(0), row(1, held_out=True), row(2, held_out=True)], ["human", "human", "simulator"])
    assert found["reference"] == "human" and found["held_out_topics"]["reference"] == "mixed"
    assert scores([row(1, held_out=True), row(2, held_out=True)], ["simulator", "human"])["reference"] == "mixed"
    assert scores([row(1, held_out=True)], ["simulator"])["held_out_topics"]["reference"] == "simulator"
