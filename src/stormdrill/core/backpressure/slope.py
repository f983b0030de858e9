"""Whether readings grow: the Theil–Sen slope, with an interval for readings that remember one another.

The slope is the median of the slopes of all pairs of readings; its interval runs from one such slope to another, and
which ones depends on the number of readings alone (Sen 1968). A queue that was long a second ago is long now, so that
random wandering looks like growth: the variance behind the ranks is widened as Hamed and Rao (1998) do it, with a
memory that is *assumed*, never estimated from the readings. So whatever is added to a series that only grows with time
can't lower either end: growing more never looks like growing less.
"""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

MEMORY_S = 6.0
"""After which two readings of a queue have a correlation of 1/e: a queue of 100 whose workers do 100 a second."""
NORMAL = 1.959964
"""The 97.5% quantile of the normal distribution."""
MOST = 400
"""More readings are averaged into so many: all pairs of them are looked at."""

Floats = NDArray[np.float64]


class Slope(Struct, frozen=True):
    """Per second; the ends of a 95% interval, infinite where there are too few readings to bound it."""

    value: float
    low: float
    high: float
    n: int


def theil_sen(at_s: Floats, values: Floats, memory_s: float = MEMORY_S) -> Slope:
    """Readings in any order, at different moments. Fewer than two say nothing."""
    order = np.argsort(at_s, kind="stable")
    times, levels = _thinned(at_s[order], values[order])
    earlier, later = np.triu_indices(len(times), 1)
    span_s = times[later] - times[earlier]
    apart = span_s > 0
    slopes = np.sort((levels[later] - levels[earlier])[apart] / span_s[apart])
    n = len(values)
    if not len(slopes):
        return Slope(math.nan, -math.inf, math.inf, n)
    low, high = _ends(len(slopes), len(times), float(np.median(np.diff(times))), memory_s)
    return Slope(
        float(np.median(slopes)),
        float(slopes[low]) if low >= 0 else -math.inf,
        float(slopes[high]) if high < len(slopes) else math.inf,
        n,
    )


def fewest(every_s: float, memory_s: float = MEMORY_S) -> int:
    """How many readings, so often, an interval with two ends needs."""
    return next(n for n in range(4, MOST) if _ends(n * (n - 1) // 2, n, every_s, memory_s)[0] >= 0)


def _ends(pairs: int, n: int, every_s: float, memory_s: float) -> tuple[int, int]:
    """The places of the interval's ends among the sorted slopes; beyond them where there are too few."""
    if n < 4:
        return -1, pairs
    variance = n * (n - 1) * (2 * n + 5) / 18 * _widening(n, every_s, memory_s)
    half = NORMAL * math.sqrt(variance)
    return math.floor((pairs - half) / 2) - 1, math.ceil((pairs + half) / 2)


def _widening(n: int, every_s: float, memory_s: float) -> float:
    """By how much the variance of Kendall's S grows when ranks have the assumed memory (Hamed and Rao 1998, eq. 15)."""
    if memory_s <= 0:
        return 1.0
    apart = np.arange(1, n)
    of_ranks = 6 / np.pi * np.arcsin(np.exp(-apart * every_s / memory_s) / 2)
    weights = (n - apart) * (n - apart - 1) * (n - apart - 2)
    return 1 + 2 / (n * (n - 1) * (n - 2)) * float(np.sum(weights * of_ranks))


def _thinned(at_s: Floats, values: Floats) -> tuple[Floats, Floats]:
    if len(at_s) <= MOST:
        return at_s, values
    starts = np.arange(MOST) * len(at_s) // MOST
    counts = np.diff([*starts, len(at_s)])
    return np.add.reduceat(at_s, starts) / counts, np.add.reduceat(values, starts) / counts
