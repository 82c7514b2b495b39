"""The tokens of a data set for one student: its tokenizer, how it is spoken to, and what it trains on. Imports no torch.

    students/<name>/tokens/tokenizer/                       tokenizer and medkd.json, as they will lie beside the model
    students/<name>/tokens/{train,validation}-00000.parquet what is trained and validated on, in many small files
    students/<name>/tokens/index-{train,validation}.parquet how long each of these rows is
    students/<name>/tokens/statistics.json                  lengths of all splits, and what does not fit

What is longer than `max_length` or `max_answer_length` is set aside: not in these tables, and counted. Nothing is ever cut.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medkd.config import Architecture, StudentConfig
from medkd.errors import InputError
from medkd.records import RecordSchema
from medkd.store import layout, manifests, tables
from medkd.store.files import Store
from medkd.store.manifests import FileEntry
from medkd.student.families import SEPARATOR, build_config, family_of
from medkd.student.linear import LinearForm
from medkd.student.tokenizer import DoesNotFitError, StudentTokenizer, make_tokenizer, train_tokenizer
from medkd.student.weights import find_source

Row = dict[str, Any]

# Ranks read whole files, and each reads its own: small files are dealt out well. Some 0.4 MB.
ROWS_PER_FILE = 256
TRAINED_ON = ("train", "validation")
"""The test split is tokenised when it is evaluated."""


def tokens_folder(student_name: str) -> str:
    return f"{layout.student_folder(student_name)}/tokens"


def prepare_student_tokens(
    store: Store, student_name: str, student: StudentConfig, splits: Mapping[str, Collection[Row]], schema: RecordSchema
) -> tuple[list[FileEntry], dict[str, Any]]:
    """Tokenise the splits' rows (`sample_id`, `input`, `output`) for a student; returns the files written and the counts.

    counts: rows by split, and `set_aside` with the reasons by split. InputError where nothing is left to train on.
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
        lengths, set_aside = _Lengths(), Counter[str]()
        writer = tables.PartWriter(store, f"{folder}/{split}-{{:05d}}.parquet".format, tables.TOKEN_COLUMNS, ROWS_PER_FILE)
        index = tables.PartWriter(store, f"{folder}/index-{split}.parquet".format, tables.TOKEN_INDEX, None)
        for row in tokenise(tokenizer, rows, set_aside):
            lengths.add(row)
            if split in TRAINED_ON:
                writer.add(row)
                index.add(_entry(row))
        if split in TRAINED_ON:
            files += [*writer.close(), *index.close()]
        counts[split] = len(lengths)
        counts[f"{split}_set_aside"] = sum(set_aside.values())
        statistics["splits"][split] = {"rows": len(lengths), "set_aside": dict(set_aside), **lengths.quantiles()}
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
    return make_tokenizer(raw, family=family_of(model_config), student=student, schema=schema, texts=texts)


def new_config(student: StudentConfig, architecture: Architecture, tokenizer: Any) -> Any:
    """Hugging Face configuration of a student built from sizes, for its tokenizer."""
    return build_config(
        architecture,
        vocabulary=len(tokenizer),
        positions=student.max_length,
        pad=tokenizer.pad_token_id,
        end=tokenizer.eos_token_id,
    )


def tokenise(tokenizer: StudentTokenizer, rows: Iterable[Row], set_aside: Counter[str]) -> Iterator[Row]:
    """Token rows of those samples that fit; those that do not are counted in `set_aside`, by reason."""
    for row in rows:
        try:
            example = tokenizer.example(row["input"], json.loads(row["output"]))
        except DoesNotFitError as problem:
            set_aside[problem.reason] += 1
            continue
        yield {
            "sample_id": row["sample_id"],
            "window": 0,
            "input_ids": example.input_ids,
            "labels": example.labels,
            "length": len(example.input_ids),
        }


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
