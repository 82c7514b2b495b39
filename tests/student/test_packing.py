"""Documents laid end to end say what they say one by one: loss, gradients, and what a rank reads of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from medkd.records import PATIENT_RECORD
from medkd.store import manifests
from medkd.store.files import open_store
from medkd.student.tokens import build_tokenizer, tokenise
from tests.student.trained import prepare_tokens, rows, tiny_student


@pytest.mark.torch
@pytest.mark.parametrize("inside", [False, True], ids=["one-by-one", "padded-inside"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "gradient-checkpointing"])
@pytest.mark.parametrize("family", ["t5", "gpt2", "llama"])
def test_packed_documents_give_the_loss_and_gradients_of_a_padded_batch(family: str, checkpointing: bool, inside: bool) -> None:
    import torch

    from medkd.student import packing
    from medkd.student.batches import collate, pack
    from medkd.student.models import AnswerLoss, make_model

    student = tiny_student(family, gradient_checkpointing=checkpointing)
    store = open_store("memory://packing")
    tokenizer = build_tokenizer(store, student, rows(), PATIENT_RECORD, Path("unused"))
    tokens = list(tokenise(tokenizer, rows(), Counter()))
    found: list[tuple[float, dict[str, Any]]] = []
    for packed in (False, True):
        model = make_model(store, student, tokenizer, scratch=Path("unused"), seed=1, dtype=torch.float32).train()
        if packed:
            assert packing.install(model)
        start = getattr(model.config, "decoder_start_token_id", None)
        batch = (pack if packed else collate)(tokens, tokenizer.family, pad=tokenizer.pad, start=start)
        packing.PACKING.padded_inside = inside
        wrapped = AnswerLoss(model)
        loss = wrapped(batch)
        loss.backward()
        found.append((loss.item(), {name: one.grad for name, one in wrapped.named_parameters()}))
    (expected, gradients), (loss_packed, gradients_packed) = found
    assert loss_packed == pytest.approx(expected, rel=1e-5)
    for name, gradient in gradients.items():
        assert torch.allclose(gradients_packed[name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item() + 1e-6), name


@pytest.mark.torch
@pytest.mark.parametrize("family", ["t5", "gpt2", "llama"])
def test_a_document_does_not_see_its_neighbours_and_generation_goes_on_as_before(family: str) -> None:
    import torch

    from medkd.student import packing
    from medkd.student.batches import pack
    from medkd.student.decode import Extractor
    from medkd.student.models import AnswerLoss, make_model

    student = tiny_student(family)
    store = open_store("memory://packing")
    tokenizer = build_tokenizer(store, student, rows(), PATIENT_RECORD, Path("unused"))
    tokens = list(tokenise(tokenizer, rows(), Counter()))
    model = make_model(store, student, tokenizer, scratch=Path("unused"), seed=1, dtype=torch.float32).eval()
    before = Extractor(model, tokenizer).extract([rows()[0]["input"]], max_answer_length=8)[0].raw_text
    packing.install(model)
    packing.PACKING.padded_inside = None
    start = getattr(model.config, "decoder_start_token_id", None)
    losses = [
        AnswerLoss(model)(pack(part, tokenizer.family, pad=tokenizer.pad, start=start)).item() for part in (tokens, *zip(tokens))
    ]
    assert losses[0] == pytest.approx(sum(losses[1:]), rel=1e-5)
    packing.PACKING.documents = None
    assert Extractor(model, tokenizer).extract([rows()[0]["input"]], max_answer_length=8)[0].raw_text == before


def test_rows_are_read_file_by_file_as_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medkd.student import tokens
    from medkd.student.rows import TokenRows

    monkeypatch.setattr(tokens, "ROWS_PER_FILE", 2)
    store = open_store(str(tmp_path))
    student = tiny_student("t5")
    prepare_tokens(store, "tiny", student)
    found = TokenRows(
        store, manifests.require(store, "students/tiny/tokens/manifest.json", "prepare"), "train", files_in_memory=2
    )
    assert (len(found), found.files, found.files_read) == (5, [2, 2, 1], set())
    assert [len(found[row]["input_ids"]) for row in range(5)] == list(found.lengths)
    assert [len(found[row]["input_ids"]) + len(found[row]["labels"]) for row in range(5)] == list(found.sizes)
    again = TokenRows(store, manifests.require(store, "students/tiny/tokens/manifest.json", "prepare"), "train")
    assert again[3]["length"] == again.lengths[3]
    assert again.files_read == {1}
