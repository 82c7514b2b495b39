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


def _as_documented(
    query: Any, key: Any, value: Any, starts_q: Any, starts_k: Any, longest_q: int, longest_k: int, **options: Any
) -> Any:
    """What `torch.nn.attention.varlen.varlen_attn` says it gives, document by document."""
    import torch

    assert starts_q.dtype == starts_k.dtype == torch.int32
    parts = []
    for place in range(len(starts_q) - 1):
        (low, high), (first, last) = starts_q[place : place + 2].tolist(), starts_k[place : place + 2].tolist()
        assert 0 < high - low <= longest_q and 0 < last - first <= longest_k
        states = (part.transpose(0, 1).unsqueeze(0) for part in (query[low:high], key[first:last], value[first:last]))
        assert options["window_size"] in ((-1, 0), (-1, -1))
        part = torch.nn.functional.scaled_dot_product_attention(
            *states,
            is_causal=options["window_size"] == (-1, 0),
            scale=options["scale"],
            enable_gqa=options["enable_gqa"],
        )
        parts.append(part[0].transpose(0, 1))
    assert starts_q[-1] == len(query) and starts_k[-1] == len(key)
    return torch.cat(parts)


@pytest.mark.torch
@pytest.mark.parametrize(("way", "checkpointing"), [("one by one", False), ("padded", True), ("varlen", False)])
@pytest.mark.parametrize("family", ["t5", "gpt2", "llama"])
def test_packed_documents_give_the_loss_and_gradients_of_a_padded_batch(
    family: str, checkpointing: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from medkd.student import packing
    from medkd.student.batches import collate, pack
    from medkd.student.models import AnswerLoss, make_model

    # The kernel runs on GPUs alone: here what it is told is checked.
    monkeypatch.setattr(packing, "varlen_attn", _as_documented)
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
        monkeypatch.setattr(packing.PACKING, "way", way)
        wrapped = AnswerLoss(model)
        loss = wrapped(batch)
        loss.backward()
        found.append((loss.item(), {name: one.grad for name, one in wrapped.named_parameters()}))
    (expected, gradients), (loss_packed, gradients_packed) = found
    assert loss_packed == pytest.approx(expected, rel=1e-5)
    for name, gradient in gradients.items():
        assert torch.allclose(gradients_packed[name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item() + 1e-6), name


def _attended(way: str, device: str, causal: bool) -> list[Any]:
    """What comes out of attention of three documents, four heads of which two share keys, and the gradients."""
    import torch

    from medkd.student import packing

    chance = torch.Generator().manual_seed(1)
    states = [torch.randn(1, heads, 40, 16, generator=chance).to(device) for heads in (4, 2, 2)]
    states = [one.to(torch.bfloat16 if device == "cuda" else torch.float32).requires_grad_() for one in states]
    packing.PACKING.documents, packing.PACKING.answers, packing.PACKING.way = [7, 32, 1], None, way  # type: ignore[assignment]
    module = torch.nn.Module()
    module.packed_kind, module.is_causal = "documents", causal  # type: ignore[assignment]
    out, _ = packing._attention(module, *states, None, scaling=0.3)
    (out.float() * torch.arange(16, device=device)).sum().backward()
    return [out, *(one.grad for one in states)]


@pytest.mark.torch
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("way", ["padded", "varlen"])
def test_heads_that_share_keys_attend_as_document_by_document(way: str, causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from medkd.student import packing

    monkeypatch.setattr(packing, "varlen_attn", _as_documented)
    monkeypatch.setattr(packing, "PACKING", packing.Packing())
    expected = _attended("one by one", "cpu", causal)
    for one, other in zip(_attended(way, "cpu", causal), expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.gpu
@pytest.mark.parametrize("causal", [True, False])
def test_pytorchs_kernel_for_documents_of_different_lengths_gives_what_padding_gives(
    causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from medkd.student import packing

    monkeypatch.setattr(packing, "PACKING", packing.Packing())
    for one, other in zip(_attended("varlen", "cuda", causal), _attended("padded", "cuda", causal), strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)


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
