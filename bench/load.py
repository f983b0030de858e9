"""The load generator against a server that does nothing, and one that stalls; beside wrk2 where that is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from statistics import median

from bench.figure import Figure, at_least, at_most
from stormdrill.load.calibrate import Calibration, NullServer, calibrate, calibrate_machine, null_server

RATE_PER_S = 4000.0
STALL = ("--stall-every", "5", "--stall-for", "1")
STALLED_RATES_PER_S = (200.0, 500.0, 1000.0)
P90_MS, P99_MS = 500.0, 950.0
"""A fifth of the arrivals waits for 0 to 1 s, evenly."""
NEAR = 0.02
_LINE = re.compile(r"^\s*(90|99)\.000%\s+([0-9.]+)(us|ms|s|m)\s*$", re.MULTILINE)
_IN_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}


def measure(quick: bool) -> Iterator[Figure]:
    times, for_s = (1, 10.0) if quick else (3, 30.0)
    still = [calibrate(RATE_PER_S, for_s) for _ in range(times)]
    yield at_least("load_sent_of_scheduled", median(item.sent / item.scheduled for item in still), "", 0.995)
    yield at_most("load_lag_p99", median(item.lag_p99_ms for item in still), "ms", 5.0)
    yield Figure("load_cpu_a_request", median(_cpu_us(item) for item in still), "us", "", None)
    for rate_per_s in STALLED_RATES_PER_S:
        yield from _stalled(rate_per_s, 10.0 if quick else 30.0, times)
    yield Figure("load_ceiling", calibrate_machine().measured_per_s, "/s", "", None)


def _stalled(rate_per_s: float, for_s: float, times: int) -> Iterator[Figure]:
    """Whole periods of the stall, so that a fifth is a fifth; one after the other, as both at once would stall."""
    seen = [calibrate(rate_per_s, for_s, *STALL) for _ in range(times)]
    by_wrk2 = _wrk2(rate_per_s, for_s)
    asked = by_wrk2 or (P90_MS, P99_MS)
    whose = "wrk2" if by_wrk2 else "theory"
    for name, value, beside in (
        ("p90", median(item.p90_ms for item in seen), asked[0]),
        ("p99", median(item.p99_ms for item in seen), asked[1]),
    ):
        holds = abs(value - beside) <= NEAR * beside
        promise = f"{whose}'s {beside:.4g} +- {NEAR:.0%}"
        yield Figure(f"load_stall_{name}_at_{rate_per_s:g}", round(value, 1), "ms", promise, holds)


def _wrk2(rate_per_s: float, for_s: float) -> tuple[float, float] | None:
    """Its p90 and p99 against a stalling server of its own; None where it isn't installed, under its own name."""
    program = shutil.which("wrk2")
    if program is None:
        return None
    with null_server(*STALL) as server:
        argv = _command(program, server, rate_per_s, for_s)
        return percentiles(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def _command(program: str, server: NullServer, rate_per_s: float, for_s: float) -> list[str]:
    connections = str(round(2 * rate_per_s))  # more than wait during a stall
    return [program, "-t1", f"-c{connections}", f"-d{for_s:g}s", f"-R{rate_per_s:g}", "--latency", f"{server.url}/"]


def percentiles(text: str) -> tuple[float, float]:
    """p90 and p99 in ms, as wrk2 prints them with `--latency`."""
    found = {share: float(value) * _IN_MS[unit] for share, value, unit in _LINE.findall(text)}
    return found["90"], found["99"]


def _cpu_us(item: Calibration) -> float:
    return round(item.cpu_s / item.sent * 1e6, 1)
