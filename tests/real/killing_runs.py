"""The run that is killed: the real conductor, target and faults, in a process forked from one that has imported all."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import killing_scenarios

from stormdrill.api import targets
from stormdrill.api.session import Inputs, conduct
from stormdrill.core.plan import make_plan
from stormdrill.errors import KeeperGone, Refused
from stormdrill.faults.builtin import BUILTIN
from stormdrill.keeper import procfs
from stormdrill.keeper.client import KeeperClient
from stormdrill.model.event import Event
from stormdrill.model.policy import Policy
from stormdrill.store import rundir
from stormdrill.store.journal import NAME

MARK = "STORMDRILL_KILL"
"""In the environment of everything that one kill's run starts: found by it, whatever the product believes."""
ACKNOWLEDGED = "acknowledged"
LOG = "runner.log"
CODES = {"completed": 0, "aborted": 4, "dirty": 5, "failed": 70}
LOOK_S = 0.0005


@dataclass(frozen=True, slots=True)
class Place:
    """Where one kill happens: a folder of its own, with the state home and the run inside."""

    root: Path
    target: str
    scenario: str
    attach: Mapping[str, str] | None = None
    """The opt-in label of containers that outlive the run."""
    engine: str = ""
    """The container engine that the run uses."""

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def run_dir(self) -> Path | None:
        """Of the only run; None as long as there is none."""
        return next(iter(rundir.all_runs(self.runs)), None)

    def enter(self) -> None:
        """This process's own state home, too: holds are looked at where the run put them."""
        os.environ["XDG_STATE_HOME"] = str(self.root / "state")
        os.environ[MARK] = self.root.name
        if self.engine:
            os.environ["DOCKER_HOST"] = self.engine


def fork(work: Callable[[], int], log: Path) -> int:
    """A child in a session of its own that does the work and nothing of its parent's; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        code = work()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def begin(place: Place) -> int:
    """Start the run; returns the runner's pid."""
    place.root.mkdir(parents=True, exist_ok=True)
    place.enter()
    return fork(lambda: _be_the_runner(place), place.root / LOG)


def _be_the_runner(place: Place) -> int:
    os.chdir(place.root)
    _write_down_what_is_acknowledged(place.root / ACKNOWLEDGED)
    target = "process" if place.target == "process" else "docker"
    system = killing_scenarios.system(place.target, place.attach)
    here = targets.make(target, system, Path())
    world = here.world()
    plan = make_plan(
        killing_scenarios.experiment(place.scenario, place.target), world.system, Policy(), None,
        target=target, offers=here, world=world, faults=BUILTIN, seed=1,
    )  # fmt: skip
    inputs = Inputs(
        plan=plan, sources={}, runbook=None, locustfile=None, templates=None, settings={}, runs_dir=place.runs
    )
    try:
        return CODES[conduct(inputs, lambda *_: None).status]
    except Refused as refused:
        os.write(2, f"refused: {refused}\n".encode())
        return refused.exit_code
    except KeeperGone as gone:  # it was killed before it had said that it is there
        os.write(2, f"{gone}\n".encode())
        return 75


def _write_down_what_is_acknowledged(place: Path) -> None:
    """One line for each event that the keeper promised to keep: its number and word, or what was armed."""
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    record, arm = KeeperClient.record, KeeperClient.arm

    def recorded(self: KeeperClient, event: Event, mono_ms: float | None = None) -> int:
        number = record(self, event, mono_ms)
        if event.durable:
            os.write(fd, f"{number} {event.type}\n".encode())
        return number

    def armed(self: KeeperClient, injection: str, **rest: object) -> None:
        arm(self, injection, **rest)  # type: ignore[arg-type]
        os.write(fd, f"armed {injection}\n".encode())

    KeeperClient.record, KeeperClient.arm = recorded, armed  # type: ignore[method-assign,assignment]


class Watch:
    """Follows the journal from outside: how many lines there are, and what they were when they were seen."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._fd = -1
        self.seen = b""

    def poll(self) -> int:
        """Complete lines until now."""
        if self._fd < 0:
            run_dir = self._place.run_dir
            if run_dir is None:
                return 0
            try:
                self._fd = os.open(run_dir / NAME, os.O_RDONLY)
            except FileNotFoundError:
                return 0
        while data := os.read(self._fd, 1 << 16):
            self.seen += data
        return self.seen.count(b"\n")

    def until(self, lines: int, over: Callable[[], bool], limit_s: float = 30.0) -> bool:
        """Whether the journal had so many lines before the run was over."""
        ends_s = time.monotonic() + limit_s
        while self.poll() < lines:
            if over() or time.monotonic() > ends_s:
                return self.poll() >= lines
            time.sleep(LOOK_S)
        return True

    @property
    def complete(self) -> bytes:
        """What was seen, without a line that may still grow."""
        return self.seen[: self.seen.rfind(b"\n") + 1]

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def keeper_of(runner_pid: int) -> procfs.Identity | None:
    for item in procfs.snapshot().values():
        if item.parent == runner_pid and item.session == item.pid and item.state not in procfs.GONE_STATES:
            return procfs.identity_of(item.pid)
    return None
