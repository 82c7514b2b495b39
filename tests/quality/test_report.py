"""The report page: self-contained, safe with hostile text, complete when a run is and honest when it is not."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from medkd.errors import InputError
from medkd.quality.charts import line_chart
from medkd.quality.report import render
from medkd.quality.scores import compare
from medkd.quality.side_by_side import best_median_worst, rows
from medkd.records import PATIENT_RECORD
from medkd.stages.report import gather, write_report
from medkd.store import layout, manifests, tables
from medkd.store.files import Store, open_store
from tests.quality.examples import RECORD, changed
from tests.quality.written_run import STUDENT, write_review, write_run, write_student

TOPICS = ["asthma", "migraine", "gout", "eczema"]
MOODS = ["calm", "anxious"]


class Page(HTMLParser):
    """Elements, attributes and visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "col", "line", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "polyline"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A finished run; tests only read it."""
    store = open_store(str(tmp_path_factory.mktemp("run")))
    write_run(store, num_samples=120, topics=TOPICS, moods=MOODS)
    write_student(store)
    return store


def page_of(store: Store, student: str | None = STUDENT) -> Page:
    return Page(store.read(write_report(store, student)).decode())


def test_a_finished_run_shows_every_block_and_the_files_of_its_numbers(run: Store) -> None:
    page = page_of(run)
    assert "Not there yet" not in page.text
    assert page.open == []
    for path in (
        "generate/shard-*/samples.parquet",
        "generate/shard-*/calls.parquet",
        "dataset/statistics.json",
        f"students/{STUDENT}/train/metrics.jsonl",
        f"students/{STUDENT}/evaluate/scores.json",
        f"students/{STUDENT}/evaluate/predictions.parquet",
    ):
        assert path in page.text
    scores = json.loads(run.read(f"students/{STUDENT}/evaluate/scores.json"))
    assert f"{scores['scores']['student']['micro']['f1']:.3f}" in page.words
    assert "120 accepted, 2 of 2 shards" in page.text


def test_the_page_loads_nothing_and_runs_nothing(run: Store) -> None:
    html = run.read(write_report(run, STUDENT)).decode()
    page = Page(html)
    assert not re.search(r"https?://|@import|url\(", html)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object", "form"}
    for _, attributes in page.elements:
        assert not {name for name in attributes if name in ("src", "href") or name.startswith("on")}


def test_hostile_text_stays_text(run: Store) -> None:
    data = gather(run, STUDENT, written_at="now")
    assert data.examples
    hostile = '<script>alert(1)</script><b onclick="x">{{ 7 * 7 }}'
    example: Any = data.examples.examples[0]
    object.__setattr__(example, "topic", hostile)
    object.__setattr__(example, "turns", (type(example.turns[0])("Patient", hostile),))
    object.__setattr__(example, "rows", rows(changed("patient_details.name", hostile), None, PATIENT_RECORD))
    page = Page(render(data))
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.text.count("<script>alert(1)</script>") == 3
    assert "{{ 7 * 7 }}" in page.text


def test_a_prefix_without_any_file_has_a_page_that_says_so(tmp_path: Path) -> None:
    page = page_of(open_store(str(tmp_path)), None)
    assert page.text.count("Not there yet") == 7
    assert "Not finished when this page was written: plan, generate, prepare, train, evaluate." in page.text


def test_a_run_without_a_student_shows_its_data_and_what_is_missing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_run(store, num_samples=20, topics=TOPICS, moods=MOODS)
    page = page_of(store)
    assert page.text.count("Not there yet") == 3
    assert "Not finished when this page was written: train, evaluate." in page.text


def test_a_shard_that_has_not_finished_is_counted_as_missing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_run(store, num_samples=20, topics=TOPICS, moods=MOODS)
    store.delete(layout.shard_file(1, "manifest.json"))
    assert "10 accepted, 1 of 2 shards" in page_of(store).text


def test_a_file_that_differs_from_its_manifest_gives_no_report(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_run(store, num_samples=20, topics=TOPICS, moods=MOODS)
    store.replace(layout.shard_file(0, "calls.parquet"), b"torn")
    with pytest.raises(InputError, match=r"calls\.parquet: differs from its manifest"):
        write_report(store, None)


def test_the_numbers_of_the_page_add_up_to_the_tables(run: Store) -> None:
    data = gather(run, STUDENT, written_at="now")
    assert data.cells and data.money and data.rejects and data.data_set and data.training
    assert sum(row.total for row in data.cells.rows) == data.rejects.accepted == sum(data.data_set.splits.values()) == 120
    assert sum(row.cost_usd for row in data.money.rows) == pytest.approx(data.money.spent_usd)
    shards = [manifests.require(run, layout.shard_file(shard, "manifest.json"), "generate") for shard in (0, 1)]
    rejected = [row for shard in shards for row in tables.read(run, [file for file in shard.files if "rejected" in file.path])]
    assert data.rejects.total == len(rejected)
    assert data.training.seconds == pytest.approx(120 * 1.7)


def test_held_out_topics_are_marked_and_short_cells_framed(run: Store) -> None:
    data = gather(run, STUDENT, written_at="now")
    assert data.cells
    assert [row.topic for row in data.cells.rows if row.held_out] == ["asthma"]
    assert [sum(row.missing) for row in data.cells.rows if row.topic == "migraine"] == [2]
    assert data.rejects
    (shown,) = data.rejects.short_cells
    assert shown == "migraine / calm: 18 of 20; tries rejected: refused 8"
    assert shown in Page(render(data)).text


def test_acceptance_and_cost_of_an_accepted_row_are_added_up_over_shards(run: Store) -> None:
    data = gather(run, STUDENT, written_at="now")
    assert data.money
    (row,) = data.money.groups
    assert (row.kind, row.name, row.tries, row.accepted, row.acceptance) == ("teacher", "simulator", 240, 120, 0.5)
    assert row.cost_per_accepted_usd == pytest.approx(0.6 / 120)
    assert "teacher simulator 240 120 50.0% $0.005" in Page(render(data)).text


def test_a_review_is_shown_and_one_that_the_data_set_does_not_know_is_named(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_run(store, num_samples=40, topics=TOPICS, moods=MOODS)
    assert "What people said of the rows" not in page_of(store, None).text
    before = store.read(layout.DATASET_MANIFEST)
    write_review(store, num_rows=20)
    page = page_of(store, None)
    assert page.open == [] and "What people said of the rows" in page.text and "precision of 40 accepted rows" in page.text
    assert "medkd prepare --review" not in page.text
    store.replace(layout.DATASET_MANIFEST, before)
    store.replace(f"{layout.DATASET}/statistics.json", b"{}")
    assert "made before they had said all of it; medkd prepare --review" in page_of(store, None).text


def test_scores_against_a_teacher_are_not_called_accuracy(run: Store) -> None:
    data = gather(run, STUDENT, written_at="now")
    assert data.evaluation
    object.__setattr__(data.evaluation, "reference", "teacher")
    assert "Agreement with the teacher is not accuracy" in Page(render(data)).text


def test_the_chosen_conversations_do_not_depend_on_the_order_of_predictions() -> None:
    wrong = [RECORD, changed("patient_details.age", "55"), changed("prescription", []), PATIENT_RECORD.empty()]
    compared = [(str(number), compare(RECORD, record, PATIENT_RECORD)) for number, record in enumerate(wrong)]
    assert best_median_worst(compared) == [("best", "0"), ("median", "2"), ("worst", "3")]
    assert best_median_worst(compared[::-1]) == best_median_worst(compared)
    assert best_median_worst(compared[:1]) == [("best", "0")]
    assert best_median_worst([]) == []


def test_differences_are_marked_on_the_side_that_has_them() -> None:
    predicted = changed("current_diagnosis.symptoms", ["dizziness", "fever"])
    row = next(row for row in rows(RECORD, predicted, PATIENT_RECORD) if row.name == "symptoms")
    assert [(value.text, value.mark) for line in row.reference for value in line] == [
        ("shortness of breath", "omitted"),
        ("dizziness", "same"),
    ]
    assert [(value.text, value.mark) for line in row.predicted for value in line] == [("dizziness", "same"), ("fever", "added")]


def test_a_chart_keeps_its_ends_and_stays_in_its_box() -> None:
    chart = line_chart({"train": [(step, 9.0 / step) for step in range(1, 5001)], "validation": [(5000, float("nan"))]})
    assert chart and chart.logarithmic
    (line,) = chart.lines
    places = [tuple(map(float, point.split(","))) for point in line.path.split()]
    assert len(places) <= 300
    assert places[0][0] == pytest.approx(0.02)
    assert places[-1] == pytest.approx(line.end, abs=0.01)
    assert all(0 <= x <= 100 and 0 <= y <= 100 for x, y in places)
    assert line.last == 9.0 / 5000


def test_a_chart_of_nothing_is_none_and_of_one_point_is_drawn() -> None:
    assert line_chart({"train": [(1, float("inf"))]}) is None
    assert line_chart({"train": [(1, 0.0)]})
