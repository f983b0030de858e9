"""What backpressure checks found, for a person and for a program."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from stormdrill.cli import figures
from stormdrill.model.experiment import CheckUse
from stormdrill.model.verdict import CheckVerdict, Figure

SHOWN = 4
"""Figures of a check, of those that have a limit."""


def check_lines(checks: Sequence[CheckVerdict], width: int = 100) -> list[str]:
    """What each check asks and measured, side by side; the ones that did not hold are named, and their sentences stand
    below with the others."""
    if not checks:
        return []
    rows = [("", "", "", "asked", "measured", "95% interval"), *(row for check in checks for row in _rows(check))]
    sizes = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    sizes[0] = max(4, sizes[0])
    lines = []
    for row in rows:
        cells = [f"{text:<{size}}" for text, size in zip(row[:3], sizes[:3], strict=True)]
        cells += [f"{text:>{size}}" for text, size in zip(row[3:], sizes[3:], strict=True)]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    if max(map(len, lines)) <= width:
        return lines
    return [line for check in checks for line in _stacked(check, width)]


def _rows(check: CheckVerdict) -> list[tuple[str, ...]]:
    """A line for each figure that something is asked of; the word and the check's name on the first."""
    rows: list[tuple[str, ...]] = []
    begin = (_word(check), check.name)
    for figure in _telling(check.figures):
        asked = figures.measured(figure.limit, figure.unit) if figure.limit is not None else ""
        told = figures.measured(figure.value, figure.unit), figures.interval(figure.low, figure.high, figure.unit)
        rows.append((*begin, figure.name, asked, *told))
        begin = ("", "")
    return rows or [(*begin, "nothing was measured", "", "", "")]


def _stacked(check: CheckVerdict, width: int) -> list[str]:
    """For a narrow terminal."""
    told = "; ".join(_figure(figure) for figure in _telling(check.figures)) or "nothing was measured"
    return [
        f"  {_word(check) or 'PASS':<5} {check.name}",
        *textwrap.wrap(told, max(20, width), initial_indent=" " * 8, subsequent_indent=" " * 8),
    ]


def _word(check: CheckVerdict) -> str:
    return "" if check.verdict == "PASS" else check.verdict


def _telling(found: Sequence[Figure]) -> list[Figure]:
    """Those that something is asked of; else the first."""
    asked = [figure for figure in found if figure.limit is not None and figure.value is not None]
    return (asked or [figure for figure in found if figure.value is not None][:1])[:SHOWN]


def _figure(figure: Figure) -> str:
    value = figures.measured(figure.value, figure.unit)
    between = figures.interval(figure.low, figure.high, figure.unit)
    asked = f", asked {figures.measured(figure.limit, figure.unit)}" if figure.limit is not None else ""
    return f"{figure.name} {value}{f' {between}' if between else ''}" + (f" ({asked[2:]})" if asked else "")


def check_objects(checks: Sequence[CheckVerdict]) -> list[dict[str, object]]:
    """For the one object of --json."""
    return [
        {
            "name": check.name,
            "verdict": check.verdict,
            "sentence": check.sentence,
            "figures": [
                {
                    "name": figure.name,
                    "value": figure.value,
                    "low": figure.low,
                    "high": figure.high,
                    "limit": figure.limit,
                    "unit": figure.unit,
                    "n": figure.n,
                }
                for figure in check.figures
            ],
        }
        for check in checks
    ]


def asked_text(uses: Sequence[CheckUse]) -> str:
    """`capacity, goodput-plateau (least 85%)`: what a plan says of its checks; only thresholds that aren't the
    default."""
    from stormdrill.core.backpressure.asked import ASKED

    said = []
    for use in uses:
        known = ASKED.get(use.word)
        usual = known.parameters() if known else None
        own = [f"{key} {value}" for key, value in use.parameters.items() if getattr(usual, key, None) != value]
        said.append(f"{use.word} ({', '.join(own)})" if own else use.word)
    return ", ".join(said)
