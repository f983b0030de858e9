"""What a demand amounts to, without sending it: figures of λ(t), and of the arrivals that a seed gives."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise, takewhile
from pathlib import Path

from msgspec import Struct

from stormdrill.core.demand import Course, Demand
from stormdrill.load.arrivals import Arrival, arrivals
from stormdrill.model.profile import Profile

MOST_COUNTED = 200_000
"""Arrivals that are looked at one by one."""


class PartFigures(Struct, frozen=True):
    """One demand of several that come at the same time."""

    name: str
    weight: float
    arrivals: str
    """constant, poisson, or replayed."""
    expected: float
    peak_per_s: float
    rates: tuple[float, ...]
    """Its highest λ in each of the equal parts of the time: what is short is seen all the same."""


class Figures(Struct, frozen=True):
    """A demand from the load's epoch to `until_s`."""

    rate_per_s: float
    until_s: float
    seed: int
    expected: float
    """Λ: arrivals that are expected in this time."""
    mean_per_s: float
    peak_per_s: float
    """The highest λ."""
    counted: int
    """Arrivals that the seed gives in this time, or the first `MOST_COUNTED` of them."""
    counted_until_s: float
    busiest_second: int
    """The most of them in one second."""
    gap_cv: float | None
    """Standard deviation of the gaps over their mean: 0 evenly apart, 1 as strangers come, more for bursts. None with
    fewer than three."""
    parts: tuple[PartFigures, ...]


def figures(profile: Profile, rate_per_s: float, until_s: float, seed: int, folder: Path, columns: int) -> Figures:
    """The figures, with the highest λ in each of `columns` equal parts of the time.

    Raises ValueError for what is no demand.
    """
    demand = Demand(profile, rate_per_s)
    expected = demand.expected(until_s)
    planned = takewhile(lambda item: item.at_s < until_s, arrivals(profile, rate_per_s, seed, folder=folder))
    counted, last_s, busiest, gap_cv = _counted(planned)
    return Figures(
        rate_per_s=rate_per_s,
        until_s=until_s,
        seed=seed,
        expected=expected,
        mean_per_s=expected / until_s,
        peak_per_s=demand.peak_rate(until_s),
        counted=counted,
        counted_until_s=last_s if counted == MOST_COUNTED else until_s,
        busiest_second=busiest,
        gap_cv=gap_cv,
        parts=tuple(_part(course, until_s, columns) for course in demand.courses),
    )


def _part(course: Course, until_s: float, columns: int) -> PartFigures:
    part, step_s = course.part, until_s / columns
    edges = [step_s * column for column in range(columns + 1)]
    return PartFigures(
        name=part.name,
        weight=part.weight,
        arrivals="replayed" if part.trace and part.arrivals == "constant" else part.arrivals,
        expected=course.expected(until_s),
        peak_per_s=course.peak_between(0.0, until_s),
        rates=tuple(course.peak_between(start_s, end_s) for start_s, end_s in pairwise(edges)),
    )


def _counted(planned: Iterable[Arrival]) -> tuple[int, float, int, float | None]:
    """How many, when the last one is, the most in one second, and the variation of the gaps."""
    count, busiest, within, second = 0, 0, 0, -1
    before_s, gaps, mean, squares = 0.0, 0, 0.0, 0.0
    for item in planned:
        count += 1
        if int(item.at_s) != second:
            second, within = int(item.at_s), 0
        within += 1
        busiest = max(busiest, within)
        if count > 1:  # Welford's way: no difference of large sums
            gaps += 1
            gap_s = item.at_s - before_s
            away = gap_s - mean
            mean += away / gaps
            squares += away * (gap_s - mean)
        before_s = item.at_s
        if count == MOST_COUNTED:
            break
    cv = math.sqrt(squares / gaps) / mean if gaps > 1 and mean > 0 else None
    return count, before_s, busiest, cv
