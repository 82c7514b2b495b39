"""Servers that are not ours, started for a test and stopped after it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

START_SECONDS = 240


# Each in an environment of its own, which `make test-interoperation` makes: their requirements contradict ours.
ENVIRONMENTS = Path(__file__).parents[2] / ".interoperation"


def command_of(server: str, program: str, *arguments: str) -> list[str]:
    """What starts the server: a program of its environment, or what MEDKD_<SERVER> says; skips the test where neither is."""
    variable = f"MEDKD_{server.upper().replace('-', '_')}"
    if said := shlex.split(os.environ.get(variable, "")):
        return said
    found = ENVIRONMENTS / server / "bin" / program
    if not found.exists():
        pytest.skip(f"no {server}: `make test-interoperation SERVERS={server}` installs it, or {variable} names the command")
    return [str(found), *arguments]


@contextlib.contextmanager
def serving(command: list[str], log: Path, **environment: str) -> Iterator[str]:
    """The base URL (with /v1) of a server started by `command`, which takes --host and --port, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    line = [*command, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(line, stdout=output, stderr=output, env={**os.environ, **environment}, start_new_session=True)
    try:
        _wait_until_it_answers(f"http://127.0.0.1:{port}/v1/models", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended: {log.read_text(errors='replace')[-2000:]}"
        try:
            urlopen(url, timeout=5).close()
            return
        except HTTPError:
            return  # an error is an answer
        except (URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"the server never answered: {log.read_text(errors='replace')[-2000:]}")


def write_tiny_model(folder: Path) -> None:
    """A Llama of random weights with a vocabulary of single bytes, as a Hugging Face directory."""
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    pytest.importorskip("torch").manual_seed(0)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
    fast.save_pretrained(folder)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary), max_position_embeddings=8192, bos_token_id=0, eos_token_id=1, **shape
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
