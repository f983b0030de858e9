"""How often the 95% intervals contain the truth, on series whose truth is known. `python -m bench.coverage [RUNS]`

Not a figure of `make bench`: it takes minutes. `tests/properties/test_statistics_coverage.py` keeps a small part of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stormdrill.core.intervals import Interval, block_count, quantile_interval, share_interval

RATE_PER_S = 30.0
"""Half of the demo's 60/s: tier 1."""
SLOW_US, FAST_US = 500_000, 20_000


@dataclass(frozen=True)
class Stalls:
    """Now and then everything stops: each request of that time is bad. Truth: the share of time without a stall."""

    every_s: float
    for_s: float

    def bad(self, at_s: NDArray[np.float64], length_s: float, dice: np.random.Generator) -> NDArray[np.bool_]:
        before_s = 20 * self.for_s
        count = dice.poisson((length_s + before_s) / self.every_s)
        start = dice.random(count) * (length_s + before_s) - before_s
        end = start + dice.exponential(self.for_s, count)
        found = np.zeros(len(at_s), np.bool_)
        for one, other in zip(start, end, strict=True):
            found |= (at_s >= one) & (at_s < other)
        return found

    def truth(self) -> float:
        return float(np.exp(-self.for_s / self.every_s))


@dataclass(frozen=True)
class Waves:
    """The share of bad ones wanders from second to second (a logistic AR(1) process)."""

    correlation: float
    spread: float
    level: float

    def bad(self, at_s: NDArray[np.float64], length_s: float, dice: np.random.Generator) -> NDArray[np.bool_]:
        seconds = int(np.ceil(length_s))
        state = np.empty(seconds)
        state[0] = dice.normal()
        for index in range(1, seconds):
            fresh = np.sqrt(1 - self.correlation**2) * dice.normal()
            state[index] = self.correlation * state[index - 1] + fresh
        share = 1 / (1 + np.exp(self.level + self.spread * state))
        return np.asarray(dice.random(len(at_s)) < share[at_s.astype(np.int64)])

    def truth(self) -> float:
        points = np.linspace(-8, 8, 4001)
        weights = np.exp(-(points**2) / 2)
        return float(1 - np.average(1 / (1 + np.exp(self.level + self.spread * points)), weights=weights))


SERIES: dict[str, Stalls | Waves] = {
    "independent, 3% bad": Waves(0.0, 0.0, 3.476),
    "stalls of 0.1 s every 1 s": Stalls(1.0, 0.1),
    "stalls of 0.1 s every 2 s": Stalls(2.0, 0.1),
    "stalls of 0.25 s every 5 s": Stalls(5.0, 0.25),
    "stalls of 0.5 s every 10 s": Stalls(10.0, 0.5),
    "stalls of 2 s every 20 s": Stalls(20.0, 2.0),
    "waves, correlation 0.5": Waves(0.5, 1.0, 3.5),
    "waves, correlation 0.7": Waves(0.7, 1.0, 3.5),
}


def window(series: Stalls | Waves, length_s: float, dice: np.random.Generator) -> tuple[Interval, Interval]:
    """One window, judged twice: the share of good requests, and as the latency quantile at which that share lies."""
    at_s = np.sort(dice.random(max(1, dice.poisson(RATE_PER_S * length_s))) * length_s)
    bad = series.bad(at_s, length_s, dice)
    blocks = block_count(length_s)
    block = np.minimum((at_s * blocks / length_s).astype(np.int64), blocks - 1)
    total = np.bincount(block, minlength=blocks)
    share = share_interval(np.bincount(block[~bad], minlength=blocks), total, 7)
    latency = np.where(bad, SLOW_US, FAST_US) + dice.integers(0, 1000, len(at_s))
    quantile = quantile_interval(latency.astype(np.uint32), block, blocks, series.truth(), 7)
    return share, quantile


def covered(series: Stalls | Waves, length_s: float, runs: int, seed: int) -> tuple[float, float, float]:
    """Shares of windows whose interval contains the truth, for success and for the quantile; the mean width."""
    dice = np.random.Generator(np.random.Philox(key=seed))
    truth = series.truth()
    shares = quantiles = width = 0.0
    for _ in range(runs):
        share, quantile = window(series, length_s, dice)
        shares += share.low <= truth <= share.high
        # the true quantile at the share of good ones lies between the fast and the slow
        quantiles += quantile.low <= FAST_US + 1000 and quantile.high >= FAST_US + 1000
        width += share.high - share.low
    return shares / runs, quantiles / runs, width / runs


def table(runs: int) -> Iterator[str]:
    yield f"{'series':<28} {'truth':>6}   success and quantile covered, mean width; {runs} windows each"
    for name, series in SERIES.items():
        cells = []
        for length_s in (8.0, 20.0, 60.0, 120.0):
            share, quantile, width = covered(series, length_s, runs, 11)
            cells.append(f"{length_s:.0f} s: {share:.0%} {quantile:.0%} ±{width / 2:.1%}")
        yield f"{name:<28} {series.truth():>6.1%}   {'   '.join(cells)}"


if __name__ == "__main__":
    for line in table(int(sys.argv[1]) if len(sys.argv) > 1 else 400):
        print(line, flush=True)
