"""The load generator against a server that does nothing, and against one that stalls."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from bench.figure import Figure, at_least, at_most
from stormdrill.load.calibrate import Calibration, calibrate, measure_ceiling

RATE_PER_S = 500.0
STALL = ("--stall-every", "5", "--stall-for", "1")
P90_MS, P99_MS = 500.0, 950.0
"""A fifth of the arrivals waits for 0 to 1 s, evenly."""


def measure(quick: bool) -> Iterator[Figure]:
    times, for_s = (1, 10.0) if quick else (3, 60.0)
    still = [calibrate(RATE_PER_S, for_s) for _ in range(times)]
    yield at_least("load_sent_of_scheduled", median(item.sent / item.scheduled for item in still), "", 0.995)
    yield at_most("load_lag_p99", median(item.lag_p99_ms for item in still), "ms", 5.0)
    yield Figure("load_cpu_a_request", median(_cpu_us(item) for item in still), "us", "", None)
    stalled = [calibrate(RATE_PER_S, for_s, *STALL) for _ in range(times)]
    yield _near("load_stall_p90", median(item.p90_ms for item in stalled), P90_MS)
    yield _near("load_stall_p99", median(item.p99_ms for item in stalled), P99_MS)
    rates = (1000.0, 2000.0) if quick else (1000.0, 1500.0, 2000.0, 2500.0, 3000.0, 4000.0, 5000.0)
    reached = [item.rate_per_s for item in measure_ceiling(rates, 5.0 if quick else 15.0) if item.on_time]
    yield Figure("load_ceiling", max(reached, default=0.0), "/s", "", None)


def _cpu_us(item: Calibration) -> float:
    return round(item.cpu_s / item.sent * 1e6, 1)


def _near(name: str, value: float, theory: float) -> Figure:
    return Figure(name, round(value, 1), "ms", f"{theory:g} +- 5%", abs(value - theory) <= 0.05 * theory)
