"""Intervals against limits, and as they are written down: in a sentence, and as a figure of a verdict."""

from __future__ import annotations

import math

from stormdrill.core.intervals import Interval
from stormdrill.core.sentences import interval_text, quantity
from stormdrill.model.verdict import Figure, Word

DIGITS = 6
"""Of every figure that is written down: what differs beyond them is the machine's, not the system's."""
MOST_US = 2**32 - 1
"""The largest whole number of which quantiles are taken: it stands for what never came to an end."""


def at_least(interval: Interval, limit: float) -> Word:
    """PASS when the whole interval is at or above the limit, FAIL when it is wholly below."""
    if not interval.n or math.isnan(interval.value):
        return "INCONCLUSIVE"
    return "PASS" if interval.low >= limit else "FAIL" if interval.high < limit else "INCONCLUSIVE"


def at_most(interval: Interval, limit: float) -> Word:
    """PASS when the whole interval is at or below the limit, FAIL when it is wholly above."""
    if not interval.n or math.isnan(interval.value):
        return "INCONCLUSIVE"
    return "PASS" if interval.high <= limit else "FAIL" if interval.low > limit else "INCONCLUSIVE"


def ratio(of: Interval, to: Interval) -> Interval:
    """Of two independent estimates: on logarithms the squares of the two half-intervals add up (the method of
    variance estimates recovery). Each end only falls when an end of `of` does."""
    if not to.value or math.isnan(of.value) or math.isnan(to.value):
        return Interval(math.nan, 0.0, math.inf, 0)
    value, n = of.value / to.value, min(of.n, to.n)
    low = 0.0 if of.low <= 0 or math.isinf(to.high) else value * math.exp(-_apart(of.value, of.low, to.high, to.value))
    if of.value <= 0:
        high = of.high / to.low if to.low > 0 else math.inf
    elif to.low <= 0 or math.isinf(of.high):
        high = math.inf
    else:
        high = value * math.exp(_apart(of.high, of.value, to.value, to.low))
    return Interval(value, low, high, n)


def _apart(a: float, b: float, c: float, d: float) -> float:
    return math.hypot(math.log(a / b), math.log(c / d))


def percent(interval: Interval) -> Interval:
    return Interval(interval.value * 100, interval.low * 100, interval.high * 100, interval.n)


def scaled(interval: Interval, factor: float) -> Interval:
    """What stands for "never" is unbounded."""

    def of(value: float) -> float:
        return math.inf if value >= MOST_US else value * factor

    return Interval(of(interval.value), of(interval.low), of(interval.high), interval.n)


def told(interval: Interval, unit: str) -> str:
    """`91% [88, 94]`, as a person reads it."""
    if not interval.n or math.isnan(interval.value):
        return "unknown"
    return quantity(interval.value, unit) + interval_text(interval.low, interval.high)


def figure(name: str, interval: Interval, unit: str, limit: float | None = None) -> Figure:
    """With its interval; no value without samples."""
    known = bool(interval.n) and not math.isnan(interval.value)
    return Figure(
        name,
        shown(interval.value) if known else None,
        shown(interval.low) if known else None,
        shown(interval.high) if known else None,
        shown(limit),
        unit,
        interval.n,
    )


def plain(name: str, value: float | None, unit: str = "", limit: float | None = None, n: int = 0) -> Figure:
    """What was counted or read."""
    return Figure(name, shown(value), None, None, shown(limit), unit, n)


def shown(value: float | None) -> float | None:
    """Rounded to the digits that are written down; None for what is unbounded."""
    if value is None or not math.isfinite(value):
        return None
    return value if value == 0 else round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))


def share_of(text: str) -> float:
    """`90%` as 0.9; the parameter's pattern has been checked."""
    return float(text.removesuffix("%")) / 100
