"""How much of its GPUs a training makes use of. Imports no torch.

Model FLOPs utilisation is what PaLM's authors defined (Chowdhery et al. 2022, appendix B): the operations that the model's
mathematics needs, by second, over what the devices can do at most; what is computed twice, or for filling, does not count. A
matrix takes 6 operations a parameter and token, forward and backward (Kaplan et al. 2020, section 2.1), attention 12 x width for
each layer and pair of tokens, half of that where tokens see only those before them. A frozen matrix has no gradient: 4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from medkd.config import StudentConfig
from medkd.errors import ConfigError
from medkd.student.memory import ModelSizes, model_sizes

# bf16 on tensor cores, dense (data sheets halve the figure "with sparsity"), by words of the name that the driver gives. From
# NVIDIA's data sheets "H100 Tensor Core GPU", "H200 Tensor Core GPU", "A100 Tensor Core GPU", "A10", "L40S", "L4"; the A10G's is
# from AWS's page of its G5 instances.
PEAKS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("H100", "PCIe"), 756e12),
    (("H100", "NVL"), 835e12),
    (("H100",), 989e12),
    (("H200", "NVL"), 835e12),
    (("H200",), 989e12),
    (("A100",), 312e12),
    (("L40S",), 362e12),
    (("A10",), 125e12),
    (("A10G",), 70e12),
    (("L4",), 121e12),
)


def peak_flops(device_name: str) -> float | None:
    """Operations a second in bf16 of the GPU of this name; None where it is not known here."""
    words = set(re.split(r"[\s-]+", device_name))
    return next((peak for name, peak in PEAKS if words.issuperset(name)), None)


@dataclass(frozen=True)
class ModelFlops:
    """What documents take of a device that can do `peak` operations a second."""

    sizes: ModelSizes
    frozen: bool
    """Whether adapters are trained and the weights are not."""
    peak: float

    def document(self, size: int, answer: int) -> float:
        """Of training on one. size: its tokens, T5's input and answer together; logits are computed for answers alone."""
        s, each = self.sizes, 4 if self.frozen else 6
        logits = each * s.vocabulary * s.width * answer
        if not s.encoder_decoder:
            return each * s.blocks * size + 6 * s.layers * s.width * size**2 + logits
        given, decoders = size - answer, s.layers - s.encoder_layers
        # The decoder's keys and values across are of the input.
        across = 2 * s.width**2 * decoders
        matrices = (s.encoder_blocks + across) * given + (s.blocks - s.encoder_blocks - across) * answer
        pairs = s.encoder_layers * given**2 + decoders * (answer**2 / 2 + answer * given)
        return each * matrices + 12 * s.width * pairs + logits


def model_flops(model_config: Any, student: StudentConfig, device_name: str | None) -> ModelFlops | None:
    """None where the device's peak or the model's sizes are not known."""
    peak = peak_flops(device_name) if device_name else None
    if peak is None:
        return None
    try:
        return ModelFlops(model_sizes(model_config), student.lora is not None, peak)
    except ConfigError:
        return None
