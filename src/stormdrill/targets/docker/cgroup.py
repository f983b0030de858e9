"""A container's limits and what it used, from its control groups: version 1 or 2, where this machine shows them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def throttled(pid: int) -> int | None:
    """How many periods its processes were held back for in all; None where nobody can tell."""
    text = _read(pid, "cpu", "cpu.stat")
    found = dict(line.split(None, 1) for line in text.splitlines() if " " in line)
    return int(found["nr_throttled"]) if "nr_throttled" in found else None


def quota_cpus(pid: int) -> float | None:
    """The CPU limit in force, in cores; 0 for none, None where nobody can tell."""
    if newer := _read(pid, "", "cpu.max"):
        quota, period = newer.split()
        return 0.0 if quota == "max" else int(quota) / int(period)
    quota, period = (_read(pid, "cpu", f"cpu.cfs_{word}_us").strip() for word in ("quota", "period"))
    if not quota or not period:
        return None
    return max(0.0, int(quota) / int(period))


def _read(pid: int, controller: str, name: str) -> str:
    """A file of the process's group; empty when it isn't there."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        _, controllers, path = line.split(":", 2)
        wanted = controllers.split(",")
        places = [ROOT / controllers, *(ROOT / word for word in wanted)] if controllers else [ROOT, ROOT / "unified"]
        if controller and controllers and controller not in wanted:
            continue
        for place in places:
            file = place / path.lstrip("/") / name
            if file.is_file():
                return file.read_text()
    return ""
