"""One quantity over another that isn't time: what a system does as more is asked of it. Plots as data, and drawn.

They share the story's colours and fonts (`chart.css`), so that one drawing follows light, dark and print.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from msgspec import Struct

from stormdrill.review.svg import Point, Range, Scale, band, line, number, spread, tag, text, ticks

WIDTH, HEIGHT = 460.0, 280.0
_LEFT, _TOP, _BOTTOM = 52.0, 30.0, 40.0
_CHARACTER = 6.6
_LABEL_GAP = 12.5
_HEADROOM = 1.08
_ROW = 24.0
_LEAST_RANGE = 0.1
"""Of a bar's axis: so that 1.001 doesn't look like much."""


class Curve(Struct, frozen=True):
    """A line through measured points, in the order in which they are given."""

    class_: str
    label: str
    """Written beside its last point; empty: none."""
    points: tuple[Point, ...]
    interval: tuple[Range, ...] = ()
    dots: bool = True
    arrows: bool = False
    """Whether the order of the points is what it tells: a loop that is gone through one way up and another down."""


class Mark(Struct, frozen=True):
    """A straight line across the plot, with its name: a capacity, a limit."""

    at: float
    label: str
    upright: bool
    """True: at a value of the horizontal axis."""


class Plot(Struct, frozen=True):
    name: str
    """The file's, without its ending."""
    title: str
    across: str
    """What the horizontal axis shows, with its unit."""
    up: str
    curves: tuple[Curve, ...]
    marks: tuple[Mark, ...] = ()
    alt: str = ""
    """In words what it shows, with the figures."""
    diagonal: str = ""
    """Label of the line where both axes are equal; empty: none is drawn."""
    top: float | None = None
    """Upper end of the vertical axis; from the values when left out."""
    start: float = 0.0
    """Where the horizontal axis begins."""


class Bar(Struct, frozen=True):
    label: str
    value: float
    low: float
    high: float
    told: str
    """Written behind it."""


class Bars(Struct, frozen=True):
    """One number each of a few things that stand in an order."""

    name: str
    title: str
    bars: tuple[Bar, ...]
    base: float
    """Where a bar begins: nothing has happened there."""
    alt: str


def draw(plot: Plot, *, prefix: str, style: str = "") -> str:
    """The plot as one SVG element. `style` makes it stand alone."""
    right = _LEFT + max(WIDTH - _LEFT - _margin(plot), WIDTH / 2)
    x = Scale(plot.start, _end(_values(plot, upright=True)), _LEFT, right)
    y = Scale(0.0, plot.top or _end(_values(plot, upright=False)), HEIGHT - _BOTTOM, _TOP)
    body = [
        tag("title", escape(plot.title), id=f"{prefix}-title"),
        tag("desc", escape(plot.alt), id=f"{prefix}-desc"),
        tag("style", style) if style else "",
        tag("rect", class_="paper", width=WIDTH, height=HEIGHT) if style else "",
        text(plot.title, _LEFT, 12, "panel"),
        text(plot.up, _LEFT, _TOP - 5, "tick"),
        text(plot.across, right, HEIGHT - 6, "tick end"),
        *_grid(x, y),
        _diagonal(plot, x, y),
        *(_curve(curve, x, y) for curve in plot.curves),
        *_marks(plot.marks, x, y),
        *_names(plot.curves, y, right),
    ]
    return tag(
        "svg",
        body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(WIDTH)} {number(HEIGHT)}",
        class_="chart plot",
        role="img",
        aria_labelledby=f"{prefix}-title {prefix}-desc",
    )


def draw_bars(plot: Bars, prefix: str, style: str = "") -> str:
    """As `draw`: the bars below one another, each with its interval and what is told of it."""
    height = _TOP + len(plot.bars) * _ROW + 8
    left = _LEFT + max(len(bar.label) for bar in plot.bars) * _CHARACTER
    right = WIDTH - max(len(bar.told) for bar in plot.bars) * _CHARACTER - 8
    top = max(max(bar.high, bar.value) for bar in plot.bars)
    x = Scale(plot.base, max(top, plot.base + _LEAST_RANGE), left, max(right, left + 60))
    body = [
        tag("title", escape(plot.title), id=f"{prefix}-title"),
        tag("desc", escape(plot.alt), id=f"{prefix}-desc"),
        tag("style", style) if style else "",
        tag("rect", class_="paper", width=WIDTH, height=height) if style else "",
        text(plot.title, 8, 14, "panel"),
    ]
    for index, bar in enumerate(plot.bars):
        middle = _TOP + (index + 0.5) * _ROW
        body += [
            text(bar.label, left - 6, middle + 4, "tick end"),
            tag("rect", class_="bar", x=left, y=middle - 6, width=max(x(bar.value) - left, 1.0), height=12),
            tag("path", class_="measured", d=f"M{number(x(bar.low))},{number(middle)}H{number(x(bar.high))}"),
            text(bar.told, x(max(bar.high, bar.value)) + 6, middle + 4, "tick"),
        ]
    return tag(
        "svg",
        body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(WIDTH)} {number(height)}",
        class_="chart plot",
        role="img",
        aria_labelledby=f"{prefix}-title {prefix}-desc",
    )


def _margin(plot: Plot) -> float:
    return max((len(curve.label) for curve in plot.curves), default=0) * _CHARACTER + 14


def _values(plot: Plot, *, upright: bool) -> list[float]:
    found = [mark.at for mark in plot.marks if mark.upright == upright]
    for curve in plot.curves:
        if upright:
            found += [at for at, value in curve.points if value is not None]
        else:
            found += [value for _, value in curve.points if value is not None]
            found += [high for _, _, high in curve.interval if high is not None]
    return found


def _end(values: Sequence[float]) -> float:
    return max([*values, 1e-9]) * _HEADROOM


def _grid(x: Scale, y: Scale) -> list[str]:
    found = []
    for mark in ticks(y.low, y.high):
        found.append(tag("path", class_="grid", d=f"M{number(x.from_px)},{number(y(mark))}H{number(x.to_px)}"))
        found.append(text(number(mark, 3), x.from_px - 5, y(mark) + 4, "tick end"))
    for mark in ticks(x.low, x.high, 6):
        found.append(tag("path", class_="grid", d=f"M{number(x(mark))},{number(y.from_px)}V{number(y.to_px)}"))
        found.append(text(number(mark, 3), x(mark), y.from_px + 14, "tick mid"))
    return found


def _diagonal(plot: Plot, x: Scale, y: Scale) -> str:
    if not plot.diagonal:
        return ""
    end = min(x.high, y.high)
    drawn = tag("path", class_="l-asked", d=f"M{number(x(0))},{number(y(0))}L{number(x(end))},{number(y(end))}")
    return drawn + text(plot.diagonal, x(end * 0.55) + 6, y(end * 0.55) + 12, "tick")


def _curve(curve: Curve, x: Scale, y: Scale) -> str:
    shapes = [band(curve.interval, x, y, "interval") if curve.interval else "", line(curve.points, x, y, curve.class_)]
    seen = [(x(at), y(value)) for at, value in curve.points if value is not None]
    if curve.dots:
        shapes += [tag("circle", class_=f"dot {curve.class_}", cx=px, cy=py, r=2.6) for px, py in seen]
    if curve.arrows:
        shapes += [_arrow(before, after, curve.class_) for before, after in pairwise(seen)]
    return tag("g", shapes)


def _arrow(before: tuple[float, float], after: tuple[float, float], class_: str) -> str:
    """A small head in the middle of the way from one point to the next."""
    across, up = after[0] - before[0], after[1] - before[1]
    length = (across**2 + up**2) ** 0.5
    if length < 14:
        return ""
    ux, uy = across / length, up / length
    mx, my = (before[0] + after[0]) / 2, (before[1] + after[1]) / 2
    one = f"{number(mx - 4 * ux + 3 * uy)},{number(my - 4 * uy - 3 * ux)}"
    other = f"{number(mx - 4 * ux - 3 * uy)},{number(my - 4 * uy + 3 * ux)}"
    return tag("path", class_=f"{class_} head", d=f"M{one}L{number(mx + 3 * ux)},{number(my + 3 * uy)}L{other}")


def _marks(marks: Sequence[Mark], x: Scale, y: Scale) -> list[str]:
    found = []
    for mark in marks:
        if mark.upright:
            at = x(mark.at)
            found.append(tag("path", class_="limit", d=f"M{number(at)},{number(y.from_px)}V{number(y.to_px)}"))
            late = at + len(mark.label) * 5.8 > x.to_px
            found.append(
                text(mark.label, at - 4 if late else at + 4, y.to_px + 10, "limit-n end" if late else "limit-n")
            )
        else:
            at = y(mark.at)
            found.append(tag("path", class_="limit", d=f"M{number(x.from_px)},{number(at)}H{number(x.to_px)}"))
            found.append(text(mark.label, x.from_px + 4, at - 4 if at - 14 > y.to_px else at + 12, "limit-n"))
    return found


def _names(curves: Sequence[Curve], y: Scale, right: float) -> list[str]:
    ends = []
    for curve in curves:
        last = next((value for _, value in reversed(curve.points) if value is not None), None)
        if curve.label and last is not None:
            ends.append((y(last) + 4, curve))
    places = spread([at for at, _ in ends], _LABEL_GAP, y.to_px + 4, y.from_px + 4)
    return [text(item.label, right + 5, at, f"name {item.class_}") for at, (_, item) in zip(places, ends, strict=True)]
