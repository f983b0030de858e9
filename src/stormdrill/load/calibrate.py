"""Measuring the generator itself: the whole of it, against a server that does nothing.

For runs, `load calibrate`, `make bench` and tests. Everything it starts is a child of this process and is ended here.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from stormdrill.errors import SystemNotReady
from stormdrill.load.ceiling import Ceiling, Step, this_machine
from stormdrill.load.launcher import LocustLoad
from stormdrill.model.event import LoadEnded
from stormdrill.model.profile import Piece, Profile, Stream
from stormdrill.ports import Spawned
from stormdrill.store.identity import stat
from stormdrill.store.records import Outcome, read_records

LAG_LIMIT_MS = 5.0
SENT_SHARE = 0.995
RATES_PER_S = (1000.0, 2000.0, 3000.0, 4000.0, 5000.0, 6000.0, 8000.0)
EACH_S = 0.8
_LOOK_EVERY_S = 0.2
_WINDOWS = 6
_HOPELESS_MS = 20 * LAG_LIMIT_MS
_LEAD_S = 0.2
_LIMIT_S = 5.0

LOCUSTFILE = """\
from stormdrill.load.locust import Arrival, OpenLoopUser


class NullUser(OpenLoopUser):
    def serve(self, arrival: Arrival) -> None:
        self.http.get("/")
"""


class Calibration(NamedTuple):
    """What the generator did at one rate."""

    rate_per_s: float
    scheduled: int
    sent: int
    answered: int
    lag_p99_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    cpu_s: float

    @property
    def on_time(self) -> bool:
        return self.sent >= SENT_SHARE * self.scheduled and self.lag_p99_ms <= LAG_LIMIT_MS


class OwnChildren:
    """Starts what a keeper would start, as children of this process."""

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    def spawn(
        self,
        instance: str,
        *,
        service: str,
        role: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        address: str,
        labels: Mapping[str, str],
    ) -> Spawned:
        logs = self._directory / "logs"
        logs.mkdir(exist_ok=True)
        with (logs / f"{instance}.log").open("wb") as log:
            child = subprocess.Popen(
                argv, env={**os.environ, **env}, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.children[instance] = child
        found = stat(child.pid)
        return Spawned(child.pid, found.start_ticks if found else 0)

    def stop(self, instance: str, timeout_s: float) -> None:
        child = self.children[instance]
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout_s)
        if child.poll() is None:
            child.kill()
            child.wait()

    def close(self) -> None:
        for instance in self.children:
            self.stop(instance, 1.0)


class NullServer(NamedTuple):
    url: str
    pid: int


@contextlib.contextmanager
def null_server(*options: str) -> Iterator[NullServer]:
    """A running null server. `options` as its command line takes them."""
    argv = [sys.executable, "-m", "stormdrill.load.null_server", *options]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            words = child.stdout.readline().decode().split()
            if words[:1] != ["listening"]:
                raise SystemNotReady("the null server died at once")
            yield NullServer(f"http://{words[1]}", child.pid)
        finally:
            child.kill()


def calibrate(rate_per_s: float, for_s: float, *server_options: str) -> Calibration:
    """Constant arrivals at a rate for a time, against a null server of its own."""
    with _generator(_profile(()), rate_per_s, *server_options) as (load, epoch_s):
        events = load.end((epoch_s + for_s) * 1e3, _LIMIT_S)
        ended = next(event for event in events if isinstance(event, LoadEnded))
        return _read(load, rate_per_s, ended)


@contextlib.contextmanager
def _generator(profile: Profile, rate_per_s: float, *server_options: str) -> Iterator[tuple[LocustLoad, float]]:
    """One that has begun, and its epoch."""
    with tempfile.TemporaryDirectory(prefix="stormdrill-") as directory, null_server(*server_options) as server:
        locustfile = Path(directory) / "null_user.py"
        locustfile.write_text(LOCUSTFILE)
        children = OwnChildren(directory)
        try:
            load = LocustLoad(
                directory=directory,
                run="calibration",
                profile=profile,
                rate_per_s=rate_per_s,
                seed=0,
                locustfile=locustfile,
                entries=(server.url,),
                max_in_flight=10_000,
                ceiling_per_s=None,
            )
            load.prepare(children)
            epoch_s = time.monotonic() + _LEAD_S
            load.begin(epoch_s * 1e3)
            yield load, epoch_s
        finally:
            children.close()


def _profile(shape: tuple[Piece, ...]) -> Profile:
    return Profile("calibration", "null_user", "constant", shape, (Stream("null", 1.0, {}, _LIMIT_S),))


def _read(load: LocustLoad, rate_per_s: float, ended: LoadEnded) -> Calibration:
    import numpy as np

    _, rows = read_records(load.records()[0])
    p50, p90, p99 = (float(value) / 1e3 for value in np.percentile(rows["latency_us"], [50, 90, 99]))
    answered = int((rows["outcome"] == Outcome.ANSWERED).sum())
    return Calibration(
        rate_per_s, ended.scheduled, ended.sent, answered, ended.lag_p99_ms, p50, p90, p99, load.generator_cpu_s
    )


def calibrate_machine(rates_per_s: Sequence[float] = RATES_PER_S, each_s: float = EACH_S) -> Ceiling:
    """What one worker of this machine can send on time: rising rates, one after the other, until it falls behind.

    The highest rate that was met counts. A lower one that wasn't is no reason to take less: what can do more can do
    less, so that somebody else had the processor then. Raises SystemNotReady when no rate was met at all.
    """
    load_average = os.getloadavg()[0]
    shape = tuple(
        Piece(at_s, rate) for step, rate in enumerate(rates_per_s) for at_s in (step * each_s, (step + 1) * each_s)
    )
    with _generator(_profile(shape), 1.0) as (load, epoch_s):
        ends_s = epoch_s + len(rates_per_s) * each_s
        while (now_s := time.monotonic()) < ends_s and load.live().lag_p99_ms < _HOPELESS_MS:
            time.sleep(min(_LOOK_EVERY_S, ends_s - now_s))
        load.end(min(time.monotonic(), ends_s) * 1e3, _LIMIT_S)
        steps = _steps(load, rates_per_s, each_s)
    met = [step.rate_per_s for step in steps if step.on_time]
    if not met:
        told = f"lag p99 {steps[0].lag_p99_ms:g} ms at {steps[0].rate_per_s:g}/s" if steps else "it sent nothing"
        raise SystemNotReady(
            f"the load generator can't be measured here: {told}, at a load average of {load_average:.1f}; "
            "wait until this machine has less to do, and run stormdrill load calibrate"
        )
    return Ceiling(max(met), this_machine(), datetime.now(UTC).isoformat(timespec="seconds"), steps, load_average)


def _steps(load: LocustLoad, rates_per_s: Sequence[float], each_s: float) -> tuple[Step, ...]:
    """Each in windows, of which the middle one counts: whoever is overloaded is late in all of them, whereas somebody
    else's work delays some. The first window is left out, in which the step before may still be felt."""
    import numpy as np

    _, rows = read_records(load.records()[0])
    at_s = rows["intended_us"] / 1e6
    length_s = each_s / _WINDOWS
    found = []
    for number, rate_per_s in enumerate(rates_per_s):
        edges = [number * each_s + window * length_s for window in range(1, _WINDOWS + 1)]
        parts = [rows[(at_s >= start) & (at_s < end)] for start, end in pairwise(edges)]
        if min(len(part) for part in parts) < 0.9 * rate_per_s * length_s:
            break  # it was ended in this one
        sent = [part[part["outcome"] != Outcome.DROPPED] for part in parts]
        share = sum(map(len, sent)) / sum(map(len, parts))
        lags = [float(np.quantile(part["lag_us"], 0.99, method="higher")) / 1e3 for part in sent if len(part)]
        lag_ms = float(np.median(lags)) if lags else 0.0
        on_time = bool(lags) and share >= SENT_SHARE and lag_ms <= LAG_LIMIT_MS
        found.append(Step(rate_per_s, share, round(lag_ms, 3), on_time))
    return tuple(found)
