"""What more ranks, ZeRO's stages and checkpoints cost, as ratios, on CPU ranks of this machine.

    python -m tests.benchmarks.scaling

A random GPT-2 (4 layers, 256 wide) is trained by `medkd train` on 1, 2 and 4 ranks of one thread each. Efficiency is useful
tokens per second over one rank's times the cores that the ranks have: where there are more ranks than cores, they share them. The
share of checkpoints is what training waited for a copy of the states each 10 steps; `save` measures a large one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

EVERY = 10
"""Steps of a line of metrics, and of a checkpoint."""


def student_of(stage: int, steps: int) -> dict[str, Any]:
    sizes = {"layers": 4, "width": 256, "heads": 4, "feed_forward": 1024, "vocabulary": 8000}
    return {
        "model_name": "scaling",
        "max_length": 1024,
        "batch_size": 8,
        "num_epochs": 100,
        "max_steps": steps,
        "zero_stage": stage,
        "precision": "fp32",
        "best_by": "last",
        "validation_samples": 0,
        "checkpoint_every_steps": EVERY,
        "architecture": {"family": "gpt2", **sizes},
    }


def trained(ranks: int, stage: int, steps: int, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Useful tokens per second, and the share of the clock that training waited for checkpoints; the first lines warm up."""
    from medkd import config
    from medkd.config import StudentConfig
    from medkd.records import PATIENT_RECORD
    from medkd.stages.prepare import write_tokens
    from medkd.store.files import open_store
    from medkd.store.manifests import Manifest
    from medkd.student.launch import launch_training

    student = StudentConfig.model_validate(student_of(stage, steps))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = open_store(str(folder / "run"))
        data_set = Manifest(stage="prepare", plan_hash="p" * 64, config_hash="", files=(), counts={"data_set_hash": "d" * 64})
        splits = {"train": rows, "validation": rows[:2], "test": rows[:2]}
        write_tokens(store, "student", student, splits, PATIENT_RECORD, data_set)
        raw = json.loads((Path(config.__file__).parent.parent / "configs" / "model_configs.json").read_text())
        raw["student_models"] = {"student": student.model_dump(mode="json")}
        (folder / "configs.json").write_text(json.dumps(raw))
        arguments = ["train", "--config", str(folder / "configs.json"), "--prefix", store.url, "--student", "student"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = launch_training(
            [*arguments, "--log-level", "WARNING"], ranks=ranks, environment=environment, stop=threading.Event()
        )
        if code:
            raise SystemExit(code)
        lines = [json.loads(line) for line in store.read("students/student/train/metrics.jsonl").splitlines()]
    timed = [line for line in lines if "tokens_per_second" in line and line["step"] > EVERY]
    seconds = sum(line["seconds"] for line in timed)
    waited = sum(line["checkpoint_seconds"] for line in timed)
    tokens = sum(line["tokens_per_second"] * line["seconds"] for line in timed)
    return {"speed": tokens / (seconds - waited), "checkpoints": waited / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description="overhead of ranks, ZeRO stages and checkpoints as ratios")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rows", type=int, default=300)
    arguments = parser.parse_args()
    from medkd.student.compile_ops import operator_variables
    from tests.benchmarks.training_speed import conversations

    os.environ.update({"DS_ACCELERATOR": "cpu", **operator_variables(os.environ)})
    rows, cores = conversations(arguments.rows), len(os.sched_getaffinity(0))
    lines = ["| ZeRO | ranks | useful tokens/s | efficiency | waiting for checkpoints |", "| --- " * 5 + "|"]
    for stage in (1, 2, 3):
        one = 0.0
        for ranks in (1, 2, 4):
            found = trained(ranks, stage, arguments.steps, rows)
            one = one or found["speed"]
            efficiency = found["speed"] / (one * min(ranks, cores))
            lines.append(f"| {stage} | {ranks} | {found['speed']:,.0f} | {efficiency:.2f} | {found['checkpoints']:.1%} |")
            print(lines[-1], flush=True)
    print("\n".join(["", *lines, ""]))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
