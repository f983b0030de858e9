"""Small multiples that share one time axis: panels as data, and the one drawing of them.

Everything that depends on time sits in a group of class `zx` (stretched when zooming) or carries `data-x` (moved), so
that the script of the HTML review can zoom without knowing what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from stormdrill.core import telling
from stormdrill.review.clock import Clock
from stormdrill.review.svg import Point, Range, Scale, band, line, number, spread, steps, tag, text, time_step

ALL = "all"
MarkKind = Literal["fault", "revert", "alert", "runbook", "guard", "phase"]


class Line(Struct, frozen=True):
    class_: str
    label: str
    """Written beside the line's last point; empty: none."""
    points: tuple[Point, ...]
    group: str = ALL
    """The tier that it shows; others than `all` are drawn hidden, for the filter."""
    edges_ms: tuple[float, ...] = ()
    """For a staircase: one more than points."""


class Band(Struct, frozen=True):
    class_: str
    points: tuple[Range, ...]
    group: str = ALL


class Rule(Struct, frozen=True):
    """A limit over the window in which it was asked, and what was measured there with its interval."""

    from_ms: float
    to_ms: float
    limit: float
    label: str
    verdict: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None


class Panel(Struct, frozen=True):
    name: str
    title: str
    unit: str
    alt: str
    height: float
    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]
    bands: tuple[Band, ...] = ()
    rules: tuple[Rule, ...] = ()
    tier: str = ""
    """Set when the whole panel is about one tier."""


class Mark(Struct, frozen=True):
    """A numbered event on the time axis."""

    seq: int
    at_ms: float
    kind: MarkKind
    text: str


class Phase(Struct, frozen=True):
    name: str
    start_ms: float
    end_ms: float


class Chart(Struct, frozen=True):
    title: str
    alt: str
    panels: tuple[Panel, ...]
    phases: tuple[Phase, ...]
    marks: tuple[Mark, ...]
    start_ms: float
    end_ms: float
    clock: Clock


class Size(Struct, frozen=True):
    """One drawing's proportions, in the units of its view box."""

    name: str
    width: float
    left: float
    right: float
    ticks: int

    @property
    def plot_right(self) -> float:
        return self.width - self.right


WIDE = Size("wide", 960, 58, 92, 10)
NARROW = Size("narrow", 420, 46, 62, 4)
_LANE = 19.0
_TITLE = 17.0
_GAP = 13.0
_CHARACTER = 6.6


def draw(chart: Chart, size: Size, *, prefix: str, style: str = "", links: bool = True, filters: bool = True) -> str:
    """The chart as one SVG element. `style` makes it stand alone; `filters` adds the hidden lines of each tier."""
    longest = max((len(item.label) for panel in chart.panels for item in panel.lines), default=0)
    size = replace(size, right=min(max(size.right, longest * _CHARACTER + 10), size.width / 4))
    x = Scale(chart.start_ms, chart.end_ms, size.left, size.plot_right)
    lanes = _lanes(chart.marks, x)
    lane_count = max(lanes, default=-1) + 1
    top = 20.0 + lane_count * _LANE + 4
    tops: list[float] = []
    bottom = top
    for panel in chart.panels:
        tops.append(bottom + _TITLE)
        bottom += _TITLE + panel.height + _GAP
    height = bottom + 22
    plots = [_panel(panel, at, x, size, prefix, filters) for panel, at in zip(chart.panels, tops, strict=True)]
    clip = tag("rect", x=size.left, y=0, width=size.plot_right - size.left, height=height)
    body = [
        tag("title", escape(chart.title), id=f"{prefix}-title"),
        tag("desc", escape(chart.alt), id=f"{prefix}-desc"),
        tag("style", style) if style else "",
        tag("defs", tag("clipPath", clip, id=f"{prefix}-clip")),
        tag("rect", class_="paper", width=size.width, height=height) if style else "",
        _phases(chart.phases, x, top - 4, bottom - _GAP, prefix),
        _axis(chart, x, size, tops, bottom - _GAP),
        *plots,
        _marks(chart.marks, lanes, x, bottom - _GAP, links),
        tag("line", class_="cross", x1=0, x2=0, y1=top - 4, y2=bottom - _GAP, visibility="hidden"),
    ]
    return tag(
        "svg",
        body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(size.width)} {number(height)}",
        class_=f"chart {size.name}",
        role="group" if links else "img",
        aria_labelledby=f"{prefix}-title {prefix}-desc",
        data_start=number(chart.start_ms, 3),
        data_end=number(chart.end_ms, 3),
        data_utc=number(chart.clock.utc_ms_of(chart.start_ms), 3),
        data_left=size.left,
        data_right=size.plot_right,
        data_axis=bottom - _GAP,
        data_ticks=size.ticks,
    )


def _moved(px: float, content: str, class_: str = "mv", until: float | None = None) -> str:
    """What keeps its shape when zooming. With `until` it stays in sight while any of [px, until] is."""
    return tag("g", content, class_=class_, data_x=px, data_until=until, transform=f"translate({number(px)},0)")


def _stretched(content: str, prefix: str) -> str:
    return tag("g", tag("g", content, class_="zx"), clip_path=f"url(#{prefix}-clip)")


def _phases(phases: Sequence[Phase], x: Scale, top: float, bottom: float, prefix: str) -> str:
    shades, names, last_px = [], [], float("-inf")
    for index, phase in enumerate(phases):
        left, right = x(phase.start_ms), x(phase.end_ms)
        shades.append(tag("rect", class_=f"ph ph-{phase.name}", x=left, y=14, width=right - left, height=bottom - 14))
        if index:
            shades.append(tag("path", class_="edge", d=f"M{number(left)},14V{number(bottom)}"))
        name = telling.phase(phase.name)
        wide = len(name) * _CHARACTER + 6
        if right - left >= wide and left >= last_px:
            names.append(_moved(left, text(name, 3, 11, "phase"), until=right))
            last_px = left + wide
    return _stretched("".join(shades), prefix) + "".join(names)


def _lanes(marks: Sequence[Mark], x: Scale) -> list[int]:
    """Which lane each mark is drawn in, so that none covers another."""
    ends: list[float] = []
    found: list[int] = []
    for mark in marks:
        half = _half_width(mark)
        start, end = x(mark.at_ms) - half, x(mark.at_ms) + half
        lane = next((index for index, used in enumerate(ends) if used + 2 <= start), len(ends))
        if lane == len(ends):
            ends.append(end)
        ends[lane] = end
        found.append(lane)
    return found


def _half_width(mark: Mark) -> float:
    return (len(str(mark.seq)) * _CHARACTER + 9) / 2


def _marks(marks: Sequence[Mark], lanes: Sequence[int], x: Scale, bottom: float, links: bool) -> str:
    found = []
    for mark, lane in zip(marks, lanes, strict=True):
        half, y = _half_width(mark), 20 + lane * _LANE
        content = [
            tag("path", class_="stem", d=f"M0,{number(y + 16)}V{number(bottom)}"),
            tag("rect", class_="flag", x=-half, y=y, width=2 * half, height=16, rx=8),
            text(str(mark.seq), 0, y + 12, "flag-n"),
        ]
        title = tag("title", escape(f"#{mark.seq} {mark.text}"))
        inner = tag("a", [title, *content], href=f"#t{mark.seq}") if links else "".join([title, *content])
        found.append(_moved(x(mark.at_ms), inner, f"mv mark mk-{mark.kind}"))
    return "".join(found)


def _axis(chart: Chart, x: Scale, size: Size, tops: Sequence[float], bottom: float) -> str:
    span_s = (chart.end_ms - chart.start_ms) / 1000.0
    step_s = time_step(span_s, size.ticks)
    first = chart.clock.utc_ms_of(chart.start_ms)
    at = -(-first // (step_s * 1000)) * step_s * 1000
    found = []
    while at <= first + (chart.end_ms - chart.start_ms):
        label = chart.clock.clock_text(at, step_s)
        px = x(chart.start_ms + at - first)
        content = tag("path", class_="grid", d=f"M0,{number(tops[0] if tops else bottom)}V{number(bottom)}")
        found.append(_moved(px, content + text(label, 0, bottom + 15, "tick mid"), "mv time"))
        at += step_s * 1000
    return "".join(found)


def _panel(panel: Panel, top: float, x: Scale, size: Size, prefix: str, filters: bool) -> str:
    y = Scale(panel.low, panel.high, top + panel.height, top, panel.log)
    left, right = number(size.left), number(size.plot_right)
    grid = []
    for value, label in panel.ticks:
        grid.append(tag("path", class_="grid", d=f"M{left},{number(y(value))}H{right}"))
        grid.append(text(label, size.left - 5, y(value) + 4, "tick end"))
    shapes = []
    for shade in panel.bands:
        if shade.group in (ALL, panel.tier) or filters:
            shapes.append(band(shade.points, x, y, shade.class_, data_group=shade.group))
    for item in panel.lines:
        if item.group not in (ALL, panel.tier) and not filters:
            continue
        values = [value for _, value in item.points]
        drawn = (
            steps(item.edges_ms, values, x, y, item.class_, data_group=item.group)
            if item.edges_ms
            else line(item.points, x, y, item.class_, data_group=item.group)
        )
        shapes.append(drawn)
    rules, rule_names = _rules(panel, x, y, size)
    title = f"{panel.title}, {panel.unit}" if panel.unit else panel.title
    names = _labels(panel, y, size, filters)
    return tag(
        "g",
        [
            tag("desc", escape(panel.alt)),
            text(title, size.left, top - 5, "panel"),
            *grid,
            _stretched("".join(shapes) + rules, prefix),
            *rule_names,
            *names,
        ],
        class_=f"panel-{panel.name}",
        role="img",
        aria_label=f"{title}. {panel.alt}",
        data_tier=panel.tier or None,
        data_hidden="off" if not filters else None,
    )


def _labels(panel: Panel, y: Scale, size: Size, filters: bool) -> list[str]:
    """Names beside the lines' ends, pushed apart where they would overlap; each tier's own, for the filter."""
    found: list[str] = []
    for group in dict.fromkeys(item.group for item in panel.lines):
        if group not in (ALL, panel.tier) and not filters:
            continue
        ends = []
        for item in panel.lines:
            last = next((value for _, value in reversed(item.points) if value is not None), None)
            if item.group == group and item.label and last is not None:
                ends.append((y(last) + 4, item))
        low, high = y.to_px + 4, y.from_px + 4
        for at, (_, item) in zip(spread([place for place, _ in ends], 12.5, low, high), ends, strict=True):
            found.append(text(item.label, size.plot_right + 5, at, f"name {item.class_}", data_group=group))
    return found


def _rules(panel: Panel, x: Scale, y: Scale, size: Size) -> tuple[str, list[str]]:
    shapes, names = [], []
    taken: list[tuple[float, float, float]] = []
    for rule in panel.rules:
        left, right = x(rule.from_ms), x(rule.to_ms)
        at = y(rule.limit)
        shapes.append(tag("path", class_="limit", d=f"M{number(left)},{number(at)}H{number(right)}"))
        if rule.low is not None and rule.high is not None:
            upper, lower = y(rule.high), y(rule.low)
            box = f"M{number(left)},{number(upper)}H{number(right)}V{number(max(lower, upper + 1))}H{number(left)}Z"
            shapes.append(tag("path", class_="interval", d=box))
        if rule.value is not None:
            shapes.append(tag("path", class_="measured", d=f"M{number(left)},{number(y(rule.value))}H{number(right)}"))
        wide = len(rule.label) * 5.8
        start = min(left + 3, size.plot_right - wide)
        baseline = at - 4 if at - 14 > y.to_px else at + 12
        while any(abs(baseline - row) < 11 and start < end and start + wide > begin for row, begin, end in taken):
            baseline += 11
        taken.append((baseline, start, start + wide))
        names.append(_moved(start, text(rule.label, 0, baseline, "limit-n"), until=right))
    return "".join(shapes), names
