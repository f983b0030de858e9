"""Measuring the generator itself: the whole of it, against a server that does nothing.

For `make bench`, `doctor` and tests. Everything it starts is a child of this process and is ended here.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from stormdrill.errors import SystemNotReady
from stormdrill.load.launcher import LocustLoad
from stormdrill.model.event import LoadEnded
from stormdrill.model.profile import Profile, Stream
from stormdrill.ports import Spawned
from stormdrill.store.identity import stat
from stormdrill.store.records import Outcome, read_records

LAG_LIMIT_MS = 5.0
_LEAD_S = 0.2
_LIMIT_S = 5.0

LOCUSTFILE = """\
from stormdrill.load.locust import Arrival, OpenLoopUser


class NullUser(OpenLoopUser):
    def serve(self, arrival: Arrival) -> None:
        self.client.get("/")
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
        return self.sent >= 0.995 * self.scheduled and self.lag_p99_ms <= LAG_LIMIT_MS


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
    stream = Stream("null", 1.0, {}, _LIMIT_S)
    profile = Profile("calibration", "null_user", "constant", (), (stream,))
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
            ended, _closed = load.end((epoch_s + for_s) * 1e3, _LIMIT_S)
            assert isinstance(ended, LoadEnded)
            return _read(load, rate_per_s, ended)
        finally:
            children.close()


def _read(load: LocustLoad, rate_per_s: float, ended: LoadEnded) -> Calibration:
    import numpy as np

    _, rows = read_records(load.records()[0])
    p50, p90, p99 = (float(value) / 1e3 for value in np.percentile(rows["latency_us"], [50, 90, 99]))
    answered = int((rows["outcome"] == Outcome.ANSWERED).sum())
    return Calibration(
        rate_per_s, ended.scheduled, ended.sent, answered, ended.lag_p99_ms, p50, p90, p99, load.generator_cpu_s
    )


def measure_ceiling(rates_per_s: Sequence[float], for_s: float) -> Iterator[Calibration]:
    """One calibration a rate, rising, up to and including the first that is late."""
    for rate_per_s in sorted(rates_per_s):
        result = calibrate(rate_per_s, for_s)
        yield result
        if not result.on_time:
            return
