"""What backpressure checks found, for a person and for a program."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from stormdrill.cli import figures
from stormdrill.model.experiment import CheckUse
from stormdrill.model.verdict import CheckVerdict, Figure

LABEL = 9
"""Columns of what stands on the left of a line, as for the verdict."""
SHOWN = 3
"""Figures of a check on its line: those that have a limit come first."""


def check_lines(checks: Sequence[CheckVerdict], width: int = 100) -> list[str]:
    """A line a check: its word, what it measured against what was asked; the sentences of those that did not hold
    stand below, with the others."""
    if not checks:
        return []
    size = max(len(check.name) for check in checks)
    words = max(4, *(len(_word(check)) for check in checks))
    lines = []
    for check in checks:
        begin = f"  {_word(check):<{words}}  {check.name:<{size}}  "
        told = ", ".join(_figure(figure) for figure in _telling(check.figures)) or "nothing measured"
        lines += textwrap.wrap(
            told, max(width, len(begin) + 30), initial_indent=begin, subsequent_indent=" " * len(begin)
        )
    return lines


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
