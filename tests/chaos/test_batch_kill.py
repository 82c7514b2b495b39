"""A shard that works by batches is killed again and again: nothing is lost, nothing is billed twice, no spend is unknown."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medkd.samples import data_set_hash
from medkd.simulator.server import Server
from medkd.store import tables
from medkd.store.files import open_store
from tests.generation import planned, simulated, start_simulator
from tests.stages.test_batches import PRICES, called

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

KILLS = 4


def configuration(folder: Path, protocol: str) -> Path:
    """The shipped configuration with the simulator asked by batches."""
    raw = json.loads((Path(__file__).parents[2] / "configs" / "model_configs.json").read_text())
    teacher = raw["teacher_models"]["simulator"]
    teacher |= {"mode": "batch", "prices": {"input": PRICES.input, "output": PRICES.output}}
    teacher["limits"] = {"batch_size": 10, "batch_poll_seconds": 0.3}
    if protocol == "anthropic":
        teacher |= {
            "protocol": protocol,
            "structured_output": "output_config",
            "protocol_version": "2023-06-01",
            "takes_seed": False,
        }
    path = folder / "config.json"
    path.write_text(json.dumps(raw))
    return path


def start(prefix: Path, config: Path, server: Server) -> subprocess.Popen[bytes]:
    line = [
        "generate",
        "--prefix",
        str(prefix),
        "--config",
        str(config),
        "--teacher-url",
        f"{server.url}/v1",
        "--budget-usd",
        "50",
    ]
    return subprocess.Popen([sys.executable, "-m", "medkd", *line], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
@pytest.mark.parametrize(
    "seed", [random.SystemRandom().randrange(10**6) for _ in range(2)], ids=[f"fresh-{number}" for number in range(2)]
)
def test_kills_at_random_moments_lose_nothing_and_bill_nothing_twice(tmp_path: Path, seed: int, protocol: str) -> None:
    luck = random.Random(seed)
    expected, by_call_usd = called(protocol)
    prefix, config = tmp_path / "run", configuration(tmp_path, protocol)
    with start_simulator(batch_seconds=0.8, batch_expire=0.2) as server:
        store = open_store(str(prefix))
        teacher = simulated(server, prices=PRICES)
        if protocol == "anthropic":
            teacher = teacher.model_copy(update={"protocol": protocol, "structured_output": "output_config"})
        planned(store, teacher, samples=24, budget_usd=50.0)
        for _ in range(KILLS):
            process = start(prefix, config, server)
            try:
                process.wait(luck.uniform(1.0, 5.0))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait(60)
        process = start(prefix, config, server)
        assert process.wait(200) == 0, process.stderr and process.stderr.read()
        stats = server.counters.stats()
    manifest = json.loads((prefix / "generate/shard-00000/manifest.json").read_text())
    rows = tables.decode((prefix / "generate/shard-00000/samples.parquet").read_bytes())
    assert data_set_hash(rows) == expected
    assert stats["billed_total"] == 48 and stats["bodies_billed_more_than_once"] == 0
    assert manifest["money"]["spent_usd"] == pytest.approx(by_call_usd / 2)
    assert manifest["money"]["possibly_usd"] == 0.0
