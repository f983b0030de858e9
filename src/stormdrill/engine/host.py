"""The machine under the run: strangers' CPU, run delay of ours, memory and disk left.

Lag alone does not show starvation; the share of time that runnable threads wait for a core does
(Documentation/scheduler/sched-stats.rst: field 2 of /proc/PID/schedstat).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from stormdrill.engine.supervised import OnDefect, Supervised, raise_in_thread
from stormdrill.keeper import procfs
from stormdrill.model.event import Event, HostSampled

EVERY_S = 1.0
LEAST_BUSY_S = 0.01
"""With less to do than this between two samples, waiting is no measure of anything."""
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
GENERATOR = "generator"
"""Instances of the load generator are named so, with a number behind."""
OWN = "runner"
ENGINE = "engine/"
"""So begin the names of a container engine's processes: their CPU is the run's, their waiting is not the platform's."""
STRANGER = "stranger/"
"""So begin the names of what stands below an engine and works for others: not the run's at all."""


class HostWatch(Supervised):
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
        on_defect: OnDefect = raise_in_thread,
    ) -> None:
        super().__init__("host", on_defect)
        self._processes = processes
        self._record = record
        self._protect = protect
        self._run_dir = run_dir
        self._min_memory_mb = min_memory_mb
        self._min_disk_mb = min_disk_mb

    def _run(self) -> None:
        before = Sample(self._processes())
        while not self._stop.wait(EVERY_S):
            now = Sample(self._processes())
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


_Process = tuple[int, int]
"""Its pid and when it started, in ticks: a pid alone changes hands."""


class Sample:
    """What every process had used at one moment; the run's with all that descends from them, and their threads."""

    def __init__(self, processes: Mapping[str, int]) -> None:
        roots = {os.getpid(): OWN, **{pid: name for name, pid in processes.items() if pid}}
        self.at_s = time.monotonic()
        self.busy_s = _busy_s()
        """By core."""
        seen = procfs.snapshot()
        owners = procfs.owners(roots, seen)
        self.cpu_ticks: dict[_Process, int] = {}
        self.owner: dict[_Process, str] = {}
        self.cores: set[int] = set()
        """Those that any of the run's may use."""
        self.threads: dict[_Process, dict[int, tuple[int, int]]] = {}
        for pid, stat in seen.items():
            who = (pid, stat.start_ticks)
            self.cpu_ticks[who] = stat.cpu_ticks
            owner = owners.get(pid)
            if owner is not None and not owner.startswith(STRANGER):
                self.owner[who] = owner
                self.cores |= _cores_of(pid)
                if owner != OWN and not owner.startswith(ENGINE):
                    self.threads[who] = procfs.thread_times_ns(pid)

    def since(self, before: Sample) -> HostSampled:
        interval_s = max(self.at_s - before.at_s, 1e-6)
        generators = {who for who, name in self.owner.items() if name.startswith(GENERATOR)}
        others = {who for who, name in self.owner.items() if name != OWN and not name.startswith(ENGINE)} - generators
        ours = self._cpu(before, set(self.owner)) / interval_s
        cores = self._cores(before)
        busy = max(0.0, sum(self.busy_s[core] - before.busy_s[core] for core in cores)) / interval_s
        return HostSampled(
            interval_ms=round(interval_s * 1000, 1),
            foreign_cpu=round(max(0.0, busy - ours), 3),
            platform_run_delay=round(self._waiting(before, others), 3),
            generator_run_delay=round(self._waiting(before, generators), 3),
            generator_cpu=round(self._cpu(before, generators) / interval_s, 3),
            load1=round(os.getloadavg()[0], 2),
            schedstat=Path("/proc/self/schedstat").exists(),
            cores=len(cores),
        )

    def _cores(self, before: Sample) -> set[int]:
        """Those that are looked at: what strangers do on others starves nobody here."""
        told = self.busy_s.keys() & before.busy_s.keys()
        used = self.cores | before.cores
        return used if used and used <= told else told  # a container may be told of its own alone, by other numbers

    def _cpu(self, before: Sample, processes: set[_Process]) -> float:
        """Seconds used since then. A process that was not there at all has been born since: all it used counts."""
        return sum(self.cpu_ticks[who] - before.cpu_ticks.get(who, 0) for who in processes) * TICK_S

    def _waiting(self, before: Sample, processes: set[_Process]) -> float:
        """Waited ÷ (waited + ran): unlike a share of wall time it does not fade when a process is mostly idle."""
        ran_ns = waited_ns = 0
        for who in processes:
            if who in before.cpu_ticks and who not in before.threads:
                continue  # it has only now become ours: what its threads had used before is not known
            then = before.threads.get(who, {})
            for tid, (ran, waited) in self.threads[who].items():
                ran_then, waited_then = then.get(tid, (0, 0))
                if ran < ran_then or waited < waited_then:  # another thread with the number of one that ended
                    ran_then = waited_then = 0
                ran_ns, waited_ns = ran_ns + ran - ran_then, waited_ns + waited - waited_then
        total_ns = ran_ns + waited_ns
        return waited_ns / total_ns if total_ns >= LEAST_BUSY_S * 1e9 else 0.0


def _busy_s() -> dict[int, float]:
    """Core → CPU time since the boot in which it was not idle, in seconds."""
    busy = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *words = line.split()
        if name.startswith("cpu") and name != "cpu":
            fields = [int(word) for word in words]
            busy[int(name.removeprefix("cpu"))] = (sum(fields[:8]) - fields[3] - fields[4]) * TICK_S
    return busy


def _cores_of(pid: int) -> set[int]:
    try:
        return os.sched_getaffinity(pid)
    except OSError:  # it has just ended
        return set()


def _available_mb() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    return 1 << 30
