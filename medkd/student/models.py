"""The student's model: built from sizes or loaded, and the loss it is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.activations import NewGELUActivation

from medkd.config import StudentConfig
from medkd.store.files import Store
from medkd.student.batches import Batch
from medkd.student.copying import start_copying
from medkd.student.families import Family
from medkd.student.packing import PACKING
from medkd.student.tokenizer import StudentTokenizer
from medkd.student.tokens import new_config
from medkd.student.weights import find_source

AUTO_MODELS: dict[str, Any] = {"encoder-decoder": AutoModelForSeq2SeqLM, "causal": AutoModelForCausalLM}


class AnswerLoss(nn.Module):
    """A model with the loss it is trained on: the summed negative log-likelihood of the answers' tokens, in nats."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        PACKING.documents, PACKING.answers = batch.documents, batch.answers
        inputs, labels = batch.inputs, batch.labels
        logits = self.model(**inputs, use_cache=False).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")


def make_model(
    store: Store, student: StudentConfig, tokenizer: StudentTokenizer, *, scratch: Path, seed: int, dtype: torch.dtype
) -> Any:
    """The student before training: random weights pure in the seed, or the pretrained ones."""
    torch.manual_seed(seed)
    auto = AUTO_MODELS[tokenizer.family.name]
    if student.architecture:
        model = auto.from_config(new_config(student, student.architecture, tokenizer.tokenizer))
        start_copying(model)
    else:
        model = find_source(store, student, scratch).load(auto.from_pretrained, dtype=dtype)
    _fuse_gelu(model)
    if student.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model


def _fuse_gelu(model: nn.Module) -> None:
    """Let GPT-2's activation be one kernel: Transformers writes the same function as eight, which all pass through memory."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def untrained(folder: Path, family: Family, seed: int) -> Any:
    """A model of the same architecture as the one in the folder, with fresh weights pure in the seed."""
    torch.manual_seed(seed)
    return AUTO_MODELS[family.name].from_config(AutoConfig.from_pretrained(folder))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases, norms and embeddings do not."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed: list[Any] = []
    kept: list[Any] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        (decayed if parameter.dim() > 1 and id(parameter) not in embeddings else kept).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
