"""Tokens per second and model FLOPs utilisation on one GPU, random weights of the real shapes. Not measured on a GPU yet.

    python -m tests.benchmarks.training_gpu --shape llama-2-7b --length 2048 --layers 8

Documents of full length fill each pass, so every token is useful. The whole Llama-2-7b with AdamW does not fit one GPU: give
fewer `--layers` (utilisation hardly depends on them) or `--lora RANK`. FLOPs and peaks are those of `medkd/student/flops.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any


def config_of(shape: str, layers: int | None, length: int) -> Any:
    from transformers import GPT2Config, LlamaConfig, T5Config

    if shape == "gpt2-medium":
        return GPT2Config(n_embd=1024, n_layer=layers or 24, n_head=16, n_positions=max(1024, length))
    if shape == "t5-base":
        depth = layers or 12
        return T5Config(d_model=768, d_kv=64, d_ff=3072, num_heads=12, num_layers=depth, num_decoder_layers=depth)
    return LlamaConfig(
        vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=layers or 32, num_attention_heads=32
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=("gpt2-medium", "t5-base", "llama-2-7b"), default="gpt2-medium")
    parser.add_argument("--length", type=int, default=512, help="tokens of a document")
    parser.add_argument("--documents", type=int, default=8, help="in each pass")
    parser.add_argument("--answer", type=int, default=128, help="tokens of a document's answer")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--lora", type=int, default=0, help="rank of adapters; 0: all weights")
    parser.add_argument("--liger", action="store_true")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--peak-flops", type=float, help="of the GPU in bf16; else known by its name")
    arguments = parser.parse_args()
    os.environ["LOCAL_RANK"] = "0"

    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from medkd.config import LoraConfig, StudentConfig
    from medkd.student import packing
    from medkd.student.batches import pack
    from medkd.student.engine import join, make_engine
    from medkd.student.families import FAMILIES
    from medkd.student.flops import ModelFlops, peak_flops
    from medkd.student.liger import use_liger
    from medkd.student.lora import add_lora
    from medkd.student.memory import model_sizes
    from medkd.student.ranks import Ranks

    if not torch.cuda.is_available():
        raise SystemExit("training_gpu: needs a CUDA device")
    device, name = torch.device("cuda", 0), torch.cuda.get_device_name(0)
    ranks = Ranks(rank=0, local_rank=0, world_size=1, local_world_size=1, folder=Path(tempfile.gettempdir()))
    join(ranks, device)
    config = config_of(arguments.shape, arguments.layers, arguments.length)
    apart = arguments.shape == "t5-base"
    with device:
        model = (AutoModelForSeq2SeqLM if apart else AutoModelForCausalLM).from_config(config, dtype=torch.bfloat16)
    lora = LoraConfig(rank=arguments.lora) if arguments.lora else None
    student = StudentConfig(
        model_name=arguments.shape, max_length=arguments.length, zero_stage=1, lora=lora, batch_size=arguments.documents
    )
    packing.install(model)
    if arguments.liger:
        use_liger(model, "cuda")
    if arguments.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    engine = make_engine(add_lora(model, lora) if lora else model, student, ranks, device, torch.bfloat16)
    family = FAMILIES["encoder-decoder" if apart else "causal"]
    collate = partial(pack, family=family, pad=0, start=0 if apart else None)
    ids = torch.randint(2, config.vocab_size, (arguments.length,)).tolist()
    labels = ids[-arguments.answer :] if apart else [-100] * (arguments.length - arguments.answer) + ids[-arguments.answer :]
    batch = collate([{"input_ids": ids, "labels": labels}] * arguments.documents).to(device)
    for step in range(arguments.steps + 3):
        if step == 3:
            torch.cuda.synchronize()
            started = time.perf_counter()
        engine.backward(engine(batch) / batch.labels.numel())
        engine.step()
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / arguments.steps
    answer = arguments.answer
    size = arguments.length + (answer if apart else 0)
    sizes = model_sizes(config)
    peak = arguments.peak_flops or peak_flops(name)
    useful = ModelFlops(sizes, lora is not None, peak or 1.0).document(size, answer) * arguments.documents
    print(
        json.dumps(
            {
                "device": name,
                **vars(arguments),
                "parameters": sizes.parameters,
                "tokens_per_second": round(arguments.documents * size / seconds),
                "seconds_per_step": round(seconds, 4),
                "mfu": peak and round(useful / seconds / peak, 3),
                "memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
