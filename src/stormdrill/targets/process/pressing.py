"""Memory pressure beside a process, and what processes can't do at all."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

from stormdrill.model.mechanism import Pressure
from stormdrill.model.plan import Injection
from stormdrill.model.undo import EndChild, Undo
from stormdrill.ports import Effect
from stormdrill.targets.portable.beside import Standing, name_of
from stormdrill.targets.portable.impossible import Impossible

MB = 1 << 20
LEAST_CEILING_MB = 32.0
"""The allocator's interpreter alone holds about 12 MB."""
SPARED_MB = 256.0
"""Left to the machine, whatever is asked."""
HELD_BEFORE_MB = 12.0
"""By an interpreter, about; where what is taken can't be told from it."""
BITES_MB = 2.0


class Pressing:
    """An allocator of ours beside the instance, a child of the keeper. Witness: the pages that the kernel counts."""

    permission = "take memory of this machine, up to the ceiling, by a program of stormdrill's own"

    def __init__(self, standing: Standing, free_mb: Callable[[], float]) -> None:
        self._standing = standing
        self._free_mb = free_mb

    def refusal(self, injection: Injection) -> str:
        how = _pressure(injection)
        if how.victim == "app":
            return (
                "nothing limits a process's memory here, so that the kernel would never choose the app; "
                "use --target docker, where the container has a limit, or mode: release"
            )
        if how.ceiling_mb < LEAST_CEILING_MB:
            return (
                f"a ceiling of {how.ceiling_mb:g} MB is no more than the allocator needs; write {LEAST_CEILING_MB:g}MB"
            )
        free_mb = self._free_mb()
        if how.ceiling_mb > free_mb - SPARED_MB:
            most_mb = max(0.0, free_mb - SPARED_MB)
            return f"this machine could give {most_mb:.0f} MB now, not {how.ceiling_mb:g} MB; write a lower ceiling"
        return ""

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        return (EndChild(instance=name_of(injection)),)

    def apply(self, injection: Injection) -> None:
        how = _pressure(injection)
        words = ("--mb-per-s", f"{how.mb_per_s:g}", "--ceiling-mb", f"{how.ceiling_mb:g}")
        self._standing.start(injection, "leak", words)

    def observe(self, injection: Injection) -> Effect:
        seen = self._standing.seen(injection)
        if seen is None:
            return Effect(False, True, "process state", "no allocator runs")
        held_mb = resident_mb(seen.pid)
        detail = f"the allocator beside {injection.instance} holds {held_mb:.0f} MB"
        return Effect(taken_mb(seen.pid) >= BITES_MB, False, "the kernel's account", detail)


SEVER = Impossible(
    "processes of one machine share one network, and nothing below the fault proxy can be cut; "
    "declare the hop under `dependencies` in the system file, so that it passes the proxy, or use --target docker"
)
CPU_LIMIT = Impossible(
    "a process has no CPU limit of its own; use --target docker, or noisy-neighbour with mode: cpu, "
    "or freeze a share of the instances"
)


def resident_mb(pid: int) -> float:
    """What the kernel counts as held by this process; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * mmap.PAGESIZE / MB
    except (OSError, IndexError, ValueError):
        return 0.0


def taken_mb(pid: int) -> float:
    """What the kernel counts as the allocator's own space, which is shared memory and no part of its interpreter."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssShmem:"):
                return int(line.split()[1]) / 1024
    except (OSError, IndexError, ValueError):
        pass
    return 0.0


def free_mb() -> float:
    """What the kernel could give without hardship."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _pressure(injection: Injection) -> Pressure:
    assert isinstance(injection.how, Pressure)
    return injection.how
