"""What a review says of all rows, from the few that people judged: precision, recall lost to rejects, agreement of reviewers.

A stratum h (topic x accepted or rejected) has N_h rows, of which n_h were judged, so each of these stands for N_h / n_h. A share
is the stratified mean p = sum(N_h p_h) / sum(N_h) over the strata with judged rows (Cochran, Sampling Techniques, 1977, section
5.3). Where several people judged a row, each of their verdicts counts as an equal part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import sqrt
from typing import Any

from medkd.quality.judgements import RIGHT, Judgement, counted
from medkd.quality.strata import ACCEPTED, REJECTED, Stratum

_Z = 1.959964  # of a two-sided 95% interval

_LEAST_AGREED = 3

Unit = tuple[Stratum, float]
"""A judged row's stratum, and how right it is, from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share with its 95% interval; judged: rows it rests on; covered: rows of the strata they are from."""

    share: float
    low: float
    high: float
    judged: int
    covered: int


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A row of the sample with all judgements of it."""

    sample_id: str
    stratum: Stratum
    judgements: tuple[Judgement, ...]


def wilson(share: float, number: float) -> tuple[float, float]:
    """The 95% interval of a share of `number` draws (Wilson, JASA 22, 1927, page 209):

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n). Unlike p -+ z sqrt(p(1-p)/n) it has a width at 0 and at 1.
    """
    whole = 1 + _Z**2 / number
    middle = (share + _Z**2 / (2 * number)) / whole
    half = _Z * sqrt(share * (1 - share) / number + _Z**2 / (4 * number**2)) / whole
    return max(0.0, middle - half), min(1.0, middle + half)


def weighted_share(units: Sequence[Unit], sizes: Mapping[Stratum, int]) -> Share | None:
    """The share over all rows of the units' strata; None without units.

    The interval is Wilson's at the effective number of draws (sum w)^2 / sum w^2 (Kish, Survey Sampling, 1965, section 11.7),
    which takes account of unequal weights and takes no credit for stratification or for a sample that is a large part of all.
    """
    if not units:
        return None
    judged = Counter(stratum for stratum, _ in units)
    weights = [sizes[stratum] / judged[stratum] for stratum, _ in units]
    share = sum(weight * value for weight, (_, value) in zip(weights, units, strict=True)) / sum(weights)
    low, high = wilson(min(1.0, share), sum(weights) ** 2 / sum(weight**2 for weight in weights))
    covered = sum(sizes[stratum] for stratum in judged)
    return Share(share=round(share, 4), low=round(low, 4), high=round(high, 4), judged=len(units), covered=covered)


def recall_lost(accepted: Share, rejected: Share, num_accepted: int, num_rejected: int) -> dict[str, float] | None:
    """Of all rows that are right, the share that was rejected; None where none is right.

    R r / (R r + A a), with A and R the numbers of accepted and rejected rows and a and r the shares that are right. The interval
    goes from the lower end of r with the upper end of a to the reverse: both at once are less likely than either, so it is wider
    than 95%.
    """

    def lost(right_of_rejected: float, right_of_accepted: float) -> float:
        right = num_rejected * right_of_rejected
        whole = right + num_accepted * right_of_accepted
        return round(right / whole, 4) if whole else 0.0

    if not num_rejected * rejected.share + num_accepted * accepted.share:
        return None
    return {
        "share": lost(rejected.share, accepted.share),
        "low": lost(rejected.low, accepted.high),
        "high": lost(rejected.high, accepted.low),
    }


def agreement(verdicts: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """How far two reviewers agree: raw, and beyond chance, kappa = (p_o - p_e) / (1 - p_e) with p_e = sum_k p_1k p_2k (Cohen,
    Educational and Psychological Measurement 20, 1960); kappa is None where both always say the same one thing.
    """
    number = len(verdicts)
    if not number:
        return {"judged": 0, "raw": None, "kappa": None}
    raw = sum(one == other for one, other in verdicts) / number
    first, second = Counter(one for one, _ in verdicts), Counter(other for _, other in verdicts)
    chance = sum(first[word] * second[word] for word in first) / number**2
    kappa = None if chance == 1 else round((raw - chance) / (1 - chance), 4)
    return {"judged": number, "raw": round(raw, 4), "kappa": kappa}


def figures(
    rows: Sequence[Judged], sizes: Mapping[Stratum, int], leaves: Sequence[str], adjudicator: str | None
) -> dict[str, Any]:
    """All that one review says, ready for JSON. sizes: rows of each stratum, judged or not."""
    used = [(row.stratum, counted(row.judgements, adjudicator)) for row in rows]
    of_status = {
        status: [(stratum, found) for stratum, found in used if stratum.status == status] for status in (ACCEPTED, REJECTED)
    }
    totals = {status: sum(size for stratum, size in sizes.items() if stratum.status == status) for status in of_status}
    whole = {status: weighted_share(_whole(found), sizes) for status, found in of_status.items()}
    accepted, rejected = whole[ACCEPTED], whole[REJECTED]
    return {
        "rows": totals,
        "judged": sum(any(one.whole is not None for one in found) for _, found in used),
        "reviewers": dict(sorted(Counter(one.reviewer for row in rows for one in row.judgements).items())),
        "precision": {
            "whole": accepted and asdict(accepted),
            "fields": {path: _field(path, of_status[ACCEPTED], sizes) for path in leaves},
        },
        "rejects_right": rejected and asdict(rejected),
        "recall_lost": accepted and rejected and recall_lost(accepted, rejected, totals[ACCEPTED], totals[REJECTED]),
        "agreement": _agreements(rows, leaves),
        "disagreements": _disagreements(rows),
    }


def _whole(rows: Iterable[tuple[Stratum, Sequence[Judgement]]]) -> list[Unit]:
    ended = [(stratum, [one.whole == RIGHT for one in found if one.whole is not None]) for stratum, found in rows]
    return [(stratum, sum(right) / len(right)) for stratum, right in ended if right]


def _field(path: str, rows: Sequence[tuple[Stratum, Sequence[Judgement]]], sizes: Mapping[Stratum, int]) -> dict[str, Any] | None:
    """The share of rows that are right in the field, and how many verdicts say what else."""
    said = [(stratum, [one.verdicts[path] for one in found if path in one.verdicts]) for stratum, found in rows]
    share = weighted_share([(stratum, verdicts.count(RIGHT) / len(verdicts)) for stratum, verdicts in said if verdicts], sizes)
    others = Counter(verdict for _, verdicts in said for verdict in verdicts if verdict != RIGHT)
    return {**asdict(share), "verdicts": dict(sorted(others.items()))} if share else None


def _agreements(rows: Sequence[Judged], leaves: Sequence[str]) -> list[dict[str, Any]]:
    """By pair of reviewers: verdicts of all fields and of each, and whether rows are right as a whole."""
    fields: dict[tuple[str, str], dict[str, list[tuple[str, str]]]] = {}
    whole: dict[tuple[str, str], list[tuple[str, str]]] = {}
    shared: Counter[tuple[str, str]] = Counter()
    for row in rows:
        for one, other in combinations(sorted(row.judgements, key=lambda judgement: judgement.reviewer), 2):
            pair = one.reviewer, other.reviewer
            shared[pair] += 1
            for path in one.verdicts:
                if path in other.verdicts:
                    said = one.verdicts[path], other.verdicts[path]
                    fields.setdefault(pair, {}).setdefault(path, []).append(said)
            if one.whole and other.whole:
                whole.setdefault(pair, []).append((one.whole, other.whole))
    return [
        {
            "reviewers": list(pair),
            "rows": shared[pair],
            "fields": agreement([said for of_field in fields.get(pair, {}).values() for said in of_field]),
            "by_field": {path: agreement(fields[pair][path]) for path in leaves if path in fields.get(pair, ())},
            "whole": agreement(whole.get(pair, [])),
        }
        for pair in sorted(shared)
    ]


def _disagreements(rows: Sequence[Judged]) -> list[dict[str, Any]]:
    """Fields of rows on which reviewers have different verdicts."""
    found: list[dict[str, Any]] = []
    for row in rows:
        paths = dict.fromkeys(path for one in row.judgements for path in one.verdicts)
        for path in paths:
            said = {one.reviewer: one.verdicts[path] for one in row.judgements if path in one.verdicts}
            if len(set(said.values())) > 1:
                found.append({"sample_id": row.sample_id, "field": path, "verdicts": dict(sorted(said.items()))})
    return found


def shown(name: str, found: Mapping[str, Any]) -> list[str]:
    """The figures of one review as lines for a terminal."""
    reviewers = ", ".join(f"{who} {count:,}" for who, count in found["reviewers"].items())
    lines = [f"review {name}: {found['judged']:,} rows judged as a whole; judgements: {reviewers or 'none'}"]
    precision = found["precision"]
    if precision["whole"]:
        of_rows = f"of {found['rows'][ACCEPTED]:,} accepted rows"
        lines += ["", f"{'precision ' + of_rows:<40} {'right':>7}   95% interval      judged  else"]
        unknown = found["rows"][ACCEPTED] - precision["whole"]["covered"]
        lines.append(
            _line("whole row", precision["whole"], f"(says nothing of {unknown:,} rows of topics not judged)" * bool(unknown))
        )
        for path, one in precision["fields"].items():
            if one:
                lines.append(_line(path, one, ", ".join(f"{count:,} {word}" for word, count in one["verdicts"].items())))
    if found["rejects_right"]:
        lines += ["", _line(f"rejects that were right, of {found['rows'][REJECTED]:,}", found["rejects_right"], "")]
    if found["recall_lost"]:
        lost = found["recall_lost"]
        lines.append(f"recall lost to rejects: {lost['share']:.1%} of all right rows ({lost['low']:.1%} to {lost['high']:.1%})")
    for pair in found["agreement"]:
        lines.append(
            f"{' and '.join(pair['reviewers'])}, {pair['rows']:,} rows in common: {_agreed('fields', pair['fields'])}; "
            f"{_agreed('whole rows', pair['whole'])}"
        )
        lowest = sorted(pair["by_field"].items(), key=lambda item: item[1]["raw"])[:_LEAST_AGREED]
        doubted = [_agreed(path, field) for path, field in lowest if field["raw"] < 1]
        lines += [f"  least agreed on: {'; '.join(doubted)}"] if doubted else []
    return lines


def _line(name: str, one: Mapping[str, Any], rest: str) -> str:
    interval = f"{one['low']:.1%} to {one['high']:.1%}"
    return f"{name:<40} {one['share']:>7.1%}   {interval:<16} {one['judged']:>7,}  {rest}".rstrip()


def _agreed(what: str, found: Mapping[str, Any]) -> str:
    if not found["judged"]:
        return f"no {what}"
    kappa = "-" if found["kappa"] is None else f"{found['kappa']:.2f}"
    return f"{what} {found['raw']:.1%}, kappa {kappa}"
