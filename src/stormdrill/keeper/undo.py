"""Interprets the vocabulary of `model.undo`. Knows no fault, decides nothing, and every step has a limit.

Outcomes: *done*, the undo was carried out; *superseded*, there is nothing left to undo, because what it was meant for
is gone or was already put right by somebody else; *failed*, it could not be shown to be undone. `Spawn` and `EndChild`
are carried out by whoever owns the processes. What is said to container engines and proxies is in `undo_engine`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from stormdrill.keeper import plain, procfs, undo_engine
from stormdrill.keeper.loop import run_now
from stormdrill.keeper.outcome import DONE as DONE
from stormdrill.keeper.outcome import FAILED as FAILED
from stormdrill.keeper.outcome import SUPERSEDED as SUPERSEDED
from stormdrill.keeper.outcome import Outcome as Outcome
from stormdrill.keeper.outcome import combine as combine
from stormdrill.model.undo import (
    Call,
    Clear,
    Command,
    EndChild,
    EndExec,
    EndTree,
    Engine,
    Exec,
    Restore,
    Signal,
    Spawn,
    Undo,
)

T = TypeVar("T")
PROCESS_STATE, CONTENT = "process state", "its content"
LAST_TRY_S = 1.0
"""For what the end of the run undoes as well: the harm is lifted first, because ending takes longer."""
DOUBTFUL_S = 0.5
"""After this long an undo is repeated whose call was under way when the runner died: an engine may act on it late."""
SEEN_WITHIN_S = 0.1
"""A thaw is done when the process is *seen* not to be frozen any more; the kernel needs microseconds."""


def perform(undo: Undo, in_child: Callable[[], None] | None = None) -> Outcome:
    """Carry out one undo now; blocks for its time-out at most. Never raises.

    `in_child`: called in the process of a command before it becomes its program.
    """
    try:
        if isinstance(undo, Signal):
            return _signal(undo)
        if isinstance(undo, EndTree):
            return _end_tree(undo)
        if isinstance(undo, Call):
            return call(undo)
        if isinstance(undo, Command):
            return _command(undo, in_child)
        if isinstance(undo, Restore):
            return _restore(undo)
        if isinstance(undo, undo_engine.Remote):
            return run_now(undo_engine.steps(undo, lambda _: False))
    except Exception as error:  # an undo that fails in an unforeseen way must not stop the ones after it
        return Outcome(FAILED, f"{undo.kind}: {type(error).__name__}: {error}")
    return Outcome(FAILED, f"{undo.kind}: not known here")


def moot_when_the_system_ends(
    undo: Undo, addresses: Iterable[str], owns: Callable[[str], bool] = lambda _: False
) -> str:
    """Why this undo has nothing left to do once what the run owns is ended; empty when it has.

    `addresses`: where the run's own processes and containers answer. `owns`: whether a container is the run's own.
    """
    if isinstance(undo, Spawn):
        return f"{undo.instance} is not started again: the system is ended with the run"
    if isinstance(undo, Call) and urlsplit(undo.url).netloc in set(addresses):
        return f"{undo.method} {undo.url} is not called: that process is ended with the run"
    if isinstance(undo, EndChild):
        return f"{undo.instance} is ended with the run"
    if isinstance(undo, Clear) and undo.address in set(addresses):
        return f"the proxy at {undo.address} is ended with the run"
    if (isinstance(undo, Engine | Exec) and undo.with_the_run) or (isinstance(undo, EndExec) and owns(undo.container)):
        return "the container is removed with the run"
    return ""


def may_be_harmed_late(undos: Iterable[Undo], addresses: Iterable[str], owns: Callable[[str], bool]) -> bool:
    """Whether a call that nobody waits for any more could still do harm, to what goes on after the run."""
    there = list(addresses)
    return any(
        isinstance(undo, Call | undo_engine.Remote) and not moot_when_the_system_ends(undo, there, owns)
        for undo in undos
    )


def lifted_first(undo: Undo) -> bool:
    """Whether an undo that the end of the run makes moot is carried out all the same, as far as `LAST_TRY_S` allows:
    what lifts the harm in a moment, but starts nothing."""
    if isinstance(undo, Engine):
        return not undo.path.partition("?")[0].endswith(("/start", "/restart"))
    return isinstance(undo, Clear | EndExec | Exec | EndChild)


def settled(outcome: Outcome, moot: str) -> Outcome:
    """The outcome of an undo that was tried although the end of the run makes it moot."""
    if moot and outcome.word == FAILED:
        return Outcome(SUPERSEDED, f"{moot} ({outcome.detail})")
    return outcome


def at_once(undos: Sequence[T]) -> list[list[T]]:
    """The undos of one injection, in their order; neighbours that clear proxies can be carried out at the same time."""
    batches: list[list[T]] = []
    for undo in undos:
        if batches and isinstance(undo, Clear) and isinstance(batches[-1][-1], Clear):
            batches[-1].append(undo)
        else:
            batches.append([undo])
    return batches


def waves_of_reverting(armed: Iterable[tuple[T, str, str, Sequence[object]]]) -> list[list[list[T]]]:
    """Given what is armed as (it, the fault's word, its instance, its undo) in the order of arming: in which order to
    revert it. One wave after another; in a wave all lanes at once; in a lane one after another.

    What a signal reverts comes first, because it is done in a moment; then the other faults, one lane an instance; then
    what a runbook changed. Each in reverse order of arming.
    """
    waves: list[dict[str, list[T]]] = [{}, {}, {}]
    for it, fault, instance, undo in reversed(list(armed)):
        if fault == "runbook":
            waves[2].setdefault("", []).append(it)
        elif all(isinstance(item, Signal) for item in undo):
            waves[0].setdefault("", []).append(it)
        else:
            waves[1].setdefault(instance, []).append(it)
    return [list(lanes.values()) for lanes in waves if lanes]


def prepare(undo: Undo) -> None:
    """Load now what the undo will need, so that nothing has to be read from a disk that may be in trouble then."""
    if isinstance(undo, Call):
        import http.client  # noqa: F401


def limit_s(undo: Undo) -> float:
    """The longest that `perform` may take."""
    if isinstance(undo, Call | Command):
        return undo.timeout_s + 1.0
    if isinstance(undo, undo_engine.Remote):
        return undo_engine.limit_s(undo)
    return 10.0 if isinstance(undo, EndChild) else 3.0


def _signal(undo: Signal) -> Outcome:
    who = procfs.Identity(undo.pid, undo.start_ticks, undo.boot_id)
    number = signal.Signals[undo.signal]
    if not procfs.send(who, number):
        return Outcome(SUPERSEDED, f"{undo.instance} (pid {undo.pid}) is gone already", PROCESS_STATE)
    if number == signal.SIGCONT:
        until = time.monotonic() + SEEN_WITHIN_S
        while procfs.frozen(undo.pid, undo.start_ticks):
            if time.monotonic() > until:
                return Outcome(FAILED, f"{undo.instance} (pid {undo.pid}) is still frozen after SIGCONT")
            time.sleep(0.001)
    return Outcome(DONE, f"{undo.signal} to {undo.instance} (pid {undo.pid})", PROCESS_STATE)


def _end_tree(undo: EndTree) -> Outcome:
    root = procfs.Identity(undo.pid, undo.start_ticks, undo.boot_id)
    if not root.lives:
        return Outcome(SUPERSEDED, f"{undo.instance} (pid {undo.pid}) is gone already", PROCESS_STATE)
    tree = procfs.below(root)
    left = procfs.kill_until_gone([root, *tree], 2.0)
    if left:
        return Outcome(FAILED, f"{undo.instance}: still alive: {', '.join(f'pid {who.pid}' for who in left)}")
    return Outcome(DONE, f"{undo.instance} (pid {undo.pid}) and {len(tree)} descendants were ended", PROCESS_STATE)


def _restore(undo: Restore) -> Outcome:
    wanted = undo.text.encode("utf-8", "surrogateescape")
    path, name = os.path.split(undo.path)
    try:
        with plain.folder(path) as folder:
            for half in os.listdir(folder):  # noqa: PTH208
                if half.startswith(f".{name}.") and half.endswith(".restored"):  # of one who was killed while he wrote
                    os.unlink(half, dir_fd=folder)
            before, strange = _found(folder, name)
            if before and (before.data, before.mode) == (wanted, undo.mode):
                return Outcome(SUPERSEDED, f"{undo.path} is as it was already", CONTENT)
            if undo.ours is not None and (strange or not _is(undo.ours, before)):
                now = strange or ("it holds something else" if before else "it is gone")
                return Outcome(SUPERSEDED, f"{undo.path} was changed by somebody else meanwhile: {now}", CONTENT)
            owner = before.owner if before else (os.geteuid(), os.getegid())
            new = plain.Plain(wanted, undo.mode, owner)
            plain.write(folder, name, new, f".{name}.{os.getpid()}.restored")
            after, _ = _found(folder, name)
    except OSError as error:
        return Outcome(FAILED, f"{undo.path}: {error.strerror}")
    if after is None or after.data != wanted:
        return Outcome(FAILED, f"{undo.path}: somebody else writes it")
    return Outcome(DONE, f"{undo.path} is as it was", CONTENT)


def _found(folder: int, name: str) -> tuple[plain.Plain | None, str]:
    """What is there, if it is a plain file; else why it isn't, empty where nothing is."""
    try:
        return plain.read(folder, name), ""
    except OSError as error:
        return None, error.strerror or str(error)


def _is(ours: str, found: plain.Plain | None) -> bool:
    return (found.data if found else b"").strip() == ours.encode().strip()


def asked(undo: Call, to: str = "") -> str:
    """What a person reads of it. `to`: as for `call`."""
    return f"{undo.method} {f'{_path(undo)} {undo.body}'.rstrip()} to {to}" if to else f"{undo.method} {undo.url}"


def _path(undo: Call) -> str:
    parts = urlsplit(undo.url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def call(undo: Call, to: str = "") -> Outcome:
    """`to`: how the other side is named, where its address says nothing to a person."""
    import http.client  # 18 ms of CPU that only this word needs

    parts = urlsplit(undo.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return Outcome(FAILED, f"{undo.url} is not an http address")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=undo.timeout_s)
    path, what = _path(undo), asked(undo, to)

    def give_up() -> None:  # the socket's own time-out counts anew for every byte that drips in
        with contextlib.suppress(OSError):
            if connection.sock:
                connection.sock.shutdown(2)

    timer = threading.Timer(undo.timeout_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        headers = {"Content-Type": "application/json"} if undo.body else {}
        connection.request(undo.method, path, undo.body or None, headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return Outcome(FAILED, f"{what}: {type(error).__name__}: {error}")
    finally:
        timer.cancel()
        connection.close()
    return Outcome(DONE if 200 <= status < 300 else FAILED, f"{what}: {status}")


def _command(undo: Command, in_child: Callable[[], None] | None) -> Outcome:
    """Waits for the program and for nobody who holds its output open: what it has put into service stays."""
    what = " ".join(undo.argv)
    with open(os.memfd_create("undo"), "r+b") as output:  # on no disk: that may be full  # noqa: PTH123
        try:
            child = subprocess.Popen(
                undo.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=in_child,
            )
        except OSError as error:
            return Outcome(FAILED, f"{what}: {error.strerror}")
        try:
            code = child.wait(undo.timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # its own session and not reaped yet: the pid is still its
            child.wait()
            return Outcome(FAILED, f"{what}: no end after {undo.timeout_s:g} s")
        written = os.fstat(output.fileno()).st_size
        said = os.pread(output.fileno(), 400, max(0, written - 400)).decode("utf-8", "replace").strip()
    return Outcome(DONE if code == 0 else FAILED, f"{what}: exit {code}; {said}".rstrip("; "))
