"""What /proc tells about processes, and signals that reach exactly the process that was meant. Linux only."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from stormdrill.store.identity import GONE_STATES, Identity, Stat, boot_id, identity_of, own_identity, stat

__all__ = [
    "GONE_STATES",
    "MARK",
    "MARK_INSTANCE",
    "Identity",
    "Stat",
    "boot_id",
    "cpu_s",
    "descendants",
    "frozen",
    "identity_of",
    "kill_until_gone",
    "lives",
    "marked",
    "marks",
    "own_identity",
    "run_delays_ns",
    "send",
    "snapshot",
    "start_ticks",
    "stat",
    "state",
]

MARK = "STORMDRILL_RUN"
"""In the environment of every process of a run: finds what outlived its parents."""
MARK_INSTANCE = "STORMDRILL_INSTANCE"


def start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; None when there is no such process."""
    found = stat(pid)
    return found.start_ticks if found else None


def state(pid: int) -> str | None:
    """R, S, D, T, Z …; None when there is no such process."""
    found = stat(pid)
    return found.state if found else None


def lives(pid: int, start: int) -> bool:
    """Whether the process that started then still runs in this boot; frozen is alive, a zombie isn't."""
    return Identity(pid, start, boot_id()).lives


def frozen(pid: int, start: int) -> bool:
    """Whether exactly that process is stopped by a signal."""
    found = stat(pid)
    return found is not None and found.start_ticks == start and found.state == "T"


def send(who: Identity, number: int) -> bool:
    """Signal exactly this process. False when it is gone. Raises PermissionError."""
    if not who.lives:
        return False
    try:
        fd = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return False
    except OSError:  # a kernel without pidfd_open: a tiny window in which the pid may change hands
        fd = -1
    try:
        if not who.lives:  # the pid changed hands before it was pinned
            return False
        if fd >= 0:
            signal.pidfd_send_signal(fd, number)
        else:
            os.kill(who.pid, number)
    except ProcessLookupError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True


def snapshot() -> dict[int, Stat]:
    """Every process that /proc shows, by pid."""
    found = (stat(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208  (ten times faster)
    return {item.pid: item for item in found if item}


def descendants(roots: Collection[int], seen: dict[int, Stat] | None = None) -> list[Stat]:
    """All living processes below these pids, and those of the sessions that a living root leads; not the roots."""
    seen = snapshot() if seen is None else seen
    below = set(roots)
    grew = True
    while grew:
        more = {item.pid for item in seen.values() if item.parent in below} - below
        below |= more
        grew = bool(more)
    led = {pid for pid in roots if pid in seen and seen[pid].session == pid}
    below |= {item.pid for item in seen.values() if item.session in led}
    return [seen[pid] for pid in below - set(roots) if pid in seen and seen[pid].state not in GONE_STATES]


def marks(run: str, instance: str) -> dict[str, str]:
    """What is added to the environment of every process of a run; what they start inherits it."""
    return {MARK: run, MARK_INSTANCE: instance}


def marked(run: str, instance: str = "") -> list[Identity]:
    """Every living process that was started with the marks of this run (and instance), whoever its parent is now."""
    wanted = {f"{MARK}={run}".encode()}
    if instance:
        wanted.add(f"{MARK_INSTANCE}={instance}".encode())
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted.issubset(Path(f"/proc/{name}/environ").read_bytes().split(b"\0")):
                who = identity_of(int(name))
                if who and who.lives:
                    found.append(who)
    return found


def kill_until_gone(victims: Iterable[Identity], timeout_s: float) -> list[Identity]:
    """SIGKILL exactly these, frozen ones too; returns those that still live when the time is up."""
    left = list(victims)
    until = time.monotonic() + timeout_s
    while True:
        for who in left:
            with contextlib.suppress(PermissionError):
                send(who, signal.SIGKILL)
        left = [who for who in left if who.lives]
        if not left or time.monotonic() >= until:
            return left
        time.sleep(0.005)


def run_delays_ns(pid: int) -> dict[int, int]:
    """Thread → nanoseconds for which it was runnable but had no core, since it started."""
    found = {}
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with contextlib.suppress(OSError, ValueError, IndexError):
                found[int(task)] = int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[1])
    return found


def cpu_s(pid: int) -> float | None:
    """CPU seconds used by all threads of the process; None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
