"""A student's verdict travels in its model folder, and one below its bar is handed on only when that is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medkd.errors import BelowBarError, InputError
from medkd.quality.model_card import scores_section
from medkd.stages.handover import check_handed_on, evaluation_in, write_evaluation
from medkd.store import layout, manifests
from medkd.store.files import Store, open_store
from medkd.store.manifests import Manifest
from medkd.student.card import unscored
from tests.quality.written_run import STUDENT, write_run, write_student

CARD = f"students/{STUDENT}/model/README.md"
TRAINED = Manifest(stage="train", plan_hash="p", config_hash="c", files=())


def verdict(**bars: float) -> dict[str, Any]:
    """A verdict on a student that reached 0.85 of each score."""
    checks = [{"what": what, "bar": bar, "got": 0.85, "passed": bar <= 0.85} for what, bar in bars.items()]
    return {"passed": all(check["passed"] for check in checks), "checks": checks}


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What stage evaluate says of a student."""
    store = open_store(str(tmp_path_factory.mktemp("run")))
    write_run(store, num_samples=60, topics=["asthma", "migraine", "gout"], moods=["calm"])
    write_student(store)
    found: dict[str, Any] = json.loads(store.read(f"students/{STUDENT}/evaluate/scores.json"))
    return found


def evaluated(folder: Path, scores: dict[str, Any], **bars: float) -> Store:
    store = open_store(str(folder))
    store.replace(CARD, unscored("# tiny\n\nKnown limits.\n").encode())
    write_evaluation(store, STUDENT, TRAINED, {**scores, "bars": verdict(**bars)})
    return store


def test_the_card_carries_scores_intervals_reference_and_verdict(tmp_path: Path, scores: dict[str, Any]) -> None:
    store = evaluated(tmp_path, scores, exact_match=0.9)
    card = store.read(CARD).decode()
    assert card.startswith("# tiny") and "Not evaluated yet" not in card
    assert "Verdict: **below its bar**." in card and "the simulator's gold records" in card
    for model in ("student", "lexicon", "constant", "untrained"):
        span = scores["intervals"][model]
        assert f"{scores['scores'][model]['micro']['f1']:.3f} | {span['low']:.3f} to {span['high']:.3f}" in card
    assert "| `exact_match` | 0.900 | 0.850 | missed |" in card
    held_out = scores["held_out_topics"]
    assert f"student, on {held_out['num_samples']} conversations of topics that training never saw" in card
    write_evaluation(store, STUDENT, TRAINED, {**scores, "bars": verdict(exact_match=0.8)})
    again = store.read(CARD).decode()
    assert again.count("## Scores") == 1 and "Verdict: **passed**." in again and "below its bar" not in again


def test_without_a_bar_the_card_says_so(scores: dict[str, Any]) -> None:
    section = scores_section({**scores, "bars": verdict()})
    assert "Verdict: **no bar set**." in section and "| bar |" not in section
    assert "agreement with the teacher is not accuracy" in scores_section({**scores, "reference": "teacher"}).lower()
    assert "reviewed" not in section
    review = {"reviewed": {"corrected": 1200}, "judged_wrong": 3}
    assert (
        "reviewed the data set that it was trained and tested on: 0 rows confirmed, 1,200 corrected, 0 rejected"
        in scores_section({**scores, "review": review})
    )


def test_a_card_that_the_training_s_manifest_names_stays_as_it_is(tmp_path: Path, scores: dict[str, Any]) -> None:
    store = open_store(str(tmp_path))
    store.replace(CARD, b"as trained")
    trained = Manifest(stage="train", plan_hash="p", config_hash="c", files=(manifests.entry(CARD, b"as trained"),))
    write_evaluation(store, STUDENT, trained, scores)
    assert store.read(CARD) == b"as trained"
    assert store.exists(layout.student_evaluation(STUDENT))


def test_only_a_student_below_its_bar_is_refused(tmp_path: Path, scores: dict[str, Any]) -> None:
    check_handed_on(None, "here")
    check_handed_on(evaluation_in(evaluated(tmp_path / "none", scores), STUDENT), "here")
    check_handed_on(evaluation_in(evaluated(tmp_path / "passed", scores, exact_match=0.8), STUDENT), "here")
    below = evaluation_in(evaluated(tmp_path / "below", scores, exact_match=0.9), STUDENT)
    with pytest.raises(BelowBarError, match=r"exact_match: got 0\.85, the bar is 0\.9 .*--below-bar"):
        check_handed_on(below, "here")
    with pytest.raises(InputError, match="here: not readable"):
        check_handed_on(b"[]", "here")
    assert evaluation_in(open_store(str(tmp_path / "nothing")), STUDENT) is None


@pytest.mark.parametrize("files", [[], ["--input", "visits.csv", "--output", "records.jsonl"]], ids=["one", "files"])
def test_extract_refuses_a_student_below_its_bar(files: list[str], tmp_path: Path, scores: dict[str, Any]) -> None:
    evaluated(tmp_path, scores, exact_match=0.9)
    folder = tmp_path / "students" / STUDENT / "model"
    command = [sys.executable, "-m", "medkd", "extract", "--model", str(folder), *files]
    answer = subprocess.run(command, capture_output=True, text=True, input="Doctor: Hello.", timeout=100, check=False)
    assert answer.returncode == 79, answer.stderr
    assert "exact_match: got 0.85, the bar is 0.9" in answer.stderr and "--below-bar" in answer.stderr


@pytest.mark.torch
def test_extract_goes_on_with_a_student_below_its_bar_when_asked(tmp_path: Path, scores: dict[str, Any]) -> None:
    evaluated(tmp_path, scores, exact_match=0.9)
    folder = tmp_path / "students" / STUDENT / "model"
    command = [sys.executable, "-m", "medkd", "extract", "--model", str(folder), "--below-bar"]
    answer = subprocess.run(command, capture_output=True, text=True, input="Doctor: Hello.", timeout=100, check=False)
    assert answer.returncode == 78 and "no student of medkd" in answer.stderr, "there is no model in this folder"
