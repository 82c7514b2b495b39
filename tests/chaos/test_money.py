"""The ledger against the teacher's own books, with the process killed at random moments."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medkd.config import Prices
from medkd.simulator.server import Server
from medkd.stages.costs import by_group, costs_of
from medkd.store import budget
from medkd.store.files import Store, open_store
from tests.chaos.test_kill import wait_for_calls, wait_until_idle
from tests.generation import planned, simulated, start_simulator

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

SAMPLES = 120
BUDGET = 5.0
PRICES = Prices(input=1.0, output=4.0)
SHIPPED = Path(__file__).parent.parent.parent / "configs" / "model_configs.json"


@pytest.mark.parametrize(
    "seed", [random.SystemRandom().randrange(10**6) for _ in range(2)], ids=[f"fresh-{number}" for number in range(2)]
)
def test_the_bill_lies_between_what_was_spent_and_what_was_possibly_spent_in_addition(tmp_path: Path, seed: int) -> None:
    luck = random.Random(seed)
    with start_simulator(
        latency_seconds=0.05, latency_jitter=0.5, faults="reset_after:0.02,missing_usage:0.02", seed=seed
    ) as server:
        store = open_store(str(tmp_path / "run"))
        teacher = simulated(server, prices=PRICES, max_concurrency=8)
        planned(store, teacher, samples=SAMPLES, budget_usd=BUDGET)
        config = _config(tmp_path)
        for calls in sorted(luck.sample(range(5, 2 * SAMPLES - 40), 3)):
            process = _start(tmp_path / "run", config, server)
            wait_for_calls(server, calls)
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            wait_until_idle(server)
            _check(store, server)
        process = _start(tmp_path / "run", config, server)
        assert process.wait(200) == 0, process.stderr and process.stderr.read()
        spent, possibly = _check(store, server)
        taken = budget.taken_usd(store, json.loads(store.read("layout.json"))["chunk_usd"])
    assert spent + possibly <= taken <= BUDGET


def _check(store: Store, server: Server) -> tuple[float, float]:
    """What was spent for sure and possibly; the teacher billed no less than the first, and no more than both."""
    found = by_group(list(costs_of("run", store)))["total"]["all"]
    stats = server.counters.stats()
    billed = (stats["billed_prompt_tokens"] * PRICES.input + stats["billed_completion_tokens"] * PRICES.output) / 1e6
    assert found["spent_usd"] <= billed + 1e-6
    assert billed <= found["spent_usd"] + found["possibly_usd"] + 1e-6
    return found["spent_usd"], found["possibly_usd"]


def _start(prefix: Path, config: Path, server: Server) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "medkd", "generate", "--prefix", str(prefix), "--teacher-url", f"{server.url}/v1"]
    more = ["--config", str(config), "--budget-usd", str(BUDGET)]
    return subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _config(folder: Path) -> Path:
    raw = json.loads(SHIPPED.read_text())
    raw["teacher_models"]["simulator"] |= {"prices": {"input": PRICES.input, "output": PRICES.output}}
    raw["teacher_models"]["simulator"]["limits"] = {"max_concurrency": 8}
    path = folder / "config.json"
    path.write_text(json.dumps(raw))
    return path
