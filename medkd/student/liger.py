"""Liger kernels: Llama's norms, rotation and feed-forward as single Triton kernels. Needs the package liger-kernel and a GPU."""

from __future__ import annotations

from typing import Any

from medkd.errors import ConfigError


def use_liger(model: Any, device_type: str) -> None:
    """Put the kernels into the model; ConfigError where they cannot be used."""
    if device_type != "cuda":
        raise ConfigError("liger_kernels: got true on a machine without a GPU, expected false; Triton kernels run on GPUs alone")
    if model.config.model_type != "llama":
        raise ConfigError(
            f"liger_kernels: got true for a {model.config.model_type} model, expected false; they are for Llama alone"
        )
    try:
        from liger_kernel.transformers import apply_liger_kernel_to_llama
    except ImportError:
        raise ConfigError(
            "liger_kernels: needs the package liger-kernel, which is not installed; install medkd[liger] or set it to false"
        ) from None
    # The loss is taken on answers alone, by us.
    apply_liger_kernel_to_llama(cross_entropy=False, fused_linear_cross_entropy=False, model=model)
