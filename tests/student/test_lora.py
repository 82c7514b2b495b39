"""Adapters: trained alone, and added to the weights so that what comes out is a plain model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from medkd.config import LoraConfig
from medkd.errors import ConfigError
from medkd.records import PATIENT_RECORD
from medkd.store.files import open_store
from medkd.student.tokens import build_tokenizer, tokenise
from tests.student.gang import train_ranks
from tests.student.trained import metrics, prepare_tokens, rows, tiny_student

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]


@pytest.mark.parametrize("family", ["t5", "gpt2", "llama"])
def test_merged_weights_say_what_the_adapters_said(family: str) -> None:
    pytest.importorskip("peft")
    import torch

    from medkd.student import packing
    from medkd.student.batches import pack
    from medkd.student.lora import add_lora, merge
    from medkd.student.models import AnswerLoss, make_model, parameter_groups

    store, lora = open_store("memory://lora"), LoraConfig(rank=4, alpha=8)
    student = tiny_student(family)
    tokenizer = build_tokenizer(store, student, rows(), PATIENT_RECORD, Path("unused"))
    tokens = list(tokenise(tokenizer, rows(), Counter()))
    base, plain = (
        make_model(store, student, tokenizer, scratch=Path("unused"), seed=1, dtype=torch.float32).eval() for _ in range(2)
    )
    packing.install(base)
    packing.install(plain)
    adapted = add_lora(base, lora).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    trained = [one for group in parameter_groups(AnswerLoss(adapted), 0.1) for one in group["params"]]
    assert len(trained) == sum("lora_" in name for name, _ in adapted.named_parameters())
    batch = pack(tokens, tokenizer.family, pad=tokenizer.pad, start=getattr(plain.config, "decoder_start_token_id", None))
    before = AnswerLoss(plain)(batch).item()
    expected = AnswerLoss(adapted)(batch).item()
    merged = merge(dict(adapted.state_dict()), base, lora)
    assert set(merged) == set(plain.state_dict())
    plain.load_state_dict(merged)
    assert AnswerLoss(plain)(batch).item() == pytest.approx(expected, rel=1e-4)
    assert before != pytest.approx(expected, rel=1e-3)


def test_a_student_trained_by_adapters_is_a_plain_model(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    student = tiny_student("gpt2", num_epochs=10, lora={"rank": 4, "alpha": 8})
    store = open_store(str(tmp_path / "run"))
    prepare_tokens(store, "tiny", student)
    assert train_ranks(store.url, "tiny", student, 1, tmp_path) == [0]
    losses = [line["validation_loss"] for line in metrics(store, "tiny") if "validation_loss" in line]
    assert losses[-1] < losses[0]
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "run/students/tiny/model", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.config.model_type == "gpt2"


def test_liger_kernels_without_a_gpu_are_refused_with_words() -> None:
    from types import SimpleNamespace

    from medkd.student.liger import use_liger

    model = SimpleNamespace(config=SimpleNamespace(model_type="gpt2"))
    with pytest.raises(ConfigError, match="liger_kernels: got true on a machine without a GPU"):
        use_liger(model, "cpu")
    with pytest.raises(ConfigError, match="they are for Llama alone"):
        use_liger(model, "cuda")
    model.config.model_type = "llama"
    with pytest.raises(ConfigError, match="install medkd\\[liger\\]"):
        use_liger(model, "cuda")
