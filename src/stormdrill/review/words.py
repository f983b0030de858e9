"""Numbers as people read them: a unit on each, no more digits than were measured, never rounded up to whole."""

from __future__ import annotations

from stormdrill.model.units import show_duration

NOTHING = "–"


def count(number: int) -> str:
    return f"{number:,}"


def plural(number: int, word: str, many: str = "") -> str:
    return f"{number:,} {word if number == 1 else many or word + 's'}"


def percent(value: float) -> str:
    """99.97 never reads 100, nor 0.01 as 0."""
    for digits in range(0 if value in (0.0, 100.0) else 1, 6):
        text = f"{value:.{digits}f}"
        if value in (0.0, 100.0) or float(text) not in (0.0, 100.0):
            return text
    return f"{value:.6g}"


def measured(value: float | None, unit: str) -> str:
    """A value as verdicts carry it (percent, seconds, per second or plain) in the unit in which it was asked."""
    if value is None:
        return NOTHING
    if unit == "%":
        return f"{percent(value)}%"
    if unit in ("ms", "s"):
        return show_duration(value)
    if unit == "/s":
        return f"{value:.3g}/s" if value < 1000 else f"{value:,.0f}/s"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


def interval(low: float | None, high: float | None, unit: str) -> str:
    """`[98.1%, 99.7%]`; empty for exact counts."""
    if low is None or high is None:
        return ""
    return f"[{measured(low, unit)}, {measured(high, unit)}]"


def since(seconds: float) -> str:
    """`+2.400 s`, `−20.010 s`: since the first inject."""
    return f"{'−' if seconds < -0.0005 else '+'}{abs(seconds):.3f} s"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
