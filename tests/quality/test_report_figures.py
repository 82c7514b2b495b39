"""Every number of the report, computed again from the files under the prefix by code that shares nothing with the report's.

The page is taken apart into all its pieces that hold a digit, attributes and drawings included, and must equal what is expected
piece by piece: a number that this test does not know fails it. Only the normal form of values and the names of fields are taken
from medkd, because they define what is counted.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from medkd.config import ScoreBar
from medkd.quality.intervals import _SEED as SEED
from medkd.quality.spoken import normal_form
from medkd.records import PATIENT_RECORD
from medkd.stages.report import write_report
from medkd.store.files import open_store
from tests.quality import recounted_review
from tests.quality.page_figures import Figures
from tests.quality.written_run import STUDENT, write_review, write_run, write_student

MODELS = ("student", "lexicon", "constant", "untrained", "teacher")
FEW_SHOT = ("few_shot_student", "few_shot_teacher")
TITLES = {
    "lexicon": "lexicon baseline",
    "constant": "constant record",
    "untrained": "untrained student",
    "few_shot_student": "untrained student, few-shot",
    "few_shot_teacher": "teacher, few-shot",
}
ARTICLES = {
    "simulator": "the simulator's gold records",
    "teacher": "the teacher's records",
    "mixed": "the best record known of each",
}
LEAVES = PATIENT_RECORD.leaves()
OUTER = [path for path in LEAVES if "[]" not in path]
TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")

Pieces = Counter[Any]
Bar = tuple[str, float]


class Run:
    """The files of a run as plain Python."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shards = [self.json(path) for path in sorted(root.glob("generate/*/manifest.json"))]
        self.samples = self.rows("generate/*/samples.parquet")
        self.calls = self.rows("generate/*/calls.parquet")
        self.rejected = self.rows("generate/*/rejected.parquet")
        self.splits = {split: self.rows(f"dataset/{split}-*.parquet") for split in ("train", "validation", "test")}
        self.metrics = [json.loads(line) for line in (root / f"students/{STUDENT}/train/metrics.jsonl").read_text().splitlines()]
        self.predictions = self.rows(f"students/{STUDENT}/evaluate/predictions.parquet")
        self.tested = {row["sample_id"]: row for row in self.splits["test"]}

    def json(self, path: Path | str) -> Any:
        return json.loads((self.root / path).read_text())

    def rows(self, pattern: str) -> list[dict[str, Any]]:
        return [row for path in sorted(self.root.glob(pattern)) for row in pq.read_table(path).to_pylist()]

    def scored(self, source: str, held_out: bool) -> dict[str, list[One]]:
        """By model its answers to conversations with that kind of reference, in the order of the test split."""
        place = {sample_id: number for number, sample_id in enumerate(self.tested)}
        chosen = [
            row
            for row in sorted(self.predictions, key=lambda row: place[row["sample_id"]])
            if self.tested[row["sample_id"]]["held_out_topic"] == held_out and source in (row["gold_source"], "any")
        ]
        return {model: [One(row) for row in chosen if row["model"] == model] for model in (*MODELS, *FEW_SHOT)}


class One:
    """One answer beside its reference, counted."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.row, self.id = row, row["sample_id"]
        self.gold, self.answer = json.loads(row["gold"]), json.loads(row["record"]) if row["record"] else None
        self.wanted, self.said = claims(self.gold), claims(self.answer) if self.answer else Counter()
        self.same = self.wanted & self.said
        self.whole = [items(record) if record else Counter() for record in (self.gold, self.answer)]

    def counts(self, path: str | None = None) -> tuple[int, int, int]:
        return tuple(sum(n for (at, _), n in one.items() if path in (None, at)) for one in (self.same, self.said, self.wanted))  # type: ignore[return-value]

    @property
    def f1(self) -> float:
        return f1(*self.counts())


def claims(record: Mapping[str, Any]) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for group, content in record.items():
        for member in content if isinstance(content, list) else [content]:
            for leaf, value in member.items():
                path = f"{group}[].{leaf}" if isinstance(content, list) else f"{group}.{leaf}"
                values = value if isinstance(value, list) else [value]
                found.update((path, normal_form(one)) for one in values if one != "NOT PROVIDED")
    return found


def items(record: Mapping[str, Any]) -> Counter[Any]:
    return Counter(
        tuple(sorted((leaf, normal_form(value)) for leaf, value in item.items() if value != "NOT PROVIDED"))
        for item in record["prescription"]
    )


def f1(matched: int, predicted: int, expected: int) -> float:
    return 2 * matched / (predicted + expected) if predicted + expected else 1.0


def ratio(part: int, whole: int, otherwise: int) -> float:
    return part / whole if whole else float(otherwise == 0)


def summed(counts: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*counts, strict=True)))


def resampled(counts: Sequence[Sequence[int]]) -> Any:
    """F1 of a thousand resamples of as many conversations."""
    values, chance = np.array(counts), np.random.default_rng(SEED)
    sums = np.array([values[chance.integers(0, len(values), len(values))].sum(axis=0) for _ in range(1000)])
    return np.array([f1(*map(int, row)) for row in sums])


def interval(scores: Any) -> str:
    low, high = (round(float(value), 4) for value in np.percentile(scores, (2.5, 97.5)))
    return f"{low:.3f} to {high:.3f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def usd(amount: float) -> str:
    if amount == 0 or amount >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.6f}".rstrip("0") if amount < 0.01 else f"${amount:.4f}"


def words(path: str) -> str:
    return path.rpartition(".")[2].replace("_", " ")


@pytest.mark.parametrize(
    ("written", "bars", "review"),
    [
        ({}, (), {"adjudicator": None}),
        ({"held_out": False}, (("micro.f1", 0.1), ("fields.prescription[].dose.recall", 0.05)), {"adjudicator": "ben"}),
        ({"rejects": False}, (("micro.f1", 0.99), ("valid_schema", 0.5)), None),
    ],
    ids=["no bars", "no held-out topics, above its bars, an adjudicator", "no rejected tries, below a bar, no review"],
)
def test_every_number_of_the_page_is_computed_again(
    tmp_path: Path, written: dict[str, bool], bars: Sequence[Bar], review: dict[str, str | None] | None
) -> None:
    store = open_store(str(tmp_path))
    write_run(
        store,
        num_samples=200,
        topics=["asthma", "migraine", "gout", "eczema"],
        moods=["calm", "anxious"],
        num_shards=3,
        require_agreement=1.0,
        **written,
    )
    if review:
        write_review(store, num_rows=60, **review)
    write_student(store, [ScoreBar(score=score, at_least=at_least) for score, at_least in bars])
    page = Figures(store.read(write_report(store, STUDENT)).decode())
    run = Run(tmp_path)
    main = run.scored("simulator", held_out=False)
    verdict = verdict_of(main["student"], bars)
    expected = {
        "top": of_top(run, main, store.url, page),
        "scores": of_scores(run, main, verdict),
        "examples": of_examples(run, main),
        "training": of_training(run),
        "cells": of_cells(run),
        "rejects": of_rejects(run),
        "data": of_data(run),
        "money": of_money(run),
        "gaps": of_gaps(run, verdict),
        **({"reviews": recounted_review.pieces_of(tmp_path, LEAVES, review["adjudicator"])} if review else {}),
    }
    assert set(page.found) == set(expected)
    for section, pieces in expected.items():
        shown = page.found[section]
        assert (shown - pieces, pieces - shown) == (Counter(), Counter()), section
    check_chart(run, page)


def test_a_number_that_nobody_computed_again_is_noticed(tmp_path: Path) -> None:
    pieces = Figures('<body><section id="a"><p>1 of 2 <b>rows</b></p><table><tr><td>x</td><td>3</td></tr></table>').found["a"]
    assert pieces == Counter(["1 of 2 rows", ("x", "3")])
    assert Figures('<body><section id="a"><i style="--v:0.5" title="at 4"></i><p>no</p></section>').found["a"] == Counter(
        ["drawn: 0.500", "title: at 4"]
    )


def of_top(run: Run, main: Mapping[str, list[One]], url: str, page: Figures) -> Pieces:
    counts = {model: [one.counts() for one in found] for model, found in main.items()}
    micro = {model: f1(*summed(found)) for model, found in counts.items()}
    plan = run.json("plan.json")
    plan_hash = run.json("plan-manifest.json")["plan_hash"]
    accepted, spent = len(run.samples), sum(call["cost_usd"] for call in run.calls)
    kept = sum(map(len, run.splits.values()))
    duplicates = sum(row["reason"] not in ("disputed", "wrong") for row in run.rows("dataset/rejected.parquet"))
    (written,) = (piece.rpartition("written ")[2] for piece in page.found["top"] if "teacher model" in piece)
    return Counter(
        [
            f"{plan['teacher']['name']} → {STUDENT}",
            f"teacher model {plan['teacher']['model']}plan {plan_hash[:12]}seed {plan['seed']}under {url}written {written}",
            f"title: {plan_hash}",
            "Micro F1 of the student",
            f"{micro['student']:.3f}",
            f"95% interval {interval(resampled(counts['student']))}; lexicon {micro['lexicon']:.3f}, "
            f"untrained {micro['untrained']:.3f}",
            percent(sum(exact(one) for one in main["student"]) / len(main["student"])),
            f"of {len(main['student'])} held-out conversations",
            f"{accepted:,}",
            f"{len(run.rejected):,} tries failed a check",
            usd(spent),
            f"{usd(spent / accepted)} per accepted sample",
            f"{plan['total_samples']:,}",
            f"{len(plan['topics'])} topics × {len(plan['moods'])} moods",
            f"{accepted:,}",
            f"accepted, {len(run.shards)} of {run.json('layout.json')['num_shards']} shards",
            f"{kept:,}",
            f"rows, {duplicates:,} duplicates left out",
            f"{max(line['step'] for line in run.metrics):,}",
            f"{len(main['student']):,}",
            f"Numbers from plan.json, generate/shard-*/manifest.json, dataset/manifest.json, students/{STUDENT}/*",
        ]
    )


def verdict_of(student: Sequence[One], bars: Sequence[Bar]) -> str:
    """What the page says of the bars: of each the lower end of the interval."""
    said = []
    for score, at_least in bars:
        if score == "micro.f1":
            values = resampled([one.counts() for one in student])
        elif score == "valid_schema":
            values = resampled_share([(int(one.answer is not None), 1) for one in student])
        else:
            counts = [one.counts(score.removeprefix("fields.").removesuffix(".recall")) for one in student]
            values = resampled_share([(matched, wanted) for matched, _, wanted in counts])
        got = round(float(np.percentile(values, 2.5)), 4)
        said.append((got >= at_least, f"{score}: got {got:.4g}, the bar is {at_least:.4g}"))
    if not said:
        return "no bar set"
    missed = [words for passed, words in said if not passed]
    return f"below its bar ({'; '.join(missed)})" if missed else f"passed ({'; '.join(words for _, words in said)})"


def resampled_share(parts: Sequence[Sequence[int]]) -> Any:
    """The share that (part, whole) add up to in a thousand resamples of as many conversations."""
    values, chance = np.array(parts), np.random.default_rng(SEED)
    sums = np.array([values[chance.integers(0, len(values), len(values))].sum(axis=0) for _ in range(1000)])
    return sums[:, 0] / sums[:, 1]


def exact(one: One) -> bool:
    return one.answer is not None and one.wanted == one.said and one.whole[0] == one.whole[1]


def of_scores(run: Run, main: Mapping[str, list[One]], verdict: str) -> Pieces:
    held_out = run.scored("any", held_out=True)
    others = run.scored("teacher", held_out=False)
    student = main["student"]
    counts = {model: [one.counts() for one in found] for model, found in main.items()}
    pieces: Pieces = Counter(
        [
            f"Scores against {ARTICLES['simulator']} on {len(student):,} held-out conversations. They hold for simulated "
            "conversations and say nothing about real ones. The baselines saw the training rows only. Verdict on the student: "
            f"{verdict}.",
            ("F1 by field", "", *MODELS, "precision", "recall", "expected"),
            *([f"{len(held_out['student']):,} conversations, not counted elsewhere."] if held_out["student"] else []),
            "Micro F1 with its interval",
            ("model", "F1", "95% interval"),
            ("topic", "conversations", "F1", "95% interval", "hallucinated", "omitted"),
            f"Numbers from students/{STUDENT}/evaluate/scores.json",
        ]
    )
    for path in LEAVES:
        pieces += field_row(words(path), {model: summed(one.counts(path) for one in found) for model, found in main.items()})
    whole = {
        model: summed(((one.whole[0] & one.whole[1]).total(), one.whole[1].total(), one.whole[0].total()) for one in found)
        for model, found in main.items()
    }
    pieces += field_row("prescription, whole items", whole)
    pieces += overall(main) + (overall(held_out) if held_out["student"] else Counter())
    for model in (*MODELS, "few_shot_student"):
        pieces[TITLES.get(model, model), f"{f1(*summed(counts[model])):.3f}", interval(resampled(counts[model]))] += 1
    cut = [one for one in student if one.row["truncated"]]
    windowed = [one for one in student if one.row["windows"] > 1]
    kinds = {one.row["gold_source"] for one in held_out["student"]}
    held_out_source = ARTICLES["mixed" if len(kinds) > 1 else kinds.pop()] if kinds else ""
    asked = main["few_shot_teacher"]
    ids = {one.id for one in asked}
    shown = "conversations that a teacher was shown examples for"
    for model, title, reference, found in (
        ("student", "held-out topics", held_out_source, held_out["student"]),
        ("student", "answers that were cut", ARTICLES["simulator"], cut),
        ("student", "conversations read in windows", ARTICLES["simulator"], windowed),
        ("student", shown, ARTICLES["simulator"], [one for one in student if one.id in ids]),
        ("few_shot_teacher", shown, ARTICLES["simulator"], asked),
        ("student", "rows with the teacher's records", ARTICLES["teacher"], others["student"]),
    ):
        if found:
            of_set = [one.counts() for one in found]
            name = f"{TITLES.get(model, model)}, {len(found):,} {title} (against {reference})"
            pieces[name, f"{f1(*summed(of_set)):.3f}", interval(resampled(of_set))] += 1
    own, teachers = (f1(*summed(counts[model])) for model in ("student", "teacher"))
    between = resampled(counts["student"]) - resampled(counts["teacher"])
    pieces[
        f"Resampled by conversation, 1,000 times. The student reaches {percent(own / teachers)} of its teacher's F1 on the same "
        f"{len(main['teacher']):,} conversations (difference {own - teachers:.3f}, {interval(between)}). Confidence and "
        f"precision differ by {calibration_error(student):.3f} on average (expected calibration error)."
    ] += 1
    for topic in {run.tested[one.id]["topic"] for one in student}:
        found = [one for one in student if run.tested[one.id]["topic"] == topic]
        of_topic = [one.counts() for one in found]
        matched, predicted, wanted = summed(of_topic)
        score = f"{f1(matched, predicted, wanted):.3f}"
        pieces[
            topic, f"{len(found):,}", score, interval(resampled(of_topic)), f"{predicted - matched:,}", f"{wanted - matched:,}"
        ] += 1
    return pieces + mistake_rows(student)


def field_row(title: str, counts: Mapping[str, Sequence[int]]) -> Pieces:
    scores = {model: f1(*found) for model, found in counts.items()}  # type: ignore[arg-type]
    matched, predicted, wanted = counts["student"]
    accuracy = (ratio(matched, predicted, wanted), ratio(matched, wanted, predicted))
    row = (title, "", *(f"{scores[model]:.2f}" for model in MODELS), *(f"{one:.2f}" for one in accuracy), f"{wanted:,}")
    dots = [model for model in MODELS if model != "teacher"]
    drawn = [f"drawn: {scores[model]:.3f}" for model in (*dots, "student")]
    return Counter([row, *drawn, *(f"title: {TITLES.get(model, model)}: {scores[model]:.3f}" for model in dots)])


def overall(found: Mapping[str, list[One]]) -> Pieces:
    rows: dict[str, list[str]] = {}
    for model in [model for model in MODELS if len(found[model]) == len(found["student"])]:
        ones = found[model]
        matched, predicted, wanted = summed(one.counts() for one in ones)
        silent = [(set(OUTER) - {path for path, _ in one.wanted}, one) for one in ones]
        kept = sum(len(paths - {path for path, _ in one.said}) for paths, one in silent if one.answer)
        shown = {
            "micro F1": f"{f1(matched, predicted, wanted):.3f}",
            "precision": f"{ratio(matched, predicted, wanted):.3f}",
            "recall": f"{ratio(matched, wanted, predicted):.3f}",
            "whole record right": percent(sum(map(exact, ones)) / len(ones)),
            "valid JSON": percent(sum(one.row["valid_json"] for one in ones) / len(ones)),
            "valid record": percent(sum(one.answer is not None for one in ones) / len(ones)),
            "abstains where it should": percent(kept / sum(len(paths) for paths, _ in silent)),
            "hallucinated values": f"{predicted - matched:,}",
            "omitted values": f"{wanted - matched:,}",
        }
        for title, value in shown.items():
            rows.setdefault(title, [title]).append(value)
    return Counter(map(tuple, rows.values()))


def calibration_error(ones: Sequence[One]) -> float:
    known = sorted((math.exp(one.row["mean_logprob"]), one.id, one.counts()) for one in ones)
    bins = min(10, len(known))
    edges = [number * len(known) // bins for number in range(bins + 1)]
    distance = 0.0
    for start, end in pairwise(edges):
        part = known[start:end]
        matched, predicted, _ = summed(counts for _, _, counts in part)
        confidence = round(sum(one for one, _, _ in part) / len(part), 4)
        distance += len(part) * abs(confidence - round(matched / max(1, predicted), 4))
    return round(distance / len(known), 4)


def mistake_rows(ones: Sequence[One]) -> Pieces:
    """Wrong and omitted values by what became of them, with the field that has most and the first example."""
    fields: dict[str, Counter[str]] = {}
    first: dict[str, str] = {}

    def note(kind: str, path: str, *shown: str) -> None:
        fields.setdefault(kind, Counter())[path] += 1
        first.setdefault(kind, " ".join([words(path), *shown]).strip())

    for one in ones:
        if one.answer is None:
            note("not a record", "")
            continue
        spelled = [texts(record) for record in (one.gold, one.answer)]
        home = {normal_form(value): path for path in LEAVES for value in spelled[0].get(path, [])}
        for path in LEAVES:
            left = [unmatched(spelled[side].get(path, []), spelled[1 - side].get(path, [])) for side in (0, 1)]
            strayed = [value for value in left[1] if home.get(normal_form(value), path) != path]
            for value in strayed:
                note("wrong field", path, value)
                left[1].remove(value)
            both = min(map(len, left))
            for wanted, got in zip(*left, strict=False):
                note("wrong value", path, wanted, got)
            for value in left[0][both:]:
                note("omitted", path, value)
            for value in left[1][both:]:
                note("invented", path, value)
    return Counter((kind, f"{count.total():,}", words(count.most_common(1)[0][0]), first[kind]) for kind, count in fields.items())


def texts(record: Mapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for group, content in record.items():
        for member in content if isinstance(content, list) else [content]:
            for leaf, value in member.items():
                path = f"{group}[].{leaf}" if isinstance(content, list) else f"{group}.{leaf}"
                for one in value if isinstance(value, list) else [value]:
                    if one != "NOT PROVIDED":
                        found.setdefault(path, []).append(one)
    return found


def unmatched(values: Sequence[str], others: Sequence[str]) -> list[str]:
    rest, left = Counter(map(normal_form, others)), []
    for value in values:
        rest[normal_form(value)] -= 1
        if rest[normal_form(value)] < 0:
            left.append(value)
    return left


def of_examples(run: Run, main: Mapping[str, list[One]]) -> Pieces:
    # All with the main kind of reference may be shown, held-out topics too.
    ones = [*main["student"], *run.scored("simulator", held_out=True)["student"]]
    ones.sort(key=lambda one: (-one.f1, -sum(one.wanted.values()), one.id))
    pieces: Pieces = Counter([f"Numbers from students/{STUDENT}/evaluate/predictions.parquet, dataset/test-*.parquet"])
    pieces[
        "The test conversations with the best, the middle and the worst F1. omitted stands only in the reference, added only in "
        "the student's record; what is not marked is the same on both sides."
    ] += 1
    for one in (ones[0], ones[len(ones) // 2], ones[-1]):
        pieces[f"F1 {one.f1:.3f}sample {one.id}"] += 1
        for line in run.tested[one.id]["input"].splitlines():
            pieces[line.partition(": ")[2]] += 1
        if one.answer is None:
            pieces[one.row["raw_text"][:1500]] += 1
        pieces += record_rows(one)
    return Counter({piece: count for piece, count in pieces.items() if any(map(str.isdigit, str(piece)))})


def record_rows(one: One) -> Pieces:
    rows: Pieces = Counter()
    for group, content in one.gold.items():
        records = (one.gold, one.answer)
        if isinstance(content, list):
            lines = [[" · ".join(item.values()) for item in record[group]] if record else [] for record in records]
            rows[group, *map(shown_side, lines)] += 1
        else:
            for leaf in content:
                values = [record[group][leaf] if record else [] for record in records]
                rows[words(leaf), *(shown_side(value if isinstance(value, list) else [value]) for value in values)] += 1
    return rows


def shown_side(lines: Sequence[str]) -> str:
    return "".join(lines).replace("NOT PROVIDED", "not provided") or "empty"


def of_training(run: Run) -> Pieces:
    losses = {name: [(one["step"], one[name]) for one in run.metrics if name in one] for name in ("loss", "validation_loss")}
    last, held = losses["loss"][-1][1], [loss for _, loss in losses["validation_loss"]]
    seconds = round(sum(line.get("seconds", 0.0) for line in run.metrics))
    return Counter[Any](
        [
            f"train loss, last {last:.3g}validation loss, last {held[-1]:.3g}, lowest {min(held):.3g}",
            f"Loss per answer token by optimizer step, on a logarithmic scale: {losses['loss'][-1][0]:,} steps in "
            f"{seconds // 60} min {seconds % 60:02d} s.",
            f"Numbers from students/{STUDENT}/train/metrics.jsonl",
        ]
    )


def check_chart(run: Run, page: Figures) -> None:
    """The drawn points say the losses, read off by the labels of the axes."""
    (y0, low), (y1, high) = page.ticks["y"][0], page.ticks["y"][-1]
    (x0, first), (x1, last) = page.ticks["x"][0], page.ticks["x"][-1]
    for name, key in (("line-train", "loss"), ("line-validation", "validation_loss")):
        known = [(line["step"], line[key]) for line in run.metrics if key in line]
        points = page.lines[name]
        assert len(points) == len(known)
        for (x, y), (step, loss) in zip(points, known, strict=True):
            read = float(first) + (x - x0) / (x1 - x0) * (float(last.replace(",", "")) - float(first))
            exponent = math.log10(float(low)) + (y - y0) / (y1 - y0) * (math.log10(float(high)) - math.log10(float(low)))
            assert read == pytest.approx(step, abs=0.1) and 10**exponent == pytest.approx(loss, rel=0.01)


def of_cells(run: Run) -> Pieces:
    counts = Counter((row["topic"], row["mood"]) for row in run.samples)
    missing = {
        (cell["topic"], cell["mood"]): cell["of_run"] - (cell["of_run"] - (cell["planned"] - cell["accepted"]))
        for shard in run.shards
        for cell in shard["counts"]["short_cells"]
    }
    plan, pieces = run.json("plan.json"), Counter[Any]()
    for topic in plan["topics"]:
        row = [counts[topic, mood] for mood in plan["moods"]]
        held_out = " (held out)" if topic in plan["held_out_topics"] else ""
        pieces[topic + held_out, *(str(count) for count in row), f"{sum(row):,}"] += 1
        for mood, count in zip(plan["moods"], row, strict=True):
            short = f", {missing[topic, mood]} missing" if (topic, mood) in missing else ""
            pieces[f"title: {topic}, {mood}: {count}{short}"] += 1
            pieces[f"drawn: {count / max(counts.values()):.3f}"] += 1
    return pieces


def of_rejects(run: Run) -> Pieces:
    if not run.rejected:
        return Counter([f"Every try passed: {len(run.samples):,} accepted, none rejected."])
    reasons = sorted(Counter(row["reason"] for row in run.rejected).items(), key=lambda item: (-item[1], item[0]))
    tries, short = len(run.rejected) + len(run.samples), sum(shard["counts"]["short"] for shard in run.shards)
    pieces = Counter[Any](
        [
            f"{len(run.rejected):,} of {tries:,} tries failed a check and were replaced by another variation; {short:,} samples "
            "stayed without one that passed.",
            "".join(f"{words(reason)}{count:,}" for reason, count in reasons),
            *(f"drawn: {count / reasons[0][1]:.3f}" for _, count in reasons),
        ]
    )
    for shard in run.shards:
        for cell in shard["counts"]["short_cells"]:
            got = cell["of_run"] - cell["planned"] + cell["accepted"]
            why = ", ".join(f"{reason} {count}" for reason, count in cell["reasons"].items())
            pieces[f"{cell['topic']} / {cell['mood']}: {got:,} of {cell['of_run']:,}; tries rejected: {why}"] += 1
    return pieces


def of_data(run: Run) -> Pieces:
    kept = [row for rows in run.splits.values() for row in rows]
    pieces: Pieces = Counter()
    for split, rows in run.splits.items():
        pieces[split, f"{len(rows):,} rows"] += 1
        pieces[f"title: {split}: {len(rows)}"] += 1
        pieces[f"drawn: {len(rows):.3f}"] += 1
    of_reason = Counter(row["reason"] for row in run.rows("dataset/rejected.parquet"))
    judged = [row["disagreement"] for row in kept if row["disagreement"] is not None]
    agreed, disputed, wrong = sum(not fields for fields in judged), of_reason.pop("disputed", 0), of_reason.pop("wrong", 0)
    by_people = Counter(row["review"] for row in kept if row["review"])
    if by_people:
        pieces[
            "reviewed by people",
            f"{by_people['confirmed']:,} rows confirmed, {by_people['corrected']:,} corrected, {by_people['admitted']:,} "
            f"rejected ones admitted, {wrong:,} left out as wrong",
        ] += 1
    pieces[
        "extracted twice",
        f"{len(judged):,} rows, {percent(agreed / len(judged))} agree in every field; {disputed:,} disputed ones left out",
    ] += 1
    for reason, count in of_reason.items():
        pieces[f"{reason} duplicates left out", f"{count:,}"] += 1
    lengths = sorted(len(row["input"]) for row in kept)
    middle = lengths[(len(lengths) - 1) // 2]
    pieces["length of a conversation", f"{middle:,} characters in the middle, {lengths[-1]:,} at most"] += 1
    digest = run.json("dataset/manifest.json")["counts"]["data_set_hash"]
    pieces["data set hash", digest[:12]] += 1
    pieces[f"title: {digest}"] += 1
    said: Counter[str] = Counter()
    for row in kept:
        # Every item counts its members, so that two medicines with a dose are two.
        for path, values in texts(json.loads(row["gold"] or row["output"])).items():
            said[path] += bool(values)
    shares = {path: round(said[path] / len(kept), 4) for path in LEAVES}
    pieces["".join(f"{words(path)}{percent(share)}" for path, share in shares.items())] += 1
    pieces.update(f"drawn: {share:.3f}" for share in shares.values())
    return pieces


def of_money(run: Run) -> Pieces:
    pieces: Pieces = Counter()
    for step in ("conversation", "extraction", "all"):
        calls = [call for call in run.calls if step in (call["step"], "all")]
        tokens = [f"{sum(call[kind] for call in calls):,}" for kind in TOKENS]
        repairs = sum(call["repair"] > 0 for call in calls)
        pieces[step, f"{len(calls):,}", f"{repairs:,}", *tokens, usd(sum(call["cost_usd"] for call in calls))] += 1
    spent = sum(call["cost_usd"] for call in run.calls)
    possibly = sum(shard["money"]["possibly_usd"] for shard in run.shards)
    tokens_each = round(sum(call["prompt_tokens"] + call["completion_tokens"] for call in run.calls) / len(run.samples))
    pieces[
        f"{usd(spent)} spent for certain, at most {usd(possibly)} more on calls whose outcome nobody saw. One accepted sample "
        f"took {tokens_each:,} tokens and {usd(spent / len(run.samples))}."
    ] += 1
    groups = [shard["counts"]["groups"]["teacher"]["simulator"] for shard in run.shards]
    tries, accepted, cost = (sum(group[name] for group in groups) for name in ("tries", "accepted", "cost_usd"))
    pieces["teacher", "simulator", f"{tries:,}", f"{accepted:,}", percent(round(accepted / tries, 4)), usd(cost / accepted)] += 1
    return pieces


def of_gaps(run: Run, verdict: str) -> Pieces:
    others = run.scored("teacher", held_out=False)["student"]
    cut = sum(row["truncated"] for row in run.predictions if row["model"] == "student")
    missed = verdict.partition(" (")[2].removesuffix(")") if verdict.startswith("below") else ""
    return Counter(
        [
            *([f"Below a bar of the configuration, so not to be handed on: {missed}."] if missed else []),
            f"{len(others):,} more test rows have the teacher's records as reference; their scores are in the file.",
            *(
                [f"{cut:,} test conversations have no whole answer: too long to read, or the answer reached its limit."]
                if cut
                else []
            ),
        ]
    )
