"""A review: a sample of the run's rows that people are asked about, accepted and rejected ones, drawn once and kept.

review/<name>/{sample.jsonl,manifest.json}   the rows as they are shown, with their strata and weights; the manifest last

The rows that are handed out say nothing of a row's fate: ids of accepted and rejected tries look alike, and what a checker found
is left out unless asked for. `stages.reviewed` reads what comes back.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from medkd.errors import ConfigError, InputError, UsageError
from medkd.quality import judgements
from medkd.quality.grounding import ground
from medkd.quality.judgements import Shown
from medkd.quality.review_form import review_form
from medkd.quality.schema import InvalidRecord, shaped_record
from medkd.quality.splits import split_of
from medkd.quality.strata import ACCEPTED, REJECTED, Drawn, Stratum, draw
from medkd.records import Record, RecordSchema
from medkd.samples import canonical_json, conversation_sha256, sha256_hex, turns
from medkd.stages import standing
from medkd.stages.plan import Plan, load_plan
from medkd.store import layout, manifests, review_files, tables
from medkd.store.files import Store
from medkd.store.manifests import Manifest

Row = dict[str, Any]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
FORMATS = ("csv", "jsonl", "html")
# What an admitted reject takes along into the data set.
_WHOSE = ("topic", "mood", "source", "source_id", "teacher", "variation", "attempts", "cost_usd")
_OF_ACCEPTED = ("sample_id", "input", "output", *_WHOSE)
_OF_REJECTED = ("sample_id", "conversation", "raw_text", "reason", *_WHOSE)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a review asks about. split: only rows of that split of the data set; None: all."""

    name: str = "first"
    num_rows: int = 100
    share_rejected: float = 0.3
    seed: int = 1
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of a review."""

    sample_id: str
    """Of this try: the sample's id, `v` and its variation. Never a number, which spreadsheets would shorten."""
    of_sample: str
    status: str
    """accepted or rejected."""
    reason: str | None
    """Why it was rejected."""
    weight: float
    """How many rows of its stratum it stands for."""
    split: str
    conversation: str
    record: Record | None
    """None: the teacher gave none that can be read; `raw_text` then has its words."""
    raw_text: str | None
    evidence: Mapping[str, Sequence[int]]
    """Turns from 1 that support a field."""
    about: Mapping[str, Any]
    """Topic, mood, teacher and what else the data set keeps of a row."""

    @property
    def stratum(self) -> Stratum:
        return Stratum(self.status, self.about["topic"] or "")

    @property
    def shown(self) -> Shown:
        return Shown(sample_id=self.sample_id, record=self.record)


@dataclass(frozen=True, kw_only=True)
class Review:
    """A review that lies under the prefix."""

    name: str
    identity: str
    """Its name and a piece of its rows' hash: what a filled row says it belongs to."""
    cases: tuple[Case, ...]
    sizes: Mapping[Stratum, int]
    """Rows of each stratum that could have been drawn."""
    asked: Asked


def export(store: Store, asked: Asked) -> Review:
    """Draw the review's rows, or find them where they were drawn before, the same way.

    ConfigError where a shard has not finished or the review of that name asks about other rows; UsageError where the name cannot
    be a folder or fewer rows are asked for than there are strata.
    """
    if not _NAME.fullmatch(asked.name):
        raise UsageError(f"--name: got {asked.name!r}, expected letters, digits, dots, - and _; it names a folder")
    known = manifests.read(store, layout.review_sample_manifest(asked.name))
    if known:
        found = _read(store, asked.name, known)
        if found.asked != asked:
            was = ", ".join(f"{key} {value}" for key, value in asdict(found.asked).items() if value is not None)
            raise ConfigError(
                f"--name: got {asked.name!r}, which asks about other rows ({was}); repeat its flags or give a new name"
            )
        return found
    plan, cut = load_plan(store)
    finished = standing.shard_manifests(store, range(cut.num_shards))
    if not finished:
        raise ConfigError(f"{store.url}: no finished shard under this prefix; review the run that generated the rows")
    shards = [finished[number] for number in sorted(finished)]
    frame = _Frame(store, plan, shards, asked.split)
    try:
        drawn = draw(frame.strata(), asked.num_rows, asked.share_rejected, asked.seed)
    except ValueError as error:
        raise UsageError(f"--rows: {error}") from None
    if not drawn.ids:
        raise InputError(f"{store.url}: no row to review{f' in split {asked.split}' if asked.split else ''}")
    cases = frame.cases(drawn)
    data = review_files.as_jsonl(asdict(case) for case in cases)
    path = layout.review_sample(asked.name)
    store.replace(path, data)
    manifest = Manifest(
        stage="review",
        plan_hash=plan.hash,
        config_hash=sha256_hex(canonical_json(asdict(asked))),
        inputs={file.path: file.sha256 for shard in shards for file in shard.files if _is_read(file.path)},
        files=(manifests.entry(path, data, len(cases)),),
        counts={
            "asked": asdict(asked),
            "rows": len(cases),
            "rejects_without_conversation": frame.without_conversation,
            "strata": [
                {
                    "status": stratum.status,
                    "topic": stratum.topic,
                    "rows": drawn.sizes[stratum],
                    "sampled": drawn.sampled[stratum],
                }
                for stratum in sorted(drawn.sizes)
            ],
        },
    )
    manifests.write(store, layout.review_sample_manifest(asked.name), manifest)
    return _read(store, asked.name, manifest)


def find(store: Store) -> dict[str, Review]:
    """The reviews under the prefix by their identity."""
    reviews = {}
    for name in store.list_folders(layout.REVIEW):
        manifest = manifests.read(store, layout.review_sample_manifest(name))
        if manifest:
            review = _read(store, name, manifest)
            reviews[review.identity] = review
    return reviews


def _read(store: Store, name: str, manifest: Manifest) -> Review:
    (file,) = manifest.files
    lines = manifests.read_verified(store, file).decode().split("\n")
    return Review(
        name=name,
        identity=f"{name}-{file.sha256[:8]}",
        cases=tuple(Case(**json.loads(line)) for line in lines if line),
        sizes={Stratum(one["status"], one["topic"]): one["rows"] for one in manifest.counts["strata"]},
        asked=Asked(**manifest.counts["asked"]),
    )


def _is_read(path: str) -> bool:
    return path.endswith(("/samples.parquet", "/rejected.parquet"))


class _Frame:
    """All rows that could be drawn: accepted ones and those rejected ones that came to a conversation."""

    def __init__(self, store: Store, plan: Plan, shards: Sequence[Manifest], split: str | None) -> None:
        self._store, self._plan, self._shards, self._split = store, plan, shards, split
        self.without_conversation = 0

    def strata(self) -> Iterator[tuple[Stratum, str]]:
        self.without_conversation = 0
        for status, row in self._rows(("sample_id", "topic", "variation")):
            yield Stratum(status, row["topic"] or ""), _try_id(row)

    def cases(self, drawn: Drawn) -> list[Case]:
        """The drawn rows in their order."""
        places = {identity: place for place, identity in enumerate(drawn.ids)}
        found: list[Case | None] = [None] * len(places)
        for status, row in self._rows(None):
            place = places.get(_try_id(row))
            if place is not None:
                stratum = Stratum(status, row["topic"] or "")
                found[place] = self._case(status, row, drawn.sizes[stratum] / drawn.sampled[stratum])
        return [case for case in found if case]

    def _rows(self, columns: tuple[str, ...] | None) -> Iterator[tuple[str, Row]]:
        kinds = ((ACCEPTED, "samples", "input", _OF_ACCEPTED), (REJECTED, "rejected", "conversation", _OF_REJECTED))
        for status, name, conversation, everything in kinds:
            files = [file for shard in self._shards for file in shard.files if file.path.endswith(f"/{name}.parquet")]
            for row in tables.stream(self._store, files, (*columns, conversation) if columns else everything):
                row["conversation"] = row.pop(conversation)
                if not row["conversation"]:
                    self.without_conversation += 1
                elif self._split is None or self._split == self._split_of(row):
                    yield status, row

    def _split_of(self, row: Row) -> str:
        return split_of(conversation_sha256(row["conversation"]), row["topic"], self._plan.held_out_topics)

    def _case(self, status: str, row: Row, weight: float) -> Case:
        text = row["output"] if status == ACCEPTED else row["raw_text"]
        record = _readable(text or "", self._plan.schema)
        grounding = ground(record, row["conversation"], self._plan.schema) if record else None
        evidence = grounding.evidence if grounding else {}
        return Case(
            sample_id=_try_id(row),
            of_sample=row["sample_id"],
            status=status,
            reason=row.get("reason"),
            weight=round(weight, 6),
            split=self._split_of(row),
            conversation=row["conversation"],
            record=record,
            raw_text=None if record or not text else text,
            evidence={path: [turn + 1 for turn in found] for path, found in evidence.items()},
            about={name: row[name] for name in _WHOSE},
        )


def _try_id(row: Mapping[str, Any]) -> str:
    return f"{row['sample_id']}v{row['variation']}"


def _readable(text: str, schema: RecordSchema) -> Record | None:
    """The record that a text writes, whatever its values are; None where it has not the schema's shape."""
    try:
        return shaped_record(text, schema)
    except InvalidRecord:
        return None


def check_names(paths: Sequence[str]) -> None:
    """UsageError where a file's name says no format."""
    for path in paths:
        if _kind(path) not in FORMATS:
            raise UsageError(
                f"--output: got {path!r}, expected a name that ends in .{', .'.join(FORMATS[:-1])} or .{FORMATS[-1]}"
            )


def form(review: Review, schema: RecordSchema, path: str, *, open_label: bool, contains_phi: bool | None) -> bytes:
    """What people fill in, in the format that the file's name asks for.

    open_label: say of each row whether it was accepted, why not, and its weight. contains_phi: whether the conversations are
    patient data; None: they are generated.
    """
    rows = [_json_row(review, case, schema, open_label) for case in review.cases]
    if _kind(path) == "csv":
        cells = (_csv_row(row, case, schema, open_label) for row, case in zip(rows, review.cases, strict=True))
        return review_files.as_csv(cells, _columns(schema, open_label))
    if _kind(path) == "jsonl":
        return review_files.as_jsonl(rows)
    evidence = [dict(case.evidence) for case in review.cases]
    return review_form(review.identity, rows, evidence, schema, contains_phi=contains_phi).encode("utf-8", "replace")


def _kind(path: str) -> str:
    return PurePosixPath(path.lower()).suffix[1:]


def _columns(schema: RecordSchema, open_label: bool) -> list[str]:
    fate = ["outcome", "weight"] if open_label else []
    verdicts = [judgements.verdict_column(path) for path in schema.leaves()]
    filled = [judgements.WHOLE, judgements.CORRECTED, judgements.COMMENT, judgements.REVIEWER]
    return [judgements.REVIEW, judgements.SAMPLE_ID, *fate, "conversation", "record", *verdicts, *filled]


def _csv_row(row: Row, case: Case, schema: RecordSchema, open_label: bool) -> dict[str, str]:
    record = json.dumps(case.record, indent=1, ensure_ascii=False) if case.record else f"NO RECORD\n{case.raw_text or ''}"
    talk = "\n".join(f"{turn['number']}. {turn['speaker'] and turn['speaker'] + ': '}{turn['text']}" for turn in row["turns"])
    cells = {name: str(row.get(name) or "") for name in _columns(schema, open_label)}
    return {**cells, "conversation": talk, "record": record.strip()}


def _json_row(review: Review, case: Case, schema: RecordSchema, open_label: bool) -> Row:
    reason = f": {case.reason}" if case.reason else ""
    fate = {"outcome": f"{case.status}{reason}", "weight": case.weight} if open_label else {}
    return {
        judgements.REVIEW: review.identity,
        judgements.SAMPLE_ID: case.sample_id,
        **fate,
        "conversation": case.conversation,
        "turns": [
            {"number": number, "speaker": turn.speaker, "text": turn.text}
            for number, turn in enumerate(turns(case.conversation), start=1)
        ],
        "record": case.record,
        **({"raw_text": case.raw_text} if case.record is None else {}),
        "verdicts": dict.fromkeys(schema.leaves(), ""),
        judgements.WHOLE: "",
        judgements.CORRECTED: None,
        judgements.COMMENT: "",
        judgements.REVIEWER: "",
    }


def sample_path(review: Review) -> str:
    """Where its rows lie with their strata and weights."""
    return layout.review_sample(review.name)


def counts(review: Review) -> Counter[str]:
    """Rows by status."""
    return Counter(case.status for case in review.cases)
