"""What a review says of all rows: figures checked against published ones and against drawing again and again."""

from __future__ import annotations

import numpy as np
import pytest

from medkd.quality.judgements import Judgement
from medkd.quality.review_figures import Judged, Share, agreement, figures, recall_lost, shown, weighted_share, wilson
from medkd.quality.strata import Stratum

GOUT, FLU, BAD = Stratum("accepted", "gout"), Stratum("accepted", "flu"), Stratum("rejected", "gout")


@pytest.mark.parametrize(
    ("right", "number", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(right: int, number: int, low: float, high: float) -> None:
    assert wilson(right / number, number) == pytest.approx((low, high), abs=5e-5)


def test_a_share_weighs_each_row_by_how_many_it_stands_for() -> None:
    units = [(GOUT, 1.0)] * 3 + [(GOUT, 0.0)] + [(FLU, 0.0)] * 2 + [(FLU, 0.5)] * 2
    found = weighted_share(units, {GOUT: 900, FLU: 100, BAD: 77})
    assert found and (found.share, found.judged, found.covered) == (round(0.9 * 0.75 + 0.1 * 0.25, 4), 8, 1000)
    # 4 rows weigh 225 and 4 weigh 25: (1000)^2 / (4 * 225^2 + 4 * 25^2) = 4.88 rows of equal weight.
    assert (found.low, found.high) == pytest.approx(wilson(0.7, 1e6 / (4 * 225**2 + 4 * 25**2)), abs=1e-4)
    assert weighted_share([], {GOUT: 900}) is None


def test_kappa_is_the_published_one() -> None:
    # Cohen (1960), table 1: (.70 - .41) / (1 - .41) = .492.
    counts = {("a", "a"): 88, ("a", "b"): 14, ("a", "c"): 18, ("b", "a"): 10, ("b", "b"): 40, ("b", "c"): 10}
    counts |= {("c", "a"): 2, ("c", "b"): 6, ("c", "c"): 12}
    found = agreement([pair for pair, count in counts.items() for _ in range(count)])
    assert (found["judged"], found["raw"], found["kappa"]) == (200, 0.7, 0.4915)
    assert agreement([("right", "right")] * 4) == {"judged": 4, "raw": 1.0, "kappa": None}
    assert agreement([("right", "wrong"), ("wrong", "right")])["kappa"] == -1.0
    assert agreement([])["raw"] is None


def share(value: float, low: float, high: float) -> Share:
    return Share(share=value, low=low, high=high, judged=10, covered=10)


def test_recall_lost_counts_right_rejects_among_all_right_rows() -> None:
    found = recall_lost(share(0.9, 0.8, 0.95), share(0.3, 0.1, 0.5), 1000, 200)
    assert found == {
        "share": round(60 / 960, 4),
        "low": round(20 / 970, 4),
        "high": round(100 / 900, 4),
    }
    assert recall_lost(share(0.0, 0.0, 0.1), share(0.0, 0.0, 0.1), 1000, 200) is None


def test_the_intervals_hold_the_truth_at_least_as_often_as_they_say() -> None:
    chance = np.random.default_rng(7)
    sizes = {GOUT: 4000, FLU: 1000, BAD: 1500}
    truth = {GOUT: 0.95, FLU: 0.7, BAD: 0.15}
    judged = {GOUT: 40, FLU: 25, BAD: 30}
    precision = (4000 * 0.95 + 1000 * 0.7) / 5000
    lost = 1500 * 0.15 / (1500 * 0.15 + 5000 * precision)
    held, rounds = [0, 0], 600
    for _ in range(rounds):
        right = {one: chance.binomial(judged[one], truth[one]) for one in sizes}
        units = {one: [(one, float(place < right[one])) for place in range(judged[one])] for one in sizes}
        accepted = weighted_share(units[GOUT] + units[FLU], sizes)
        rejected = weighted_share(units[BAD], sizes)
        assert accepted and rejected
        held[0] += accepted.low <= precision <= accepted.high
        interval = recall_lost(accepted, rejected, 5000, 1500)
        assert interval
        held[1] += interval["low"] <= lost <= interval["high"]
    # 95% of 600 is 570; fewer than 555 would be a chance of one in several hundred.
    assert min(held) >= 555


def judgement(reviewer: str, sample_id: str, whole: str | None, **verdicts: str) -> Judgement:
    return Judgement(sample_id=sample_id, reviewer=reviewer, verdicts=verdicts, whole=whole, corrected=None, comment="")


def test_two_reviewers_count_half_each_and_an_adjudicator_alone() -> None:
    rows = [
        Judged(
            sample_id="1v0",
            stratum=GOUT,
            judgements=(
                judgement("ada", "1v0", "right", name="right", age="right"),
                judgement("ben", "1v0", "wrong", name="right", age="missing"),
            ),
        ),
        Judged(sample_id="2v0", stratum=GOUT, judgements=(judgement("ada", "2v0", "right", name="right", age="right"),)),
        Judged(sample_id="3v0", stratum=BAD, judgements=(judgement("ada", "3v0", "right", name="right", age="right"),)),
    ]
    sizes = {GOUT: 10, BAD: 10}
    found = figures(rows, sizes, ("name", "age"), None)
    assert found["precision"]["whole"]["share"] == found["precision"]["fields"]["age"]["share"] == 0.75
    assert found["precision"]["fields"]["age"]["verdicts"] == {"missing": 1}
    assert found["disagreements"] == [{"sample_id": "1v0", "field": "age", "verdicts": {"ada": "right", "ben": "missing"}}]
    (pair,) = found["agreement"]
    assert (pair["rows"], pair["fields"]["judged"], pair["fields"]["raw"], pair["whole"]["raw"]) == (1, 2, 0.5, 0.0)
    assert pair["by_field"] == {
        "name": {"judged": 1, "raw": 1.0, "kappa": None},
        "age": {"judged": 1, "raw": 0.0, "kappa": 0.0},
    }
    assert found["recall_lost"]["share"] == round(10 / 17.5, 4)
    assert figures(rows, sizes, ("name", "age"), "ben")["precision"]["whole"]["share"] == 0.5
    more = "\n".join(shown("first", figures(rows, {**sizes, FLU: 7}, ("name",), None)))
    assert "(says nothing of 7 rows of topics not judged)" in more
    text = "\n".join(shown("first", found))
    assert "says nothing" not in text
    assert "recall lost to rejects: 57.1% of all right rows" in text and "ada and ben, 1 rows in common: fields 50.0%" in text
    assert "  least agreed on: age 0.0%, kappa 0.00" in shown("first", found)
    assert shown("first", figures([], sizes, ("name",), None)) == ["review first: 0 rows judged as a whole; judgements: none"]
