"""LoRA: small matrices are trained beside the frozen weights, and added to them at export. Needs the optional package peft."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from medkd.config import LoraConfig
from medkd.errors import ConfigError

# All linear layers of a block, by the names that Transformers gives them.
TARGETS = {
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "t5": ("q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo"),
}


def add_lora(model: Any, lora: LoraConfig) -> Any:
    """The model with trainable adapters around its frozen weights; ConfigError where that cannot be."""
    try:
        import peft
    except ImportError:
        raise ConfigError(
            "lora: needs the package peft, which is not installed; install medkd[lora] or set lora to null"
        ) from None
    targets = lora.target_modules or TARGETS.get(model.config.model_type)
    if targets is None:
        raise ConfigError(f"lora.target_modules: got null, expected names of layers of a {model.config.model_type} model")
    settings = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(targets),
        fan_in_fan_out=_transposed(model),
    )
    return peft.get_peft_model(model, settings)


def merge(weights: dict[str, Tensor], model: Any, lora: LoraConfig) -> dict[str, Tensor]:
    """The weights of a plain model from those of `add_lora`'s, adapters added to what they stand beside.

    Works on the gathered weights, so it does not matter how ranks held them. model: the one that `add_lora` was given.
    """
    plain: dict[str, Tensor] = {}
    for full_name, tensor in weights.items():
        name = full_name.removeprefix("base_model.model.")
        layer, adapted, kind = name.partition(".base_layer.")
        if adapted and kind == "weight":
            down, up = (weights[full_name.replace("base_layer", f"lora_{part}.default")] for part in "AB")
            change = (up.float() @ down.float()) * (lora.alpha / lora.rank)
            tensor = (tensor.float() + (change.T if _transposed(model) else change)).to(tensor.dtype)
        if ".lora_" not in name:
            plain[f"{layer}.{kind}" if adapted else name] = tensor
    return plain


def _transposed(model: Any) -> bool:
    """Whether layers keep their weights as [in, out]."""
    return bool(model.config.model_type == "gpt2")
