"""The keeper's children: started, watched and reaped here. All processes of a run descend from the keeper.

Each child leads a session of its own, dies by SIGKILL when the keeper dies, inherits no descriptor and carries the
run's marks in its environment. The keeper is a subreaper, so that orphaned grandchildren become its children instead
of escaping to PID 1.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stormdrill.errors import SystemNotReady
from stormdrill.keeper import procfs
from stormdrill.keeper.loop import Steps, Wait
from stormdrill.keeper.undo import DONE, FAILED, Outcome, limit_s, perform
from stormdrill.model.undo import Command, Undo

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
KILLED_WITHIN_S = 5.0
"""A process that SIGKILL has not ended by then is stuck in the kernel (state D)."""
_ROUND_S = 0.05
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Spec:
    """What it takes to start an instance, and to start it again."""

    instance: str
    service: str
    role: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    address: str
    labels: Mapping[str, str]


@dataclass(slots=True)
class Child:
    spec: Spec
    who: procfs.Identity
    log: str
    ending: bool = False
    """We have begun to end it: its exit is expected."""
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Exit:
    child: Child
    code: int | None
    signal: str | None


@dataclass(slots=True)
class _Worker:
    """A process that carries out one undo. It stays as the parent of what a command has started for good."""

    pid: int
    pipe: int
    gone: bool = False
    stays: bool = False
    said: bytes = b""

    def has_answered(self) -> bool:
        """Whether its outcome is here, or it died without one."""
        with contextlib.suppress(BlockingIOError):
            self.said += os.read(self.pipe, 65536)
        return self.gone or self.said.endswith(b"\n")

    def outcome(self) -> Outcome | None:
        if not self.said.endswith(b"\n"):
            return None
        *outcome, self.stays = json.loads(self.said)
        return Outcome(*outcome)


@dataclass(slots=True)
class Family:
    """Knows every child by instance; the youngest when one was started again."""

    run: str
    run_dir: Path
    children: dict[str, Child] = field(default_factory=dict)
    childless: bool = True
    """Nothing at all is left below the keeper, known or orphaned, as of the last `reap`."""
    _workers: dict[int, _Worker] = field(default_factory=dict)

    def adopt_orphans(self) -> None:
        _adopt_orphans()

    def living(self) -> list[Child]:
        return [child for child in self.children.values() if not child.gone]

    def addresses(self) -> list[str]:
        return [child.spec.address for child in self.children.values() if child.spec.address]

    def answers_at(self, address: str) -> bool:
        """Whether the process that was started to answer there lives."""
        return any(child.spec.address == address for child in self.living())

    def spawn(self, spec: Spec) -> Child:
        """Start the instance. Raises ValueError when it lives already, SystemNotReady when it cannot be started."""
        before = self.children.get(spec.instance)
        if before is not None and not before.gone:
            raise ValueError(f"{spec.instance} is running already (pid {before.who.pid})")
        if "/" in spec.instance or not spec.instance or not spec.argv:
            raise ValueError(f"an instance needs a name without a slash and a command: {spec.instance!r} {spec.argv}")
        log = f"logs/{spec.instance}.log"
        (self.run_dir / "logs").mkdir(exist_ok=True)
        with (self.run_dir / log).open("ab") as out:
            try:
                process = subprocess.Popen(
                    spec.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=spec.cwd or self.run_dir,
                    env={**os.environ, **spec.env, **procfs.marks(self.run, spec.instance)},
                    start_new_session=True,
                    preexec_fn=_die_with(os.getpid()),  # the keeper has one thread
                )
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                raise SystemNotReady(f"{spec.instance}: cannot start {spec.argv[0]}: {error}") from error
        process.returncode = 0  # reaped here, by pid, and not by subprocess
        who = procfs.identity_of(process.pid)
        assert who is not None  # our child and not reaped yet: it has at least a zombie's entry
        child = Child(spec, who, log)
        self.children[spec.instance] = child
        self.childless = False
        return child

    def reap(self) -> list[Exit]:
        """Collect whatever has ended; returns the exits of instances."""
        exits: list[Exit] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.childless = True
                return exits
            if pid == 0:
                self.childless = False
                return exits
            if pid in self._workers:
                self._workers.pop(pid).gone = True
            for child in self.children.values():
                if child.who.pid == pid and not child.gone:
                    child.gone = True
                    code = os.waitstatus_to_exitcode(status)
                    exits.append(Exit(child, code, None) if code >= 0 else Exit(child, None, signal_name(-code)))

    def end(self, child: Child, timeout_s: float) -> Steps[list[str]]:
        """SIGTERM, then SIGKILL for it and all that descends from it; returns what still lives."""
        child.ending = True
        below = procfs.below(child.who)
        self._ask_to_end(child)
        yield Wait(lambda: child.gone, timeout_s)
        victims = {child.who, *below, *procfs.below(child.who), *procfs.marked(self.run, child.spec.instance)}
        for who in victims:
            _kill(who)
        yield Wait(lambda: not any(who.lives for who in victims), KILLED_WITHIN_S)
        return [f"{child.spec.instance} (pid {who.pid})" for who in victims if who.lives]

    def end_all(self, grace_s: float) -> Steps[list[str]]:
        """End everything of the run below the keeper, frozen or orphaned too; returns what still lives."""
        for child in self.living():
            child.ending = True
            self._ask_to_end(child)
        yield Wait(lambda: not self.living(), grace_s)
        boot = procfs.boot_id()
        for _ in range(round(KILLED_WITHIN_S / _ROUND_S)):
            for item in self._below():
                _kill(procfs.Identity(item.pid, item.start_ticks, boot))
            yield Wait(lambda: self.childless, _ROUND_S)
            if self.childless or (self._staying() and not self._below()):
                return []
        return [f"pid {item.pid} (state {item.state})" for item in self._below()]

    def _staying(self) -> set[int]:
        return {worker.pid for worker in self._workers.values() if worker.stays}

    def _below(self) -> list[procfs.Stat]:
        """What lives below the keeper, without what an undo has put back into service: that isn't the run's."""
        seen, staying = procfs.snapshot(), self._staying()
        kept = staying | {item.pid for item in procfs.descendants(staying, seen)}
        return [item for item in procfs.descendants([os.getpid()], seen) if item.pid not in kept]

    def work(self, undo: Undo) -> Steps[Outcome]:
        """Carry an undo that may take its time out in a process of its own, ended at its limit."""
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        pid = os.fork()
        if pid == 0:
            _work_and_exit(undo, write_end)
        os.close(write_end)
        worker = self._workers[pid] = _Worker(pid, read_end)
        self.childless = False
        who = procfs.identity_of(pid)
        assert who is not None  # our child and not reaped yet
        try:
            if not (yield Wait(worker.has_answered, limit_s(undo))):
                for one in (who, *procfs.below(who)):
                    _kill(one)
                return Outcome(FAILED, f"{undo.kind}: no end after {limit_s(undo):g} s")
        finally:
            os.close(read_end)
        return worker.outcome() or Outcome(FAILED, f"{undo.kind}: its worker died")

    def _ask_to_end(self, child: Child) -> None:
        with contextlib.suppress(PermissionError):
            procfs.send(child.who, signal.SIGTERM)
            procfs.send(child.who, signal.SIGCONT)  # a frozen one can only obey when thawed


def signal_name(number: int) -> str:
    """SIGKILL, …; realtime signals have no name of their own but the number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def _kill(who: procfs.Identity) -> None:
    with contextlib.suppress(PermissionError):
        procfs.send(who, signal.SIGKILL)


def _die_with(keeper_pid: int) -> Callable[[], None]:
    def in_the_child() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != keeper_pid:  # it died before the line above
            os._exit(errno.ESRCH)

    return in_the_child


def _work_and_exit(undo: Undo, write_end: int) -> None:
    """In the forked worker: keep nothing of the keeper's that its death must release (journal lock, socket).

    What a command starts bears no mark of the run: it may be a server that was put back into service.
    """
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _adopt_orphans()
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        _close_all_but(write_end)
        outcome = perform(undo, _die_with(os.getpid()))
        stays = isinstance(undo, Command) and outcome.word == DONE and _has_children()
        os.write(write_end, json.dumps([*outcome, stays]).encode() + b"\n")
        while stays and _has_children(os.WEXITED):
            pass
    except BrokenPipeError:
        pass  # the keeper was killed before it could hear of it: whoever takes over looks for itself
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def _adopt_orphans() -> None:
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _has_children(how: int = os.WEXITED | os.WNOHANG) -> bool:
    """Reaps one that has ended, if there is one; without WNOHANG it waits for one to end."""
    try:
        os.waitid(os.P_ALL, 0, how)
    except ChildProcessError:
        return False
    return True


def _close_all_but(kept: int) -> None:
    numbers: Sequence[int] = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    for number in numbers:
        if number > 2 and number != kept:
            with contextlib.suppress(OSError):
                os.close(number)
