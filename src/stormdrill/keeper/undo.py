"""Interprets the vocabulary of `model.undo`. Knows no fault, decides nothing, and every step has a limit.

Outcomes: *done*, the undo was carried out; *superseded*, there is nothing left to undo, because what it was meant for
is gone or was already put right by somebody else; *failed*, it could not be shown to be undone. `Spawn` is carried out
by whoever owns the processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

from stormdrill.keeper import procfs
from stormdrill.model.undo import Call, Command, EndTree, Signal, Spawn, Undo

T = TypeVar("T")
DONE, FAILED, SUPERSEDED = "done", "failed", "superseded"
SEEN_WITHIN_S = 0.1
"""A thaw is done when the process is *seen* not to be frozen any more; the kernel needs microseconds."""


class Outcome(NamedTuple):
    word: str
    """done, failed or superseded."""
    detail: str


def perform(undo: Undo) -> Outcome:
    """Carry out one undo now; blocks for its time-out at most. Never raises."""
    try:
        if isinstance(undo, Signal):
            return _signal(undo)
        if isinstance(undo, EndTree):
            return _end_tree(undo)
        if isinstance(undo, Call):
            return _call(undo)
        if isinstance(undo, Command):
            return _command(undo)
    except Exception as error:  # an undo that fails in an unforeseen way must not stop the ones after it
        return Outcome(FAILED, f"{undo.kind}: {type(error).__name__}: {error}")
    return Outcome(FAILED, f"{undo.kind}: not known here")


def combine(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of one injection's whole undo: failed if any part failed, superseded if all were."""
    parts = list(outcomes)
    words = {part.word for part in parts}
    word = FAILED if FAILED in words else SUPERSEDED if words == {SUPERSEDED} else DONE
    return Outcome(word, "; ".join(part.detail for part in parts) or "nothing to undo")


def moot_when_the_system_ends(undo: Undo, addresses: Iterable[str]) -> str:
    """Why this undo has nothing left to do once the run's own processes are ended; empty when it has."""
    if isinstance(undo, Spawn):
        return f"{undo.instance} is not started again: the system is ended with the run"
    if isinstance(undo, Call) and urlsplit(undo.url).netloc in set(addresses):
        return f"{undo.method} {undo.url} is not called: that process is ended with the run"
    return ""


def order_of_reverting(armed: Iterable[tuple[T, str, Sequence[object]]]) -> list[T]:
    """Given what is armed as (it, the fault's word, its undo) in the order of arming: the order to revert it in.

    What a signal reverts comes first, because it is done in a moment; then the other faults; then what a runbook
    changed. Each in reverse order of arming.
    """

    def rank(entry: tuple[T, str, Sequence[object]]) -> int:
        _, fault, undo = entry
        if fault == "runbook":
            return 2
        return 0 if all(isinstance(item, Signal) for item in undo) else 1

    return [entry[0] for entry in sorted(reversed(list(armed)), key=rank)]


def prepare(undo: Undo) -> None:
    """Load now what the undo will need, so that nothing has to be read from a disk that may be in trouble then."""
    if isinstance(undo, Call):
        import http.client  # noqa: F401


def limit_s(undo: Undo) -> float:
    """The longest that `perform` may take."""
    if isinstance(undo, Call | Command):
        return undo.timeout_s + 1.0
    return 3.0


def _signal(undo: Signal) -> Outcome:
    who = procfs.Identity(undo.pid, undo.start_ticks, undo.boot_id)
    number = signal.Signals[undo.signal]
    if not procfs.send(who, number):
        return Outcome(SUPERSEDED, f"{undo.instance} (pid {undo.pid}) is gone already")
    if number == signal.SIGCONT:
        until = time.monotonic() + SEEN_WITHIN_S
        while procfs.frozen(undo.pid, undo.start_ticks):
            if time.monotonic() > until:
                return Outcome(FAILED, f"{undo.instance} (pid {undo.pid}) is still frozen after SIGCONT")
            time.sleep(0.001)
    return Outcome(DONE, f"{undo.signal} to {undo.instance} (pid {undo.pid})")


def _end_tree(undo: EndTree) -> Outcome:
    root = procfs.Identity(undo.pid, undo.start_ticks, undo.boot_id)
    if not root.lives:
        return Outcome(SUPERSEDED, f"{undo.instance} (pid {undo.pid}) is gone already")
    tree = [procfs.Identity(item.pid, item.start_ticks, root.boot_id) for item in procfs.descendants([undo.pid])]
    left = procfs.kill_until_gone([root, *tree], 2.0)
    if left:
        return Outcome(FAILED, f"{undo.instance}: still alive: {', '.join(f'pid {who.pid}' for who in left)}")
    return Outcome(DONE, f"{undo.instance} (pid {undo.pid}) and {len(tree)} descendants were ended")


def _call(undo: Call) -> Outcome:
    import http.client  # 18 ms of CPU that only this word needs

    parts = urlsplit(undo.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return Outcome(FAILED, f"{undo.url} is not an http address")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=undo.timeout_s)
    what = f"{undo.method} {undo.url}"

    def give_up() -> None:  # the socket's own time-out counts anew for every byte that drips in
        with contextlib.suppress(OSError):
            if connection.sock:
                connection.sock.shutdown(2)

    timer = threading.Timer(undo.timeout_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Content-Type": "application/json"} if undo.body else {}
        connection.request(undo.method, path, undo.body or None, headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return Outcome(FAILED, f"{what}: {type(error).__name__}: {error}")
    finally:
        timer.cancel()
        connection.close()
    return Outcome(DONE if 200 <= status < 300 else FAILED, f"{what}: {status}")


def _command(undo: Command) -> Outcome:
    what = " ".join(undo.argv)
    try:
        child = subprocess.Popen(
            undo.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return Outcome(FAILED, f"{what}: {error.strerror}")
    try:
        output, _ = child.communicate(timeout=undo.timeout_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # its own session and not reaped yet: the pid is still its
        child.wait()
        return Outcome(FAILED, f"{what}: no end after {undo.timeout_s:g} s")
    said = output[-400:].decode("utf-8", "replace").strip()
    return Outcome(DONE if child.returncode == 0 else FAILED, f"{what}: exit {child.returncode}; {said}".rstrip("; "))
