"""Peak memory of taking in existing conversations: what stage plan and one shard of 16 need, beside a reader of whole files.

    python -m tests.benchmarks.intake_memory 120000

Every figure is the peak of a process of its own, from the kernel, imports included.
"""

from __future__ import annotations

import csv
import io
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from medkd.store.conversations import Columns, read, survey

SHARDS = 16
_WORDS = (
    "the pain cough fever since days doctor patient takes daily tablet morning never always allergy aspirin blood test".split()
)


def write(folder: Path, kind: str, rows: int) -> Path:
    """A file of conversations of some 200 words; Parquet as one row group, as many writers make it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, noise = folder / f"visits.{kind}", random.Random(1)

    def talk(number: int) -> str:
        turns = (" ".join(noise.choices(_WORDS, k=20)) for _ in range(10))
        return "\n".join(f"{('Doctor', 'Patient')[turn % 2]}: {number} {text}" for turn, text in enumerate(turns))

    if kind == "parquet":
        columns = {"id": [f"v{number}" for number in range(rows)], "conversation": [talk(number) for number in range(rows)]}
        pq.write_table(pa.table(columns), path, row_group_size=rows)
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if kind == "csv":
            writer.writerow(["id", "conversation"])
        for number in range(rows):
            if kind == "csv":
                writer.writerow([f"v{number}", talk(number)])
            else:
                file.write(json.dumps({"id": f"v{number}", "conversation": talk(number)}) + "\n")
    return path


def whole(path: Path) -> int:
    """The baseline: the file's bytes, then all its rows."""
    data = path.read_bytes()
    if path.suffix == ".csv":
        return len(list(csv.DictReader(io.StringIO(data.decode(), newline=""))))
    if path.suffix == ".jsonl":
        return len([json.loads(line) for line in data.decode().split("\n") if line])
    import pyarrow.parquet as pq

    return len(pq.read_table(io.BytesIO(data)).to_pylist())


def streamed(path: Path) -> int:
    """Stage plan's reading of the file, then one shard's part of it."""
    columns = Columns(id="id")
    files = survey([str(path)], columns)
    rows = sum(file.rows for file in files)
    start, stop = 7 * rows // SHARDS, 8 * rows // SHARDS
    assert sum(1 for _ in read(files, columns, start, stop)) == stop - start
    return rows


def measured(how: str, path: Path) -> tuple[float, float]:
    """(peak MB, seconds) of one way of reading in a process of its own."""
    line = [sys.executable, "-m", "tests.benchmarks.intake_memory", how, str(path)]
    peak, seconds = subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()
    return float(peak), float(seconds)


def main(rows: int) -> None:
    print(f"{rows:,} rows; peak MB (seconds) of a process")
    print("| format | file MB | whole file | survey and one shard of 16 |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("csv", "jsonl", "parquet"):
            path = write(Path(folder), kind, rows)
            figures = [measured(how, path) for how in ("whole", "streamed")]
            shown = " | ".join(f"{peak:,.0f} ({seconds:.1f})" for peak, seconds in figures)
            print(f"| {kind} | {path.stat().st_size / 1e6:,.0f} | {shown} |", flush=True)
            path.unlink()


if __name__ == "__main__":
    if sys.argv[1] in ("whole", "streamed"):
        began = time.monotonic()
        {"whole": whole, "streamed": streamed}[sys.argv[1]](Path(sys.argv[2]))
        # Not getrusage's figure, which a process inherits from the one that started it.
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(int(peak.split()[1]) * 1024 / 1e6, time.monotonic() - began)
    else:
        main(int(sys.argv[1]))
