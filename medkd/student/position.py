"""How far a training is: what a checkpoint has to say beside the states of model and optimizer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Position:
    """How far training is.

    passes_seen: of all ranks, see `order`. passes_of_step: those of the last step, which another number of ranks may have made.
    documents_seen: rows trained on, repeated ones counted. loss_sum, answer_tokens: since the last line of metrics, so that a
    resumed training writes the same lines.
    """

    step: int = 0
    passes_seen: int = 0
    passes_of_step: int = 0
    documents_seen: int = 0
    loss_sum: float = 0.0
    answer_tokens: int = 0
