"""The machine under the run: strangers' CPU, run delay of ours, memory and disk left.

Lag alone does not show starvation; the share of time that runnable threads wait for a core does
(Documentation/scheduler/sched-stats.rst: field 2 of /proc/PID/schedstat).
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from stormdrill.model.event import Event, HostSampled

EVERY_S = 1.0
LEAST_BUSY_S = 0.01
"""With less to do than this between two samples, waiting is no measure of anything."""
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
GENERATOR = "generator"
"""Instances of the load generator are named so, with a number behind."""


class HostWatch:
    """Samples until `stop`. `processes` gives the run's processes: instance → pid, generator included."""

    def __init__(
        self,
        processes: Callable[[], dict[str, int]],
        record: Callable[[Event, float | None], object],
        protect: Callable[[str], None],
        *,
        run_dir: Path,
        min_memory_mb: int,
        min_disk_mb: int,
    ) -> None:
        self._processes = processes
        self._record = record
        self._protect = protect
        self._run_dir = run_dir
        self._min_memory_mb = min_memory_mb
        self._min_disk_mb = min_disk_mb
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="host", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def _run(self) -> None:
        before = _Sample(self._processes())
        while not self._stop.wait(EVERY_S):
            now = _Sample(self._processes())
            self._record(now.since(before), now.at_s * 1000)
            before = now
            reason = self._scarce()
            if reason:
                self._protect(reason)
                return

    def _scarce(self) -> str:
        free_mb = _available_mb()
        if free_mb < self._min_memory_mb:
            return f"only {free_mb} MB of memory left on this machine, the policy asks for {self._min_memory_mb} MB"
        disk_mb = shutil.disk_usage(self._run_dir).free >> 20
        if disk_mb < self._min_disk_mb:
            return f"only {disk_mb} MB left on the run directory's disk, the policy asks for {self._min_disk_mb} MB"
        return ""


class _Sample:
    def __init__(self, processes: dict[str, int]) -> None:
        self.at_s = time.monotonic()
        self.busy_s = _busy_s()
        self.cpu_s = {name: _cpu_s(pid) for name, pid in processes.items()}
        self.own_s = _cpu_s(os.getpid())
        shares = {name: _schedstat_s(pid) for name, pid in processes.items()}
        self.ran_s = {name: ran_s for name, (ran_s, _) in shares.items()}
        self.waited_s = {name: waited_s for name, (_, waited_s) in shares.items()}

    def since(self, before: _Sample) -> HostSampled:
        interval_s = max(self.at_s - before.at_s, 1e-6)

        def share(now: dict[str, float], then: dict[str, float], name: str) -> float:
            return max(0.0, now[name] - then.get(name, now[name])) / interval_s

        ours = sum(share(self.cpu_s, before.cpu_s, name) for name in self.cpu_s)
        ours += max(0.0, self.own_s - before.own_s) / interval_s
        busy = max(0.0, self.busy_s - before.busy_s) / interval_s
        generators = [name for name in self.ran_s if name.startswith(GENERATOR)]
        others = [name for name in self.ran_s if not name.startswith(GENERATOR)]
        return HostSampled(
            interval_ms=round(interval_s * 1000, 1),
            foreign_cpu=round(max(0.0, busy - ours), 3),
            platform_run_delay=round(self._waiting(before, others), 3),
            generator_run_delay=round(self._waiting(before, generators), 3),
            generator_cpu=round(sum(share(self.cpu_s, before.cpu_s, name) for name in generators), 3),
            load1=round(os.getloadavg()[0], 2),
            schedstat=Path("/proc/self/schedstat").exists(),
        )

    def _waiting(self, before: _Sample, names: list[str]) -> float:
        """Waited ÷ (waited + ran): unlike a share of wall time it does not fade when a process is mostly idle."""
        seen = [name for name in names if name in before.ran_s]
        ran_s = sum(max(0.0, self.ran_s[name] - before.ran_s[name]) for name in seen)
        waited_s = sum(max(0.0, self.waited_s[name] - before.waited_s[name]) for name in seen)
        return waited_s / (waited_s + ran_s) if waited_s + ran_s >= LEAST_BUSY_S else 0.0


def _busy_s() -> float:
    """CPU time of the whole machine that was not idle, in seconds."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) * TICK_S


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) * TICK_S


def _schedstat_s(pid: int) -> tuple[float, float]:
    """Time on a core and time waiting for one, over the threads that live now; zeros where the kernel has none."""
    ran_ns = waited_ns = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            fields = (task / "schedstat").read_text().split()
            ran_ns, waited_ns = ran_ns + int(fields[0]), waited_ns + int(fields[1])
    except (OSError, IndexError):
        pass  # it has just ended: what was read until now is what it used
    return ran_ns / 1e9, waited_ns / 1e9


def _available_mb() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    return 1 << 30
