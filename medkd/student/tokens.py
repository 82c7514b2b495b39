"""The tokens of a data set for one student: its tokenizer, how it is spoken to, and what it trains on. Imports no torch.

    students/<name>/tokens/tokenizer/                       tokenizer and medkd.json, as they will lie beside the model
    students/<name>/tokens/{train,validation}-00000.parquet what is trained and validated on
    students/<name>/tokens/statistics.json                  lengths of all splits, and what does not fit

What is longer than `max_length` or `max_answer_length` is set aside: not in these tables, and counted. Nothing is ever cut.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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

TRAINED_ON = ("train", "validation")
"""The test split is tokenised when it is evaluated."""


def tokens_folder(student_name: str) -> str:
    return f"{layout.student_folder(student_name)}/tokens"


def prepare_student_tokens(
    store: Store, student_name: str, student: StudentConfig, splits: Mapping[str, Sequence[Row]], schema: RecordSchema
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
        tokens, set_aside = tokenise(tokenizer, rows)
        if split in TRAINED_ON:
            files.append(tables.write(store, f"{folder}/{split}-00000.parquet", tokens, tables.TOKEN_COLUMNS))
        counts[split] = len(tokens)
        counts[f"{split}_set_aside"] = sum(set_aside.values())
        statistics["splits"][split] = {"rows": len(tokens), "set_aside": dict(set_aside), **_lengths(tokens)}
    if not counts["train"]:
        raise InputError(f"student {student_name}: no training sample fits max_length {student.max_length}; raise it")
    path, data = f"{folder}/statistics.json", (json.dumps(statistics, indent=1) + "\n").encode()
    store.replace(path, data)
    return [*files, manifests.entry(path, data)], counts


def build_tokenizer(
    store: Store, student: StudentConfig, rows: Sequence[Row], schema: RecordSchema, scratch: Path
) -> StudentTokenizer:
    """The student's tokenizer: its own, or for a student built from sizes one trained on these rows."""
    from transformers import AutoConfig, AutoTokenizer

    texts = [text for row in rows for text in _texts(row, schema)]
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


def tokenise(tokenizer: StudentTokenizer, rows: Sequence[Row]) -> tuple[list[Row], Counter[str]]:
    """Token rows of those samples that fit, and how many do not, by reason."""
    tokens: list[Row] = []
    set_aside: Counter[str] = Counter()
    for row in rows:
        try:
            example = tokenizer.example(row["input"], json.loads(row["output"]))
        except DoesNotFitError as problem:
            set_aside[problem.reason] += 1
            continue
        tokens.append(
            {
                "sample_id": row["sample_id"],
                "window": 0,
                "input_ids": example.input_ids,
                "labels": example.labels,
                "length": len(example.input_ids),
            }
        )
    return tokens, set_aside


def _texts(row: Row, schema: RecordSchema) -> Iterator[str]:
    """The conversation, and each value as it stands after its tag: what the tokenizer has to say."""
    yield row["input"]
    for _, value in schema.values(json.loads(row["output"])):
        yield f" {value}"


def _lengths(tokens: list[Row]) -> dict[str, dict[str, int]]:
    """Tokens of the whole input and of the answer."""
    answers = [sum(label >= 0 for label in row["labels"]) for row in tokens]
    return {"input_tokens": _quantiles([row["length"] for row in tokens]), "answer_tokens": _quantiles(answers)}


def _quantiles(values: list[int]) -> dict[str, int]:
    ordered = sorted(values) or [0]
    return {name: ordered[int(share * (len(ordered) - 1))] for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}
