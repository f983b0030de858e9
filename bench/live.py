"""What the live view costs and how far it lags, at the full rate of one generator worker.

A process writes records as a generator does, at 4,000 a second, flushed ten times a second. Beside it the guards' own
`LiveSight` reads on and tells the figures of a run, as often as the guards do.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.figure import Figure, at_most
from stormdrill.engine.guards import EVERY_S
from stormdrill.engine.sight import LiveSight
from stormdrill.model.expression import Comparison
from stormdrill.spec.expression import parse_expression
from stormdrill.store.records import read_header

RATE_PER_S = 4_000
ASKED = ("success{tier=1} > 98%", "p95{tier=1} < 400ms", "success{tier=2} > 90%", "goodput > 10/s", "p99 < 1s")
"""Two guards and three figures: more than the shipped experiments ask of requests."""

WRITE = """
import sys, time
from stormdrill.store.records import Outcome, RecordWriter
path, rate = sys.argv[1], int(sys.argv[2])
epoch_ns = time.monotonic_ns()
labels = [{"labels": {"tier": str(tier)}, "deadline_ms": 1000} for tier in (1, 2, 3)]
writer = RecordWriter(path, worker=0, boot_id="b", epoch_mono_ns=epoch_ns, epoch_at="", labels=labels)
written = 0
while True:
    time.sleep(0.1)
    now_us = (time.monotonic_ns() - epoch_ns) // 1000
    due = now_us * rate // 1_000_000
    for number in range(written, due):
        at_us = number * 1_000_000 // rate
        writer.add(intended_us=at_us, lag_us=50, latency_us=min(20_000 + number % 7919, now_us - at_us), job=number,
                   status=200, labels=number % 3, outcome=Outcome.ANSWERED)
    written = due
    writer.flush()
"""


class Seen(NamedTuple):
    core: float
    """Share of a core."""
    lag_s: float
    """The worst: how old the newest request in the figures is when they are about to be told anew."""


def measure(quick: bool) -> Iterator[Figure]:
    rounds = [_round(5.0 if quick else 15.0) for _ in range(1 if quick else 3)]
    yield at_most("live_cpu_of_a_core", median(seen.core for seen in rounds), "", 0.05)
    yield at_most("live_lag", median(seen.lag_s for seen in rounds), "s", 1.0)


def _round(for_s: float) -> Seen:
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "worker-0.records")
        writer = subprocess.Popen([sys.executable, "-c", WRITE, path, str(RATE_PER_S)])
        try:
            return _watch(path, for_s)
        finally:
            writer.kill()
            writer.wait()


def _watch(path: str, for_s: float) -> Seen:
    """From when the window of the figures is full."""
    sight = LiveSight(lambda: [path], list, dict)
    asked = [parse_expression(text) for text in ASKED]
    began, used = time.monotonic() + 3.0, 0.0
    newest_s, worst_s = 0.0, 0.0
    while time.monotonic() < began + for_s:
        counted = time.monotonic() >= began
        if counted and newest_s:
            worst_s = max(worst_s, time.monotonic() - newest_s)
        before = time.thread_time()
        sight.poll()
        told = [sight.evaluate(expression) for expression in asked]
        used += time.thread_time() - before if counted else 0.0
        newest_s = _newest_s(path)
        if counted and any(held.value is None for held in told):
            raise ValueError(f"nothing is told of {[a.text for a in asked if isinstance(a, Comparison)]}")
        time.sleep(EVERY_S)
    return Seen(used / for_s, worst_s)


def _newest_s(path: str) -> float:
    """When the last request ended that is written: what was just read has it."""
    import numpy as np

    from stormdrill.store.records import DTYPE, RECORD

    try:
        header, start = read_header(path)
    except (OSError, ValueError):
        return 0.0
    count = (Path(path).stat().st_size - start) // RECORD.size
    with Path(path).open("rb") as file:
        file.seek(start + max(0, count - 400) * RECORD.size)
        rows = np.frombuffer(file.read(min(count, 400) * RECORD.size), dtype=np.dtype(DTYPE))
    if not len(rows):
        return 0.0
    return float(header["epoch_mono_ns"] / 1e9 + (rows["intended_us"] + rows["latency_us"]).max() / 1e6)
