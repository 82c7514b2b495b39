"""Attention over documents that lie end to end in one row: each sees itself alone, and nothing is padded outside attention.

Installed in T5, GPT-2 and Llama through Transformers' attention interface. On a CPU each document is one call. On a GPU it is one
call for all: PyTorch's attention for documents of different lengths where that can do it, else with the documents padded inside
attention. The former takes no bias of positions, which T5 has within a text, and drops nothing out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

try:
    from torch.nn.attention import varlen
except ImportError:  # of an older PyTorch
    varlen = None  # type: ignore[assignment]
varlen_attn: Callable[..., Any] | None = getattr(varlen, "varlen_attn", None)

NAME = "medkd_packed"
PACKED_MODELS = ("t5", "gpt2", "llama")

Way = Literal["one by one", "padded", "varlen"]
Kind = Literal["documents", "answers", "across"]
"""Whose tokens attend to whose: a document's to themselves, a decoder's to themselves, a decoder's to the document's."""


@dataclass
class Packing:
    """What lies end to end in the forward pass at hand. Stays until the next: gradient checkpointing computes it again."""

    documents: Sequence[int] | None = None
    """Tokens of each document (T5: of each input); None: a padded batch, or generation."""
    answers: Sequence[int] | None = None
    """T5: tokens of each decoder row."""
    way: Way | None = None
    """How documents are kept apart; None: as the device likes it."""

    def lengths(self, kind: Kind) -> tuple[list[int], list[int]]:
        """Of queries and keys, by document."""
        assert self.documents is not None
        documents, answers = list(self.documents), list(self.answers or self.documents)
        return {"documents": (documents, documents), "answers": (answers, answers), "across": (answers, documents)}[kind]


PACKING = Packing()
"""A process trains one model, and what lies end to end has to be known deep inside it."""


def install(model: Any) -> bool:
    """Let the model take documents laid end to end; False where its architecture cannot."""
    if model.config.model_type not in PACKED_MODELS:
        return False
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)
    for module in model.modules():
        if module.__class__.__name__.endswith("Attention") and hasattr(module, "config") and hasattr(module, "is_causal"):
            module.packed_kind = "documents"
    for module in model.modules():
        if hasattr(module, "SelfAttention"):
            _install_t5(module.SelfAttention, "answers" if module.SelfAttention.is_decoder else "documents")
        elif hasattr(module, "EncDecAttention"):
            _install_t5(module.EncDecAttention, "across")
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = NAME
    return True


def _install_t5(attention: Any, kind: Kind) -> None:
    attention.packed_kind = kind
    if kind == "across" and not attention.has_relative_attention_bias:
        # Else T5 makes a bias of zeros for every pair of tokens, whichever document they are of.
        attention.has_relative_attention_bias = True
        attention.compute_bias = partial(_no_bias, attention)
    elif attention.has_relative_attention_bias:
        attention.compute_bias = partial(_bias, attention, attention.compute_bias)


def _no_bias(attention: Any, queries: int, keys: int, device: Any = None, past_seen_tokens: Any = 0) -> Tensor:
    size = (1, 1, 1, 1) if PACKING.documents else (1, attention.n_heads, queries, keys)
    return torch.zeros(size, device=device, dtype=attention.q.weight.dtype)


def _bias(attention: Any, usual: Callable[..., Tensor], queries: int, keys: int, **options: Any) -> Tensor:
    """The bias of the longest document: shorter ones use its corner, as it depends on distances alone."""
    if not PACKING.documents:
        return usual(queries, keys, **options)
    longest = max(PACKING.lengths(attention.packed_kind)[0])
    bias = usual(longest, longest, **options)
    if attention.is_decoder:
        later = torch.ones(longest, longest, dtype=torch.bool, device=bias.device).triu(1)
        bias = bias.masked_fill(later, torch.finfo(bias.dtype).min)
    return bias


def _mask(*args: Any, config: Any = None, **options: Any) -> Tensor | None:
    """No mask while documents are packed: attention itself keeps them apart."""
    if PACKING.documents:
        return None
    mask: Tensor | None = sdpa_mask(*args, config=config, **options)
    return mask


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """query, key, value: [1, heads, tokens, head]; returns [1, tokens, heads, head]."""
    if PACKING.documents is None:
        usual: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return usual
    lengths = PACKING.lengths(module.packed_kind)
    bias = options.get("position_bias") if module.packed_kind != "across" else None
    # T5's decoder has the order of words in its bias already.
    causal = module.is_causal and bias is None and module.packed_kind != "across"
    given = {"dropout_p": options.get("dropout", 0.0), "scale": options.get("scaling"), "is_causal": causal}
    way = PACKING.way or _best_way(query, bias, given)
    if way == "varlen" and bias is None:
        return _varlen(query, key, value, *lengths, given).transpose(1, 2), None
    if key.shape[1] != query.shape[1]:
        key, value = (repeat_kv(states, query.shape[1] // states.shape[1]) for states in (key, value))
    attend = _one_by_one if way == "one by one" else _padded
    return attend(query, key, value, *lengths, bias, given).transpose(1, 2), None


def _best_way(query: Tensor, bias: Tensor | None, given: dict[str, Any]) -> Way:
    if query.device.type != "cuda":
        return "one by one"
    fits = bias is None and not given["dropout_p"] and query.dtype in (torch.bfloat16, torch.float16)
    fits = fits and query.shape[-1] <= 256 and query.shape[-1] % 8 == 0
    # Flash attention, which is behind it, is for Ampere and newer.
    return "varlen" if fits and varlen_attn and torch.cuda.get_device_capability(query.device) >= (8, 0) else "padded"


def _varlen(query: Tensor, key: Tensor, value: Tensor, queries: list[int], keys: list[int], given: dict[str, Any]) -> Tensor:
    """One call without filling, and without a copy of the keys for each head that shares them."""
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    starts_q, starts_k = (_starts(tuple(lengths), query.device) for lengths in (queries, keys))
    window = (-1, 0) if given["is_causal"] else (-1, -1)
    shared = k.shape[1] != q.shape[1]
    assert varlen_attn
    out: Tensor = varlen_attn(
        q, k, v, starts_q, starts_k, max(queries), max(keys), scale=given["scale"], window_size=window, enable_gqa=shared
    )
    return out.transpose(0, 1).unsqueeze(0)


@lru_cache(maxsize=4)
def _starts(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Where each document begins, and the last one ends: [documents + 1]. Kept, as each layer asks for the same."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, queries: list[int], keys: list[int], bias: Tensor | None, given: dict[str, Any]
) -> Tensor:
    parts = zip(*(torch.split(*one, 2) for one in ((query, queries), (key, keys), (value, keys))), strict=True)
    return torch.cat(
        [
            nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=None if bias is None else bias[:, :, : q.shape[2], : k.shape[2]].to(q.dtype), **given
            )
            for q, k, v in parts
        ],
        dim=2,
    )


def _padded(
    query: Tensor, key: Tensor, value: Tensor, queries: list[int], keys: list[int], bias: Tensor | None, given: dict[str, Any]
) -> Tensor:
    q = _apart(query, queries)
    k, v = _apart(key, keys), _apart(value, keys)
    mask = bias
    if not given["is_causal"]:  # with it no token sees the filling, which comes after all others
        real = torch.arange(k.shape[2], device=k.device) < torch.tensor(keys, device=k.device)[:, None]
        nothing = torch.zeros((), dtype=q.dtype, device=q.device)
        filling = nothing.masked_fill(~real[:, None, None, :], torch.finfo(q.dtype).min / 2)
        mask = filling if bias is None else (bias.clamp(min=torch.finfo(q.dtype).min / 2) + filling).to(q.dtype)
    out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, **given)
    real_rows = torch.cat([torch.arange(length) + row * q.shape[2] for row, length in enumerate(queries)]).to(q.device)
    together = out.transpose(1, 2).flatten(0, 1).index_select(0, real_rows)
    return together.transpose(0, 1).unsqueeze(0)


def _apart(states: Tensor, lengths: list[int]) -> Tensor:
    """[1, heads, tokens, head] as [documents, heads, longest, head]."""
    return pad_sequence(list(torch.split(states[0].transpose(0, 1), lengths)), batch_first=True).transpose(1, 2)
