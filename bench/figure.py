"""One figure: what was measured, what was asked, and whether it holds."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple


class Figure(NamedTuple):
    """A measured value beside what was promised."""

    name: str
    value: float
    unit: str
    asked: str
    """The promise in words: `<= 0.10`; empty: shown for information."""
    holds: bool | None
    """None: nothing was asked."""


def at_most(name: str, value: float, unit: str, limit: float) -> Figure:
    return Figure(name, round(value, 4), unit, f"<= {limit:g}", value <= limit)


def at_least(name: str, value: float, unit: str, limit: float) -> Figure:
    return Figure(name, round(value, 4), unit, f">= {limit:g}", value >= limit)


def middle_of(times: int, measure: Callable[[], float]) -> float:
    """The median of `times` measurements."""
    return median(measure() for _ in range(times))


def as_installed() -> dict[str, str]:
    """This environment, but for what keeps Python from caching byte code: on a user's machine it is cached."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def cpu_of(argv: Sequence[str]) -> float:
    """CPU seconds, user and system, of one whole process that must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, env=as_installed(), stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
