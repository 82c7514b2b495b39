"""A stratified sample: the same whatever order rows come in, every stratum in it, weights that add up to all rows."""

from __future__ import annotations

import random

import pytest

from medkd.quality.strata import Stratum, draw

SIZES = {
    Stratum("accepted", "gout"): 400,
    Stratum("accepted", "asthma"): 100,
    Stratum("accepted", "flu"): 1,
    Stratum("rejected", "gout"): 30,
    Stratum("rejected", "asthma"): 3,
}
ROWS = [(stratum, f"{stratum.status}-{stratum.topic}-{number}") for stratum, size in SIZES.items() for number in range(size)]


def test_every_stratum_is_in_the_sample_and_larger_ones_more_often() -> None:
    drawn = draw(ROWS, 60, 0.3, seed=1)
    assert len(drawn.ids) == len(set(drawn.ids)) == sum(drawn.sampled.values()) == 60
    assert sum(count for stratum, count in drawn.sampled.items() if stratum.status == "rejected") == 18
    assert all(1 <= drawn.sampled[stratum] <= size for stratum, size in SIZES.items())
    assert drawn.sampled[Stratum("accepted", "gout")] == pytest.approx(4 * drawn.sampled[Stratum("accepted", "asthma")], abs=4)
    assert sum(drawn.sizes[one] / drawn.sampled[one] * drawn.sampled[one] for one in SIZES) == pytest.approx(len(ROWS))


def test_order_changes_nothing_and_the_seed_does() -> None:
    shuffled = random.Random(5).sample(ROWS, len(ROWS))
    assert draw(ROWS, 40, 0.3, seed=1).ids == draw(shuffled, 40, 0.3, seed=1).ids
    assert draw(ROWS, 40, 0.3, seed=1).ids != draw(ROWS, 40, 0.3, seed=2).ids


def test_the_order_of_the_sample_does_not_tell_who_was_rejected() -> None:
    ids = draw(ROWS, 60, 0.5, seed=3).ids
    kinds = [identity.startswith("rejected") for identity in ids]
    assert kinds != sorted(kinds) and kinds != sorted(kinds, reverse=True)


def test_a_kind_with_too_few_rows_leaves_its_place_to_the_other() -> None:
    assert len(draw(ROWS, 120, 0.5, seed=1).ids) == 120
    assert len(draw(ROWS, 10_000, 0.3, seed=1).ids) == len(ROWS)
    assert len(draw([one for one in ROWS if one[0].status == "accepted"], 50, 0.3, seed=1).ids) == 50


def test_fewer_rows_than_strata_are_refused() -> None:
    with pytest.raises(ValueError, match="got 4, expected at least 5"):
        draw(ROWS, 4, 0.3, seed=1)
