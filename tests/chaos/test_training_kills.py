"""Training is interrupted five times at random: one rank killed, all killed, told to stop. Nothing may come out otherwise."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.student.gang import start_ranks, train_ranks, wait_until
from tests.student.test_checkpoints import newest_step, run_of
from tests.student.trained import metrics, tiny_student

pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]


def test_five_random_interruptions_leave_the_loss_curve_as_it_is(tmp_path: Path) -> None:
    chance = random.Random(7)
    student = tiny_student("gpt2", num_epochs=80, checkpoint_every_steps=5)
    whole, broken = run_of(tmp_path / "whole", student), run_of(tmp_path / "broken", student)
    assert train_ranks(whole.url, "tiny", student, 2, tmp_path) == [0, 0]
    for way in ("one", "all", "stop", "one", "all"):
        before = newest_step(broken)
        gang = start_ranks(broken.url, "tiny", student, 2, tmp_path)
        wait_until(lambda before=before: newest_step(broken) > before)
        time.sleep(chance.uniform(0, 0.5))
        if way == "stop":
            gang.stop()
        else:
            for rank in (chance.choice((0, 1)),) if way == "one" else (0, 1):
                gang.kill(rank)
        assert 0 not in gang.wait()
    assert newest_step(broken) < 80, "the training ended before it was interrupted five times"
    assert train_ranks(broken.url, "tiny", student, 2, tmp_path) == [0, 0]
    one, other = ([line.get("validation_loss", line.get("loss")) for line in metrics(store, "tiny")] for store in (whole, broken))
    assert one == pytest.approx(other, abs=1e-4)
