"""How long stage prepare takes over many rows, and what it holds in memory.

    python -m tests.benchmarks.prepare_rows 100000 1000000

The rows are synthetic: words of very unequal frequency, 150 to a conversation; of the rows 2% are near copies of an earlier one,
1% equal copies, and 0.1% quote another whole. Each size runs in a process of its own. Prints one JSON line per size.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

from medkd.records import PATIENT_RECORD
from medkd.samples import INSTRUCTION, sample_id
from medkd.stages.prepare import write_data_set
from medkd.stages.sources import Shards
from medkd.store import tables
from medkd.store.files import Store, open_store
from medkd.store.manifests import Manifest

WORDS = 150
ROWS_PER_SHARD = 25_000


def write_shards(store: Store, num_rows: int) -> list[Manifest]:
    chance = np.random.default_rng(1)
    vocabulary = np.array([f"word{number}" for number in range(30_000)])
    record = PATIENT_RECORD.canonical(PATIENT_RECORD.empty())
    shards: list[Manifest] = []
    earlier: list[str] = []
    for first in range(0, num_rows, ROWS_PER_SHARD):
        writer = tables.PartWriter(store, f"shard-{first:09d}-{{}}/samples.parquet".format, tables.SAMPLE_COLUMNS, None)
        for index in range(first, min(first + ROWS_PER_SHARD, num_rows)):
            words = vocabulary[(len(vocabulary) * chance.random(WORDS) ** 4).astype(int)]
            kind = chance.random()
            if earlier and kind < 0.031:
                words = np.array(earlier[chance.integers(len(earlier))].split())
                if kind < 0.02:
                    words[chance.integers(len(words))] = "changed"
                elif kind > 0.03:
                    words = np.concatenate((words, vocabulary[chance.integers(0, len(vocabulary), WORDS)]))
            text = " ".join(words)
            if chance.random() < 0.01 and len(words) == WORDS:
                earlier.append(text)
            writer.add(
                {
                    "sample_id": sample_id(index),
                    "topic": f"topic {index % 120}",
                    "mood": f"mood {index % 8}",
                    "instruction": INSTRUCTION,
                    "input": text,
                    "output": record,
                    "evidence": [],
                    "source": "generated",
                    "reference": "teacher",
                    "teacher": "synthetic",
                }
            )
        shards.append(Manifest(stage="generate", plan_hash="", config_hash="", files=tuple(writer.close()), shard=len(shards)))
    return shards


def measure(num_rows: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        store = open_store(scratch)
        shards = write_shards(store, num_rows)
        written = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.monotonic()
        cpu = time.process_time()
        manifest = write_data_set(store, "0" * 64, PATIENT_RECORD, Shards(store, shards), (), {}, {})
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        duplicates = json.loads(store.read("dataset/statistics.json"))["duplicates"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {
        "rows": num_rows,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "rows_per_second": round(num_rows / seconds),
        "peak_mb": round(peak / 1024),
        "peak_mb_before": round(written / 1024),
        "left_out": duplicates,
        "kept": sum(manifest.counts[split] for split in ("train", "validation", "test")),
    }
    print(json.dumps(figures), flush=True)


def main() -> None:
    for size in sys.argv[1:] or ["100000", "1000000"]:
        subprocess.run(
            [sys.executable, "-c", f"from tests.benchmarks.prepare_rows import measure; measure({int(size)})"], check=True
        )


if __name__ == "__main__":
    main()
