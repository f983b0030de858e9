"""Numbers as people read them: a unit on each, no more digits than were measured, never rounded up to whole."""

from __future__ import annotations

NOTHING = "–"


def count(number: int) -> str:
    return f"{number:,}"


def share(percent: float) -> str:
    """Three significant digits, but 99.97 never reads 100%, nor 0.01 as 0%."""
    return f"{_digits(percent, whole=100.0)}%"


def rate(per_second: float) -> str:
    return f"{per_second:.3g}/s" if per_second < 1000 else f"{per_second:,.0f}/s"


def milliseconds(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:.1f} s"
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"


def seconds(value: float) -> str:
    """A wait, to a tenth of a second; below one in milliseconds."""
    if value < 0.9995:
        return milliseconds(value * 1000)
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def measured(value: float | None, unit: str) -> str:
    """`value` as the verdict carries it: in the unit that was asked for."""
    if value is None:
        return NOTHING
    if unit == "%":
        return share(value)
    if unit in ("ms", "s"):
        return f"0 {unit}" if value == 0 else milliseconds(value) if unit == "ms" else seconds(value)
    if unit == "/s":
        return rate(value)
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


def interval(low: float | None, high: float | None, unit: str) -> str:
    """The 95% interval in the unit that was asked for, which stands beside the value; exact counts have none."""
    if low is None or high is None:
        return ""
    if unit == "%":
        return f"[{_digits(low, 100.0)}, {_digits(high, 100.0)}]"
    return f"[{_plain(low)}, {_plain(high)}]"


def _digits(value: float, whole: float) -> str:
    for decimals in range(0 if value in (0.0, whole) else 1, 6):
        text = f"{value:.{decimals}f}"
        if value in (0.0, whole) or float(text) not in (0.0, whole):
            return text
    return f"{value:.6g}"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
