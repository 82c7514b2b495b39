"""Stage evaluate: how well a student extracts the test split, beside what it has to beat.

Models are scored on the same conversations: the student, the same architecture untrained, a constant record and a lexicon;
beside them the teacher, where its records are not the reference, and models that see a few training rows in their prompt. A
reference record is the best that is known of a conversation: a human's, else the simulator's gold, else the teacher's. The
scores of the best kind that occurs come first; apart from them held-out topics, other kinds of reference, answers that were
cut, conversations read in windows, and those whose samples were rejected. What stands is judged again, and nothing else done,
where only the bars are others.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medkd.config import ScoreBar, StudentConfig, config_hash
from medkd.errors import InputError
from medkd.quality.bars import judge_scores
from medkd.quality.score_sets import Prediction, Reference, apart, comparison, main_rows, score_sets
from medkd.records import Record, RecordSchema
from medkd.samples import canonical_json, conversation_sha256, sha256_hex
from medkd.stages import answers
from medkd.stages import few_shot as few_shots
from medkd.stages.few_shot import AskedTeacher
from medkd.stages.handover import write_evaluation
from medkd.stages.prepare import SplitRows, stream_splits
from medkd.stages.reviewed import ADMITTED
from medkd.stages.train import train_manifest_path
from medkd.store import layout, manifests, tables
from medkd.store.files import Store
from medkd.store.gold_files import Gold
from medkd.store.manifests import FileEntry, Manifest
from medkd.student.tokenizer import FORM_FILE, StudentForm
from medkd.telemetry import event

Row = dict[str, Any]

# Conversations of rejected samples that are scored apart, at most: the first ones by sample id.
_MOST_REJECTED = 200
_TESTED = (
    *("sample_id", "topic", "input", "output", "gold", "reference", "source", "source_id"),
    *("conversation_sha256", "held_out_topic"),
)
DECODING = {True: "constrained", False: "free"}
"""How students wrote their answers, as `scores.json` says it."""
_EXAMPLE = ("conversation_sha256", "input", "output")


@dataclass(frozen=True)
class _Asking:
    """How students are asked. seed: of weights that nobody trained."""

    seed: int
    constrained: bool
    stop: threading.Event


def evaluate_folder(student_name: str) -> str:
    return f"{layout.student_folder(student_name)}/evaluate"


def evaluate(
    store: Store,
    *,
    student_name: str,
    student: StudentConfig,
    gold: Gold,
    gold_source: str = "simulator",
    bars: Sequence[ScoreBar] = (),
    few_shot: int = 0,
    asked_teacher: AskedTeacher | None = None,
    constrained: bool = False,
    stop: threading.Event,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a trained student on the test split; returns what `scores.json` says.

    gold: known records, by conversation hash or by an imported conversation's id; gold_source: whose they are. bars: what the
    student must reach; `bars` of the answer and of the manifest says whether it does. few_shot: examples that a causal student
    before any training, and `asked_teacher`, see of the train split; 0: neither is asked. constrained: students, trained or not,
    can write nothing but records.
    Raises ConfigError where training has not finished and InputError where a file differs from its manifest or nothing is left to
    test on.
    """
    trained = manifests.require(store, train_manifest_path(student_name), "train")
    data_set = manifests.require(store, layout.DATASET_MANIFEST, "prepare")
    rows = list(stream_splits(store, data_set, _TESTED)["test"])
    if not rows:
        raise InputError(f"{store.url}: the test split is empty; generate more samples")
    if asked_teacher:
        few_shots.check_phi(store, asked_teacher, rows)
    references = [reference_of(row, gold, gold_source) for row in rows]
    rejected = _rejected_with_gold(store, gold, gold_source, _admitted(store, data_set))
    asked = f"{few_shot} {asked_teacher.name} {asked_teacher.num_rows}" if asked_teacher else str(few_shot)
    used = [*trained.files, *(file for file in data_set.files if "/test-" in file.path)]
    inputs = {
        **{file.path: file.sha256 for file in used},
        "references": _hash_of([*references, *(reference for _, reference in rejected)]),
        "few-shot": asked,
        **({"decoding": DECODING[True]} if constrained else {}),
    }
    known = manifests.read(store, f"{evaluate_folder(student_name)}/manifest.json")
    if known and (known.inputs, known.config_hash) == (inputs, config_hash(student)):
        return _judged_again(store, student_name, trained, known, rows, references, bars, _review(store, data_set))
    asking = _Asking(seed, constrained, stop)
    with tempfile.TemporaryDirectory() as scratch:
        folder = _download_model(store, trained, Path(scratch))
        schema = StudentForm.read(folder).fields
        _check_references(references, schema)
        students, of_rejected = _students(folder, rows, references, rejected, asking)
        examples = few_shots.chosen(stream_splits(store, data_set, _EXAMPLE)["train"], few_shot) if few_shot else []
        students |= _few_shot_student(store, student, folder, rows, references, examples, Path(scratch), asking)
    baselines = answers.baselines(KnownRecords.of(store, data_set), [row["input"] for row in rows], schema)
    teachers = answers.teachers(rows, references, schema)
    predictions: dict[str, Sequence[Prediction | None]] = {**baselines, **students, **teachers}
    scores = score_sets(rows, references, predictions, schema, bars)
    if rejected:
        hard, known_of_hard = [row for row, _ in rejected], [reference for _, reference in rejected]
        scores["rejected_conversations"] = _side_by_side({"student": of_rejected}, known_of_hard, schema)
    written = {"predictions": answers.prediction_rows(rows, references, predictions, schema)}
    if rejected:
        written["rejected"] = answers.prediction_rows(hard, known_of_hard, {"student": of_rejected}, schema)
    if asked_teacher and examples:
        some = main_rows(rows, references)[: asked_teacher.num_rows]
        of_some, asked_rows = [references[index] for index in some], [rows[index] for index in some]
        found = {
            "student": [students["student"][index] for index in some],
            "few_shot_teacher": few_shots.teachers_answers(
                store, asked_teacher, examples, [row["input"] for row in asked_rows], schema, stop
            ),
        }
        scores["few_shot_teacher"] = _side_by_side(found, of_some, schema)
        del found["student"]
        written["predictions"] += answers.prediction_rows(asked_rows, of_some, found, schema)
    counts = {**_counts(rows, references, predictions), "bars": scores["bars"]}
    about = {"student": student_name, "decoding": DECODING[constrained], "review": _review(store, data_set)}
    summary = {"format": 1, **about, **scores, "counts": counts}
    home = evaluate_folder(student_name)
    files = [
        tables.write(store, f"{home}/{name}.parquet", found_rows, tables.PREDICTION_COLUMNS)
        for name, found_rows in written.items()
    ]
    _publish(store, student_name, trained, summary, files, inputs, config_hash(student))
    return summary


def _hash_of(references: Sequence[Reference]) -> str:
    return sha256_hex(canonical_json([[one.source, one.record] for one in references]))


def _judged_again(
    store: Store,
    student_name: str,
    trained: Manifest,
    known: Manifest,
    rows: Sequence[Row],
    references: Sequence[Reference],
    bars: Sequence[ScoreBar],
    review: dict[str, Any] | None,
) -> dict[str, Any]:
    """The evaluation that stands with a fresh verdict: nothing but the bars, or people's word on rows that training has seen, may
    have changed, so nobody answers again."""
    files = {file.path.rpartition("/")[2]: file for file in known.files}
    summary: dict[str, Any] = json.loads(manifests.read_verified(store, files.pop("scores.json")))
    form = next(file for file in trained.files if file.path.endswith(f"/{FORM_FILE}"))
    schema = StudentForm.parse(manifests.read_verified(store, form)).fields
    stream = tables.stream(store, [files["predictions.parquet"]], ("sample_id", "model", "record", "valid_json"))
    written = {row["sample_id"]: row for row in stream if row["model"] == "student"}
    compared = []
    for index in main_rows(rows, references):
        row = written[rows[index]["sample_id"]]
        record = json.loads(row["record"]) if row["record"] else None
        compared.append(
            comparison(references[index], Prediction(record=record, raw_text="", valid_json=row["valid_json"]), schema)
        )
    summary |= {"bars": judge_scores(bars, compared), "review": review}
    summary["counts"]["bars"] = summary["bars"]
    event("judged again", student=student_name, passed=summary["bars"]["passed"])
    _publish(store, student_name, trained, summary, list(files.values()), known.inputs, known.config_hash)
    return summary


@dataclass(frozen=True)
class KnownRecords:
    """Conversation and record of each row that was trained on, read anew at each pass and never all in memory."""

    rows: SplitRows

    @classmethod
    def of(cls, store: Store, data_set: Manifest) -> KnownRecords:
        return cls(stream_splits(store, data_set, ("input", "output"))["train"])

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        return ((row["input"], json.loads(row["output"])) for row in self.rows)


def reference_of(row: Row, gold: Gold, gold_source: str) -> Reference:
    """The best that is known of a row of the data set, and whose it is."""
    if row["gold"] or row["reference"] == "human":
        return Reference(json.loads(row["gold"] or row["output"]), "human")
    known = gold.of(row["conversation_sha256"], row["source_id"] or "")
    if known is not None:
        return Reference(known, gold_source)
    return Reference(json.loads(row["output"]), "teacher")


def _check_references(references: Sequence[Reference], schema: RecordSchema) -> None:
    """InputError where a known record is no record of the student's schema."""
    for reference in references:
        try:
            schema.canonical(reference.record)
        except (KeyError, TypeError):
            raise InputError(
                f"--gold: a record of {reference.source} lacks fields of the student's record schema {schema.name}; "
                "known records have the schema of the run"
            ) from None


def trained_student(store: Store, student_name: str, scratch: Path) -> tuple[Path, dict[str, str]]:
    """A folder with the run's trained student, and the hashes of its files; ConfigError where its training has not finished."""
    trained = manifests.require(store, train_manifest_path(student_name), "train")
    return _download_model(store, trained, scratch), {file.path: file.sha256 for file in trained.files}


def _download_model(store: Store, trained: Manifest, scratch: Path) -> Path:
    """The trained student's folder, verified against the manifest of its training."""
    folder = scratch / "model"
    folder.mkdir()
    for file in trained.files:
        (folder / Path(file.path).name).write_bytes(manifests.read_verified(store, file))
    return folder


def _review(store: Store, data_set: Manifest) -> dict[str, Any] | None:
    """What people made of the data set's rows, as its statistics count it; None where it knows of no review."""
    if layout.REVIEW_MANIFEST not in data_set.inputs:
        return None
    file = next(file for file in data_set.files if file.path.endswith("/statistics.json"))
    statistics = json.loads(manifests.read_verified(store, file))
    return {"reviewed": statistics.get("reviewed", {}), "judged_wrong": statistics.get("judged_wrong", 0)}


def _admitted(store: Store, data_set: Manifest) -> set[str]:
    """Conversations of rejected samples that people let into the data set: they may have been trained on."""
    if layout.REVIEW_MANIFEST not in data_set.inputs:
        return set()
    splits = stream_splits(store, data_set, ("conversation_sha256", "review"))
    return {row["conversation_sha256"] for rows in splits.values() for row in rows if row["review"] == ADMITTED}


def _rejected_with_gold(store: Store, gold: Gold, gold_source: str, admitted: set[str]) -> list[tuple[Row, Reference]]:
    """Conversations of rejected tries whose true record is known: what the teacher found hard, and no split holds."""
    if not (gold.by_conversation or gold.by_id):
        return []
    paths = [file.path for file in store.list_files(layout.GENERATE) if file.path.endswith("/manifest.json")]
    files = [
        file
        for path in paths
        for file in manifests.require(store, path, "generate").files
        if file.path.endswith("/rejected.parquet")
    ]
    found: dict[str, tuple[Row, Reference]] = {}
    for row in tables.stream(store, files, ("sample_id", "source_id", "conversation")):
        identity = conversation_sha256(row["conversation"] or "")
        known = gold.of(identity, row["source_id"] or "") if row["conversation"] and identity not in admitted else None
        if known is not None and len(found) < _MOST_REJECTED:
            one = {"sample_id": row["sample_id"], "input": row["conversation"]}
            found[identity] = one, Reference(known, gold_source)
    return list(found.values())


def _students(
    folder: Path,
    rows: Sequence[Row],
    references: Sequence[Reference],
    rejected: Sequence[tuple[Row, Reference]],
    asking: _Asking,
) -> tuple[dict[str, list[Prediction]], list[Prediction]]:
    """The student's answers and those of its architecture with fresh weights; and the student's to rejected conversations."""
    from medkd.student.decode import Extractor
    from medkd.student.models import untrained

    tested = [row["input"] for row in rows]
    trained = Extractor.load(folder, constrained=asking.constrained)
    tokenizer = trained.tokenizer
    limit = answers.answer_limit(tokenizer, (one.record for one in (*references, *(reference for _, reference in rejected))))
    conversations = [*tested, *(row["input"] for row, _ in rejected)]
    of_student = answers.asked(trained, conversations, name="student", most_tokens=limit, stop=asking.stop)
    fresh = Extractor(untrained(folder, tokenizer.family, asking.seed), tokenizer, constrained=asking.constrained)
    of_fresh = answers.asked(fresh, tested, name="untrained", most_tokens=limit, stop=asking.stop)
    return {"student": of_student[: len(tested)], "untrained": of_fresh}, of_student[len(tested) :]


def _few_shot_student(
    store: Store,
    student: StudentConfig,
    folder: Path,
    rows: Sequence[Row],
    references: Sequence[Reference],
    examples: Sequence[few_shots.Example],
    scratch: Path,
    asking: _Asking,
) -> dict[str, list[Prediction]]:
    """The answers of a causal student as training found it, with examples in its prompts; nothing for others."""
    if not examples or StudentForm.read(folder).family != "causal":
        return {}
    from medkd.student.few_shot import few_shot_extractor
    from medkd.student.tokenizer import StudentTokenizer

    tokenizer = StudentTokenizer.load(folder)
    limit = answers.answer_limit(tokenizer, (one.record for one in references))
    extractor = few_shot_extractor(
        store,
        student,
        tokenizer,
        examples,
        answer_length=limit,
        scratch=scratch,
        seed=asking.seed,
        constrained=asking.constrained,
    )
    conversations = [row["input"] for row in rows]
    found = answers.asked(extractor, conversations, name="few_shot_student", most_tokens=limit, stop=asking.stop)
    return {"few_shot_student": found}


def _side_by_side(
    predictions: Mapping[str, Sequence[Prediction]], references: Sequence[Reference], schema: RecordSchema
) -> dict[str, Any]:
    """Scores of several models on the same conversations, apart from all others."""
    compared = {
        model: [comparison(*pair, schema) for pair in zip(references, of_model, strict=True)]
        for model, of_model in predictions.items()
    }
    return apart(compared, references[0].source, schema)


def _counts(
    rows: Sequence[Row], references: Sequence[Reference], predictions: Mapping[str, Sequence[Prediction | None]]
) -> dict[str, Any]:
    return {
        "test": len(rows),
        "references": dict(Counter(reference.source for reference in references)),
        "truncated": {name: sum(one.truncated for one in found if one) for name, found in predictions.items()},
        "windowed": {name: sum(one.windows > 1 for one in found if one) for name, found in predictions.items()},
    }


def _publish(
    store: Store,
    student_name: str,
    trained: Manifest,
    summary: dict[str, Any],
    predictions: Sequence[FileEntry],
    inputs: Mapping[str, str],
    config_hash: str,
) -> None:
    """Write scores, what travels with the model, and the manifest, last; meanwhile there is none, so that what is torn counts as
    not evaluated."""
    folder = evaluate_folder(student_name)
    store.delete(f"{folder}/manifest.json")
    write_evaluation(store, student_name, trained, summary)
    data = (json.dumps(summary, indent=1) + "\n").encode()
    store.replace(f"{folder}/scores.json", data)
    manifest = Manifest(
        stage="evaluate",
        plan_hash=trained.plan_hash,
        config_hash=config_hash,
        inputs=dict(inputs),
        files=(manifests.entry(f"{folder}/scores.json", data), *predictions),
        counts=summary["counts"],
    )
    manifests.write(store, f"{folder}/manifest.json", manifest)
