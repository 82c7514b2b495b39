"""llama.cpp's own HTTP server, from the wheel of `xllamacpp`, on a tiny GGUF model of random weights that is written first.

    python tests/interoperation/llama_cpp.py --host 127.0.0.1 --port 8080

Needs the packages `xllamacpp` and `gguf`, and nothing of medkd.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

LAYERS, WIDTH, HEADS, INNER, CONTEXT = 2, 64, 4, 128, 4096
SLOTS = 4
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "


def write_model(path: Path) -> None:
    """A Llama of random weights that was trained on 4,096 tokens; its vocabulary is every byte and the common punctuation."""
    special = [("<unk>", TokenType.UNKNOWN), ("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)]
    single = [(f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)] + [("▁", TokenType.NORMAL)]
    vocabulary = special + single
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece for piece, _ in vocabulary])
    writer.add_token_scores([0.0] * len(vocabulary))
    writer.add_token_types([int(kind) for _, kind in vocabulary])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd": (len(vocabulary), WIDTH),
        "output": (len(vocabulary), WIDTH),
    }
    norms = ["output_norm"]
    for layer in range(LAYERS):
        shapes.update({f"blk.{layer}.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")})
        shapes.update({f"blk.{layer}.ffn_{part}": (INNER, WIDTH) for part in ("gate", "up")})
        shapes[f"blk.{layer}.ffn_down"] = (WIDTH, INNER)
        norms += [f"blk.{layer}.attn_norm", f"blk.{layer}.ffn_norm"]
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.05, shape).astype(np.float32))
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def serve(model: Path, host: str, port: int) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {"tiny"}
    params.hostnames = [host]
    params.port = port
    params.n_ctx = CONTEXT * SLOTS
    params.n_parallel = SLOTS
    params.use_jinja = True
    server = xllamacpp.Server(params)
    print(f"listening on {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--host", default="127.0.0.1")
    asked.add_argument("--port", type=int, default=8080)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder) / "tiny.gguf")
        serve(Path(folder) / "tiny.gguf", options.host, options.port)
