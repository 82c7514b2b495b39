"""Batches, loss and decoding on small random models, without DeepSpeed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from medkd.config import StudentConfig
from medkd.errors import ConfigError
from medkd.records import PATIENT_RECORD
from medkd.store import manifests
from medkd.store.files import Store, open_store
from medkd.student.tokenizer import StudentTokenizer
from medkd.student.tokens import build_tokenizer, tokenise
from tests.student.trained import rows, tiny_student

pytestmark = pytest.mark.torch

FAMILIES = pytest.mark.parametrize("family", ["t5", "gpt2", "llama"])


def store() -> Store:
    return open_store("memory://models")


def tokenizer_of(student: StudentConfig) -> StudentTokenizer:
    return build_tokenizer(store(), student, rows(), PATIENT_RECORD, Path("unused"))


@FAMILIES
def test_the_loss_is_what_the_model_itself_says_one_row_at_a_time(family: str) -> None:
    import torch

    from medkd.student.batches import collate
    from medkd.student.models import AnswerLoss, make_model

    student = tiny_student(family)
    tokenizer = tokenizer_of(student)
    model = make_model(store(), student, tokenizer, scratch=Path("unused"), seed=1, dtype=torch.float32).eval()
    tokens = list(tokenise(tokenizer, rows(), Counter()))
    start = getattr(model.config, "decoder_start_token_id", None)
    batch = collate(tokens, tokenizer.family, pad=tokenizer.pad, start=start)
    expected = 0.0
    for row in tokens:
        labels = torch.tensor([row["labels"]])
        mean = model(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss
        expected += mean.item() * int((labels != -100).sum())
    assert AnswerLoss(model)(batch).item() == pytest.approx(expected, rel=1e-4)


@FAMILIES
def test_a_batch_is_decoded_as_each_conversation_alone(family: str) -> None:
    import torch

    from medkd.student.decode import Extractor
    from medkd.student.models import make_model

    student = tiny_student(family)
    tokenizer = tokenizer_of(student)
    model = make_model(store(), student, tokenizer, scratch=Path("unused"), seed=1, dtype=torch.float32)
    extractor = Extractor(model, tokenizer)
    conversations = [row["input"] for row in rows()]
    together = extractor.extract(conversations, max_answer_length=12)
    alone = [extractor.extract([conversation], max_answer_length=12)[0] for conversation in conversations]
    assert [one.raw_text for one in together] == [one.raw_text for one in alone]
    assert [one.mean_logprob for one in together] == pytest.approx([one.mean_logprob for one in alone], abs=1e-4)
    assert all(one.cut == "answer_too_long" and one.record is None for one in together)


def test_batches_shared_out_over_devices_are_answered_as_on_one() -> None:
    import torch

    from medkd.student.decode import Extractor
    from medkd.student.models import make_model

    student = tiny_student("gpt2")
    tokenizer = tokenizer_of(student)
    model = make_model(store(), student, tokenizer, scratch=Path("unused"), seed=1, dtype=torch.float32)
    conversations = [row["input"] for row in rows()] + ["Patient: " + "é" * 500]
    one, three = (
        Extractor(model, tokenizer, devices).extract(conversations, batch_size=1, max_answer_length=12)
        for devices in (["cpu"], ["cpu"] * 3)
    )
    assert [found.raw_text for found in three] == [found.raw_text for found in one]
    assert [found.mean_logprob for found in three[:-1]] == pytest.approx([found.mean_logprob for found in one[:-1]], abs=1e-4)
    assert three[-1].cut == "conversation_too_long"


@FAMILIES
def test_a_conversation_that_does_not_fit_is_an_abstention(family: str) -> None:
    import torch

    from medkd.student.decode import Extractor
    from medkd.student.models import make_model

    student = tiny_student(family, max_length=64)
    tokenizer = tokenizer_of(student)
    model = make_model(store(), student, tokenizer, scratch=Path("unused"), seed=1, dtype=torch.float32)
    found = Extractor(model, tokenizer).extract(["Doctor: Hi.", "Patient: " + "é" * 500], max_answer_length=4)
    assert found[0].cut == "answer_too_long"
    assert (found[1].cut, found[1].record, found[1].raw_text, found[1].truncated) == ("conversation_too_long", None, "", True)


def test_the_deepspeed_configuration_has_no_gap() -> None:
    from medkd.student.deepspeed_config import deepspeed_config

    student = tiny_student("t5", batch_size=4, gradient_accumulation=3, zero_stage=3, offload_optimizer=True)
    found = deepspeed_config(student, world_size=8, device="cuda", bf16=True)
    assert found["train_batch_size"] == 24  # passes
    assert found["bf16"] == {"enabled": True}
    assert found["zero_optimization"]["stage"] == 3
    assert found["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    on_cpu = deepspeed_config(student, world_size=2, device="cpu", bf16=False)
    assert "offload_optimizer" not in on_cpu["zero_optimization"]
    assert "auto" not in json.dumps([found, on_cpu])


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("data_set_hash", "other", "step-000007: data_set_hash was"),
        ("config_hash", "other", "step-000007: config_hash was"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(key: str, value: object, says: str, tmp_path: Path) -> None:
    from medkd.student.checkpoints import Checkpoints
    from medkd.student.ranks import Ranks

    identity = {"config_hash": "c", "data_set_hash": "d"}
    state = {**identity, "step": 7, "world_size": 2, "zero_stage": 2, key: value}
    here = open_store(str(tmp_path))
    here.replace("students/tiny/checkpoints/LATEST", b"step-000007\n")
    here.replace("students/tiny/checkpoints/step-000007/state.json", json.dumps(state).encode())
    ranks = Ranks(rank=0, local_rank=0, world_size=2, local_world_size=2, folder=tmp_path)
    with pytest.raises(ConfigError, match=says):
        Checkpoints(here, "tiny", ranks, keep=1, identity=identity, zero_stage=2).find()


def test_a_pretrained_model_is_a_student_from_a_local_folder_and_from_the_runs_own_copy(tmp_path: Path) -> None:
    import torch

    from medkd.student.models import make_model

    built = tiny_student("gpt2")
    tokenizer = tokenizer_of(built)
    model = make_model(store(), built, tokenizer, scratch=tmp_path, seed=3, dtype=torch.float32)
    folder = tmp_path / "pretrained"
    model.save_pretrained(folder)
    tokenizer.tokenizer.save_pretrained(folder)
    local = StudentConfig(model_name=str(folder))
    copied = StudentConfig(model_name="org/name", revision="abc")
    run = open_store(str(tmp_path / "run"))
    files = [file.path for file in run.upload(folder, "weights/org/name@abc")]
    entries = tuple(manifests.entry(path, run.read(path)) for path in files)
    whole = manifests.Manifest(stage="weights", plan_hash="", config_hash="", files=entries)
    manifests.write(run, "weights/org/name@abc/manifest.json", whole)
    for number, student in enumerate((local, copied)):
        scratch = tmp_path / f"scratch-{number}"
        found = build_tokenizer(run, student, rows(), PATIENT_RECORD, scratch)
        assert found.family.name == "causal"
        assert found.encode(rows()[0]["input"]) == tokenizer.encode(rows()[0]["input"])
        loaded = make_model(run, student, found, scratch=scratch, seed=0, dtype=torch.float32)
        assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    student = StudentConfig(model_name="./no/such/model")
    with pytest.raises(ConfigError, match=r"model_name: cannot load './no/such/model'"):
        build_tokenizer(open_store(str(tmp_path)), student, rows(), PATIENT_RECORD, tmp_path)


def test_an_activation_of_one_kernel_gives_what_the_model_gives_without_it() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from medkd.student.models import make_model

    student = tiny_student("gpt2")
    fused = make_model(store(), student, tokenizer_of(student), scratch=Path("unused"), seed=1, dtype=torch.float32).eval()
    assert [module for module in fused.modules() if isinstance(module, torch.nn.GELU)]
    plain = AutoModelForCausalLM.from_config(fused.config).eval()
    plain.load_state_dict(fused.state_dict())
    ids = torch.arange(60).unsqueeze(0)
    assert torch.allclose(fused(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-5)
