"""All faults at once, on three of ten calls, and the process killed without warning again and again: what is lost, what is
bought again, and do the books agree?

    python -m tests.benchmarks.mixed_faults [--samples 2000] [--kills 20] [--seed 1]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medkd import config
from medkd.simulator.faults import FAULTS, LOST
from medkd.simulator.refusals import REFUSALS
from medkd.simulator.server import Server, SimulatorOptions
from medkd.simulator.spoilers import SPOILERS
from medkd.store import layout, manifests, tables
from medkd.store.files import open_store
from tests.benchmarks.fault_menu import BUDGET_USD, CONCURRENCY, KEY, USD_PER_TOKEN, set_faults, teacher_at
from tests.generation import planned

GROUP = 32
"""Answers of one commit group at most, see `ShardOptions.group_limit`."""
SHARE = 0.3
PATIENCE_SECONDS = 600


def mixed(share: float) -> str:
    """A spec under which about `share` of all calls meet a fault; none of those that end a run."""
    rates: dict[str, float] = {}
    for fault in sorted(FAULTS):
        refusal = REFUSALS.get(fault)
        if refusal is not None and (refusal.ends or fault == "rate_limit_long"):
            continue
        if fault in ("hang", "blank_lines_forever", "dripping_headers") or (refusal is not None and refusal.wait_seconds):
            rates[fault] = 0.0005  # each costs seconds
        else:
            rates[fault] = 1.0 if fault in SPOILERS or fault in LOST else 0.5
    heavy = sum(rate for rate in rates.values() if rate >= 0.5)
    light = sum(rate for rate in rates.values() if rate < 0.5)
    scaled = {fault: rate * (share - light) / heavy if rate >= 0.5 else rate for fault, rate in rates.items()}
    return ",".join(f"{fault}:{rate:.5f}" for fault, rate in scaled.items())


@dataclass(frozen=True, kw_only=True)
class Outcome:
    samples: int
    kills: int
    accepted: int
    short: int
    lost: int
    duplicated: int
    calls: int
    struck: int
    kinds_struck: int
    bought_again: int
    """Completions billed for a call that had been answered in full before: answers that a kill took."""
    billed_usd: float
    spent_usd: float
    possibly_usd: float
    during_wait: int
    seconds: float

    @property
    def problems(self) -> list[str]:
        found = [f"{name} {getattr(self, name)}" for name in ("lost", "duplicated", "during_wait") if getattr(self, name)]
        if self.accepted + self.short != self.samples:
            found.append(f"{self.accepted} accepted and {self.short} short of {self.samples}")
        if self.bought_again > self.kills * (CONCURRENCY + GROUP):
            found.append(f"bought again {self.bought_again}, allowed {self.kills * (CONCURRENCY + GROUP)}")
        if not self.spent_usd - 1e-9 <= self.billed_usd <= self.spent_usd + self.possibly_usd + 1e-9:
            found.append(f"billed {self.billed_usd:.6f}, spent {self.spent_usd:.6f}, possibly {self.possibly_usd:.6f}")
        return found


def run(folder: Path, *, samples: int, kills: int, seed: int, protocol: str = "openai") -> Outcome:
    """Generate one shard under `folder`, killed `kills` times at random moments, while all faults strike."""
    began, luck = time.monotonic(), random.Random(seed)
    options = SimulatorOptions(port=0, api_key=KEY, seed=seed, latency_seconds=0.05, latency_jitter=0.5, grace_seconds=0.4)
    with Server(options) as server:
        set_faults(server, mixed(SHARE))
        teacher = teacher_at(server, protocol, call_deadline_seconds=5)
        store = open_store(str(folder / "run"))
        planned(store, teacher, samples=samples, seed=seed, budget_usd=BUDGET_USD)
        store.replace(layout.CONTROL, json.dumps({"format": 1, "state": "run", "reason": "", "pilot_samples": 50}).encode())
        command = _command(folder, teacher.model_dump(mode="json"))
        for number in range(kills):
            process = _start(command)
            aim = _billed(server) + luck.randrange(1, max(2, 2 * samples // (kills + 1)))
            _wait_for_calls(server, aim, process)
            process.send_signal(signal.SIGKILL)
            process.wait(60)
            _wait_until_idle(server)
            server.counters.begin_anew()  # a new process cannot know of a wait that its predecessor was told of
            print(f"{time.monotonic() - began:6.0f} s  kill {number + 1}: {_billed(server)} billed", file=sys.stderr, flush=True)
        process = _start(command)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, errors.decode()[-2000:]
        stats: Any = server.counters.stats()
    manifest = manifests.require(store, layout.shard_file(0, "manifest.json"), "generate")
    ids = [row["sample_id"] for row in tables.read(store, manifest.files[:1])]
    ended = {*ids, *(row["sample_id"] for row in tables.read(store, manifest.files[1:2]))}
    return Outcome(
        samples=samples,
        kills=kills,
        accepted=manifest.counts["accepted"],
        short=manifest.counts["short"],
        lost=samples - len(ended),
        duplicated=len(ids) - len(set(ids)),
        calls=stats["requests"],
        struck=sum(stats["faults"].values()),
        kinds_struck=len(stats["faults"]),
        bought_again=stats["billed_after_a_good_answer"],
        billed_usd=(stats["billed_prompt_tokens"] + stats["billed_completion_tokens"]) * USD_PER_TOKEN,
        spent_usd=manifest.money["spent_usd"],
        possibly_usd=manifest.money["possibly_usd"],
        during_wait=stats["calls_during_wait"],
        seconds=time.monotonic() - began,
    )


def _command(folder: Path, teacher: dict[str, Any]) -> list[str]:
    raw = config.load(None).model_dump(mode="json")
    raw["teacher_models"]["simulator"] = teacher
    path = folder / "config.json"
    path.write_text(json.dumps(raw))
    flags = ["--prefix", str(folder / "run"), "--config", str(path), "--shard-index", "0", "--budget-usd", str(BUDGET_USD)]
    return [sys.executable, "-m", "medkd", "generate", "--teacher", "simulator", "--log-level", "ERROR", *flags]


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "MENU_KEY": KEY}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def _billed(server: Server) -> int:
    billed: Any = server.counters.stats()["billed_total"]
    return int(billed)


def _wait_for_calls(server: Server, number: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while _billed(server) < number and process.poll() is None:
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.005)


def _wait_until_idle(server: Server) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while server.counters.stats()["active"]:
        assert time.monotonic() < deadline, "calls never ended"
        time.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), samples=args.samples, kills=args.kills, seed=args.seed)
    print(json.dumps(outcome.__dict__, indent=2))
    print(f"bought again per kill: {outcome.bought_again / max(1, args.kills):.1f} of {CONCURRENCY + GROUP} allowed")
    print(f"problems: {', '.join(outcome.problems) or 'none'}")
    return int(bool(outcome.problems))


if __name__ == "__main__":
    sys.exit(main())
