"""λ(t) in letters: filled columns over an axis, phases and stages under it, and what it amounts to. No colour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from textwrap import wrap
from typing import NamedTuple

from stormdrill.api.demand import Shown
from stormdrill.cli import figures as say
from stormdrill.load.show import Figures, PartFigures
from stormdrill.model.profile import Stage
from stormdrill.model.units import show_duration

ROWS = 10
MARGIN = 11
"""Columns left of the curve: the rate's axis."""
EIGHTHS = " ▁▂▃▄▅▆▇█"
SHADES = "█▒░▓"
TICKS_APART = 11
GOOD_STEPS_S = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


class Letters(NamedTuple):
    """What a curve is drawn with."""

    tops: str
    """From nothing to a full letter; of a single demand."""
    shades: str
    """One for each demand of a sum, again from the first after the last."""
    upright: str
    tick: str
    corner: str
    level: str
    down: str


FINE = Letters(EIGHTHS, SHADES, "│", "┤", "└", "─", "┴")
PLAIN = Letters(" #", "#+.o", "|", "+", "+", "-", "+")


def letters_for(encoding: str) -> Letters:
    """Blocks and lines where they can be written, else what every terminal has."""
    try:
        (EIGHTHS + SHADES + "│┤└─┴λ×").encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return FINE


def columns_of(width: int) -> int:
    """How many columns the curve has on lines of this width."""
    return max(20, width - MARGIN - 2)


def curve_lines(shown: Shown, letters: Letters) -> list[str]:
    """The whole picture. `shown.figures` were made for as many parts as there are columns."""
    found = shown.figures
    if found is None or shown.profile is None:
        return [f"  {shown.title}: {shown.says}"]
    head = f"  {shown.title}"
    lines = [head, *([f"  {shown.says}"] if shown.says else []), ""]
    lines += [*_plot(found, letters), *_time_axis(found, letters)]
    strips = [("phases", [(one.name, one.start_s, one.end_s) for one in shown.phases])]
    strips += [_stretches(part.stages) for part in shown.profile.parts if part.stages]
    columns = len(found.parts[0].rates)
    lines += [
        f"  {label:<{MARGIN - 3}}{_strip(stretches, found.until_s, columns, letters)}"
        for label, stretches in strips
        if stretches
    ]
    lines += ["", *_amounts(found), *_parts(found, letters)]
    for part in shown.profile.parts:
        lines += _stages(part.stages, found.rate_per_s * part.weight, MARGIN + columns)
    return [*lines, *(f"  note      {note}" for note in shown.notes)]


def _plot(found: Figures, letters: Letters) -> list[str]:
    top = _good_top(max(sum(rates) for rates in zip(*(part.rates for part in found.parts), strict=True)))
    rows = []
    for row in range(ROWS, 0, -1):
        low, high = top * (row - 1) / ROWS, top * row / ROWS
        marked = row in (ROWS, ROWS // 2)
        label = say.rate(high) if marked else ""
        cells = "".join(_cell(rates, low, high, letters) for rates in zip(*(p.rates for p in found.parts), strict=True))
        edge = letters.tick if marked else letters.upright
        rows.append(f"{label:>{MARGIN - 2}} {edge}{cells}".rstrip())
    return rows


def _cell(rates: Sequence[float], low: float, high: float, letters: Letters) -> str:
    """The letter of one column between two rates: whose demand lies there, or how far the only one reaches."""
    if len(rates) == 1:
        share = (rates[0] - low) / (high - low)
        last = len(letters.tops) - 1
        full = min(last, max(0, round(share * last)))
        return letters.tops[max(full, 1) if rates[0] > 0 and low == 0 else full]
    middle, reached = (low + high) / 2, 0.0
    for index, rate in enumerate(rates):
        reached += rate
        if reached >= middle or (low == 0 and rate > 0 and reached > 0 and index == len(rates) - 1):
            return letters.shades[index % len(letters.shades)]
    return " "


def _good_top(highest: float) -> float:
    """The least round number that is no lower: so that the axis reads 150 and not 146.3."""
    if highest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * power >= highest * 0.9999)


def _time_axis(found: Figures, letters: Letters) -> list[str]:
    columns = len(found.parts[0].rates)
    least_s = found.until_s * TICKS_APART / columns
    step_s = next((step for step in GOOD_STEPS_S if step >= least_s), math.ceil(least_s / 86400) * 86400)
    axis, labels = [letters.level] * columns, [" "] * (columns + MARGIN)
    for tick in range(int(found.until_s / step_s) + 1):
        column = round(tick * step_s / found.until_s * columns)
        if column < columns:
            axis[column] = letters.down if column else letters.level
            text = show_duration(float(tick * step_s)) if tick else "0 s"
            if column + len(text) <= columns:
                labels[column : column + len(text)] = text
    return [f"{'0':>{MARGIN - 2}} {letters.corner}{''.join(axis)}", f"{'':>{MARGIN}}{''.join(labels).rstrip()}"]


def _stretches(stages: Sequence[Stage]) -> tuple[str, list[tuple[str, float, float]]]:
    """Steps by their factor, episodes by their number."""
    if stages[0].role == "step":
        return "steps", [(f"{stage.factor:g}", stage.start_s, stage.end_s) for stage in stages]
    episodes = [list(group) for _, group in groupby(stages, key=lambda stage: stage.episode)]
    return "episodes", [(str(group[0].episode), group[0].start_s, group[-1].end_s) for group in episodes]


def _strip(stretches: Iterable[tuple[str, float, float]], until_s: float, columns: int, letters: Letters) -> str:
    """Where each begins, and what it is as far as there is room for its name."""
    row = [" "] * columns
    for name, start_s, end_s in stretches:
        first, last = round(start_s / until_s * columns), round(end_s / until_s * columns)
        if first >= columns:
            break
        room = min(last, columns) - first - 1
        row[first] = letters.upright
        text = name if len(name) <= room else name[:1] if room > 0 else ""
        row[first + 1 : first + 1 + len(text)] = text
        if last < columns:
            row[last] = letters.upright
    return "".join(row).rstrip()


def _amounts(found: Figures) -> list[str]:
    lasts = show_duration(found.until_s)
    given = f"{found.counted:,} with seed {found.seed}"
    if found.counted_until_s < found.until_s:
        given = f"seed {found.seed} gives the first {found.counted:,} within {show_duration(found.counted_until_s)}"
    gaps = "too few to tell" if found.gap_cv is None else f"CV {found.gap_cv:.2f}"
    busiest = f"at most {found.busiest_second:,} in one second"
    return [
        f"  rate      mean {say.rate(found.mean_per_s)}, peak {say.rate(found.peak_per_s)}",
        f"  arrivals  {found.expected:,.0f} expected in {lasts}; {given}, {busiest}",
        f"  gaps      {gaps} (0: evenly apart, 1: as strangers come, more: in bursts)",
    ]


def _parts(found: Figures, letters: Letters) -> list[str]:
    if len(found.parts) == 1:
        return [f"  how       {_how(found.parts[0])}"]
    width = max(len(_named(part)) for part in found.parts)
    return [
        f"  {'parts' if index == 0 else '':<9} {letters.shades[index % len(letters.shades)]} {_named(part):<{width}}  "
        f"mean {say.rate(part.expected / found.until_s)}, peak {say.rate(part.peak_per_s)}, {_how(part)}"
        for index, part in enumerate(found.parts)
    ]


def _named(part: PartFigures) -> str:
    return part.name if part.weight == 1 else f"{part.weight:.3g} x {part.name}"


def _how(part: PartFigures) -> str:
    said = {"constant": "evenly apart (constant)", "poisson": "as strangers arrive (poisson)"}
    return said.get(part.arrivals, "replayed, each at its recorded moment or scaled from it")


def _stages(stages: Sequence[Stage], rate_per_s: float, width: int) -> list[str]:
    """The rates of the steps, or each episode on a line of its own."""
    if not stages:
        return []
    if stages[0].role == "step":
        text = ", ".join(say.rate(stage.factor * rate_per_s) for stage in stages)
        each = show_duration(stages[0].end_s - stages[0].start_s)
        return wrap(f"  steps     {len(stages)} of {each}: {text}", width, subsequent_indent=" " * 12)
    lines = []
    for number, group in groupby(stages, key=lambda stage: stage.episode):
        said = []
        for role, found in groupby(group, key=lambda stage: stage.role):
            same = list(found)
            rates = " ".join(say.rate(stage.factor * rate_per_s) for stage in same)
            said.append(f"{role} {rates} {show_duration(same[-1].end_s - same[0].start_s)}")
        lines.append(f"  {'episodes' if number == 1 else '':<9} {number}  {', '.join(said)}")
    return lines
