"""What a training recipe is worth: held-out field F1 of this recipe and of the seed's, at equal useful tokens.

    python -m tests.benchmarks.learning --seeds 3
    python -m tests.benchmarks.learning --seeds 0           answers cut alone, half a minute

The seed's recipe: instruction, conversation and JSON as one text, cut at 512 tokens, filled up to 512, and a loss on all of it,
prompt and filling included (T5: conversation and JSON each so, apart). This recipe: answers alone are learned, in a form without
braces, nothing is cut. Both have the same conversations, the same simulated ones to be tested on, models of the same sizes, the
same kind of first weights, optimizer, schedule and documents a step, and as many useful tokens (a token is useful if it is no
filling). The seed's tokenizer is trained on its own texts. Prints a line as each student is done, the table and the CPU time.

Before that: how many answers either recipe cuts where both read 512 tokens at once, on simulated conversations as they are here,
on long ones, and with MEDKD_MTS_DIALOG on real ones. Every answer that this recipe trains on is read back from its tokens and has
to be the record that it should be; what share of the records' values the windows' answers still hold is told beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from medkd.config import StudentConfig
from medkd.quality.scores import Comparison, compare, total
from medkd.quality.window_records import merge_records, window_records
from medkd.records import NOT_PROVIDED, PATIENT_RECORD, Record
from medkd.samples import INSTRUCTION
from medkd.stages.windowed import read_in_windows
from tests.benchmarks.training_speed import conversations
from tests.quality.hand_checked import hand_checked

SEED_LENGTH = 512
BATCH = 8
ANSWER = 330
"""Tokens that either student may write; the longest JSON has fewer."""

PARTS = partial(window_records, schema=PATIENT_RECORD)

Batches = Iterator[tuple[Any, int]]
"""What a step trains on, and the useful tokens in it."""


def student_of(family: str, max_length: int = 1024) -> StudentConfig:
    sizes = {"layers": 2, "width": 128, "heads": 4, "feed_forward": 256, "vocabulary": 3000}
    return StudentConfig.model_validate(
        {
            "model_name": "learning",
            "max_length": max_length,
            "batch_size": BATCH,
            "learning_rate": 3e-3,
            "num_epochs": 100,
            "architecture": {"family": family, **sizes},
        }
    )


def train(model: Any, student: StudentConfig, batches: Batches, tokens: int) -> int:
    """Until so many useful tokens were seen; returns the steps."""
    import torch

    from medkd.student.batches import Batch
    from medkd.student.models import AnswerLoss, parameter_groups
    from medkd.student.order import learning_rate

    wrapped = AnswerLoss(model.train())
    optimizer = torch.optim.AdamW(parameter_groups(wrapped, student.weight_decay), fused=True)
    seen = steps = 0
    while seen < tokens:
        batch, useful = next(batches)
        seen, steps = seen + useful, steps + 1
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(min(1.0, seen / tokens), student, useful / tokens)
        assert isinstance(batch, Batch)
        loss = wrapped(batch) / (batch.labels != -100).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(wrapped.parameters(), student.max_gradient_norm)
        optimizer.step()
        optimizer.zero_grad()
    return steps


def this_recipe(
    family: str, rows: Sequence[dict[str, Any]], tested: Sequence[tuple[str, Record]], tokens: int, seed: int
) -> tuple[list[Comparison], float, int]:
    """What a student of this recipe makes of the tested conversations, the share of answers cut, and its steps."""
    import torch

    from medkd.store.files import open_store
    from medkd.student import packing
    from medkd.student.batches import pack
    from medkd.student.decode import Extractor
    from medkd.student.models import make_model
    from medkd.student.order import course_of
    from medkd.student.tokens import build_tokenizer, tokenise

    student, store = student_of(family), open_store("memory://learning")
    tokenizer = build_tokenizer(store, student, rows, PATIENT_RECORD, Path("unused"))
    set_aside: Counter[str] = Counter()
    known = list(tokenise(tokenizer, rows, set_aside, PARTS))
    sizes = [row["length"] + (len(row["labels"]) if family == "t5" else 0) for row in known]
    model = make_model(store, student, tokenizer, scratch=Path("unused"), seed=seed, dtype=torch.float32)
    packing.install(model)
    start = getattr(model.config, "decoder_start_token_id", None)
    collate = partial(pack, family=tokenizer.family, pad=tokenizer.pad, start=start)
    course = course_of(student, sizes, [len(known)], world_size=1, seed=seed)

    def batches() -> Batches:
        for one in course.passes:
            yield collate([known[row] for row in one]), sum(sizes[row] for row in one)

    steps = train(model, student, batches(), tokens)
    packing.PACKING.documents = None
    found = read_in_windows(Extractor(model.eval(), tokenizer), [text for text, _ in tested], max_answer_length=ANSWER)
    compared = [
        compare(gold, one.record, PATIENT_RECORD, one.record is not None, one.record is not None)
        for (_, gold), one in zip(tested, found, strict=True)
    ]
    return compared, sum(set_aside.values()) / len(rows), steps


def seed_recipe(
    family: str, rows: Sequence[dict[str, Any]], tested: Sequence[tuple[str, Record]], tokens: int, seed: int
) -> tuple[list[Comparison], float, int]:
    """The same of a student of the seed's recipe."""
    import torch

    from medkd.student.batches import Batch, attended, padded
    from medkd.student.copying import start_copying
    from medkd.student.families import build_config
    from medkd.student.models import AUTO_MODELS

    student, apart = student_of(family), family == "t5"
    assert student.architecture
    tokenizer, pairs = seed_tokens(student.architecture.vocabulary, rows)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    # GPT-2 has no token to fill up with, so its end is taken; T5's tokenizer ends both texts itself.
    if apart:
        known = [([*question, end][:SEED_LENGTH], answer[:SEED_LENGTH]) for question, answer in pairs]
    else:
        known = [((question + answer)[:SEED_LENGTH], []) for question, answer in pairs]
    torch.manual_seed(seed)
    positions = 1024
    sizes = build_config(student.architecture, vocabulary=len(tokenizer), positions=positions, pad=pad, end=end)
    model = AUTO_MODELS["encoder-decoder" if apart else "causal"].from_config(sizes)
    start_copying(model)

    def filled(one: Sequence[int], fill: int) -> list[int]:
        return [*one, *[fill] * (SEED_LENGTH - len(one))]

    def batches() -> Batches:
        chance = random.Random(seed)
        while True:
            order = list(range(len(known)))
            chance.shuffle(order)
            for at in range(0, len(order), BATCH):
                part = [known[row] for row in order[at : at + BATCH]]
                useful = sum(len(question) + len(answer) for question, answer in part)
                inputs = torch.tensor([filled(question, pad if apart else end) for question, _ in part])
                mask = torch.tensor([filled([1] * len(question), 0) for question, _ in part])
                if apart:
                    labels = torch.tensor([filled(answer, pad) for _, answer in part])
                    shifted = torch.nn.functional.pad(labels[:, :-1], (1, 0), value=pad)
                    given = {"input_ids": inputs, "attention_mask": mask, "decoder_input_ids": shifted}
                else:
                    labels = torch.nn.functional.pad(inputs[:, 1:], (0, 1), value=-100)
                    given = {"input_ids": inputs, "attention_mask": mask}
                yield Batch(given, labels), useful

    steps = train(model, student, batches(), tokens)
    model.eval()
    compared = []
    asked = [ids(f"{INSTRUCTION}\n\n{text}\n\n")[: SEED_LENGTH - 1] + [end] * apart for text, _ in tested]
    order = sorted(range(len(tested)), key=lambda at: len(asked[at]))
    for at in range(0, len(order), 25):
        part = order[at : at + 25]
        questions = [asked[row] for row in part]
        with torch.no_grad():
            written = model.generate(
                input_ids=padded(questions, pad, left=not apart),
                attention_mask=attended(questions, left=not apart),
                max_new_tokens=ANSWER,
                do_sample=False,
                eos_token_id=end,
                pad_token_id=pad,
            )
        for row, answer in zip(part, written[:, 1 if apart else max(map(len, questions)) :].tolist(), strict=True):
            text = tokenizer.decode(answer[: answer.index(end)] if end in answer else answer, skip_special_tokens=True)
            record = _record(text)
            compared.append(compare(tested[row][1], record, PATIENT_RECORD, record is not None, record is not None))
    return compared, sum(is_cut(family, *pair) for pair in pairs) / len(rows), steps


def seed_tokens(vocabulary: int, rows: Sequence[dict[str, Any]]) -> tuple[Any, list[tuple[list[int], list[int]]]]:
    """The seed's tokenizer, trained on its own texts, and question and answer of each row in its tokens."""
    from medkd.student.tokenizer import train_tokenizer

    prompts = [f"{INSTRUCTION}\n\n{row['input']}\n\n" for row in rows]
    texts = [text for prompt, row in zip(prompts, rows, strict=True) for text in (prompt, row["output"])]
    tokenizer = train_tokenizer(texts, tags=(), vocabulary=vocabulary)
    ids = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    return tokenizer, [(ids[at], [*ids[at + 1], tokenizer.eos_token_id]) for at in range(0, len(ids), 2)]


def is_cut(family: str, question: Sequence[int], answer: Sequence[int]) -> bool:
    """Whether the seed's recipe cuts a sample: GPT-2's answer, which comes last; either text of T5."""
    if family == "t5":
        return len(question) + 1 > SEED_LENGTH or len(answer) > SEED_LENGTH
    return len(question) + len(answer) > SEED_LENGTH


def answers_cut(name: str, family: str, rows: Sequence[dict[str, Any]]) -> str:
    """A line of the table of cuts: both recipes on the same rows, 512 tokens at once."""
    from medkd.store.files import open_store
    from medkd.student.tokens import build_tokenizer, tokenise

    student, schema = student_of(family, SEED_LENGTH), PATIENT_RECORD
    assert student.architecture
    _, pairs = seed_tokens(student.architecture.vocabulary, rows)
    seed = sum(is_cut(family, *pair) for pair in pairs)
    tokenizer = build_tokenizer(open_store("memory://cuts"), student, rows, schema, Path("unused"))
    set_aside: Counter[str] = Counter()
    written: dict[str, list[Record | None]] = {}
    for row in tokenise(tokenizer, rows, set_aside, PARTS):
        answer = [label for label in row["labels"] if label >= 0]
        whole = answer[-1] == tokenizer.end and row["length"] <= SEED_LENGTH
        written.setdefault(row["sample_id"], []).append(tokenizer.record(tokenizer.decode(answer[:-1])) if whole else None)
    cut = windowed = held = said = 0
    for row in rows:
        record, answers = json.loads(row["output"]), written.get(row["sample_id"], [])
        whole_answers = [answer for answer in answers if answer is not None]
        windowed += len(answers) > 1
        cut += len(whole_answers) < len(answers) or (len(answers) == 1 and answers != [record])
        merged = merge_records(whole_answers, schema) if whole_answers else schema.empty()
        known = Counter(pair for pair in schema.values(record) if pair[1] != NOT_PROVIDED)
        said, held = said + known.total(), held + (known & Counter(schema.values(merged))).total()
    shares = [f"{count / len(rows):.1%}" for count in (seed, cut, windowed, set_aside.total())]
    return f"| {name} | {family} | {len(rows):,} | {' | '.join(shares)} | {held / said:.1%} |"


def table_of_cuts(families: Sequence[str], rows: int) -> str:
    """Answers cut by either recipe at 512 tokens, on each kind of conversation."""
    heads = ["conversations", "model", "rows", "cut, the seed's", "cut, this one", "in windows", "set aside", "values in answers"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    kinds = {
        "simulated, 4 to 10 exchanges": conversations(rows, 1),
        "simulated, 20 to 60 exchanges": conversations(rows, 1, (20, 60)),
    }
    if folder := os.environ.get("MEDKD_MTS_DIALOG"):
        known = list(hand_checked(Path(folder)))
        kinds["real (MTS-Dialog), records by hand"] = [
            {"sample_id": number, "input": text, "output": PATIENT_RECORD.canonical(record)} for number, text, record in known
        ]
    lines += [answers_cut(name, family, found) for name, found in kinds.items() for family in families]
    return "\n".join(lines)


def _record(text: str) -> Record | None:
    """The record that a text of JSON says; None where it says none of the schema."""
    import jsonschema

    try:
        found = json.loads(text)
        jsonschema.validate(found, PATIENT_RECORD.json_schema())
    except (ValueError, jsonschema.ValidationError):
        return None
    return dict(found)


RECIPES = {"the seed's": seed_recipe, "this one": this_recipe}


def measure(family: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both recipes with one seed: other conversations, other first weights, another test set."""
    drawn = conversations(arguments.rows + arguments.tested, seed)
    rows = drawn[arguments.tested :]
    tested = [(row["input"], json.loads(row["output"])) for row in drawn[: arguments.tested]]
    found: dict[str, Any] = {"family": family, "seed": seed}
    for name, recipe in RECIPES.items():
        used = time.process_time()
        compared, cut, steps = recipe(family, rows, tested, arguments.tokens, seed)
        f1 = total(compared, PATIENT_RECORD).micro.f1
        valid = sum(one.valid_schema for one in compared) / len(compared)
        found[name] = {"f1": round(f1, 4), "valid": round(valid, 3), "cut": round(cut, 3), "steps": steps}
        print(f"{family} seed {seed}, {name}: {found[name]}, {time.process_time() - used:.0f} s of CPU", flush=True)
    return found


def table(found: Sequence[dict[str, Any]]) -> str:
    """F1 of each seed, and the mean of each family."""
    lines = ["| model | seed | F1, the seed's recipe | valid | cut | F1, this recipe | valid | cut |", "| --- " * 8 + "|"]
    for family in dict.fromkeys(one["family"] for one in found):
        mine = [one for one in found if one["family"] == family]
        for one in mine:
            cells = [f"{one[name]['f1']:.3f} | {one[name]['valid']:.0%} | {one[name]['cut']:.0%}" for name in RECIPES]
            lines.append(f"| {family} | {one['seed']} | {' | '.join(cells)} |")
        means = [f"**{statistics.mean(one[name]['f1'] for one in mine):.3f}** | |" for name in RECIPES]
        lines.append(f"| {family} | mean | {' | '.join(means)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="held-out field F1 of two training recipes at equal useful tokens")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--tested", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=600_000, help="useful tokens that each student is trained on")
    parser.add_argument("--families", nargs="+", default=["gpt2"])
    arguments = parser.parse_args()
    print(table_of_cuts(("gpt2", "t5"), arguments.rows), flush=True)
    found = [measure(family, seed, arguments) for family in arguments.families for seed in range(1, arguments.seeds + 1)]
    if found:
        print(table(found))
    print(
        f"{arguments.rows} conversations, {arguments.tokens:,} useful tokens, {arguments.tested} tested; "
        f"{time.process_time() / 60:.1f} minutes of CPU, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} x {platform.machine()}"
    )


if __name__ == "__main__":
    main()
