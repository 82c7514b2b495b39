"""What the report has to say of a review, counted again from the judgements and tables under the prefix."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

LEAVES_OF_A_ROW = 15
_Z = 1.959964
Unit = tuple[tuple[str, str], float]


class Review:
    """One review's rows with all that people said of them. adjudicator: whose word counts alone."""

    def __init__(self, root: Path, adjudicator: str | None) -> None:
        self.cases = {one["sample_id"]: one for one in _lines(root / "review/first/sample.jsonl")}
        said: dict[tuple[str, str], dict[str, Any]] = {}
        for path in sorted((root / "review/first/filled").iterdir()):
            said |= {(one["sample_id"], one["reviewer"]): one for one in _lines(path)}
        self.by_row = {sample_id: [one for (of, _), one in sorted(said.items()) if of == sample_id] for sample_id in self.cases}
        self.adjudicator = adjudicator
        self.sizes: Counter[tuple[str, str]] = Counter()
        for status, name in (("accepted", "samples"), ("rejected", "rejected")):
            for path in root.glob(f"generate/*/{name}.parquet"):
                self.sizes.update((status, topic) for topic in pq.read_table(path)["topic"].to_pylist())

    def counted(self, status: str) -> Iterator[tuple[tuple[str, str], list[dict[str, Any]]]]:
        for sample_id, said in self.by_row.items():
            case = self.cases[sample_id]
            if case["status"] == status:
                yield (status, case["about"]["topic"]), [one for one in said if one["reviewer"] == self.adjudicator] or said

    def total(self, status: str) -> int:
        return sum(size for (of, _), size in self.sizes.items() if of == status)

    def whole(self, status: str) -> Mapping[str, float]:
        said = [(stratum, [w for one in found if (w := whole(one)) is not None]) for stratum, found in self.counted(status)]
        return self.share([(stratum, sum(right) / len(right)) for stratum, right in said if right])

    def field(self, path: str) -> tuple[Mapping[str, float], Counter[str]]:
        said = [
            (stratum, [one["verdicts"][path] for one in found if path in one["verdicts"]])
            for stratum, found in self.counted("accepted")
        ]
        others = Counter(verdict for _, verdicts in said for verdict in verdicts if verdict != "right")
        return self.share([(stratum, verdicts.count("right") / len(verdicts)) for stratum, verdicts in said if verdicts]), others

    def share(self, units: Sequence[Unit]) -> Mapping[str, float]:
        drawn = Counter(stratum for stratum, _ in units)
        weights = [self.sizes[stratum] / drawn[stratum] for stratum, _ in units]
        share = sum(weight * right for weight, (_, right) in zip(weights, units, strict=True)) / sum(weights)
        number = sum(weights) ** 2 / sum(weight * weight for weight in weights)
        # Wilson's interval as the two solutions of (x - p)^2 = z^2 x (1 - x) / n.
        a, b, c = 1 + _Z**2 / number, 2 * share + _Z**2 / number, share**2
        root = max(0.0, b * b - 4 * a * c) ** 0.5
        low, high = max(0.0, (b - root) / (2 * a)), min(1.0, (b + root) / (2 * a))
        return {"share": round(share, 4), "low": round(low, 4), "high": round(high, 4), "judged": len(units)}


def whole(judgement: Mapping[str, Any]) -> bool | None:
    """Whether the row is right in every field; None where not all were judged and none is wrong."""
    verdicts = judgement["verdicts"].values()
    if any(verdict != "right" for verdict in verdicts):
        return False
    return True if len(verdicts) == LEAVES_OF_A_ROW else None


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def pieces_of(root: Path, leaves: Sequence[str], adjudicator: str | None) -> Counter[Any]:
    review = Review(root, adjudicator)
    said = [one for found in review.by_row.values() for one in found]
    who = sorted(Counter(one["reviewer"] for one in said).items())
    judged = sum(
        any(whole(one) is not None for one in found) for status in ("accepted", "rejected") for _, found in review.counted(status)
    )
    (identity,) = json.loads((root / "review/figures.json").read_text())["reviews"]
    accepted, rejected = review.whole("accepted"), review.whole("rejected")
    right = {status: review.total(status) * found["share"] for status, found in (("accepted", accepted), ("rejected", rejected))}
    lost = {
        "share": right["rejected"] / sum(right.values()),
        "low": _part(review.total("rejected") * rejected["low"], review.total("accepted") * accepted["high"]),
        "high": _part(review.total("rejected") * rejected["high"], review.total("accepted") * accepted["low"]),
    }
    pieces: Counter[Any] = Counter(
        [
            f"Review {identity}",
            f"{judged:,} rows judged as a whole. Judgements by {', '.join(f'{name}: {count:,}' for name, count in who)}. Shares "
            "are weighted to all rows of the topics that were judged.",
            ("", "share", "95% interval", "judged", "else"),
            _row(f"precision of {review.total('accepted'):,} accepted rows", accepted, f"{accepted['judged']:,}", ""),
            _row(f"rejects that were right, of {review.total('rejected'):,}", rejected, f"{rejected['judged']:,}", ""),
            _row("recall lost to rejects", lost, "", "of all right rows"),
            ("field", "right", "95% interval", "judged", "else"),
        ]
    )
    for path in leaves:
        found, others = review.field(path)
        rest = ", ".join(f"{count:,} {word}" for word, count in sorted(others.items()))
        pieces[_row(_words(path), found, f"{found['judged']:,}", rest)] += 1
    return pieces + _agreements(review, leaves)


def _agreements(review: Review, leaves: Sequence[str]) -> Counter[Any]:
    both = [found for found in review.by_row.values() if len(found) == 2]
    assert all({one["reviewer"] for one in found} == {"ada", "ben"} for found in both)
    by_field = {
        path: [[one["verdicts"][path] for one in found] for found in both if all(path in one["verdicts"] for one in found)]
        for path in leaves
    }
    everything = [pair for pairs in by_field.values() for pair in pairs]
    of_rows = [pair for found in both if None not in (pair := [whole(one) for one in found])]
    agreed, _ = kappa_of(everything)
    pieces: Counter[Any] = Counter([f"ada and ben, {len(both):,} rows in common: agree on {_percent(agreed)} of fields"])
    for title, pairs in (
        ("whole rows", of_rows),
        ("all fields", everything),
        *((_words(path), by_field[path]) for path in leaves),
    ):
        if pairs:
            raw, kappa = kappa_of(pairs)
            pieces[title, f"{len(pairs):,}", _percent(raw), "–" if kappa is None else f"{kappa:.2f}"] += 1
    return pieces


def kappa_of(pairs: Sequence[Sequence[Any]]) -> tuple[float, float | None]:
    """Agreement of two, and what of it is beyond chance."""
    number = len(pairs)
    raw = sum(one == other for one, other in pairs) / number
    words = {word for pair in pairs for word in pair}
    chance = sum(sum(one == word for one, _ in pairs) * sum(other == word for _, other in pairs) for word in words) / (
        number * number
    )
    return round(raw, 4), None if chance == 1 else round((raw - chance) / (1 - chance), 4)


def _part(one: float, other: float) -> float:
    return one / (one + other) if one + other else 0.0


def _row(title: str, found: Mapping[str, float], judged: str, rest: str) -> tuple[str, ...]:
    share, low, high = (round(found[name], 4) for name in ("share", "low", "high"))
    return title, _percent(share), f"{_percent(low)} to {_percent(high)}", judged, rest


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _words(path: str) -> str:
    return path.replace("[].", ", each: ").replace(".", ": ").replace("_", " ")
