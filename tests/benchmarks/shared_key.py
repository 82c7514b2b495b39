"""Eight shard processes on one key with limits: how much of the allowed rate do they use, and how often are they told to wait?

    python -m tests.benchmarks.shared_key [--seconds 90] [--limit requests|tokens] [--limiter bucket|rolling]

Counted at the teacher over `--seconds`, from when all shards are at work until all still are. Aims: at least 95% of the allowed
rate, under 1% of the calls answered 429.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medkd import config
from medkd.simulator.server import Server, SimulatorOptions
from medkd.store.files import open_store
from tests.generation import planned

SHARDS = 8
LATENCY_SECONDS = 0.5
LIMITS = {"requests": {"requests_per_minute": 900, "tokens_per_minute": 100_000_000}, "tokens": {"tokens_per_minute": 900_000}}
"""Small enough for eight processes on two cores to be held up by the limit and by nothing else."""
SAMPLES = 20_000
START_SECONDS = 180


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The teacher's counts at one moment."""

    at: float
    good: int
    told_to_wait: int
    tokens: int


def measure(limit: str, limiter: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Run the shards until `seconds` have been measured."""
    limits = LIMITS[limit]
    options = SimulatorOptions(
        port=0,
        latency_seconds=LATENCY_SECONDS,
        latency_jitter=0.3,
        limiter=limiter,
        **limits,  # type: ignore[arg-type]
    )
    with Server(options) as server:
        raw = config.load(None).model_dump(mode="json", exclude_unset=True)
        entry = raw["teacher_models"]["simulator"]
        entry |= {"base_url": f"{server.url}/v1", "limits": {"max_concurrency": 16 * SHARDS, **limits}}
        path = folder / "config.json"
        path.write_text(json.dumps(raw))
        store = open_store(str(folder / "run"))
        planned(store, config.load(path).teacher("simulator"), samples=SAMPLES, shards=SHARDS)
        shards = [_start(folder, path, shard) for shard in range(SHARDS)]
        try:
            _wait_until_all_work(server, folder)
            # A rolling minute is full only after one; whoever starts gets the first one's allowance at once.
            time.sleep(60 if limiter == "rolling" else 15)
            first = _seen(server)
            time.sleep(seconds)
            last = _seen(server)
            assert all(shard.poll() is None for shard in shards), "a shard ended before the measurement did"
        finally:
            for shard in shards:
                shard.send_signal(signal.SIGTERM)
            codes = {shard.wait(120) for shard in shards}
    minutes = (last.at - first.at) / 60
    good, told_to_wait = last.good - first.good, last.told_to_wait - first.told_to_wait
    used = good if limit == "requests" else last.tokens - first.tokens
    return {
        "limit": f"{limits[f'{limit}_per_minute']:,} {limit} a minute",
        "limiter": limiter,
        "calls": good + told_to_wait,
        "used": used / (minutes * limits[f"{limit}_per_minute"]),
        "told to wait": told_to_wait / max(1, good + told_to_wait),
        "told to wait from the start": last.told_to_wait / max(1, last.good + last.told_to_wait),
        "exit codes": sorted(codes),
    }


def _start(folder: Path, path: Path, shard: int) -> subprocess.Popen[bytes]:
    flags = [
        "--prefix",
        str(folder / "run"),
        "--config",
        str(path),
        "--shard-index",
        str(shard),
        "--log-level",
        "ERROR",
        "--parallel",
        str(SHARDS),
    ]
    return subprocess.Popen([sys.executable, "-m", "medkd", "generate", *flags], stdout=subprocess.DEVNULL)


def _wait_until_all_work(server: Server, folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while len(list(folder.glob("run/generate/shard-*/progress.json"))) < SHARDS:
        assert time.monotonic() < deadline, "not all shards started"
        time.sleep(0.2)


def _seen(server: Server) -> Seen:
    stats: Any = server.counters.stats()
    tokens = stats["billed_prompt_tokens"] + stats["billed_completion_tokens"]
    return Seen(at=time.monotonic(), good=stats["billed_total"], told_to_wait=stats["answers"].get("429", 0), tokens=tokens)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--limit", choices=tuple(LIMITS), help="only this one")
    parser.add_argument("--limiter", choices=("bucket", "rolling"), help="only this one")
    args = parser.parse_args()
    print(f"{SHARDS} processes, {LATENCY_SECONDS} s a call, {os.cpu_count()} cores, {args.seconds:g} s measured", flush=True)
    print(
        "| limit | enforced | calls | used of the allowed rate | answered 429 | the same with the start |\n|" + " --- |" * 6,
        flush=True,
    )
    for limit in LIMITS:
        for limiter in ("bucket", "rolling"):
            if args.limit in (None, limit) and args.limiter in (None, limiter):
                with tempfile.TemporaryDirectory() as folder:
                    found = measure(limit, limiter, args.seconds, Path(folder))
                shares = (f"{found[name]:.1%}" for name in ("used", "told to wait", "told to wait from the start"))
                print(f"| {found['limit']} | {limiter} | {found['calls']} | {' | '.join(shares)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
