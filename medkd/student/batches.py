"""Token rows as padded tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from medkd.student.families import IGNORED, Family


@dataclass(frozen=True)
class Batch:
    """inputs: arguments of the model's forward. labels: int64 [batch, positions], aligned with its logits, -100 without loss."""

    inputs: dict[str, Any]
    labels: Tensor
    documents: tuple[int, ...] | None = None
    """Where documents lie end to end in one row: tokens of each."""
    answers: tuple[int, ...] | None = None
    """The same of the decoder's rows."""

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in self.inputs.items()}
        return replace(self, inputs=moved, labels=self.labels.to(device))


def collate(rows: Sequence[dict[str, Any]], family: Family, *, pad: int, start: int | None) -> Batch:
    """One batch of token rows (`input_ids`, `labels`); `start` is the decoder's first id where there is a decoder."""
    if family.name == "encoder-decoder":
        return _encoder_decoder(rows, pad, pad if start is None else start)
    return _causal(rows, pad)


def pack(rows: Sequence[dict[str, Any]], family: Family, *, pad: int, start: int | None) -> Batch:
    """The same rows end to end in one, without padding; labels and logits are those of answers alone."""
    ids = [torch.tensor(row["input_ids"], dtype=torch.int64) for row in rows]
    labels = [torch.tensor(row["labels"], dtype=torch.int64) for row in rows]
    documents = tuple(map(len, ids))
    if family.name == "encoder-decoder":
        first = torch.tensor([pad if start is None else start])
        shifted = [torch.cat([first, row[:-1]]) for row in labels]
        inputs = {"input_ids": _row(ids), "decoder_input_ids": _row(shifted)}
        return Batch(inputs, _row(labels), documents, tuple(map(len, labels)))
    flat = torch.cat(labels)
    answered = (flat != IGNORED).nonzero().flatten()
    positions = [torch.arange(length) for length in documents]
    # What stands at a place was to be said at the place before.
    inputs = {"input_ids": _row(ids), "position_ids": _row(positions), "logits_to_keep": answered - 1}
    return Batch(inputs, flat[answered].unsqueeze(0), documents)


def _row(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)).unsqueeze(0)


def padded(sequences: Sequence[Sequence[int]], fill: int, *, left: bool = False) -> Tensor:
    """int64 [batch, longest]; the fill stands on the right, or on the left."""
    longest = max(map(len, sequences))
    rows = []
    for sequence in sequences:
        filling = [fill] * (longest - len(sequence))
        rows.append([*filling, *sequence] if left else [*sequence, *filling])
    return torch.tensor(rows, dtype=torch.int64)


def attended(sequences: Sequence[Sequence[int]], *, left: bool = False) -> Tensor:
    """int64 [batch, longest]: 1 where `padded` has a token, told by lengths and not by ids."""
    return padded([[1] * len(sequence) for sequence in sequences], 0, left=left)


def _encoder_decoder(rows: Sequence[dict[str, Any]], pad: int, start: int) -> Batch:
    inputs = [row["input_ids"] for row in rows]
    return Batch(
        {
            "input_ids": padded(inputs, pad),
            "attention_mask": attended(inputs),
            "decoder_input_ids": padded([[start, *row["labels"][:-1]] for row in rows], pad),
        },
        padded([row["labels"] for row in rows], IGNORED),
    )


def _causal(rows: Sequence[dict[str, Any]], pad: int) -> Batch:
    """Padding on the right needs no mask, as no token attends to what follows it. Logits begin where the first answer does."""
    ids = padded([row["input_ids"] for row in rows], pad)
    labels = padded([row["labels"] for row in rows], IGNORED)
    begin = int((labels != IGNORED).any(dim=0).int().argmax()) - 1
    aligned = torch.nn.functional.pad(labels[:, begin + 1 :], (0, 1), value=IGNORED)
    return Batch({"input_ids": ids, "logits_to_keep": ids.shape[1] - begin}, aligned)
