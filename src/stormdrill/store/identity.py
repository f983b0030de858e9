"""Names one process for ever: its pid, when it started, and the boot it belongs to. Standard library only.

A pid alone is reused within minutes on a busy machine; locks, undos and takeovers therefore never trust one.
Linux: read from /proc.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

GONE_STATES = frozenset("ZXx")
"""A zombie has ended: PID 1 of a container may never reap it."""


class Identity(NamedTuple):
    """One process of one boot."""

    pid: int
    start_ticks: int
    boot_id: str

    @property
    def lives(self) -> bool:
        """Whether exactly that process still runs (frozen counts as running, a zombie doesn't)."""
        if not self.pid or self.boot_id != boot_id():
            return False
        found = stat(self.pid)
        return found is not None and found.start_ticks == self.start_ticks and found.state not in GONE_STATES


class Stat(NamedTuple):
    """What /proc/PID/stat says, as far as stormdrill needs it."""

    pid: int
    state: str
    """R, S, D running; T stopped by a signal; Z ended and not yet reaped."""
    parent: int
    session: int
    start_ticks: int
    cpu_ticks: int = 0
    """CPU used by all its threads, ended ones too, in clock ticks."""


@lru_cache(maxsize=1)
def boot_id() -> str:
    """This boot's identity; empty where the kernel doesn't tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def stat(pid: int) -> Stat | None:
    """None when there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 4096)
    except OSError:
        return None
    finally:
        os.close(fd)
    fields = text[text.rindex(b")") + 2 :].split()
    return Stat(
        pid, fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]), int(fields[11]) + int(fields[12])
    )


def identity_of(pid: int) -> Identity | None:
    """The identity of a living process; None when there is no such process."""
    found = stat(pid)
    return Identity(pid, found.start_ticks, boot_id()) if found else None


def own_identity() -> Identity:
    found = identity_of(os.getpid())
    return found or Identity(os.getpid(), 0, boot_id())
