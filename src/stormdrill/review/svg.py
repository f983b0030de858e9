"""The smallest SVG writer that the pictures need: elements, numbers, scales, ticks. Same input, same bytes.

Colours are CSS classes only, so that one drawing follows light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from msgspec import Struct

Point = tuple[float, float | None]
"""x, and y or None where there is a gap."""
Range = tuple[float, float | None, float | None]
"""x, low and high; None where there is a gap."""


def number(value: float, digits: int = 1) -> str:
    """A coordinate: at most `digits` decimals, no trailing zeros, never "-0"."""
    text = f"{value:.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def tag(name: str, children: str | Iterable[str] = "", **attributes: str | float | int | None) -> str:
    """One element; `class_` means class, `data_tier` data-tier, None leaves out. Children are SVG already."""
    parts = [name]
    for key, value in attributes.items():
        if value is None:
            continue
        text = number(value) if isinstance(value, float | int) else value
        parts.append(f'{key.rstrip("_").replace("_", "-")}="{escape(text)}"')
    inner = children if isinstance(children, str) else "".join(children)
    head = " ".join(parts)
    return f"<{head}>{inner}</{name}>" if inner else f"<{head}/>"


def text(content: str, x: float, y: float, class_: str, **attributes: str | float | int | None) -> str:
    return tag("text", escape(content), x=x, y=y, class_=class_, **attributes)


class Scale(Struct, frozen=True):
    """Maps data to pixels, linear or logarithmic. Values outside are clamped to the edge."""

    low: float
    high: float
    from_px: float
    to_px: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.from_px + min(1.0, max(0.0, share)) * (self.to_px - self.from_px)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers between `low` and `high`, roughly `about` of them."""
    if high <= low:
        return [low]
    raw = (high - low) / max(about, 1)
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 10, 100 …, and 3, 30, 300 … where decades alone would be too few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [10.0**decade * factor for decade in decades for factor in factors]
        inside = [value for value in found if low * 0.999 <= value <= high * 1.001]
        if len(inside) >= 3:
            return inside
    return inside


TIME_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


def time_step(span_s: float, about: int) -> float:
    """The step of a time axis whose labels fall on readable clock times."""
    return next((step for step in TIME_STEPS_S if span_s / step <= about), TIME_STEPS_S[-1])


def line(points: Sequence[Point], x: Scale, y: Scale, class_: str, data_group: str | None = None) -> str:
    """A polyline that stops at gaps; a lonely point becomes a short dash so that it is seen."""
    commands: list[str] = []
    run: list[tuple[float, float]] = []

    def flush() -> None:
        if len(run) == 1:
            commands.append(f"M{number(run[0][0] - 1)},{number(run[0][1])}h2")
        elif run:
            commands.append("M" + "L".join(f"{number(px)},{number(py)}" for px, py in run))
        run.clear()

    for at, value in points:
        if value is None:
            flush()
        else:
            run.append((x(at), y(value)))
    flush()
    return tag("path", d="".join(commands), class_=class_, data_group=data_group) if commands else ""


def steps(
    edges: Sequence[float],
    values: Sequence[float | None],
    x: Scale,
    y: Scale,
    class_: str,
    data_group: str | None = None,
) -> str:
    """A staircase: `values[i]` holds from `edges[i]` to `edges[i + 1]`."""
    points: list[Point] = []
    for index, value in enumerate(values):
        points += [(edges[index], value), (edges[index + 1], value)]
    return line(points, x, y, class_, data_group)


def band(points: Sequence[Range], x: Scale, y: Scale, class_: str, data_group: str | None = None) -> str:
    """The area between low and high, broken at gaps."""
    commands: list[str] = []
    run: list[tuple[float, float, float]] = []

    def flush() -> None:
        if len(run) > 1:
            upper = "L".join(f"{number(at)},{number(high)}" for at, _, high in run)
            lower = "L".join(f"{number(at)},{number(low)}" for at, low, _ in reversed(run))
            commands.append(f"M{upper}L{lower}Z")
        run.clear()

    for at, low, high in points:
        if low is None or high is None:
            flush()
        else:
            run.append((x(at), y(low), y(high)))
    flush()
    return tag("path", d="".join(commands), class_=class_, data_group=data_group) if commands else ""


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions as near to `wanted` as keeps them `gap` apart and inside [low, high]; for labels beside lines."""
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
    placed: list[float] = []
    for index in order:
        floor = placed[-1] + gap if placed else low
        placed.append(max(wanted[index], floor))
    ceiling = high
    for position in range(len(placed) - 1, -1, -1):
        placed[position] = min(placed[position], ceiling)
        ceiling = placed[position] - gap
    result = [0.0] * len(wanted)
    for position, index in enumerate(order):
        result[index] = placed[position]
    return result
