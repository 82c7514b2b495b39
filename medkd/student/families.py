"""Model families: the one place where students differ. A conversation and its record become token ids and labels here.

An encoder-decoder (T5, BART) reads the conversation and writes the answer from its decoder; a causal model (GPT-2, Llama)
goes on writing after the conversation and a separator. Loss is taken on the answer and its end-of-text alone. Imports no
torch: the family and a new model's sizes are `transformers` configurations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medkd.config import Architecture

IGNORED = -100
"""Label of positions without loss."""

SEPARATOR = "[record]"
"""Stands between conversation and answer of a causal student."""

FamilyName = Literal["encoder-decoder", "causal"]


@dataclass(frozen=True)
class Example:
    """One sample as a student trains on it.

    encoder-decoder: input_ids are the conversation, labels the answer with its end. causal: both are as long as the whole
    text, labels being -100 up to the answer.
    """

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one kind of model is spoken to."""

    name: FamilyName
    separator: str
    """Text written after the conversation, empty for none."""

    def example(self, prompt: Sequence[int], answer: Sequence[int], end: int) -> Example:
        """Ids and labels of a prompt and its answer; `end` is the end-of-text id, which is learned."""
        written = [*answer, end]
        if self.name == "encoder-decoder":
            return Example([*prompt, end], written)
        return Example([*prompt, *written], [IGNORED] * len(prompt) + written)

    def prompt(self, prompt: Sequence[int], end: int) -> list[int]:
        """What the model is given when it is to write the answer."""
        return [*prompt, end] if self.name == "encoder-decoder" else list(prompt)

    def room(self, max_length: int, max_answer_length: int, answer: int) -> int:
        """How many prompt tokens fit beside an answer of `answer` tokens (its end included); negative: the answer is too long."""
        if answer > max_answer_length:
            return -1
        return max_length - (1 if self.name == "encoder-decoder" else answer)


FAMILIES: dict[str, Family] = {
    "encoder-decoder": Family(name="encoder-decoder", separator=""),
    "causal": Family(name="causal", separator=SEPARATOR),
}


def family_of(model_config: Any) -> Family:
    """The family that a Hugging Face model configuration says it is of."""
    return FAMILIES["encoder-decoder" if model_config.is_encoder_decoder else "causal"]


def build_config(architecture: Architecture, *, vocabulary: int, positions: int, pad: int, end: int) -> Any:
    """Hugging Face configuration of a new model of these sizes. No dropout: a tiny student underfits, it never overfits.

    positions: tokens it must reach, input and answer together.
    """
    from transformers import GPT2Config, LlamaConfig, T5Config

    a = architecture
    ids = {"vocab_size": vocabulary, "pad_token_id": pad, "eos_token_id": end}
    if a.family == "t5":
        sizes = {"d_model": a.width, "d_kv": a.width // a.heads, "d_ff": a.feed_forward, "num_heads": a.heads}
        return T5Config(**ids, **sizes, num_layers=a.layers, dropout_rate=0.0, decoder_start_token_id=pad)
    if a.family == "gpt2":
        sizes = {"n_embd": a.width, "n_layer": a.layers, "n_head": a.heads, "n_inner": a.feed_forward, "n_positions": positions}
        return GPT2Config(**ids, **sizes, bos_token_id=end, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    return LlamaConfig(
        **ids,
        bos_token_id=end,
        hidden_size=a.width,
        intermediate_size=a.feed_forward,
        num_hidden_layers=a.layers,
        num_attention_heads=a.heads,
        max_position_embeddings=positions,
        # Turns slowly enough that words are compared across a whole conversation even by narrow heads.
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
    )
