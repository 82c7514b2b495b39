"""A repair always changes something: nothing is paid for that has been answered before."""

from __future__ import annotations

import pytest

from medkd.store.files import open_store
from tests.generation import Worker, planned, simulated, start_simulator


@pytest.mark.parametrize("fault", ["not_json", "duplicate_keys", "empty_content"])
def test_a_teacher_that_repeats_its_mistake_is_not_asked_the_same_again(fault: str) -> None:
    with start_simulator(faults=fault) as server:
        teacher, store = simulated(server), open_store(f"memory://repairs-{fault}")
        planned(store, teacher, samples=3)
        manifest = Worker(store, teacher).run()
        stats = server.counters.stats()
    assert manifest.counts["repairs"] > 0 and manifest.counts["accepted"] == 0
    assert stats["bodies_billed_more_than_once"] == 0
