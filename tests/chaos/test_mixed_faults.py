"""All faults at once and kills at random moments, small; `make bench-teacher` does it with 2,000 samples and 20 kills."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.benchmarks.mixed_faults import run

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

SEED = random.SystemRandom().randrange(10**6)


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
@pytest.mark.parametrize("seed", [SEED], ids=["fresh"])
def test_faults_and_kills_lose_nothing_and_cost_at_most_what_was_in_flight(tmp_path: Path, protocol: str, seed: int) -> None:
    outcome = run(tmp_path, samples=200, kills=4, seed=seed, protocol=protocol)
    assert outcome.problems == [], outcome
    assert outcome.struck > 50
