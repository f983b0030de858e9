"""A worker's memory: how much it holds, the leak of the release `leaky`, the limit, and the way to a clean start."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from stormdrill.platform.service import log

MB = 1024.0**2
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
LEAK_EVERY_S = 0.1
LONGEST_CATCH_UP_S = 0.5
WATCH_EVERY_S = 0.25
RELEASE_VARIABLE = "STORMDRILL_RELEASE"
_STATM = Path("/proc/self/statm")


def rss_bytes() -> float:
    """Resident memory; 0 where the kernel doesn't tell."""
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * PAGE_BYTES
    except OSError:
        return 0.0


class Leak:
    """Keeps touched memory, paced by the clock."""

    def __init__(self, mb_per_s: float) -> None:
        self._bytes_per_s = mb_per_s * MB
        self._kept: list[bytearray] = []
        self._last_s = time.monotonic()
        self._owed = 0.0

    async def grow(self) -> None:
        now_s = time.monotonic()
        self._owed += min(now_s - self._last_s, LONGEST_CATCH_UP_S) * self._bytes_per_s
        self._last_s = now_s
        pages, self._owed = divmod(self._owed, PAGE_BYTES)
        block = bytearray(int(pages) * PAGE_BYTES)
        block[::PAGE_BYTES] = b"\1" * int(pages)
        self._kept.append(block)


class Limit:
    """What the kernel does to a process above its group's limit, where there is no such group."""

    def __init__(self, limit_mb: float) -> None:
        self._limit_mb = limit_mb

    async def enforce(self) -> None:
        held_mb = rss_bytes() / MB
        if held_mb > self._limit_mb:
            log.error("out of memory: RSS %.0f MB of %.0f MB", held_mb, self._limit_mb)
            os.kill(os.getpid(), signal.SIGKILL)
            os._exit(128 + signal.SIGKILL)  # the first process of a PID namespace can't be killed from inside


def start_anew(version: str) -> None:
    """The same process from its beginning, as another release: whatever it held is freed."""
    os.execve(sys.executable, sys.orig_argv, {**os.environ, RELEASE_VARIABLE: version})  # noqa: S606
