"""What people said of a review's rows: taken in from files, kept under the prefix, and applied to the data set.

review/<name>/filled/000001.jsonl   judgements as they came, import by import
review/{outcome,gold}.jsonl, review/figures.json, review/manifest.json   what follows from all of them; the manifest last

Taking in a file again changes nothing; one that was filled in further adds to it, and a later judgement replaces the same
person's earlier one. Stage prepare applies the outcome whenever it makes a data set.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medkd.errors import ConfigError, InputError
from medkd.quality import judgements
from medkd.quality.grounding import ground
from medkd.quality.judgements import Judgement, UnusableRow, decide, is_filled, read_judgement
from medkd.quality.review_figures import Judged, figures
from medkd.quality.splits import split_of
from medkd.quality.strata import ACCEPTED
from medkd.records import Record, RecordSchema
from medkd.samples import INSTRUCTION, conversation_sha256, sha256_hex
from medkd.stages import review as reviewing
from medkd.stages.plan import load_plan
from medkd.stages.review import Case, Review
from medkd.stages.sources import Source
from medkd.store import layout, manifests, review_files
from medkd.store.files import Store
from medkd.store.manifests import Manifest
from medkd.store.review_files import FilledRow
from medkd.telemetry import event

Row = dict[str, Any]

CONFIRMED, CORRECTED, ADMITTED, LEFT_OUT = "confirmed", "corrected", "admitted", "wrong"
"""What the column `review` of a data set says: a person found the record right; put it right; let a rejected row in; or found it
wrong, so that the row is left out."""

_MOST_PROBLEMS = 20
_Key = tuple[str, str, str]
"""Review, row and reviewer."""


@dataclass(frozen=True, kw_only=True)
class TakenIn:
    """What an import did. figures: of each review, by its identity."""

    new: int
    known: int
    not_filled_in: int
    decisions: Mapping[str, int]
    figures: Mapping[str, Any]


def take_in(store: Store, rows: Sequence[FilledRow], *, reviewer: str | None, adjudicator: str | None) -> TakenIn:
    """Keep the judgements in filled rows, all or none of them, and write what follows from all there are.

    reviewer: whose they are where a row does not say. adjudicator: whose word counts alone where people differ, also later; None:
    whose it was before. InputError names file, line, column and what is allowed; ConfigError where nothing was exported.
    """
    plan, _ = load_plan(store)
    reviews = reviewing.find(store)
    if not reviews:
        raise ConfigError(f"{store.url}/{layout.REVIEW}: no review; draw its rows with `medkd review export` first")
    given, empty = _judgements(rows, reviews, plan.schema, reviewer)
    kept = _kept(store, reviews)
    new = {key: one for key, one in given.items() if kept.get(key) != one}
    known = manifests.read(store, layout.REVIEW_MANIFEST)
    adjudicator = adjudicator or (known.counts["adjudicator"] if known else None)
    for name in sorted({identity for identity, _, _ in new}):
        _append(store, reviews[name].name, [one for (identity, _, _), one in new.items() if identity == name])
    everything = {**kept, **new}
    decisions, found = _publish(store, plan.hash, plan.schema, reviews, everything, adjudicator)
    event("review taken in", new=len(new), known=len(given) - len(new), **decisions)
    return TakenIn(new=len(new), known=len(given) - len(new), not_filled_in=empty, decisions=decisions, figures=found)


def _judgements(
    rows: Sequence[FilledRow], reviews: Mapping[str, Review], schema: RecordSchema, reviewer: str | None
) -> tuple[dict[_Key, Judgement], int]:
    """The judgements in the rows, and how many rows nobody has filled in."""
    cases = {name: {case.sample_id: case for case in review.cases} for name, review in reviews.items()}
    found: dict[_Key, Judgement] = {}
    places: dict[_Key, str] = {}
    problems: list[str] = []
    empty = 0
    for row in rows:
        if not is_filled(row.values):
            empty += 1
            continue
        name, sample_id = (str(row.values.get(key) or "").strip() for key in (judgements.REVIEW, judgements.SAMPLE_ID))
        if name not in cases:
            problems.append(
                f"{row.place}: {judgements.REVIEW}: got {judgements.named(name)}, expected {' or '.join(sorted(cases))}"
            )
            continue
        case = cases[name].get(sample_id)
        if case is None:
            problems.append(
                f"{row.place}: {judgements.SAMPLE_ID}: got {judgements.named(sample_id)}, which is no row of review {name}"
            )
            continue
        try:
            one = read_judgement(row.values, case.shown, schema, reviewer)
        except UnusableRow as error:
            problems += [f"{row.place}: {problem}" for problem in error.problems]
            continue
        key = (name, sample_id, one.reviewer)
        if found.setdefault(key, one) != one:
            problems.append(f"{row.place}: {one.reviewer} says something else of {sample_id} at {places[key]}; keep one of them")
        places.setdefault(key, row.place)
    if problems:
        more = f"\n  and {len(problems) - _MOST_PROBLEMS:,} more" if len(problems) > _MOST_PROBLEMS else ""
        shown = "".join(f"\n  {problem}" for problem in problems[:_MOST_PROBLEMS])
        raise InputError(f"--input: {len(problems):,} problems, nothing was taken in{shown}{more}")
    return found, empty


def _append(store: Store, name: str, new: Sequence[Judgement]) -> None:
    data = review_files.as_jsonl(asdict(one) for one in new)
    number = 1 + len(store.list_files(f"{layout.REVIEW}/{name}/filled"))
    while not store.create(layout.review_filled(name, number), data):
        number += 1


def _kept(store: Store, reviews: Mapping[str, Review]) -> dict[_Key, Judgement]:
    """What was taken in before, the last word of each person on each row."""
    found: dict[_Key, Judgement] = {}
    for identity, review in reviews.items():
        paths = [file.path for file in store.list_files(f"{layout.REVIEW}/{review.name}/filled")]
        for data in store.read_many(paths).values():
            for line in filter(None, data.decode().split("\n")):
                one = Judgement(**json.loads(line))
                found[identity, one.sample_id, one.reviewer] = one
    return found


def _publish(
    store: Store,
    plan_hash: str,
    schema: RecordSchema,
    reviews: Mapping[str, Review],
    everything: Mapping[_Key, Judgement],
    adjudicator: str | None,
) -> tuple[dict[str, int], dict[str, Any]]:
    by_row: dict[tuple[str, str], list[Judgement]] = {}
    for (identity, sample_id, _), one in sorted(everything.items()):
        by_row.setdefault((identity, sample_id), []).append(one)
    found: dict[str, Any] = {}
    outcome: dict[str, Row] = {}
    for identity, review in sorted(reviews.items()):
        judged = [(case, tuple(by_row.get((identity, case.sample_id), ()))) for case in review.cases]
        rows = [Judged(sample_id=case.sample_id, stratum=case.stratum, judgements=of_case) for case, of_case in judged if of_case]
        found[identity] = figures(rows, review.sizes, schema.leaves(), adjudicator)
        outcome |= {case.sample_id: _decided(case, of_case, schema, adjudicator) for case, of_case in judged if of_case}
    decisions = dict(sorted(Counter(row["decision"] for row in outcome.values()).items()))
    lines = [outcome[sample_id] for sample_id in sorted(outcome)]
    written = {
        layout.REVIEW_OUTCOME: review_files.as_jsonl(lines),
        layout.REVIEW_GOLD: review_files.as_jsonl(_gold(line) for line in lines if line["record"] is not None),
        layout.REVIEW_FIGURES: (json.dumps({"format": 1, "reviews": found}, indent=1) + "\n").encode(),
    }
    for path, data in written.items():
        store.replace(path, data)
    manifest = Manifest(
        stage="review",
        plan_hash=plan_hash,
        config_hash=sha256_hex(adjudicator or ""),
        inputs={layout.review_sample(review.name): identity for identity, review in reviews.items()},
        files=tuple(manifests.entry(path, data) for path, data in written.items()),
        counts={"decisions": decisions, "adjudicator": adjudicator},
    )
    manifests.write(store, layout.REVIEW_MANIFEST, manifest)
    return decisions, found


def _decided(case: Case, of_case: Sequence[Judgement], schema: RecordSchema, adjudicator: str | None) -> Row:
    """What becomes of a row, with all that stage prepare needs to let a rejected one in."""
    decided = decide(of_case, case.shown, schema, adjudicator)
    return {
        "sample_id": case.sample_id,
        "row": case.of_sample if case.status == ACCEPTED else case.sample_id,
        "status": case.status,
        "decision": decided.decision,
        "record": decided.record,
        "reviewers": list(decided.reviewers),
        "conversation_sha256": conversation_sha256(case.conversation),
        **({"conversation": case.conversation, "about": dict(case.about)} if case.status != ACCEPTED else {}),
    }


def _gold(line: Mapping[str, Any]) -> Row:
    return {
        "sample_id": line["row"],
        "conversation_sha256": line["conversation_sha256"],
        "record": line["record"],
        "reference": "human",
    }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What people decided about rows of this run. hash: of all of it."""

    hash: str
    lines: tuple[Row, ...]
    schema: RecordSchema

    @property
    def num_admitted(self) -> int:
        """Rejected tries that people let in, before duplicates are dropped."""
        return sum(_is_admitted(line) for line in self.lines)

    def applied(self, source: Source, held_out_topics: tuple[str, ...], prompt_version: int) -> Source:
        """The source's rows as people left them."""
        return _Applied(
            source=source,
            decided={line["row"]: line for line in self.lines if line["status"] == ACCEPTED},
            admitted=tuple(
                self._admitted(line, prompt_version)
                for line in sorted(self.lines, key=lambda line: str(line["row"]))
                if _is_admitted(line)
            ),
            held_out_topics=held_out_topics,
            schema=self.schema,
        )

    def _admitted(self, line: Row, prompt_version: int) -> Row:
        gold = self.schema.canonical(line["record"])
        return {
            **line["about"],
            **_with_record(line["record"], line["conversation"], self.schema),
            "sample_id": line["row"],
            "instruction": INSTRUCTION,
            "input": line["conversation"],
            "gold": gold,
            "reference": "teacher" if line["decision"] == CONFIRMED else "human",
            "prompt_version": prompt_version,
            "review": ADMITTED,
        }


def _is_admitted(line: Row) -> bool:
    return line["status"] != ACCEPTED and line["record"] is not None


@dataclass(frozen=True, kw_only=True)
class _Applied:
    source: Source
    decided: Mapping[str, Row]
    """Decisions on accepted rows by their ids."""
    admitted: tuple[Row, ...]
    held_out_topics: tuple[str, ...]
    schema: RecordSchema

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """All rows in the order of their ids; the ones that are wrong are marked, and stay."""
        own = (self._row(row, columns) for row in self.source.rows(columns))
        let_in = ({name: row.get(name) for name in columns} if columns else row for row in self.admitted)
        yield from heapq.merge(own, let_in, key=lambda row: str(row["sample_id"]))

    def _row(self, row: Row, columns: Sequence[str] | None) -> Row:
        line = self.decided.get(row["sample_id"])
        if line is None or columns is not None or line["decision"] not in (CONFIRMED, CORRECTED, LEFT_OUT):
            return row
        row = {**row, "review": line["decision"]}
        if line["record"] is None:
            return row
        gold = {"gold": self.schema.canonical(line["record"])}
        if line["decision"] == CONFIRMED:
            return {**row, **gold}
        # What is tested on keeps the teacher's record beside the right one, so that the teacher can be scored, too.
        if split_of(line["conversation_sha256"], row["topic"], self.held_out_topics) == "test":
            return {**row, **gold}
        own = _with_record(line["record"], row["input"], self.schema)
        return {**row, **own, **gold, "reference": "human", "judge": None, "disagreement": None}


def _with_record(record: Record, conversation: str, schema: RecordSchema) -> Row:
    grounding = ground(record, conversation, schema)
    return {
        "output": schema.canonical(record),
        "evidence": [{"field": path, "turns": list(found)} for path, found in grounding.evidence.items()],
        "unsupported": [{"field": path, "value": value} for path, value in grounding.unsupported],
    }


def find_outcome(store: Store, plan_hash: str, schema: RecordSchema) -> Outcome | None:
    """What people decided, as it lies under the prefix; None where no review was taken in.

    ConfigError where it is about another plan's rows, InputError where a file differs from its manifest.
    """
    manifest = manifests.read(store, layout.REVIEW_MANIFEST)
    if manifest is None:
        return None
    if manifest.plan_hash != plan_hash:
        raise ConfigError(f"{store.url}/{layout.REVIEW}: is about the rows of another plan; remove it, or restore that plan")
    file = next(file for file in manifest.files if file.path == layout.REVIEW_OUTCOME)
    lines = manifests.read_verified(store, file).decode().split("\n")
    return Outcome(hash=file.sha256, lines=tuple(json.loads(line) for line in lines if line), schema=schema)
