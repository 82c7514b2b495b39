"""Rows out to people and what they say back in: the sample, the figures, the gold and the data set that follow from it."""

from __future__ import annotations

import csv
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from medkd import config
from medkd.config import DataSetBars
from medkd.errors import ConfigError
from medkd.quality.bars import judge_data_set
from medkd.quality.judgements import implied_verdicts
from medkd.records import NOT_PROVIDED, PATIENT_RECORD
from medkd.samples import conversation_sha256
from medkd.stages.evaluate import _admitted, evaluate, reference_of
from medkd.stages.prepare import build_data_set, prepare, read_splits
from medkd.stages.report import write_report
from medkd.store import gold_files, layout, manifests, tables
from medkd.store.files import Store, open_store
from tests.command_line import medkd, refused
from tests.generation import Worker, planned, simulated, start_simulator
from tests.student import trained

SAMPLES = 60


def all_rows(store: Store, name: str) -> list[dict[str, Any]]:
    paths = [file.path for file in store.list_files(layout.GENERATE) if file.path.endswith(f"/{name}.parquet")]
    return [row for path in paths for row in tables.decode(store.read(path))]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A run whose teacher invents medicines and sometimes writes no JSON, and the true records by conversation."""
    folder = tmp_path_factory.mktemp("generated")
    with start_simulator(faults="hallucinate:0.6,not_json:0.2", write_gold=folder / "gold.jsonl") as server:
        store, teacher = open_store(str(folder / "run")), simulated(server)
        planned(store, teacher, samples=SAMPLES, shards=2)
        for shard in range(2):
            Worker(store, teacher).run(shard)
    gold = [json.loads(line) for line in (folder / "gold.jsonl").read_text().splitlines()]
    yield folder / "run", {one["conversation_sha256"]: one["record"] for one in gold}


@pytest.fixture
def run(generated: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of it, for a test to write into."""
    return copied(generated[0], tmp_path)


def copied(run: Path, folder: Path) -> Path:
    target = folder / "run"
    open_store(str(run)).download("", target)
    return target


def exported(run: Path, *more: str, rows: int = 40) -> Path:
    """The JSON lines that `medkd review export` wrote."""
    target = run.parent / "rows.jsonl"
    finished = medkd("review", "export", "--prefix", str(run), "--output", str(target), "--rows", str(rows), *more)
    assert finished.returncode == 0, finished.stderr
    return target


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_format_holds_the_same_rows_and_none_tells_what_became_of_them(run: Path, tmp_path: Path) -> None:
    names = [str(tmp_path / f"out/rows.{kind}") for kind in ("csv", "jsonl", "html")]
    outputs = [word for name in names for word in ("--output", name)]
    finished = medkd("review", "export", "--prefix", str(run), "--rows", "40", *outputs)
    assert finished.returncode == 0, finished.stderr
    rows = lines_of(tmp_path / "out/rows.jsonl")
    with (tmp_path / "out/rows.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = list(csv.DictReader(file))
    assert [row["sample_id"] for row in cells] == [row["sample_id"] for row in rows]
    page = (tmp_path / "out/rows.html").read_text()
    store = open_store(str(run))
    accepted = {f"{row['sample_id']}v{row['variation']}": row for row in all_rows(store, "samples")}
    rejected = {f"{row['sample_id']}v{row['variation']}": row for row in all_rows(store, "rejected")}
    assert len(rows) == len({row["sample_id"] for row in rows}) == 40
    for row, cell in zip(rows, cells, strict=True):
        origin = accepted.get(row["sample_id"])
        if origin:
            assert (row["conversation"], row["record"]) == (origin["input"], json.loads(origin["output"]))
        else:
            origin = rejected[row["sample_id"]]
            assert row["conversation"] == origin["conversation"]
            assert row["record"] == json.loads(origin["raw_text"]) if row["record"] else row["raw_text"] == origin["raw_text"]
        assert f'"{row["sample_id"]}"' in page
        assert cell["conversation"].startswith("1. Doctor: ")
        # What a cell's end looks like is the record's; a row without one says so.
        assert json.loads(cell["record"]) == row["record"] if row["record"] else cell["record"].startswith("NO RECORD")
    for text in (page, (tmp_path / "out/rows.csv").read_text(), (tmp_path / "out/rows.jsonl").read_text()):
        assert not any(word in text for word in ("ungrounded", "not_json", "accepted", "rejected"))
    assert {row["sample_id"] in rejected for row in rows} == {True, False}


def test_weights_say_for_how_many_rows_each_stands(run: Path) -> None:
    shown = lines_of(exported(run, "--show-outcome"))
    kept = lines_of(run / layout.review_sample("first"))
    assert [one["weight"] for one in shown] == [one["weight"] for one in kept]
    store = open_store(str(run))
    sizes = Counter(("accepted", row["topic"]) for row in all_rows(store, "samples"))
    sizes += Counter(("rejected", row["topic"]) for row in all_rows(store, "rejected") if row["conversation"])
    weights: Counter[tuple[str, str]] = Counter()
    for one in kept:
        weights[one["status"], one["about"]["topic"]] += one["weight"]
    assert {stratum: round(total) for stratum, total in weights.items()} == sizes
    assert {one["outcome"] for one in shown} <= {"accepted", "rejected: ungrounded", "rejected: not_json", "rejected: empty"}
    assert any(one["outcome"] == "rejected: ungrounded" and one["record"] for one in shown)


def test_the_same_flags_draw_the_same_rows_and_others_need_another_name(run: Path) -> None:
    first = exported(run).read_bytes()
    assert exported(run).read_bytes() == first
    line = ["review", "export", "--prefix", str(run), "--output", str(run.parent / "x.csv")]
    refused(medkd(*line, "--rows", "41"), 78, "--name: got 'first'", "num_rows 40", "new name")
    other = lines_of(exported(run, "--seed", "2", "--name", "second"))
    assert {row["sample_id"] for row in other} != {json.loads(line)["sample_id"] for line in first.decode().splitlines()}


def test_only_rows_of_a_split_where_that_is_asked(run: Path) -> None:
    exported(run, "--split", "test", "--name", "test", rows=20)
    assert {one["split"] for one in lines_of(run / layout.review_sample("test"))} == {"test"}


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--output", "rows.xlsx"], 64, ["--output: got 'rows.xlsx'", ".csv, .jsonl or .html"]),
        (["--output", "rows.csv", "--rows", "2"], 64, ["--rows: got 2, expected at least"]),
        (["--output", "rows.csv", "--share-rejected", "3"], 64, ["--share-rejected", "from 0 to 1"]),
        (["--output", "rows.csv", "--name", "../x"], 64, ["--name: got '../x'"]),
    ],
)
def test_a_wrong_flag_is_one_line_that_says_what_is_allowed(
    generated: tuple[Path, Any], flags: list[str], code: int, words: list[str]
) -> None:
    refused(medkd("review", "export", "--prefix", str(generated[0]), *flags), code, *words)


def test_a_run_that_has_generated_nothing_is_refused(tmp_path: Path) -> None:
    refused(medkd("review", "export", "--prefix", str(tmp_path), "--output", "rows.csv"), 78, "stage plan has not finished")


# --- what comes back ---------------------------------------------------------------------------------------------------------


def filled(rows: Path, gold: dict[str, Any], name: str, reviewer: str, **slips: str) -> Path:
    """The rows judged by what is true. slips: verdicts on fields of the first row that is right, as another person sees it."""
    target, slipped = rows.parent / name, False
    with target.open("w", encoding="utf-8") as file:
        for row in lines_of(rows):
            truth = gold[conversation_sha256(row["conversation"])]
            verdicts = implied_verdicts(row["record"], truth, PATIENT_RECORD) if row["record"] else {}
            right = bool(verdicts) and set(verdicts.values()) == {"right"}
            if slips and right and not slipped:
                verdicts, slipped = {**verdicts, **slips}, True
            changed = {"corrected_record": None if right else truth, "verdicts": verdicts, "reviewer": reviewer}
            file.write(json.dumps({**row, **changed}) + "\n")
    return target


def import_line(run: Path, *files: Path, more: tuple[str, ...] = ()) -> list[str]:
    return ["review", "import", "--prefix", str(run), *(word for file in files for word in ("--input", str(file))), *more]


def imported(run: Path, *files: Path, more: tuple[str, ...] = ()) -> str:
    finished = medkd(*import_line(run, *files, more=more))
    assert finished.returncode == 0, finished.stderr
    assert "Doctor" not in finished.stdout + finished.stderr, "no conversation on a terminal or in a log"
    return finished.stdout


def outcome(run: Path) -> dict[str, dict[str, Any]]:
    return {line["sample_id"]: line for line in lines_of(run / layout.REVIEW_OUTCOME)}


def test_figures_gold_and_decisions_follow_from_what_people_said(run: Path, generated: tuple[Path, dict[str, Any]]) -> None:
    gold = generated[1]
    rows = exported(run)
    printed = imported(run, filled(rows, gold, "ada.jsonl", "ada"))
    assert "40 new judgements, 0 known before" in printed and "recall lost to rejects: 0.0% of all right rows" in printed
    kept = {one["sample_id"]: one for one in lines_of(run / layout.review_sample("first"))}
    (found,) = json.loads((run / layout.REVIEW_FIGURES).read_text())["reviews"].values()
    # The same from the files alone: a row is right where its record is the true one.
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for one in kept.values():
        truth = gold[conversation_sha256(one["conversation"])]
        verdicts = implied_verdicts(one["record"], truth, PATIENT_RECORD) if one["record"] else {"": "missing"}
        total[one["status"]] += one["weight"]
        right[one["status"]] += one["weight"] * (set(verdicts.values()) == {"right"})
    assert found["precision"]["whole"]["share"] == round(right["accepted"] / total["accepted"], 4)
    assert found["rejects_right"]["share"] == round(right["rejected"] / total["rejected"], 4)
    known = gold_files.read(str(run / layout.REVIEW_GOLD))
    identities = {conversation_sha256(one["conversation"]) for one in kept.values()}
    assert {identity: known.of(identity, "") for identity in identities} == {one: gold[one] for one in identities}
    assert {line["reference"] for line in lines_of(run / layout.REVIEW_GOLD)} == {"human"}


def test_a_file_twice_counts_once_and_one_filled_in_further_adds(run: Path, generated: tuple[Path, dict[str, Any]]) -> None:
    ada = filled(exported(run), generated[1], "ada.jsonl", "ada")
    lines = ada.read_text().splitlines(keepends=True)
    part = run.parent / "part.jsonl"
    emptied = [json.dumps({**json.loads(line), "verdicts": {}, "corrected_record": None}) + "\n" for line in lines[7:]]
    part.write_text("".join([*lines[:7], *emptied]))
    assert "7 new judgements, 0 known before, 33 rows not filled in" in imported(run, part)
    assert "33 new judgements, 7 known before" in imported(run, ada)
    before = {path: path.read_bytes() for path in sorted(run.rglob("review/**/*")) if path.is_file()}
    assert len(before) == 8
    assert "0 new judgements, 40 known before" in imported(run, ada, part)
    assert {path: path.read_bytes() for path in sorted(run.rglob("review/**/*")) if path.is_file()} == before


def test_a_spreadsheet_comes_back(run: Path, generated: tuple[Path, dict[str, Any]]) -> None:
    target = run.parent / "rows.csv"
    assert medkd("review", "export", "--prefix", str(run), "--output", str(target), "--rows", "40").returncode == 0
    with target.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[:5]:
        talk = next(one for one in lines_of(run / layout.review_sample("first")) if one["sample_id"] == row["sample_id"])
        row["corrected_record"] = json.dumps(generated[1][conversation_sha256(talk["conversation"])], indent=1)
        row["comment"] = "=checked"
    with target.open("w", encoding="cp1252", errors="replace", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    assert "5 new judgements, 0 known before, 35 rows not filled in" in imported(run, target, more=("--reviewer", "ben"))
    (stored,) = (run / "review/first/filled").iterdir()
    assert [(one["reviewer"], one["comment"]) for one in lines_of(stored)] == [("ben", "=checked")] * 5


def test_reviewers_who_differ_are_listed_and_an_adjudicator_decides(run: Path, generated: tuple[Path, dict[str, Any]]) -> None:
    rows = exported(run)
    ada = filled(rows, generated[1], "ada.jsonl", "ada")
    ben = filled(rows, generated[1], "ben.jsonl", "ben", **{"patient_details.age": "missing"})
    printed = imported(run, ada, ben)
    (disputed,) = (line for line in outcome(run).values() if line["decision"] == "disputed")
    assert f"{disputed['sample_id']} patient_details.age: ada: right, ben: missing" in printed
    assert "ada and ben, 40 rows in common: fields" in printed and "1 disputed" in printed
    assert disputed["row"] not in {line["sample_id"] for line in lines_of(run / layout.REVIEW_GOLD)}
    decided = imported(run, ada, more=("--adjudicator", "ada"))
    assert "disputed" not in decided.partition("rows: ")[2]
    # Who decides is remembered.
    imported(run, ben)
    assert outcome(run)[disputed["sample_id"]]["decision"] == "confirmed"


def test_nothing_is_taken_in_where_a_line_is_wrong_and_each_is_named(run: Path, generated: tuple[Path, dict[str, Any]]) -> None:
    ada = filled(exported(run), generated[1], "ada.jsonl", "ada")
    rows = lines_of(ada)
    rows[0]["review"] = "second-00000000"
    rows[1]["sample_id"] = "999999999v0"
    rows[2] |= {"verdicts": {"patient_details.age": "maybe"}, "corrected_record": None}
    rows[3]["reviewer"] = ""
    rows.append({**rows[4], "comment": "another one"})
    ada.write_text("".join(json.dumps(row) + "\n" for row in rows))
    finished = medkd(*import_line(run, ada))
    refused(finished, 65, "--input: 5 problems, nothing was taken in")
    for line, words in (
        (1, 'review: got "second-00000000", expected first-'),
        (2, 'sample_id: got "999999999v0", which is no row of review first-'),
        (3, 'verdict:patient_details.age: got "maybe", expected right, wrong, not said, missing or nothing'),
        (4, "reviewer: missing; write a name in the row, or pass --reviewer"),
        (41, f"ada says something else of {rows[4]['sample_id']} at {ada}:5"),
    ):
        assert f"{ada}:{line}: {words}" in finished.stderr
    assert not (run / layout.REVIEW_MANIFEST).exists() and not (run / "review/first/filled").exists()


def test_without_an_export_there_is_nothing_to_take_in(run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    refused(medkd(*import_line(run, tmp_path / "a.jsonl")), 78, "no review", "medkd review export")


# --- what the data set makes of it -------------------------------------------------------------------------------------------


def data_set(store: Store) -> tuple[str, dict[str, dict[str, Any]]]:
    """The data set's hash, and its rows by id with their split."""
    manifest = manifests.require(store, layout.DATASET_MANIFEST, "prepare")
    splits = read_splits(store, manifest)
    rows = {row["sample_id"]: {**row, "split": split} for split, found in splits.items() for row in found}
    return str(manifest.counts["data_set_hash"]), rows


@dataclass(frozen=True)
class Applied:
    """A run before and after a strict person's review went into its data set, and the filled rows by what became of them."""

    store: Store
    before: tuple[str, dict[str, dict[str, Any]]]
    unapplied: tuple[str, dict[str, dict[str, Any]]]
    after: tuple[str, dict[str, dict[str, Any]]]
    num_right: int
    corrected: dict[str, dict[str, Any]]
    """By split: the row of which another occupation was written."""
    wrong: dict[str, Any]

    @property
    def statistics(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.store.read(f"{layout.DATASET}/statistics.json"))
        return found

    @property
    def admitted(self) -> dict[str, dict[str, Any]]:
        return {name: row for name, row in self.after[1].items() if row["review"] == "admitted"}


@pytest.fixture(scope="module")
def applied(generated: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Applied:
    """Tests only read it."""
    run = copied(generated[0], tmp_path_factory.mktemp("applied"))
    store, student = open_store(str(run)), config.load(None).student("tiny-t5")
    prepare(store, "tiny-t5", student)
    before = data_set(store)
    # Of the accepted rows all are right; a stricter person would write occupations otherwise, and finds one row wrong.
    lines = lines_of(filled(exported(run), generated[1], "ada.jsonl", "ada"))
    right = [line for line in lines if row_of(line) in before[1] and line["corrected_record"] is None]
    test = next(line for line in right if before[1][row_of(line)]["split"] == "test")
    train, wrong, *_ = (line for line in right if before[1][row_of(line)]["split"] == "train")
    for line in (test, train):
        corrected = json.loads(json.dumps(line["record"]))
        corrected["patient_details"]["occupation"] = "painter"
        line |= {"verdicts": {}, "corrected_record": corrected}
    wrong |= {"verdicts": {"patient_details.name": "not said"}}
    ada = run.parent / "ada.jsonl"
    ada.write_text("".join(json.dumps(line) + "\n" for line in lines))
    imported(run, ada)
    prepare(store, "tiny-t5", student)
    unapplied = data_set(store)
    prepare(store, "tiny-t5", student, take_review=True)
    return Applied(
        store=store,
        before=before,
        unapplied=unapplied,
        after=data_set(store),
        num_right=len(right),
        corrected={"train": train, "test": test},
        wrong=wrong,
    )


def row_of(line: dict[str, Any]) -> str:
    """The data set's id of a filled row that was accepted."""
    return str(line["sample_id"]).rpartition("v")[0]


def test_the_data_set_changes_when_a_review_is_applied_and_not_before(applied: Applied) -> None:
    assert {row["review"] for row in applied.before[1].values()} == {None}
    assert applied.unapplied == applied.before
    assert applied.after[0] != applied.before[0]
    prepare(applied.store, "tiny-t5", config.load(None).student("tiny-t5"))
    assert data_set(applied.store) == applied.after


def test_a_corrected_row_is_trained_on_as_corrected_and_tested_on_beside_the_teachers_record(applied: Applied) -> None:
    of_train, of_test = (applied.after[1][row_of(applied.corrected[split])] for split in ("train", "test"))
    assert of_train["output"] == of_train["gold"] == PATIENT_RECORD.canonical(applied.corrected["train"]["corrected_record"])
    assert (of_train["reference"], of_train["review"]) == ("human", "corrected")
    assert {"field": "patient_details.occupation", "value": "painter"} in of_train["unsupported"]
    assert of_test["output"] == applied.before[1][of_test["sample_id"]]["output"]
    assert of_test["gold"] == PATIENT_RECORD.canonical(applied.corrected["test"]["corrected_record"])
    assert reference_of(of_test, gold_files.Gold(), "simulator").source == "human"
    assert reference_of(of_test, gold_files.Gold(), "simulator").record == applied.corrected["test"]["corrected_record"]


def test_rejected_rows_are_let_in_and_wrong_ones_left_out(applied: Applied, generated: tuple[Path, dict[str, Any]]) -> None:
    lines = lines_of(Path(applied.store.url) / layout.REVIEW_OUTCOME)
    assert set(applied.admitted) == {line["row"] for line in lines if line["status"] == "rejected"}
    for row in applied.admitted.values():
        assert json.loads(row["output"]) == generated[1][row["conversation_sha256"]] and row["reference"] == "human"
    rejected = {
        row["sample_id"]: row["reason"] for row in tables.decode(applied.store.read(f"{layout.DATASET}/rejected.parquet"))
    }
    assert row_of(applied.wrong) not in applied.after[1] and rejected[row_of(applied.wrong)] == "wrong"
    # What people let into training is not scored as a conversation that no split holds.
    of_data_set = manifests.require(applied.store, layout.DATASET_MANIFEST, "prepare")
    assert _admitted(applied.store, of_data_set) == {row["conversation_sha256"] for row in applied.admitted.values()}


def test_statistics_and_card_say_how_many_rows_people_changed(applied: Applied) -> None:
    statistics, num_admitted = applied.statistics, len(applied.admitted)
    assert statistics["reviewed"] == {"admitted": num_admitted, "confirmed": applied.num_right - 3, "corrected": 2}
    assert (statistics["judged_wrong"], statistics["rejects_admitted"]) == (1, num_admitted)
    card = applied.store.read(f"{layout.DATASET}/README.md").decode()
    assert f"{applied.num_right - 3} rows confirmed, 2 corrected, {num_admitted} rejected ones admitted, 1 left out" in card
    assert f"before that {statistics['rejected']} failed a check, of which people let {num_admitted} in." in card
    # In what it states a row counts as people have it, also where the teacher's record stays to be scored.
    rows = applied.after[1].values()
    stated = [json.loads(row["gold"] or row["output"])["patient_details"]["occupation"] != NOT_PROVIDED for row in rows]
    assert statistics["share_stated"]["patient_details.occupation"] == round(sum(stated) / len(rows), 4)


def test_bars_judge_the_data_set_as_people_left_it(applied: Applied) -> None:
    tries = {name: len(all_rows(applied.store, name)) for name in ("samples", "rejected")}
    bars = DataSetBars(reject_rate=1.0, rows_per_topic=1, share_stated={"patient_details.occupation": 0.0})
    rows, rate_or_share = {}, {}
    for check in judge_data_set(bars, applied.statistics)["checks"]:
        (rows if check["what"].startswith("rows") else rate_or_share)[check["what"]] = check["got"]
    rejected = tries["rejected"] - len(applied.admitted) + 1
    assert rate_or_share["share of rejected tries"] == round(rejected / sum(tries.values()), 4)
    per_topic = Counter(row["topic"] for row in applied.after[1].values())
    assert list(rows.values()) == [min(per_topic.values())]


def test_a_topic_of_which_no_row_is_left_misses_its_bar() -> None:
    tried = {"flu": {"tries": 3}, "gout": {"tries": 2}}
    statistics = {"rows": {"train": 9}, "duplicates": {}, "by_topic": {"flu": 9}, "acceptance": {"topic": tried}}
    (check,) = judge_data_set(DataSetBars(rows_per_topic=1), statistics)["checks"]
    assert (check["what"], check["got"], check["passed"]) == ("rows of a topic (gout has the fewest)", 0, False)


@pytest.mark.torch
@pytest.mark.timeout(300)
def test_a_student_of_a_reviewed_data_set_is_scored_by_peoples_records_and_card_and_report_name_them(
    applied: Applied, tmp_path: Path
) -> None:
    store = open_store(str(copied(Path(applied.store.url), tmp_path)))
    student = trained.tiny_student("t5", num_epochs=1)
    prepare(store, "tiny-t5", student)
    assert trained.train(tmp_path, "tiny-t5", student, ranks=1) == 0
    scores = evaluate(store, student_name="tiny-t5", student=student, gold=gold_files.Gold(), stop=threading.Event())
    judged = [row for row in applied.after[1].values() if row["split"] == "test" and (row["gold"] or row["reference"] == "human")]
    assert scores["reference"] == "human" and scores["counts"]["references"]["human"] == len(judged)
    assert scores["beside_teacher"]["num_samples"] == sum(row["reference"] == "teacher" for row in judged) > 0
    said = f"{applied.num_right - 3} rows confirmed, 2 corrected, {len(applied.admitted)} rejected ones admitted, 1 left out"
    assert f"it was trained and tested on: {said} as wrong." in store.read("students/tiny-t5/model/README.md").decode()
    assert said in store.read(write_report(store, "tiny-t5")).decode()


def test_only_confirmed_rows_leave_the_hash_as_it_was(run: Path, generated: tuple[Path, dict[str, Any]]) -> None:
    store = open_store(str(run))
    before = build_data_set(store).counts["data_set_hash"]
    lines = [line for line in lines_of(filled(exported(run), generated[1], "a.jsonl", "ada")) if line["corrected_record"] is None]
    (run.parent / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    imported(run, run.parent / "a.jsonl")
    assert build_data_set(store).counts["data_set_hash"] == before
    confirmed = [row for row in data_set(store)[1].values() if row["review"]]
    assert len(confirmed) == len(lines) and all(row["gold"] == row["output"] for row in confirmed)


def test_a_review_of_another_plan_is_refused(run: Path, generated: tuple[Path, dict[str, Any]]) -> None:
    imported(run, filled(exported(run), generated[1], "a.jsonl", "ada"))
    store = open_store(str(run))
    manifest = manifests.require(store, layout.REVIEW_MANIFEST, "review")
    manifests.write(store, layout.REVIEW_MANIFEST, replace(manifest, plan_hash="0" * 64))
    with pytest.raises(ConfigError, match="review: is about the rows of another plan"):
        build_data_set(store)


def test_purge_takes_the_review_along(run: Path) -> None:
    exported(run)
    assert medkd("purge", "--prefix", str(run), "--yes").returncode == 0
    assert not run.exists()
