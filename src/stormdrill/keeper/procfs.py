"""What /proc tells about processes, and signals that reach exactly the process that was meant. Linux only."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from stormdrill.store.identity import GONE_STATES, Identity, Stat, boot_id, identity_of, own_identity, stat

__all__ = [
    "GONE_STATES",
    "MARK",
    "MARK_INSTANCE",
    "Identity",
    "Stat",
    "below",
    "boot_id",
    "descendants",
    "frozen",
    "identity_of",
    "kill_until_gone",
    "lives",
    "marked",
    "marks",
    "own_identity",
    "owners",
    "send",
    "snapshot",
    "stat",
    "state",
    "thread_times_ns",
]

MARK = "STORMDRILL_RUN"
"""In the environment of every process of a run: finds what outlived its parents."""
MARK_INSTANCE = "STORMDRILL_INSTANCE"


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


def below(root: Identity) -> list[Identity]:
    """What descends from exactly this process; nothing when it is gone, for then its pid may be a stranger's."""
    if not root.lives:
        return []
    found = descendants([root.pid])
    if not root.lives:  # it ended while they were listed
        return []
    return [Identity(item.pid, item.start_ticks, root.boot_id) for item in found]


def owners(roots: Mapping[int, str], seen: Mapping[int, Stat]) -> dict[int, str]:
    """Process → the name of the nearest root at or above it; where its parent died, the root that leads its session."""
    found: dict[int, str] = {}
    for pid in seen:
        way, at = [], pid
        while at not in found and at not in roots and at in seen and seen[at].session not in roots:
            way.append(at)
            at = seen[at].parent
        name = found.get(at) or roots.get(at) or (roots.get(seen[at].session, "") if at in seen else "")
        found.update(dict.fromkeys((*way, pid), name))
    return {pid: name for pid, name in found.items() if name}


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


def thread_times_ns(pid: int) -> dict[int, tuple[int, int]]:
    """Thread → nanoseconds on a core, and nanoseconds runnable without one; empty where the kernel doesn't tell."""
    found = {}
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with contextlib.suppress(OSError, ValueError, IndexError):  # the thread has just ended
                ran, waited = _read(f"/proc/{pid}/task/{task}/schedstat").split()[:2]
                found[int(task)] = (int(ran), int(waited))
    return found


def _read(path: str) -> bytes:
    """A small file of /proc: a fifth of what a text file object costs, and there are a hundred of them a second."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)
