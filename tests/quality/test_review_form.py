"""The review form as people use it: in a real browser, with keys and mouse, and what it saves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medkd.quality.judgements import Shown, read_judgement
from medkd.quality.review_form import review_form
from medkd.records import NOT_PROVIDED, PATIENT_RECORD, Field, RecordSchema
from medkd.samples import turns
from tests import browser

TALK = """Doctor: Hello, who are you?
Patient: I'm Ann Lee, 52 </script><b>years</b> old.
Doctor: You have gout. Take colchicine 0.5 mg."""


def record(**changes: Any) -> dict[str, Any]:
    found = PATIENT_RECORD.empty()
    found["patient_details"] |= {"name": "Ann Lee", "age": "25"}
    found["current_diagnosis"] |= {"condition": "gout", "symptoms": ["thirst"]}
    found["prescription"] = [{"drug": "colchicine", "dose": "5 mg", "frequency": NOT_PROVIDED, "duration": NOT_PROVIDED}]
    return {**found, **changes}


def row(sample_id: str, given: dict[str, Any] | None) -> dict[str, Any]:
    spoken = [{"number": number, "speaker": turn.speaker, "text": turn.text} for number, turn in enumerate(turns(TALK), 1)]
    none = {"raw_text": "I can't <i>help</i>."} if given is None else {}
    return {"sample_id": sample_id, "turns": spoken, "record": given, **none}


def written(path: Path, rows: list[dict[str, Any]], schema: RecordSchema = PATIENT_RECORD, phi: bool | None = True) -> Path:
    evidence = [{"patient_details.name": [2], "prescription[].drug": [3]} for _ in rows]
    path.write_text(review_form("first-0a1b2c3d", rows, evidence, schema, contains_phi=phi), encoding="utf-8")
    return path


def test_the_page_asks_for_nothing_and_text_stays_text(tmp_path: Path) -> None:
    page = written(tmp_path / "form.html", [row("000000001v0", record())]).read_text()
    assert "default-src 'none'; script-src 'sha256-" in page
    assert "</script><b>" not in page and "<i>help" not in page
    assert page.count("<script") == 2 and "http" not in page.replace("http-equiv", "")
    assert "This file holds patient data" in page
    assert "patient data" not in written(tmp_path / "other.html", [row("000000001v0", record())], phi=None).read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    if not browser.found():
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    with browser.page(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def verdict(path: str, word: str) -> str:
    return f'[data-path="{path}"] input[value="{word}"] + span'


def test_a_row_is_judged_corrected_kept_and_saved(page: browser.Page, tmp_path: Path) -> None:
    form = written(tmp_path / "form.html", [row("000000001v0", record()), row("000000002v1", None)])
    page.open(form)
    page.run("localStorage.clear()")
    page.open(form)
    page.click("#save")
    assert page.text("#said") == "Write your name first."
    page.type("#reviewer", "Dr. Ada")
    page.click(verdict("patient_details.name", "right"))
    assert page.run("return [...document.querySelectorAll('#talk .marked')].map((turn) => turn.id)") == ["turn-2"]
    page.click(verdict("patient_details.age", "wrong"))
    page.run(
        "const box = document.querySelector('[data-path=\"patient_details.age\"] .correction input'); box.value = ''; box.focus()"
    )
    assert "Not corrected: patient details: age" in page.text("#left")
    page.type('[data-path="patient_details.age"] .correction input', "52")
    page.click(verdict("current_diagnosis.symptoms", "not said"))
    page.run(
        "const box = document.querySelector('[data-path=\"current_diagnosis.symptoms\"] textarea');"
        "box.value = ''; box.dispatchEvent(new Event('input'))"
    )
    page.click(".items .edit button")
    page.run("document.querySelectorAll('.item input')[1].select()")
    page.type('.item input[aria-label="prescription: dose dose"]', "0.5 mg")
    page.run("document.querySelector('.item input').focus()")
    assert page.run("return [...document.querySelectorAll('#talk .marked')].map((turn) => turn.id)") == ["turn-3"]
    assert page.run("return document.querySelector('[data-path=\"prescription[].dose\"] input:checked').value") == "wrong"
    page.click("#rest")
    assert page.text("#said") == "1 judged"
    # Another visit: what was filled in is still there.
    page.open(form)
    assert page.run("return document.getElementById('reviewer').value") == "Dr. Ada"
    page.click("#open")
    assert page.text("#number") == "2" and page.text("#record pre") == "I can't <i>help</i>."
    page.type('[data-path="patient_details.name"] .correction input', "Ann Lee")
    page.click("#save")
    saved = [json.loads(line) for line in page.downloaded("first-0a1b2c3d-dr-ada.jsonl").read_text().splitlines()]
    first, second = (
        read_judgement(line, Shown(sample_id=line["sample_id"], record=given), PATIENT_RECORD)
        for line, given in zip(saved, (record(), None), strict=True)
    )
    assert first.reviewer == "Dr. Ada" and first.whole == "wrong"
    assert {path: said for path, said in first.verdicts.items() if said != "right"} == {
        "patient_details.age": "wrong",
        "current_diagnosis.symptoms": "not said",
        "prescription[].dose": "wrong",
    }
    wanted = record()
    wanted["patient_details"]["age"] = "52"
    wanted["current_diagnosis"]["symptoms"] = []
    wanted["prescription"][0]["dose"] = "0.5 mg"
    assert first.corrected == wanted
    assert second.corrected and second.corrected["patient_details"]["name"] == "Ann Lee"
    assert [entry for entry in page.log() if "favicon" not in entry] == []


STATE = "return JSON.parse(localStorage.getItem('medkd-review:first-0a1b2c3d'))"


def fresh(page: browser.Page, form: Path) -> None:
    """The form as on another computer."""
    page.open(form)
    page.run("localStorage.clear()")
    page.open(form)


def load(page: browser.Page, path: Path) -> str:
    """What the form says once it has loaded a file."""
    page.run("document.getElementById('said').textContent = ''")
    page.type("#file", str(path))
    return page.until("return document.getElementById('said').textContent")


def test_a_saved_file_is_loaded_and_gone_on_from(page: browser.Page, tmp_path: Path) -> None:
    form = written(tmp_path / "form.html", [row("000000001v0", record()), row("000000002v1", None), row("000000003v0", record())])
    fresh(page, form)
    page.type("#reviewer", "Ben")
    page.click(verdict("patient_details.age", "wrong"))
    # Corrected in part: the age is, the name is not yet.
    page.type('[data-path="patient_details.age"] .correction input', "2")
    page.click(verdict("patient_details.name", "wrong"))
    page.click("#forward")
    page.type('[data-path="patient_details.name"] .correction input', "Ann Lee")
    page.click("#forward")
    page.click(".items .edit button")
    page.type('.item input[aria-label="prescription: dose dose"]', " twice")
    page.click("#rest")
    page.type("#comment", "dose")
    page.click("#save")
    saved = page.downloaded("first-0a1b2c3d-ben.jsonl")
    before = page.run(STATE)
    fresh(page, form)
    assert load(page, saved) == "Loaded 3 rows."
    assert page.run(STATE) == before
    assert page.run("return document.getElementById('reviewer').value") == "Ben"
    assert page.run("return document.querySelector('[data-path=\"patient_details.age\"] .correction input').value") == "252"
    # Chosen again nothing is lost, so nothing is asked.
    assert load(page, saved) == "Loaded 3 rows."
    first = read_judgement(json.loads(saved.read_text().splitlines()[0]), Shown(sample_id="1", record=record()), PATIENT_RECORD)
    assert first.corrected is None and set(first.verdicts) == {"patient_details.age", "patient_details.name"}


def test_a_file_that_is_none_of_this_review_is_refused_and_changes_nothing(page: browser.Page, tmp_path: Path) -> None:
    form = written(tmp_path / "form.html", [row("000000001v0", record())])
    fresh(page, form)
    page.type("#reviewer", "Ada")
    page.click(verdict("patient_details.age", "right"))
    before = page.run(STATE)
    good = {"review": "first-0a1b2c3d", "sample_id": "000000001v0", "reviewer": "Ada", "verdicts": {}}
    for change, said in (
        ({"review": "second-00000000"}, "line 2 is of no row of review first-0a1b2c3d."),
        ({"sample_id": "000000009v0"}, "line 2 is of no row of review first-0a1b2c3d."),
        ({"verdicts": {"patient_details.age": "maybe"}}, "line 2 does not know the verdict of patient_details.age."),
        ({"corrected_record": {"age": "3"}}, "line 2 does not hold a record of these fields."),
        ({"reviewer": "Ben"}, "line 2 is Ben's, those before it are Ada's."),
    ):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in (good, {**good, **change})))
        assert load(page, path) == f"Nothing was loaded: {said}"
    path.write_text("Doctor: Hello.")
    assert load(page, path) == "Nothing was loaded: line 1 is not one that this form saves."
    path.write_text(json.dumps({**good, "reviewer": "Ben"}))
    assert load(page, path) == "Nothing was loaded: the file is Ben's, and you are Ada."
    assert page.run(STATE) == before
    # What is filled in otherwise is only replaced by somebody who wants that.
    path.write_text(json.dumps({**good, "verdicts": {"patient_details.age": "wrong"}}))
    page.run("window.confirm = () => false")
    page.type("#file", str(path))
    assert page.run(STATE) == before
    page.run("window.confirm = () => true")
    assert load(page, path) == "Loaded 1 rows."
    assert page.run(STATE)["rows"]["000000001v0"]["verdicts"] == {"patient_details.age": "wrong"}


def test_the_keyboard_alone_judges_a_row_of_any_schema(page: browser.Page, tmp_path: Path) -> None:
    schema = RecordSchema(
        name="orders",
        version=1,
        fields=(
            Field(name="reason", kind="text", description="why"),
            Field(
                name="orders", kind="items", description="what", fields=(Field(name="turns", kind="list", description="where"),)
            ),
        ),
    )
    given = {"reason": "gout", "orders": [{"turns": ["3"]}]}
    form = written(tmp_path / "orders.html", [row("000000001v0", given), row("000000002v0", given)], schema)
    page.open(form)
    page.run("localStorage.clear()")
    page.open(form)
    page.press("j", "1", "2")
    assert page.run("return JSON.parse(localStorage.getItem('medkd-review:first-0a1b2c3d')).rows['000000001v0'].verdicts") == {
        "reason": "right",
        "orders[].turns": "wrong",
    }
    page.press("n", "a")
    assert page.text("#number") == "2" and page.text("#said") == "2 judged"
    page.press("p")
    assert page.text("#number") == "1"
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")
