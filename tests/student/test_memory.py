"""Parameters counted from sizes are those that models have; what does not fit is refused with what would help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medkd import config
from medkd.config import StudentConfig
from medkd.errors import ConfigError
from medkd.student import memory

# Transformers' configurations import torch.
pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

GIB = memory.GIB


def llama_7b() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)


def student(**changes: Any) -> StudentConfig:
    return StudentConfig.model_validate({"model_name": "x", "max_length": 2048, "batch_size": 2, **changes})


def test_published_sizes_of_pretrained_models() -> None:
    from transformers import GPT2Config, T5Config

    assert memory.model_sizes(llama_7b()).parameters == 6_738_415_616
    medium = GPT2Config(n_embd=1024, n_layer=24, n_head=16)
    assert memory.model_sizes(medium).parameters == 354_823_168
    base = T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)
    assert memory.model_sizes(base).parameters == 222_903_552


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("GPT2", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_inner": 96, "vocab_size": 99, "n_positions": 50}),
        ("Llama", {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3}),
        (
            "Llama",
            {"hidden_size": 64, "num_attention_heads": 4, "attention_bias": True, "mlp_bias": True, "num_hidden_layers": 2},
        ),
        ("T5", {"d_model": 64, "d_kv": 8, "d_ff": 96, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 3}),
        ("T5", {"d_model": 64, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_layers": 2}),
    ],
)
def test_parameters_are_those_of_the_model(kind: str, sizes: dict[str, Any]) -> None:
    import torch
    import transformers

    found = getattr(transformers, f"{kind}Config")(**sizes)
    name = {"GPT2": "GPT2LMHeadModel", "Llama": "LlamaForCausalLM", "T5": "T5ForConditionalGeneration"}[kind]
    with torch.device("meta"):
        model = getattr(transformers, name)(found)
    assert memory.model_sizes(found).parameters == sum(one.numel() for one in model.parameters())


def test_each_stage_shards_more_and_the_lowest_that_fits_is_recommended() -> None:
    sizes = memory.model_sizes(llama_7b())
    found = memory.estimates(sizes, student(gradient_checkpointing=True), world_size=8)
    assert [one.zero_stage for one in found] == [0, 1, 2, 3]
    assert found[0].optimizer == 8 * found[1].optimizer // 1 or found[0].optimizer // 8 == found[1].optimizer
    assert found[1].gradients == found[0].gradients == 8 * found[2].gradients
    assert found[2].weights == found[0].weights == 8 * found[3].weights
    lowest = memory.recommended(found, 80 * GIB)
    assert lowest and lowest.zero_stage == 1
    assert memory.recommended(found, 30 * GIB) is found[3]
    assert memory.recommended(found, GIB) is None


def test_what_does_not_fit_is_refused_with_what_would_help() -> None:
    sizes = memory.model_sizes(llama_7b())
    recipe = student(zero_stage=1, gradient_checkpointing=True)
    assert memory.check_fits("llama", sizes, recipe, 80 * GIB, world_size=8).zero_stage == 1
    with pytest.raises(ConfigError, match=r"student_models.llama: zero_stage 1 needs .* what would help: zero_stage: 3"):
        memory.check_fits("llama", sizes, recipe, 30 * GIB, world_size=8)
    with pytest.raises(ConfigError, match=r"offload_optimizer.*GPUs \(zero_stage"):
        memory.check_fits("llama", sizes, recipe, 40 * GIB, world_size=1)


def test_offloading_and_checkpointing_take_less_of_the_gpu() -> None:
    sizes = memory.model_sizes(llama_7b())
    plain = memory.estimate(sizes, student(zero_stage=3), zero_stage=3, world_size=2)
    offloaded = memory.estimate(
        sizes, student(zero_stage=3, offload_optimizer=True, offload_parameters=True), zero_stage=3, world_size=2
    )
    assert (offloaded.optimizer, offloaded.weights) == (0, 0)
    assert offloaded.host == plain.optimizer + plain.weights
    assert memory.activation_bytes(sizes, student(gradient_checkpointing=True), 2) < plain.activations / 4


def test_an_architecture_that_is_not_known_is_named() -> None:
    from transformers import BertConfig

    with pytest.raises(ConfigError, match="got a 'bert' model"):
        memory.model_sizes(BertConfig())


@pytest.mark.parametrize(("gib", "code", "says"), [("80", 0, "recommended: zero_stage 0"), ("1.01", 78, "what would help")])
def test_dry_run_prints_configuration_and_memory_and_leaves_with_78_where_nothing_fits(
    gib: str, code: int, says: str, tmp_path: Path
) -> None:
    arguments = ["train", "--dry-run", "--student", "tiny-llama", "--gpu-memory-gib", gib, "--world-size", "4"]
    environment = {**os.environ, "PYTHONPATH": str(Path(config.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "medkd", *arguments], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=590
    )
    assert done.returncode == code, done.stderr
    assert '"zero_optimization"' in done.stdout and "parameters; GiB on each of 4 GPUs" in done.stdout
    assert says in done.stdout + done.stderr
