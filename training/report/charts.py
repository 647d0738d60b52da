"""Curves as SVG. Colours are CSS variables of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 26
MOST = 1500
"""Points drawn of a curve."""

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve."""

    name: str
    points: Sequence[Point]
    colour: str
    """Of a variable of the page: "a", "b", ..."""
    style: Literal["line", "faint", "dashed", "dotted"] = "line"
    band: Sequence[tuple[float, float, float]] = ()
    """x, low, high: drawn behind it."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves over steps."""

    title: str
    note: str
    """What it means, in a sentence."""
    series: Sequence[Series]
    marks: Sequence[tuple[float, str]] = ()
    """Vertical lines: step and label."""
    zero: bool = False
    """The axis of values contains 0."""
    last: float = 0
    """The last step of the axis, if the curves end before it."""


@dataclass(frozen=True, kw_only=True)
class Axes:
    """From values to pixels."""

    low: Point
    high: Point

    def at(self, point: Point) -> str:
        """ "x,y"."""
        return f"{self.x(point[0]):.1f},{self.y(point[1]):.1f}"

    def x(self, value: float) -> float:
        """Of a step."""
        return LEFT + (value - self.low[0]) / (self.high[0] - self.low[0]) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Of a value."""
        return HEIGHT - BOTTOM - (value - self.low[1]) / (self.high[1] - self.low[1]) * (HEIGHT - TOP - BOTTOM)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two others: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Short: 12k, 0.25, 3e-05."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:g}"


def axes(chart: Chart) -> Axes:
    """Around all curves, with some air."""
    xs = [x for one in chart.series for x, _ in one.points]
    bounds = [y for one in chart.series for _, *ends in one.band for y in ends]
    ys = [y for y in [*bounds, *(y for one in chart.series for _, y in one.points)] if math.isfinite(y)] or [0.0]
    low, high = min(ys), max(ys)
    if chart.zero:
        low, high = min(low, 0.0), max(high, 0.0)
    air = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    right = max([*xs, chart.last, 1.0])
    return Axes(low=(0.0, low if chart.zero and low == 0 else low - air), high=(right, high + air))


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Means of neighbours where there are more than can be seen."""
    size = -(-len(points) // MOST)
    groups = [points[start : start + size] for start in range(0, len(points), size)] if points else []
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def grid(space: Axes) -> list[str]:
    """Lines and numbers of both axes."""
    parts: list[str] = []
    for value in ticks(space.low[1], space.high[1]):
        y = space.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    for value in ticks(space.low[0], space.high[0], 6):
        middle = f'x="{space.x(value):.1f}" y="{HEIGHT - 7}" text-anchor="middle"'
        parts.append(f'<text class="tick" {middle}>{number(value)}</text>')
    return parts


def curve(one: Series, space: Axes) -> list[str]:
    """A polyline, dots where they are few, and its band."""
    points = thinned([point for point in one.points if math.isfinite(point[1])])
    parts: list[str] = []
    if one.band:
        upper = [space.at((x, high)) for x, _, high in one.band]
        lower = [space.at((x, low)) for x, low, _ in reversed(one.band)]
        parts.append(f'<polygon class="band" fill="var(--{one.colour})" points="{" ".join([*upper, *lower])}"/>')
    path = " ".join(map(space.at, points))
    parts.append(f'<polyline class="{one.style}" stroke="var(--{one.colour})" points="{path}"/>')
    if one.style == "line" and len(points) <= 60:
        for x, y in points:
            title = f"<title>{escape(one.name)} {number(y)}, step {x:g}</title>"
            place = f'cx="{space.x(x):.1f}" cy="{space.y(y):.1f}"'
            parts.append(f'<circle r="2.6" fill="var(--{one.colour})" {place}>{title}</circle>')
    return parts


def mark(step: float, label: str, space: Axes) -> str:
    """A vertical line with its label on the side where there is room."""
    x = space.x(step)
    left = x > WIDTH * 0.7
    anchor = f'x="{x - 5 if left else x + 5:.1f}" y="{TOP + 10}" text-anchor="{"end" if left else "start"}"'
    line = f'<line class="mark" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>'
    return f'{line}<text class="label" {anchor}>{escape(label)}</text>'


def svg(chart: Chart) -> str:
    """A figure with title, legend and curves."""
    space = axes(chart)
    parts = grid(space)
    parts += [mark(step, label, space) for step, label in chart.marks]
    parts += [part for one in chart.series if one.points for part in curve(one, space)]
    legend = "".join(
        f'<span class="key {one.style}" style="--colour: var(--{one.colour})">{escape(one.name)}</span>'
        for one in chart.series
        if one.points
    )
    return (
        f"<figure><figcaption><b>{escape(chart.title)}</b><small>{escape(chart.note)}</small>"
        f'<span class="legend">{legend}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}">{"".join(parts)}</svg>'
        "</figure>"
    )
