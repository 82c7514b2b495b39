"""How good a student is while it trains: the loss of the validation split, and the answers it writes to a few of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from medkd.records import Record, RecordSchema
from medkd.student.batches import Batch, attended, padded
from medkd.student.families import IGNORED
from medkd.student.packing import PACKING
from medkd.student.ranks import Ranks
from medkd.student.rows import TokenRows
from medkd.student.tokenizer import StudentTokenizer

Row = dict[str, Any]
Score = Callable[[Sequence[tuple[Record, Record | None]], RecordSchema], float]
"""Field F1 of predicted records (None: no valid record) beside the records they should be, in the student's schema."""


def mean_loss(engine: Any, rows: TokenRows, ranks: Ranks, collate: Callable[[Sequence[Row]], Batch], *, batch_size: int) -> float:
    """Nats per answer token over all rows. Called on all ranks together."""
    # All ranks run the same number of forwards, as ZeRO-3 gathers parameters together; rows that fill up count nothing.
    share = -(-len(rows) // ranks.world_size)
    mine = sorted(range(len(rows))[ranks.rank * share :][:share], key=rows.lengths.__getitem__)
    sums = torch.zeros(2, dtype=torch.float64, device=engine.device)
    engine.eval()
    with torch.no_grad():
        for start in range(0, share, batch_size):
            part = [rows[row] for row in mine[start : start + batch_size]]
            batch = collate(part or [rows[0]]).to(engine.device)
            loss = engine(batch)
            if part:
                sums += torch.stack([loss.double(), (batch.labels != IGNORED).sum().double()])
    engine.train()
    dist.all_reduce(sums)
    return round((sums[0] / sums[1]).item(), 6)


def field_f1(engine: Any, rows: Sequence[Row], ranks: Ranks, tokenizer: StudentTokenizer, score: Score) -> float:
    """Of the records that the student writes to these rows, ranks taking turns. Called on all ranks together.

    An answer may be as long as the longest right one among its batch: what goes on after that is no right answer.
    """
    mine = rows[ranks.rank :: ranks.world_size]
    engine.eval()
    # A rank without a row asks along: under ZeRO-3 all ranks gather parameters together.
    answers = _answers(engine, mine or rows[:1], tokenizer)
    engine.train()
    compared = [
        (_record(tokenizer, _answer_of(row)), _record(tokenizer, answer)) for row, answer in zip(mine, answers, strict=False)
    ]
    gathered: list[Any] = [None] * ranks.world_size
    dist.all_gather_object(gathered, compared)
    return round(score([pair for part in gathered for pair in part], tokenizer.linear.schema), 6)


def _answers(engine: Any, rows: Sequence[Row], tokenizer: StudentTokenizer) -> list[list[int]]:
    """What the student writes, greedily."""
    causal = tokenizer.family.name == "causal"
    prompts = [_prompt_of(row, causal) for row in rows]
    PACKING.documents = None
    with torch.no_grad():
        written = engine.module.model.generate(
            input_ids=padded(prompts, tokenizer.pad, left=causal).to(engine.device),
            attention_mask=attended(prompts, left=causal).to(engine.device),
            max_new_tokens=max(len(_answer_of(row)) for row in rows),
            do_sample=False,
            num_beams=1,
            eos_token_id=tokenizer.end,
            pad_token_id=tokenizer.pad,
            synced_gpus=engine.zero_optimization_stage() == 3 and dist.get_world_size() > 1,
        )
    answers: list[list[int]] = written[:, max(map(len, prompts)) if causal else 1 :].tolist()
    return answers


def _answer_of(row: Row) -> list[int]:
    return [label for label in row["labels"] if label != IGNORED]


def _prompt_of(row: Row, causal: bool) -> list[int]:
    ids: list[int] = row["input_ids"]
    return ids[: len(ids) - len(_answer_of(row))] if causal else ids


def _record(tokenizer: StudentTokenizer, answer: Sequence[int]) -> Record | None:
    """The record that an answer says; None where it does not end or says none."""
    if tokenizer.end not in answer:
        return None
    return tokenizer.record(tokenizer.decode(answer[: list(answer).index(tokenizer.end)]))
