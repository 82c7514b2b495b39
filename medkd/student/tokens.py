"""The tokens of a data set for one student: its tokenizer, how it is spoken to, and what it trains on. Imports no torch.

    students/<name>/tokens/tokenizer/                       tokenizer and medkd.json, as they will lie beside the model
    students/<name>/tokens/{train,validation}-00000.parquet what is trained and validated on, in many small files
    students/<name>/tokens/index-{train,validation}.parquet how long each of these rows is
    students/<name>/tokens/statistics.json                  lengths of all splits, and what does not fit

A conversation that is longer than the student reads at once is several rows, one for each of its windows, with that part of the
record which the window supports. What does not fit even so is set aside: not in these tables, and counted. No answer is ever cut.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medkd.config import Architecture, StudentConfig
from medkd.errors import InputError
from medkd.records import Record, RecordSchema
from medkd.samples import Window
from medkd.store import layout, manifests, tables
from medkd.store.files import Store
from medkd.store.manifests import FileEntry
from medkd.student.families import SEPARATOR, Example, build_config, family_of
from medkd.student.linear import LinearForm
from medkd.student.tokenizer import DoesNotFitError, StudentTokenizer, make_tokenizer, train_tokenizer
from medkd.student.weights import find_source

Row = dict[str, Any]
Parts = Callable[[Record, str, Sequence[Window]], Sequence[Record]]
"""Of a record and its conversation the parts that each window supports."""

# Ranks read whole files, and each reads its own: small files are dealt out well. Some 0.4 MB.
ROWS_PER_FILE = 256
TRAINED_ON = ("train", "validation")
"""The test split is tokenised when it is evaluated."""


def tokens_folder(student_name: str) -> str:
    return f"{layout.student_folder(student_name)}/tokens"


def prepare_student_tokens(
    store: Store,
    student_name: str,
    student: StudentConfig,
    splits: Mapping[str, Collection[Row]],
    schema: RecordSchema,
    parts: Parts,
) -> tuple[list[FileEntry], dict[str, Any]]:
    """Tokenise the splits' rows (`sample_id`, `input`, `output`) for a student; returns the files written and the counts.

    counts: token rows by split, and of its samples those `windowed` and `set_aside`. InputError where none is left to train on.
    """
    folder = tokens_folder(student_name)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = build_tokenizer(store, student, splits["train"], schema, Path(scratch))
        saved = Path(scratch) / "tokenizer"
        tokenizer.save(saved)
        uploaded = store.upload(saved, f"{folder}/tokenizer")
        files = [manifests.entry(file.path, store.read(file.path)) for file in uploaded]
    counts: dict[str, Any] = {}
    statistics: dict[str, Any] = {"format": 1, "splits": {}}
    for split, rows in splits.items():
        lengths, windowed, set_aside = _Lengths(), Counter[str](), Counter[str]()
        writer = tables.PartWriter(store, f"{folder}/{split}-{{:05d}}.parquet".format, tables.TOKEN_COLUMNS, ROWS_PER_FILE)
        index = tables.PartWriter(store, f"{folder}/index-{split}.parquet".format, tables.TOKEN_INDEX, None)
        for row in tokenise(tokenizer, rows, set_aside, parts):
            lengths.add(row)
            if row["window"]:
                # The first window is told by the second one.
                windowed.update(samples=row["window"] == 1, windows=1 + (row["window"] == 1))
            if split in TRAINED_ON:
                writer.add(row)
                index.add(_entry(row))
        if split in TRAINED_ON:
            files += [*writer.close(), *index.close()]
        counts[split] = len(lengths)
        counts[f"{split}_windowed"] = windowed["samples"]
        counts[f"{split}_set_aside"] = sum(set_aside.values())
        statistics["splits"][split] = {
            "rows": len(lengths),
            "windowed": {"samples": windowed["samples"], "windows": windowed["windows"]},
            "set_aside": dict(set_aside),
            **lengths.quantiles(),
        }
    if not counts["train"]:
        raise InputError(f"student {student_name}: no training sample fits max_length {student.max_length}; raise it")
    path, data = f"{folder}/statistics.json", (json.dumps(statistics, indent=1) + "\n").encode()
    store.replace(path, data)
    return [*files, manifests.entry(path, data)], counts


def build_tokenizer(
    store: Store, student: StudentConfig, rows: Iterable[Row], schema: RecordSchema, scratch: Path
) -> StudentTokenizer:
    """The student's tokenizer: its own, or for a student built from sizes one trained on these rows."""
    from transformers import AutoConfig, AutoTokenizer

    texts = _Texts(rows, schema)
    if student.architecture:
        tags = [*LinearForm(schema).tags, SEPARATOR]
        raw = train_tokenizer(texts, tags=tags, vocabulary=student.architecture.vocabulary)
        model_config = new_config(student, student.architecture, raw)
    else:
        source = find_source(store, student, scratch)
        model_config = source.load(AutoConfig.from_pretrained)
        raw = source.load(AutoTokenizer.from_pretrained)
    made = make_tokenizer(raw, family=family_of(model_config), student=student, schema=schema, texts=texts)
    if made.family.name == "encoder-decoder" or made.form.window_overlap is None:
        return made
    return StudentTokenizer(raw, replace(made.form, answer_room=_answer_room(made, rows)), schema)


def _answer_room(tokenizer: StudentTokenizer, rows: Iterable[Row]) -> int:
    """Tokens of the longest answer that the student may write, its end included, and at most half of what it reads at once."""
    longest = 1
    for row in rows:
        try:
            answer = len(tokenizer.encode(tokenizer.linear.write(json.loads(row["output"])))) + 1
        except DoesNotFitError:
            continue
        if answer <= tokenizer.form.max_answer_length:
            longest = max(longest, answer)
    return min(longest, max(1, tokenizer.form.max_length // 2))


def new_config(student: StudentConfig, architecture: Architecture, tokenizer: Any) -> Any:
    """Hugging Face configuration of a student built from sizes, for its tokenizer."""
    return build_config(
        architecture,
        vocabulary=len(tokenizer),
        positions=student.max_length,
        pad=tokenizer.pad_token_id,
        end=tokenizer.eos_token_id,
    )


def tokenise(
    tokenizer: StudentTokenizer, rows: Iterable[Row], set_aside: Counter[str], parts: Parts | None = None
) -> Iterator[Row]:
    """Token rows of the samples, window by window; those that do not fit even so are counted in `set_aside`, by reason.

    parts: None where samples that do not fit at once are set aside.
    """
    for row in rows:
        try:
            examples = _examples(tokenizer, row["input"], json.loads(row["output"]), parts)
        except DoesNotFitError as problem:
            set_aside[problem.reason] += 1
            continue
        for window, example in enumerate(examples):
            yield {
                "sample_id": row["sample_id"],
                "window": window,
                "input_ids": example.input_ids,
                "labels": example.labels,
                "length": len(example.input_ids),
            }


def _examples(tokenizer: StudentTokenizer, conversation: str, record: Record, parts: Parts | None) -> list[Example]:
    """A sample whole, or as all of its windows; DoesNotFitError where one of them does not fit."""
    try:
        return [tokenizer.example(conversation, record)]
    except DoesNotFitError:
        windows = tokenizer.windows(conversation) if parts else []
        if not parts or len(windows) < 2:
            raise
    targets = parts(record, conversation, windows)
    return [tokenizer.example(window.text, target) for window, target in zip(windows, targets, strict=True)]


def _entry(row: Row) -> Row:
    """A row's line in the index. Labels as long as the input are part of it."""
    answer = sum(label >= 0 for label in row["labels"])
    apart = len(row["labels"]) if answer == len(row["labels"]) else 0
    return {"length": row["length"], "answer_length": answer, "size": row["length"] + apart}


@dataclass(frozen=True)
class _Texts:
    """What the tokenizer has to say: the conversations, and each value as it stands after its tag. Read anew at each pass."""

    rows: Iterable[Row]
    schema: RecordSchema

    def __iter__(self) -> Iterator[str]:
        for row in self.rows:
            yield self.schema.shown(row["input"])
            for _, value in self.schema.values(json.loads(row["output"])):
                yield f" {value}"


class _Lengths:
    """Tokens of the whole input and of the answer, row by row."""

    def __init__(self) -> None:
        self._inputs, self._answers = array("I"), array("I")

    def __len__(self) -> int:
        return len(self._inputs)

    def add(self, row: Row) -> None:
        self._inputs.append(row["length"])
        self._answers.append(sum(label >= 0 for label in row["labels"]))

    def quantiles(self) -> dict[str, dict[str, int]]:
        return {"input_tokens": _quantiles(self._inputs), "answer_tokens": _quantiles(self._answers)}


def _quantiles(values: Sequence[int]) -> dict[str, int]:
    ordered = sorted(values) or [0]
    return {name: ordered[int(share * (len(ordered) - 1))] for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}
