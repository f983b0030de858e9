"""Which mechanisms work on local processes here, seen without harming anything. Imports nothing heavy."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

State = Literal["ok", "weak", "missing"]
TOXICS = "delay stall trickle squeeze reset refuse cut"
MEMORY_WANTED_MB = 512


class Seen(NamedTuple):
    """One mechanism, or several that stand or fall together."""

    mechanism: str
    state: State
    seen: str
    cost: str = ""
    """What its lack costs, and what would help."""


def findings() -> Iterator[Seen]:
    if sys.platform != "linux":
        yield Seen(
            "processes", "missing", sys.platform, "signals to exactly one process need Linux: use --target docker"
        )
        return
    yield from _signals()
    yield _proxy()
    yield _pressure()
    yield Seen(
        "cpu-limit",
        "missing",
        "a process has no limit of its own that could be taken back for certain",
        "cpu-starvation is refused; use --target docker, or noisy-neighbour with mode: cpu",
    )
    yield Seen(
        "sever",
        "missing",
        "processes share this machine's network",
        "declare the hops under dependencies, so that they pass a proxy which cuts them; or use --target docker",
    )
    yield Seen("device tell beside", "ok", "files, requests and programs of stormdrill's own")


def _signals() -> Iterator[Seen]:
    readable = Path("/proc/self/stat").exists()
    if not readable:
        help = "mount /proc: without it nobody sees whether a process stopped, and every such fault is INCONCLUSIVE"
        yield Seen("freeze crash", "missing", "no /proc to see it by", help)
        return
    ours = "signals to this user's own processes" if os.geteuid() else "signals; as root, to processes of any user"
    yield Seen("freeze crash", "ok", ours)


def _proxy() -> Seen:
    try:
        with socket.create_server(("127.0.0.1", 0)):
            return Seen(TOXICS, "ok", "the run's own proxy on 127.0.0.1, on hops under dependencies")
    except OSError as error:
        return Seen(TOXICS, "missing", str(error), "the proxy cannot listen on 127.0.0.1")


def _pressure() -> Seen:
    seen = "an allocator beside the process; no limit holds it, so victim: app is refused"
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free_mb = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return Seen("pressure", "weak", "memory that is free is unknown here", "the machine is protected by nothing")
    if free_mb < MEMORY_WANTED_MB:
        return Seen("pressure", "weak", f"{free_mb} MiB available", "a run is aborted before memory ends; free some")
    return Seen("pressure", "ok", seen, "use --target docker where the kernel is to end the application")
