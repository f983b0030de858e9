"""How often the 95% intervals contain the truth, on series whose truth is known. `python -m bench.coverage [RUNS]`

Not a figure of `make bench`: it takes minutes. `tests/properties/test_statistics_coverage.py` keeps a small part of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from stormdrill.core.intervals import (
    Interval,
    block_count,
    difference,
    quantile_interval,
    rate_interval,
    share_interval,
)
from stormdrill.core.judge_requests import Sample
from stormdrill.core.pooling import over_runs, pooled
from stormdrill.model.expression import Comparison

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
    "bursts of 1 s every 10 s": Stalls(10.0, 1.0),
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


def windows(name: str, series: Stalls | Waves, length_s: float, runs: int) -> Figures:
    """Shares of windows whose interval contains the truth, for success and for the quantile; and what passes wrongly.

    Asked for a tenth fewer bad ones than there truly are, a window must not pass.
    """
    dice = _dice(name, length_s)
    truth = series.truth()
    asked = 1 - (1 - truth) / 1.1
    shares = quantiles = passed = width = 0.0
    for _ in range(runs):
        share, quantile = window(series, length_s, dice)
        shares += share.low <= truth <= share.high
        # the true quantile at the share of good ones lies between the fast and the slow
        quantiles += quantile.low <= FAST_US + 1000 and quantile.high >= FAST_US + 1000
        passed += share.low > asked
        width += share.high - share.low
    return Figures(name, length_s, (shares / runs, quantiles / runs), passed / runs, width / runs / 2)


@dataclass(frozen=True)
class Figures:
    """One series at one length: how often each kind of interval held the truth, how often what is broken passed."""

    series: str
    length_s: float
    covered: tuple[float, ...]
    wrongly_passed: float
    half_width: float

    def line(self) -> str:
        held = " ".join(f"{share:>6.1%}" for share in self.covered)
        end = f"{self.wrongly_passed:>6.1%}   ±{self.half_width:.3g}"
        return f"{self.series:<34} {self.length_s:>4.0f} s   {held}   wrongly passed {end}"


def _dice(name: str, length_s: float) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=int.from_bytes(f"{name} {length_s}".encode()[-12:])))


def _wandering(seconds: int, correlation: float, dice: np.random.Generator) -> NDArray[np.float64]:
    """AR(1), of variance 1."""
    state = dice.normal(size=seconds)
    for index in range(1, seconds):
        state[index] = correlation * state[index - 1] + np.sqrt(1 - correlation**2) * state[index]
    return state


def latencies(correlation: float, length_s: float, runs: int) -> Figures:
    """p95 of lognormal latencies whose level wanders from second to second; the limit is a tenth below the truth."""
    name = f"p95, level wanders with {correlation:g}"
    dice = _dice(name, length_s)
    noise, sway = 0.5, 0.15
    truth_us = 100_000 * np.exp(1.6448536 * np.hypot(noise, sway))
    held = passed = width = 0.0
    for _ in range(runs):
        at_s = np.sort(dice.random(max(1, dice.poisson(RATE_PER_S * length_s))) * length_s)
        level = sway * _wandering(int(np.ceil(length_s)), correlation, dice)
        values = 100_000 * np.exp(level[at_s.astype(np.int64)] + noise * dice.normal(size=len(at_s)))
        blocks = block_count(length_s)
        block = np.minimum((at_s * blocks / length_s).astype(np.int64), blocks - 1)
        found = quantile_interval(values.astype(np.uint32), block, blocks, 0.95, 7)
        held += found.low <= truth_us <= found.high
        passed += found.high < truth_us / 1.1
        width += (found.high - found.low) / truth_us / 2 if np.isfinite(found.high) else 0.0
    return Figures(name, length_s, (held / runs,), passed / runs, width / runs)


def rates(correlation: float, length_s: float, runs: int) -> Figures:
    """Throughput whose rate wanders by a fifth; a ninth more than the truth is asked, so it is short by a tenth."""
    name = f"rate, wanders with {correlation:g}"
    dice = _dice(name, length_s)
    held = passed = width = 0.0
    for _ in range(runs):
        sway = np.exp(0.2 * _wandering(int(length_s), correlation, dice) - 0.02)
        found = rate_interval(dice.poisson(RATE_PER_S * sway), 1.0, 7)
        held += found.low <= RATE_PER_S <= found.high
        passed += found.low > RATE_PER_S / 0.9
        width += (found.high - found.low) / 2
    return Figures(name, length_s, (held / runs,), passed / runs, width / runs)


def relative(series: Stalls | Waves, name: str, length_s: float, runs: int) -> Figures:
    """Fault and baseline are alike: their difference is 0. Both rules, the difference's interval and both ends of the
    baseline's; `success > 1.0 x baseline` is never true of it, and both must seldom pass."""
    dice = _dice(name, length_s)
    apart = ends = passed = width = 0.0
    for _ in range(runs):
        (fault, _), (base, _) = window(series, length_s, dice), window(series, length_s, dice)
        found = difference(fault, base, 1.0)
        apart += found.low <= 0 <= found.high
        ends += fault.low <= base.high and fault.high >= base.low
        passed += found.low > 0
        width += (found.high - found.low) / 2
    return Figures(f"relative, {name}", length_s, (apart / runs, ends / runs), passed / runs, width / runs)


def repeats(count: int, spread: float, runs: int) -> Figures:
    """Success over several runs of 20 s whose share of bad ones differs from run to run (logit-normal), and wanders
    within each; the truth is the mean over all such runs. Beside it, the interval of the same runs without regard to
    how they differ."""
    name = f"{count} runs, spread {spread:g}"
    dice = _dice(name, float(count))
    asked = msgspec.convert(
        {"type": "comparison", "text": "success > 95%", "metric": "success", "op": ">", "limit": 95.0, "unit": "%"},
        Comparison,
    )
    level = 3.0
    truth = _mean_share(level, float(np.hypot(spread, WITHIN)))
    limit = 1 - (1 - truth) / 1.1
    held = blind = passed = width = 0.0
    for _ in range(runs):
        samples = []
        for _ in range(count):
            at_s = np.sort(dice.random(dice.poisson(RATE_PER_S * 20)) * 20)
            sway = level + spread * dice.normal() + WITHIN * _wandering(20, 0.5, dice)
            bad = dice.random(len(at_s)) < 1 / (1 + np.exp(sway[at_s.astype(np.int64)]))
            block = at_s.astype(np.int64)
            samples.append(Sample(np.bincount(block, minlength=20), 1.0, np.bincount(block[~bad], minlength=20)))
        found, alone = over_runs(samples, asked, 7), pooled(samples).interval(0.0, 7)
        held += found.low <= truth <= found.high
        blind += alone.low <= truth <= alone.high
        passed += found.low > limit
        width += (found.high - found.low) / 2
    return Figures(name, 20.0 * count, (held / runs, blind / runs), passed / runs, width / runs)


WITHIN = 0.5


def _mean_share(level: float, spread: float) -> float:
    points = np.linspace(-8, 8, 4001)
    return float(1 - np.average(1 / (1 + np.exp(level + spread * points)), weights=np.exp(-(points**2) / 2)))


def table(runs: int) -> Iterator[str]:
    yield f"{runs} windows a line. Covered: success and quantile; relative: by the difference, by both ends;"
    yield "runs: with and without regard to how they differ. Half of the mean width behind ±."
    for name, series in SERIES.items():
        for length_s in (8.0, 20.0, 60.0, 120.0):
            yield windows(name, series, length_s, runs).line()
    for correlation in (0.0, 0.5, 0.8):
        for length_s in (20.0, 60.0):
            yield latencies(correlation, length_s, runs).line()
            yield rates(correlation, length_s, runs).line()
    for name in ("independent, 3% bad", "stalls of 0.1 s every 1 s", "waves, correlation 0.5"):
        yield relative(SERIES[name], name, 20.0, runs).line()
    for count in (2, 3, 5, 10):
        for spread in (0.0, 0.3, 0.7):
            yield repeats(count, spread, runs).line()


if __name__ == "__main__":
    for line in table(int(sys.argv[1]) if len(sys.argv) > 1 else 1000):
        print(line, flush=True)
