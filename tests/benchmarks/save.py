"""What a checkpoint of a large model costs: how long training stands still, and how long the store takes behind it.

    python -m tests.benchmarks.save

A random Llama in bf16 with AdamW's states in fp32, 14 bytes a parameter as Llama-2-7b has them, on two CPU ranks, for ZeRO 1
to 3; to a local folder and to a SeaweedFS S3 server of this machine. Beside it, in the same processes, what a usual loop does:
DeepSpeed's `save_checkpoint` while training waits, and for S3 each rank's upload of its files after it. The parameters' number is
chosen by memory: 34 bytes each with gradients, both ranks' weights and the copy. ZeRO 3 stores no weights in bf16. Best of
`--runs`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RANKS = 2
WIDTH, FEED_FORWARD, VOCABULARY = 1536, 4096, 8000
LLAMA_2_7B = 6_738_415_616
WEIGHTS, STATES = 2 * LLAMA_2_7B / 1e9, 12 * LLAMA_2_7B / 1e9
"""GB: bf16, and an fp32 copy with two moments."""


def _rank(rank: int, port: int, folder: Path, stage: int, layers: int, runs: int, stores: dict[str, Any]) -> None:
    """One rank's life: a model, a step, and its saves; rank 0 leaves what was measured in a file."""
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1"})
    os.environ.update({"LOCAL_WORLD_SIZE": str(RANKS), "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"})
    import torch
    import torch.distributed as dist

    from medkd.store.files import open_store
    from medkd.student.engine import join
    from medkd.student.ranks import Ranks

    torch.set_num_threads(1)
    ranks = Ranks(rank=rank, local_rank=rank, world_size=RANKS, local_world_size=RANKS, folder=folder / "scratch")
    join(ranks, torch.device("cpu"))
    engine, parameters = _engine(ranks, stage, layers)
    found: dict[str, Any] = {"stage": stage, "parameters": parameters}
    for name, (url, options) in stores.items():
        store = open_store(f"{url}/{stage}", options)
        tries = [(_foreground(engine, store, ranks), _background(engine, store, ranks, stage)) for _ in range(runs)]
        found[name] = {
            "foreground": min(waited for waited, _ in tries),
            "copy": min(copied for _, (copied, _, _) in tries),
            "whole": min(whole for _, (_, whole, _) in tries),
            "bytes": tries[0][1][2],
        }
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found))
    dist.barrier()
    os._exit(0)


def _engine(ranks: Any, stage: int, layers: int) -> tuple[Any, int]:
    """DeepSpeed after one step, so that the optimizer has its states."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from medkd.config import StudentConfig
    from medkd.student.batches import Batch
    from medkd.student.engine import make_engine

    sizes = {"hidden_size": WIDTH, "intermediate_size": FEED_FORWARD, "num_hidden_layers": layers}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        shape = LlamaConfig(vocab_size=VOCABULARY, num_attention_heads=WIDTH // 128, **sizes)
        model = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
    parameters = sum(one.numel() for one in model.parameters())
    student = StudentConfig.model_validate({"model_name": "save", "max_length": 512, "zero_stage": stage})
    engine = make_engine(model, student, ranks, torch.device("cpu"), torch.bfloat16)
    ids = torch.arange(8).unsqueeze(0)
    engine.backward(engine(Batch({"input_ids": ids}, ids)))
    engine.step()
    return engine, parameters


def _foreground(engine: Any, store: Any, ranks: Any) -> float:
    """Seconds of DeepSpeed's own save to a folder and, where the store is none, of the upload of each rank's files after it."""
    import torch.distributed as dist

    from medkd.student.snapshots import _rank_of

    remote = store.url.startswith("s3://")
    folder = ranks.folder / "usual" if remote else Path(store.url) / "usual"
    dist.barrier()
    started = time.perf_counter()
    engine.save_checkpoint(str(folder), tag="step", save_latest=False)
    if remote:
        for file in sorted((folder / "step").iterdir()):
            if _rank_of(file.name) == ranks.rank:
                store.upload_file(file, f"usual/{file.name}")
    dist.barrier()
    seconds = time.perf_counter() - started
    if ranks.rank == 0:
        shutil.rmtree(folder)
        _clear(store)
    dist.barrier()
    return seconds


def _background(engine: Any, store: Any, ranks: Any, stage: int) -> tuple[float, float, int]:
    """Seconds that training waits, and until the checkpoint is whole; its bytes."""
    import torch.distributed as dist

    from medkd.student.checkpoints import Checkpoints
    from medkd.student.position import Position

    checkpoints = Checkpoints(store, "saved", ranks, keep=1, identity={}, zero_stage=stage)
    dist.barrier()
    started = time.perf_counter()
    checkpoints.save(engine, Position(step=1))
    dist.barrier()
    copied = time.perf_counter() - started
    checkpoints.finish()
    dist.barrier()
    whole, size = time.perf_counter() - started, 0
    if ranks.rank == 0:
        size = sum(file.bytes for file in store.list_files())
        _clear(store)
    dist.barrier()
    return copied, whole, size


def _clear(store: Any) -> None:
    for file in store.list_files():
        store.delete(file.path)


def measured(stage: int, layers: int, runs: int, stores: dict[str, Any]) -> dict[str, Any]:
    """Both ways of saving on ranks of one stage."""
    from torch.distributed import TCPStore

    context = multiprocessing.get_context("spawn")
    meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = (meeting.port, folder, stage, layers, runs, stores)
        processes = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(RANKS)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise SystemExit(f"ZeRO {stage}: a rank failed")
        found: dict[str, Any] = json.loads((folder / "found.json").read_text())
        return found


@contextmanager
def _stores() -> Iterator[dict[str, Any]]:
    """A folder and an S3 server, by their names, with the options that open them."""
    from tests import seaweedfs

    with tempfile.TemporaryDirectory() as name, seaweedfs.running(Path(name) / "s3") as server:
        yield {"folder": (f"{name}/folder", {}), "S3": ("s3://runs", server.options())}


def largest(extra: int) -> int:
    """Layers of a model that both ranks can hold in the memory that is free now, some of it left to others."""
    free = next(int(line.split()[1]) * 1024 for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line)
    per_layer = 4 * WIDTH**2 + 3 * WIDTH * FEED_FORWARD
    return max(1, int((0.75 * free / 34 - extra) / per_layer))


def rows(found: dict[str, Any]) -> Iterator[str]:
    for name in ("folder", "S3"):
        one = found[name]
        size = one["bytes"] / 1e9
        behind = one["whole"] - one["copy"]
        yield (
            f"| {found['stage']} | {name} | {size:.2f} GB | {one['copy']:.1f} s ({size / one['copy']:.2f}) | "
            f"{behind:.1f} s ({size / behind:.2f}) | {one['foreground']:.1f} s ({size / one['foreground']:.2f}) | "
            f"{one['foreground'] / one['copy']:.1f}x | {one['whole'] / one['foreground']:.2f}x |"
        )


def extrapolated(found: dict[str, Any]) -> Iterator[str]:
    """Of the rank that has most to save: its share of the states and, before ZeRO 3, all weights on rank 0."""
    stage = found["stage"]
    weights = 0 if stage == 3 else WEIGHTS
    # Here both ranks copied at once, the larger part telling how long.
    mine = found["folder"]["bytes"] / 1e9 * (STATES / RANKS + weights) / (STATES + weights)
    for count in (8, 16, 64):
        size = STATES / count + weights
        waits, behind = size / mine * found["folder"]["copy"], size / mine * (found["S3"]["whole"] - found["S3"]["copy"])
        yield f"| {stage} | {count} | {size:.1f} GB | {waits:.0f} s | {behind:.0f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description="a large model's checkpoint: what training waits, and what the store takes")
    parser.add_argument("--layers", type=int, help="of the Llama; else as many as memory holds")
    parser.add_argument("--runs", type=int, default=2)
    arguments = parser.parse_args()
    from medkd.student.compile_ops import operator_variables

    os.environ.update({"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", **operator_variables(os.environ)})
    layers = arguments.layers or largest(2 * VOCABULARY * WIDTH)
    with _stores() as stores:
        found = [measured(stage, layers, arguments.runs, stores) for stage in (1, 2, 3)]
    heads = ["ZeRO", "store", "checkpoint", "training waits (GB/s)", "behind it (GB/s)", "save_checkpoint, training waits (GB/s)"]
    heads += ["waits less", "whole after"]
    print(f"\n{found[0]['parameters'] / 1e6:.0f} million parameters, {RANKS} ranks\n")
    print(f"| {' | '.join(heads)} |\n{'| --- ' * len(heads)}|")
    print("\n".join(line for one in found for line in rows(one)))
    print("\nExtrapolated to Llama-2-7b by the bytes of the fullest rank, not measured:\n")
    print(f"| ZeRO | ranks | fullest rank | training waits | behind it, S3 |\n{'| --- ' * 5}|")
    print("\n".join(line for one in found for line in extrapolated(one)))
    machine = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    print(f"\n{datetime.now(UTC):%Y-%m-%d}, {machine}")


if __name__ == "__main__":
    main()
