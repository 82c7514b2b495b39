"""Operations told from sizes are those that torch counts, and peaks are found by the names that drivers give."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from medkd.records import PATIENT_RECORD
from medkd.store.files import open_store
from medkd.student.flops import ModelFlops, model_flops, peak_flops
from medkd.student.tokens import build_tokenizer, tokenise
from tests.student.trained import rows, tiny_student


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("Tesla T4", None),
    ],
)
def test_peaks_are_found_by_whole_words(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak


@pytest.mark.torch
@pytest.mark.parametrize("family", ["t5", "gpt2", "llama"])
def test_operations_of_a_document_are_those_that_torch_counts(family: str) -> None:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from medkd.student import packing
    from medkd.student.batches import pack
    from medkd.student.models import AnswerLoss, make_model

    student, store = tiny_student(family), open_store("memory://flops")
    tokenizer = build_tokenizer(store, student, rows(), PATIENT_RECORD, Path("unused"))
    row = next(iter(tokenise(tokenizer, rows(), Counter())))
    model = make_model(store, student, tokenizer, scratch=Path("unused"), seed=1, dtype=torch.float32).train()
    packing.install(model)
    batch = pack([row], tokenizer.family, pad=tokenizer.pad, start=getattr(model.config, "decoder_start_token_id", None))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        AnswerLoss(model)(batch).backward()
    found = model_flops(model.config, student, "NVIDIA H100 80GB HBM3")
    assert found
    apart = family == "t5"
    answer = sum(label >= 0 for label in row["labels"])
    size = row["length"] + (answer if apart else 0)
    sizes = found.sizes
    # Plain attention computes what causal attention leaves out.
    left_out = 6 * sizes.width * ((sizes.layers - sizes.encoder_layers) * answer**2 if apart else sizes.layers * size**2)
    assert counter.get_total_flops() == pytest.approx(found.document(size, answer) + left_out, rel=0.03)
    # Adapters: no gradients of frozen matrices.
    assert ModelFlops(sizes, frozen=True, peak=1.0).document(size, answer) < 0.8 * found.document(size, answer)
    assert model_flops(model.config, student, None) is None
