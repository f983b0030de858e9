"""The engine's processes that work for a run, told from those that work for strangers: for the host's accounting."""

from __future__ import annotations

from pathlib import Path

from stormdrill.store.identity import GONE_STATES, stat
from stormdrill.targets.docker.fleet import Fleet

DAEMONS = ("dockerd", "containerd")
SHIM = "containerd-shim"
ENGINE, STRANGER = "engine/", "stranger/"


def companions(fleet: Fleet) -> dict[str, int]:
    """Name → pid. `engine/…`: the daemons (whose children the port proxies are) and the shims of our containers;
    `stranger/…`: other containers' shims, which would else count as their daemon's."""
    shims = {found.parent for member in fleet.all() if member.pid and (found := stat(member.pid))}
    named: dict[str, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            comm = (folder / "comm").read_text().strip()
        except OSError:
            continue
        pid = int(folder.name)
        if comm in DAEMONS:
            named[f"{ENGINE}{comm}-{pid}"] = pid
        elif comm.startswith(SHIM) and (found := stat(pid)) and found.state not in GONE_STATES:
            named[f"{ENGINE if pid in shims else STRANGER}shim-{pid}"] = pid
    return named
