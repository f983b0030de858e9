"""Quantities as people write them, and their one meaning. Standard library only."""

from __future__ import annotations

import re

DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h|d)")
RATE = re.compile(r"(?P<number>\d+(?:\.\d+)?)/(?P<unit>s|m|h)")
_SUM = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d)){2,}")
_LONG = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Seconds in `text` such as "250ms", "10s", "3m". Raises ValueError with what to write."""
    match = DURATION.fullmatch(text.strip())
    if match is None and _SUM.fullmatch(text.strip()):
        total_s = sum(float(one["number"]) * _SECONDS[one["unit"]] for one in DURATION.finditer(text))
        raise ValueError(f"{text!r} is not a duration: one number and one unit, write {total_s:g}s")
    if match is None:
        hint = f", write {text.strip()}s" if re.fullmatch(r"\d+(\.\d+)?", text.strip()) else ', write "10s"'
        raise ValueError(f"{text!r} is not a duration: a number and one of ms, s, m, h, d{hint}")
    return float(match["number"]) * _SECONDS[match["unit"]]


def parse_rate(text: str) -> float:
    """Arrivals per second in `text` such as "60/s" or "90/m". Raises ValueError with what to write."""
    match = RATE.fullmatch(text.strip())
    if match is None:
        hint = f", write {text.strip()}/s" if re.fullmatch(r"\d+(\.\d+)?", text.strip()) else ', write "60/s"'
        raise ValueError(f"{text!r} is not a rate: a number, a slash and one of s, m, h{hint}")
    return float(match["number"]) / _SECONDS[match["unit"]]


def show_duration(seconds: float) -> str:
    """A short, readable duration: "3 ms", "1.9 s", "2 min 5 s", "3 h 20 min", "2 d 4 h"."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
    size, unit, smaller_size, smaller = next(one for one in _LONG if seconds >= 2 * one[0] or one[1] == "min")
    many, rest = divmod(round(seconds / smaller_size), size // smaller_size)
    return f"{many} {unit} {rest} {smaller}" if rest else f"{many} {unit}"
