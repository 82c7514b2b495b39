"""What a student's training takes of each GPU's memory, told from sizes alone: no weights, no GPU, no torch.

Parameters are counted exactly. The rest is arithmetic after what DeepSpeed and PyTorch keep (bytes a parameter below), and
activations are an upper bound for a full pass, good to some tens of per cent: a margin of `MARGIN` is asked for on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medkd.config import LoraConfig, StudentConfig
from medkd.errors import ConfigError
from medkd.store.files import Store
from medkd.student.families import build_config
from medkd.student.weights import find_configuration

GIB = 2**30
# Context of CUDA and its libraries, and what the allocator loses to fragments.
CONTEXT_BYTES = GIB
MARGIN = 0.1
# Elements of DeepSpeed's buffers: reduction and gathering (ZeRO 1 and 2), parameters gathered at once (ZeRO 3); its defaults.
BUCKET, LIVE = 500_000_000, 1_000_000_000
# AdamW's two moments and the fp32 copy of the weights.
OPTIMIZER_BYTES = 12


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """What a Hugging Face configuration says of a model's size."""

    parameters: int
    """Tied weights counted once."""
    layers: int
    """Encoder and decoder together."""
    width: int
    inner: int
    """Elements a token that one layer keeps for the backward pass, beside attention scores."""
    heads: int
    vocabulary: int
    encoder_decoder: bool
    blocks: int
    """Parameters of all layers; without embeddings."""
    encoder_layers: int = 0
    """Of an encoder-decoder."""
    encoder_blocks: int = 0
    lora_width: int
    """Parameters of LoRA adapters of rank 1 on all linear layers of the blocks."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes per GPU by what they are for."""

    zero_stage: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int
    host: int
    """Of the machine's own memory, per rank, where something is offloaded."""

    @property
    def total(self) -> int:
        """Bytes that one GPU needs, with the margin."""
        kept = self.weights + self.gradients + self.optimizer + self.activations + self.buffers
        return round(kept * (1 + MARGIN)) + CONTEXT_BYTES


def sizes_of(store: Store, student: StudentConfig, scratch: Path) -> ModelSizes:
    """The student's sizes from its configuration, fetched below `scratch` where it is in a store, without the weights;
    ConfigError where it cannot be had, or is of an architecture whose parameters are not known here."""
    from transformers import AutoConfig

    if student.architecture:
        a = student.architecture
        found = build_config(a, vocabulary=a.vocabulary, positions=student.max_length, pad=0, end=1)
    else:
        found = find_configuration(store, student, scratch).load(AutoConfig.from_pretrained)
    return model_sizes(found)


def model_sizes(config: Any) -> ModelSizes:
    """Sizes of T5, GPT-2 and Llama from their Hugging Face configuration."""
    count = {"t5": _t5, "gpt2": _gpt2, "llama": _llama}.get(config.model_type)
    if count is None:
        raise ConfigError(f"model_name: got a {config.model_type!r} model, whose memory is known for t5, gpt2 and llama alone")
    return count(config)


def _gpt2(c: Any) -> ModelSizes:
    d, inner = c.n_embd, c.n_inner or 4 * c.n_embd
    layer = 4 * d + (3 * d * d + 3 * d) + (d * d + d) + (d * inner + inner) + (inner * d + d)
    embeddings = c.vocab_size * d * (1 if c.tie_word_embeddings else 2) + c.n_positions * d
    return ModelSizes(
        parameters=embeddings + c.n_layer * layer + 2 * d,
        blocks=c.n_layer * layer,
        layers=c.n_layer,
        width=d,
        inner=8 * d + 3 * inner,
        heads=c.n_head,
        vocabulary=c.vocab_size,
        encoder_decoder=False,
        lora_width=c.n_layer * ((d + 3 * d) + 2 * d + 2 * (d + inner)),
    )


def _llama(c: Any) -> ModelSizes:
    d, inner = c.hidden_size, c.intermediate_size
    head = getattr(c, "head_dim", None) or d // c.num_attention_heads
    queries, keys = c.num_attention_heads * head, c.num_key_value_heads * head
    biases = (queries + 2 * keys + d if c.attention_bias else 0) + (2 * inner + d if c.mlp_bias else 0)
    layer = 2 * d * queries + 2 * d * keys + 3 * d * inner + 2 * d + biases
    embeddings = c.vocab_size * d * (1 if c.tie_word_embeddings else 2)
    return ModelSizes(
        parameters=embeddings + c.num_hidden_layers * layer + d,
        blocks=c.num_hidden_layers * layer,
        layers=c.num_hidden_layers,
        width=d,
        # Norms keep an fp32 copy, rotation one of queries and keys.
        inner=10 * d + 3 * queries + 3 * inner,
        heads=c.num_attention_heads,
        vocabulary=c.vocab_size,
        encoder_decoder=False,
        lora_width=c.num_hidden_layers * (2 * (d + queries) + 2 * (d + keys) + 3 * (d + inner)),
    )


def _t5(c: Any) -> ModelSizes:
    d, inner = c.d_model, c.num_heads * c.d_kv
    forward = (3 if c.is_gated_act else 2) * d * c.d_ff + d
    attention = 4 * d * inner + d
    bias = c.relative_attention_num_buckets * c.num_heads
    stacks = c.num_layers * (attention + forward) + c.num_decoder_layers * (2 * attention + forward)
    embeddings = c.vocab_size * d * (1 if c.tie_word_embeddings else 2)
    return ModelSizes(
        parameters=embeddings + stacks + 2 * (bias + d),
        blocks=stacks,
        encoder_layers=c.num_layers,
        encoder_blocks=c.num_layers * (attention + forward),
        layers=c.num_layers + c.num_decoder_layers,
        width=d,
        inner=8 * d + 4 * inner + 3 * c.d_ff,
        heads=c.num_heads,
        vocabulary=c.vocab_size,
        encoder_decoder=True,
        lora_width=4 * (d + inner) * (c.num_layers + 2 * c.num_decoder_layers)
        + (3 if c.is_gated_act else 2) * (d + c.d_ff) * (c.num_layers + c.num_decoder_layers),
    )


def estimate(sizes: ModelSizes, student: StudentConfig, *, zero_stage: int, world_size: int, bf16: bool = True) -> Estimate:
    """What one GPU of `world_size` needs to train the student with this ZeRO stage."""
    width = 2 if bf16 else 4
    trained = sizes.lora_width * student.lora.rank if student.lora else sizes.parameters
    share = [1 if zero_stage < stage else world_size for stage in (1, 2, 3)]
    optimizer = trained * OPTIMIZER_BYTES // share[0]
    gradients = trained * width // share[1]
    weights = (sizes.parameters + (trained if student.lora else 0)) * width // share[2]
    host = 0
    if student.offload_optimizer and zero_stage > 0:
        host, optimizer = host + optimizer, 0
    if student.offload_parameters and zero_stage == 3:
        host, weights = host + weights, 0
    if zero_stage == 3:
        buffers = min(sizes.parameters, LIVE) * width + min(sizes.parameters, BUCKET) * width
    else:
        buffers = 2 * min(trained, BUCKET) * width if zero_stage else 0
    return Estimate(
        zero_stage=zero_stage,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activation_bytes(sizes, student, width),
        buffers=buffers,
        host=host,
    )


def activation_bytes(sizes: ModelSizes, student: StudentConfig, width: int) -> int:
    """What a full pass keeps for its backward pass: the layers', T5's attention scores, and the logits of answers."""
    tokens = student.tokens_per_pass or student.batch_size * student.max_length
    documents = max(1, tokens // student.max_length)
    layer = tokens * sizes.inner * width
    if sizes.encoder_decoder:
        # A learned bias keeps attention from the kernels that store no scores: scores and their softmax.
        layer += 2 * documents * sizes.heads * student.max_length**2 * width
    layers = tokens * sizes.width * width * sizes.layers + layer if student.gradient_checkpointing else layer * sizes.layers
    answers = min(tokens, documents * student.max_answer_length)
    return layers + answers * sizes.vocabulary * (width + 2 * 4)


def estimates(sizes: ModelSizes, student: StudentConfig, *, world_size: int, bf16: bool = True) -> list[Estimate]:
    """For ZeRO 0 to 3."""
    return [estimate(sizes, student, zero_stage=stage, world_size=world_size, bf16=bf16) for stage in range(4)]


def recommended(found: Sequence[Estimate], capacity: int) -> Estimate | None:
    """The lowest ZeRO stage that fits into so many bytes, as it communicates least; None where none does."""
    return next((one for one in found if one.total <= capacity), None)


def remedies(sizes: ModelSizes, student: StudentConfig, capacity: int, *, world_size: int, bf16: bool = True) -> list[str]:
    """Changes that would make the student fit, each by itself, the cheapest first."""
    changes: list[tuple[str, dict[str, Any]]] = [
        ("gradient_checkpointing: true", {"gradient_checkpointing": True}),
        (f"tokens_per_pass: {student.max_length} (one conversation)", {"tokens_per_pass": student.max_length}),
        (
            "both of these",
            {"gradient_checkpointing": True, "tokens_per_pass": student.max_length},
        ),
        ("offload_optimizer: true with them", {"gradient_checkpointing": True, "tokens_per_pass": student.max_length} | _OFFLOAD),
        (
            "zero_stage: 3, offload_optimizer and offload_parameters: true with them",
            {"gradient_checkpointing": True, "tokens_per_pass": student.max_length, "offload_parameters": True} | _OFFLOAD,
        ),
    ]
    found = []
    for words, change in changes:
        tried = student.model_copy(update=change)
        fitting = recommended(estimates(sizes, tried, world_size=world_size, bf16=bf16), capacity)
        if fitting:
            found.append(f"{words} (zero_stage {fitting.zero_stage}, {fitting.total / GIB:.1f} GiB)")
    if student.lora is None:
        fitting = recommended(
            estimates(sizes, student.model_copy(update={"lora": LoraConfig()}), world_size=world_size, bf16=bf16), capacity
        )
        if fitting:
            found.append(f"lora: {{}} (zero_stage {fitting.zero_stage}, {fitting.total / GIB:.1f} GiB)")
    gpus = world_size
    while gpus < 1024:
        gpus *= 2
        fitting = recommended(estimates(sizes, student, world_size=gpus, bf16=bf16), capacity)
        if fitting:
            found.append(f"{gpus} GPUs (zero_stage {fitting.zero_stage}, {fitting.total / GIB:.1f} GiB on each)")
            break
    return found


_OFFLOAD: dict[str, Any] = {"offload_optimizer": True}


def check_fits(
    name: str, sizes: ModelSizes, student: StudentConfig, capacity: int, *, world_size: int, bf16: bool = True
) -> Estimate:
    """The estimate of the configured ZeRO stage; ConfigError, with what would help, where a GPU of so many bytes is too small."""
    configured = estimate(sizes, student, zero_stage=student.zero_stage, world_size=world_size, bf16=bf16)
    if configured.total <= capacity:
        return configured
    lowest = recommended(estimates(sizes, student, world_size=world_size, bf16=bf16), capacity)
    if lowest:
        helps = [f"zero_stage: {lowest.zero_stage} ({lowest.total / GIB:.1f} GiB)"]
    else:
        helps = remedies(sizes, student, capacity, world_size=world_size, bf16=bf16) or ["a smaller student"]
    raise ConfigError(
        f"student_models.{name}: zero_stage {student.zero_stage} needs {configured.total / GIB:.1f} GiB on each of {world_size} "
        f"GPUs, got {capacity / GIB:.1f} GiB; what would help: {'; '.join(helps)}"
    )


def table(found: Sequence[Estimate], capacity: int | None) -> str:
    """The estimates as lines of text, GiB per GPU."""
    names = ("weights", "gradients", "optimizer", "activations", "buffers", "total", "host")
    lines = [f"{'ZeRO':>4}" + "".join(f"{name:>13}" for name in names)]
    for one in found:
        fits = "" if capacity is None else "  fits" if one.total <= capacity else "  does not fit"
        lines.append(f"{one.zero_stage:>4}" + "".join(f"{getattr(one, name) / GIB:>13.2f}" for name in names) + fits)
    return "\n".join(lines)
