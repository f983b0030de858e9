"""A real keeper with a run of its own, for tests of what it keeps."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from stormdrill.errors import KeeperGone
from stormdrill.keeper import procfs
from stormdrill.keeper.client import KeeperClient
from stormdrill.keeper.takeover import take_over
from stormdrill.model.event import Event, RunStarted
from stormdrill.model.undo import Signal, Undo
from stormdrill.store import holds, journal, rundir
from waiting import eventually

_E = TypeVar("_E", bound=Event)

IGNORES_TERM = [
    sys.executable,
    "-S",
    "-c",
    "import signal,time\nfor n in (15,1): signal.signal(n, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(1000)",
]
WITH_GRANDCHILDREN = ["sh", "-c", "sleep 1001 & setsid sleep 1002 & sleep 1003"]


def run_started(run: str, inputs: Mapping[str, str] | None = None) -> RunStarted:
    me = procfs.own_identity()
    return RunStarted(
        run=run,
        version="0",
        boot_id=procfs.boot_id(),
        title="A test",
        experiment="test",
        system="sleepers",
        target="process",
        seed=1,
        fast=True,
        settings={},
        inputs=dict(inputs or {}),
        runner_pid=me.pid,
        runner_start_ticks=me.start_ticks,
        cores=2,
        kernel="",
    )


@dataclass
class KeptRun:
    """A run directory, its hold and its living keeper."""

    dir: Path
    hold: holds.Hold
    keeper: KeeperClient
    pushes: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)
    _pushed: threading.Condition = field(default_factory=threading.Condition)

    def on_push(self, kind: str, data: Mapping[str, object]) -> None:
        with self._pushed:
            self.pushes.append((kind, data))
            self._pushed.notify_all()

    def await_push(self, kind: str, limit_s: float = 10.0) -> Mapping[str, object]:
        with self._pushed:
            found = self._pushed.wait_for(lambda: [data for name, data in self.pushes if name == kind], limit_s)
        assert found, f"no push {kind!r}, only {self.pushes}"
        return found[0]

    def spawn(self, name: str, argv: Sequence[str] = ("sleep", "1000"), **more: object) -> procfs.Identity:
        values: dict[str, object] = {
            "service": name,
            "role": "system",
            "env": {},
            "cwd": "",
            "address": "",
            "labels": {},
        }
        spawned = self.keeper.spawn(name, argv=argv, **{**values, **more})  # type: ignore[arg-type]
        return procfs.Identity(spawned.pid, spawned.start_ticks, procfs.boot_id())

    def arm(self, injection: str, *undo: Undo, fault: str = "freeze", expires_in_s: float = 60.0) -> None:
        self.keeper.arm(
            injection,
            fault=fault,
            instance=injection.rpartition("/")[2],
            mechanism=fault,
            undo=undo,
            expires_in_s=expires_in_s,
        )

    def freeze(self, name: str, who: procfs.Identity, expires_in_s: float = 60.0) -> str:
        """Arm and inject; returns the injection."""
        injection = f"freeze/{name}"
        self.arm(injection, thaw(name, who), expires_in_s=expires_in_s)
        procfs.send(who, signal.SIGSTOP)
        eventually(lambda: procfs.frozen(who.pid, who.start_ticks))
        return injection

    def events(self, kind: type[_E]) -> list[_E]:
        found = journal.salvage(self.dir / journal.NAME).events
        return [recorded.event for recorded in found if isinstance(recorded.event, kind)]

    def words(self) -> list[str]:
        return [recorded.event.type for recorded in journal.salvage(self.dir / journal.NAME).events]

    def keeper_ended(self) -> None:
        """Wait for the keeper to end (its zombie is ours)."""
        eventually(lambda: not self.keeper.identity.lives, 15.0)


def by_the_keeper(run: KeptRun, injection: str) -> str:
    """Revert one armed injection; returns its outcome."""
    return run.keeper.revert(injection, "planned")


def by_the_successor(run: KeptRun, injection: str) -> str:
    """The same, after the keeper was killed, by whoever takes the journal over."""
    run.keeper.on_push = None
    procfs.kill_until_gone([run.keeper.identity], 5.0)
    result = take_over(run.dir, "runner")
    return {name: outcome for name, outcome, _ in result.reverted}[injection]


@contextmanager
def kept_run(runs: Path, *, grace_s: float = 0.5) -> Iterator[KeptRun]:
    """Whatever the test leaves open is ended when it leaves."""
    run_dir = rundir.create(runs, "test")
    hold = holds.acquire("sleepers", "process", run_dir.name, run_dir)
    kept = KeptRun(run_dir, hold, None)  # type: ignore[arg-type]  # set in the next line
    kept.keeper = KeeperClient.start(
        run_dir,
        run=run_dir.name,
        system="sleepers",
        target="process",
        hold=hold,
        on_push=kept.on_push,
        grace_s=grace_s,
    )
    try:
        kept.keeper.record(run_started(run_dir.name))
        yield kept
    finally:
        if kept.keeper.identity.lives:
            procfs.send(kept.keeper.identity, signal.SIGCONT)
            with suppress(KeeperGone):
                kept.keeper.close("aborted", "the test is over")
        procfs.kill_until_gone([kept.keeper.identity, *procfs.marked(run_dir.name)], 5.0)


def thaw(name: str, who: procfs.Identity) -> Signal:
    return Signal(name, who.pid, who.start_ticks, who.boot_id, "SIGCONT")


def pid_exists(pid: int) -> bool:
    return (procfs.state(pid) or "Z") not in procfs.GONE_STATES and os.path.exists(f"/proc/{pid}")  # noqa: PTH110


Execute = Callable[[KeptRun, str], str]
"""Revert one armed injection; returns its outcome."""
EXECUTORS = pytest.mark.parametrize("execute", [by_the_keeper, by_the_successor])
