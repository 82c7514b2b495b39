"""First weights that can copy, for students that start from nothing.

Extraction is mostly copying: find the fact, write its words one after the other. Large pretrained models can; a tiny one
needs most of its training to grow the two attention steps that do it, and in a few minutes it often does not get there.
So a new T5 starts with them, as faint as any other first weight, and training is free to undo them:

- *what was there before me*: one encoder head looks at the token before (its position bias says so) and adds a sketch of
  it, a random projection, to every token;
- *where was I*: one head of the decoder's first cross-attention compares the sketch of the token written last with those
  sketches, and so finds the token that followed it in the conversation;
- *say what I see*: all cross-attention heads pass on what they attend to unchanged, rather than through random matrices.

Measured on 1,584 simulated conversations of 140 tokens, 108 CPU seconds: micro-F1 0.87 with all three, 0.56 with the last
alone, about 0.2 with none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# Attention logit for the token before: e^8 outweighs the some hundred other tokens, whose logits are about 1.
NEIGHBOUR_BIAS = 8.0
# The sketch of the token before has to be heard beside the token itself.
SKETCH_GAIN = 2.0
# Times itself and the head's width, the logit of a sketch that matches: 8 for a width of 32.
MATCH_SCALE = 0.5


@torch.no_grad()
def start_copying(model: Any) -> None:
    """Give a new T5 the weights described above; called once, before training."""
    _see_neighbours(model.encoder.block[0].layer[0].SelfAttention, NEIGHBOUR_BIAS)
    for block in model.decoder.block:
        _pass_on(block.layer[1].EncDecAttention)
    _find_successor(model.encoder.block[0].layer[0].SelfAttention, model.decoder.block[0].layer[1].EncDecAttention)


def _see_neighbours(attention: Any, bias: float) -> None:
    """The first head looks at the token before, the second at the one after."""
    before, after = attention._relative_position_bucket(
        torch.tensor([-1, 1]),
        bidirectional=True,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    weight = attention.relative_attention_bias.weight
    weight[before, 0] += bias
    weight[after, 1 % weight.shape[1]] += bias


def _pass_on(attention: Any) -> None:
    """Values and output together are the identity on as many dimensions as the heads have."""
    inner, width = attention.v.weight.shape
    directions = _orthonormal(inner, width)
    attention.v.weight.copy_(directions)
    attention.o.weight.copy_(directions.T)


def _find_successor(encoder: Any, cross: Any) -> None:
    """The encoder's first head writes a sketch of the token before; the first cross head looks for it."""
    head, width = cross.key_value_proj_dim, cross.v.weight.shape[1]
    sketch, place = _orthonormal(head, width), _orthonormal(width, head)
    encoder.v.weight[:head] = sketch
    encoder.o.weight[:, :head] = SKETCH_GAIN * place
    cross.q.weight[:head] = MATCH_SCALE * sketch
    cross.k.weight[:head] = MATCH_SCALE * place.T


def _orthonormal(rows: int, columns: int) -> Tensor:
    """float32 [rows, columns] with orthonormal rows, or columns where those are fewer; random by torch's seed."""
    return nn.init.orthogonal_(torch.empty(rows, columns))
