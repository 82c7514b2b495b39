"""Geometry of the report's line chart: points and ticks in percent of the drawing area, ready for SVG and labels beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Point = tuple[float, float]

_MOST_POINTS = 300  # more than a screen shows; longer series are averaged in buckets
_LOGARITHMIC_FROM = 30.0  # ratio of largest to smallest value above which a linear axis would hide the end of training


@dataclass(frozen=True, kw_only=True)
class Line:
    """One series. path: points for an SVG polyline in a 100 x 100 box. last: its last value."""

    name: str
    path: str
    end: Point
    last: float
    lowest: float
    num_points: int


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over common axes; a tick is (percent from the left or the top, label)."""

    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    logarithmic: bool


def line_chart(series: Mapping[str, Sequence[Point]]) -> Chart | None:
    """The chart of these (x, y) series; values that are not finite are left out, None where nothing is left."""
    finite = {name: [point for point in points if all(map(math.isfinite, point))] for name, points in series.items()}
    drawn = {name: _thinned(points) for name, points in finite.items() if points}
    if not drawn:
        return None
    values = [y for points in drawn.values() for _, y in points]
    last_x = max(x for points in drawn.values() for x, _ in points)
    logarithmic = min(values) > 0 and max(values) / min(values) > _LOGARITHMIC_FROM
    ticks = _powers(min(values), max(values)) if logarithmic else _round_steps(0.0, max(values))
    low, high = _scaled(ticks[0], logarithmic), _scaled(ticks[-1], logarithmic)

    def place(point: Point) -> Point:
        return 100 * point[0] / (last_x or 1), 100 * (high - _scaled(point[1], logarithmic)) / ((high - low) or 1)

    lines = []
    for name, points in drawn.items():
        placed = [place(point) for point in points]
        lines.append(
            Line(
                name=name,
                path=" ".join(f"{x:.2f},{y:.2f}" for x, y in placed),
                end=placed[-1],
                last=finite[name][-1][1],
                lowest=min(y for _, y in finite[name]),
                num_points=len(finite[name]),
            )
        )
    return Chart(
        lines=tuple(lines),
        x_ticks=tuple((place((x, ticks[0]))[0], f"{x:,.0f}") for x in _round_steps(0.0, last_x, least=1.0) if x <= last_x),
        y_ticks=tuple((place((0.0, y))[1], f"{y:g}") for y in ticks),
        logarithmic=logarithmic,
    )


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most so many points that a screen can show, each the mean of its bucket; the first and the last stay."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    size = math.ceil(len(points) / (_MOST_POINTS - 2))
    buckets = [points[start : start + size] for start in range(1, len(points) - 1, size)]
    means = [(sum(x for x, _ in bucket) / len(bucket), sum(y for _, y in bucket) / len(bucket)) for bucket in buckets]
    return [points[0], *means, points[-1]]


def _scaled(value: float, logarithmic: bool) -> float:
    return math.log10(value) if logarithmic else value


def _powers(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [10.0**exponent for exponent in exponents]


def _round_steps(low: float, high: float, least: float = 0.0) -> list[float]:
    """About five round numbers, `least` apart at least, from `low` to the first one not below `high`."""
    if high <= low:
        return [low, low + 1]
    magnitude = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if (high - low) / (factor * magnitude) <= 5)
    step = max(step, least)
    return [low + number * step for number in range(math.ceil((high - low) / step - 1e-9) + 1)]
