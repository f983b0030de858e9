"""How a verdict speaks to people. Numbers as a person would write them, each with what was asked."""

from __future__ import annotations

import math

from stormdrill.core.windows import WHOLE

_PHASES = {
    "warmup": "during the warm-up",
    "baseline": "in the baseline",
    "fault": "during the fault",
    "recovery": "during the recovery",
    "failback": "during the fail-back",
    WHOLE: "in the whole run",
}


DIGITS = 6
"""Of every figure that is written down: what differs beyond them is the machine's, not the system's."""


def rounded(value: float) -> float:
    """To as many digits as are written down."""
    if not math.isfinite(value) or value == 0:
        return value
    return round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))


def number(value: float) -> str:
    """Three or four digits, thousands apart: "98.1", "0.31", "1,204"."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.0f}" if size >= 200 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def quantity(value: float, unit: str) -> str:
    """With its unit: "98.1%", "238 ms", "46/s"."""
    # a share just below 100% must not read as 100%
    text = "99.99" if unit == "%" and 99.95 <= value < 100 else number(value)
    return f"{text}{unit}" if unit in ("%", "/s", "") else f"{text} {unit}"


def interval_text(low: float | None, high: float | None) -> str:
    """`[97.0, 98.9]`; an end that is not bounded is an infinity."""
    if low is None and high is None:
        return ""
    return f" [{number(low if low is not None else -math.inf)}, {number(high if high is not None else math.inf)}]"


def asked_text(op: str, limit: float, unit: str) -> str:
    return f"{'' if op == '=' else op + ' '}{quantity(limit, unit)} was asked"


def requests_text(labels: dict[str, str]) -> str:
    """`tier-1 requests`, `kind=inference requests`, `requests`."""
    words = [f"tier-{value}" if name == "tier" else f"{name}={value}" for name, value in sorted(labels.items())]
    return " ".join([*words, "requests"])


def where_text(phase: str, after_s: float) -> str:
    """`during the fault, from 10 s on`."""
    text = _PHASES.get(phase, f"in {phase}")
    return f"{text}, from {number(after_s)} s on" if after_s else text


def plural(count: int, word: str) -> str:
    """`1 job`, `3 jobs`, `1,204 jobs`."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
