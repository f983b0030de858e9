"""Numbers as people read them: a unit on each, no more digits than were measured, never rounded up to whole."""

from __future__ import annotations

from stormdrill.core.sentences import interval_text, quantity

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
    """A value as verdicts carry it, in the unit in which it was asked, with that unit."""
    return NOTHING if value is None else quantity(value, unit)


def interval(low: float | None, high: float | None, unit: str) -> str:
    """`[98.1, 99.7] %`; empty for exact counts."""
    return " ".join(part for part in (interval_text(low, high).strip(), unit) if part) if low is not None else ""


def sentence(text: str) -> str:
    """With a full stop behind; no capital in front, since it may begin with a name that has none."""
    text = text.strip()
    return text if not text or text[-1] in ".!?" else f"{text}."


def since(seconds: float) -> str:
    """`+2.400 s`, `−20.010 s`: since the first inject."""
    return f"{'−' if seconds < -0.0005 else '+'}{abs(seconds):.3f} s"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
