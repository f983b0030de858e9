"""What the commands `recover`, `abort` and `runs` do, as plain functions with plain results."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stormdrill.errors import JournalBroken, Refused
from stormdrill.keeper import procfs
from stormdrill.keeper.far import Hands
from stormdrill.keeper.takeover import KILL_LIMIT_S, TakeOverResult, take_over
from stormdrill.keeper.warden import END_NOW
from stormdrill.model.event import AbortRequested, Event, KeeperStarted, Recorded, RunEnded, RunStarted
from stormdrill.store import holds, rundir
from stormdrill.store.holds import Hold
from stormdrill.store.journal import NAME, Follower, last_line, salvage

REACT_LIMIT_S = 5.0
"""How long runner or keeper may take to write down that they heard of the abort."""
END_LIMIT_S = 60.0
"""How long they may take to revert and tear down after that."""
_LOOK_S = 0.02
HandsFor = Callable[[Path], Hands | None]
"""Who undoes what a run did in clusters, by its directory; None where it did nothing there."""


def _nobody(_: Path) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Aborted:
    """How a run was stopped."""

    run: str
    dir: str
    status: str
    """aborted, dirty, or what the run had ended with before it heard of it."""
    by: str
    """Who ended it: runner, keeper, recover."""


@dataclass(frozen=True, slots=True)
class RunLine:
    """One line of `stormdrill runs`."""

    run: str
    dir: str
    system: str
    target: str
    title: str
    started_at: str
    """UTC with offset; empty when the run was killed before it wrote its first line."""
    state: str
    """running, completed, aborted, failed, dirty; killed: `recover` must mend it; unknown: nobody here holds it, and
    its processes were of another machine, or of a time before this one was booted."""
    left: tuple[str, ...] = ()
    held: bool = False
    """It is among the open runs of this user's state directory: those that `recover` finds by itself."""


def recover(
    run: str | None = None, runs: Path = Path("runs"), *, accept_left: bool = False, hands_for: HandsFor = _nobody
) -> list[TakeOverResult]:
    """Mend the runs whose processes were killed, and retry what was left dirty; all of them, or the one named.

    `accept_left`: a person vouches that what could not be shown to be reverted is mended. `hands_for`: who undoes what
    the run in that directory did in clusters. Raises Refused when the run named is alive or unknown.
    """
    open_ = holds.open_runs()
    if run is not None:
        named = [hold for hold in open_ if hold.run == run or Path(hold.dir) == Path(run).resolve()]
        if not named:
            return [_recover_unheld(rundir.find(run, runs), accept_left, hands_for)]
        if named[0].runner.lives and not named[0].left:
            raise Refused(f"run {named[0].run} is alive (pid {named[0].runner.pid}); stop it with: stormdrill abort")
        open_ = named
    mendable = [hold for hold in open_ if hold.left or not hold.runner.lives]
    return [_recover_held(hold, accept_left, hands_for) for hold in mendable]


def abort(
    run: str, runs: Path = Path("runs"), *, react_limit_s: float = REACT_LIMIT_S, hands_for: HandsFor = _nobody
) -> Aborted:
    """Stop a run: asks its runner, then its keeper, recovers when neither can. Raises Refused when it is over."""
    hold = _open_hold(run, runs)
    asked = [("runner", hold.runner, signal.SIGUSR1)]  # so that it knows who asks
    if hold.keeper is not None:
        asked.append(("keeper", hold.keeper, END_NOW))
    for name, who, number in asked:
        seen = _last_seq(hold)
        if procfs.send(who, number) and _ends(hold, who, seen, react_limit_s):
            return Aborted(hold.run, hold.dir, hold.ended() or "aborted", name)
    procfs.kill_until_gone([who for _, who, _ in asked], KILL_LIMIT_S)
    result = _recover_held(hold, accept_left=False, hands_for=hands_for)
    return Aborted(hold.run, hold.dir, result.status, "recover")


def list_runs(runs: Path) -> list[RunLine]:
    """Every run in the directory and every open run wherever it is, oldest first."""
    open_ = {Path(hold.dir): hold for hold in holds.open_runs()}
    directories = {path.resolve() for path in rundir.all_runs(runs)} | set(open_)
    return sorted((_line_of(path, open_.get(path)) for path in directories), key=lambda line: line.run)


def _recover_held(hold: Hold, accept_left: bool, hands_for: HandsFor) -> TakeOverResult:
    if hold.keeper is not None and not hold.left:
        _until(lambda: not hold.keeper or not hold.keeper.lives, END_LIMIT_S)  # it is reverting: let it
    run_dir = Path(hold.dir)
    return take_over(run_dir, "recover", accept_left=accept_left, hands=hands_for(run_dir))


def _recover_unheld(run_dir: Path, accept_left: bool, hands_for: HandsFor) -> TakeOverResult:
    """A run that nobody holds: its journal alone tells whether its processes live."""
    for recorded in salvage(run_dir / NAME).events:
        event = recorded.event
        if isinstance(event, RunStarted):
            boot_id = event.boot_id
            runner = procfs.Identity(event.runner_pid, event.runner_start_ticks, boot_id)
            if runner.lives:
                raise Refused(f"run {event.run} is alive (pid {runner.pid}); stop it with: stormdrill abort")
        elif isinstance(event, KeeperStarted):
            keeper = procfs.Identity(event.pid, event.start_ticks, procfs.boot_id())
            _until(lambda keeper=keeper: not keeper.lives, END_LIMIT_S)  # type: ignore[misc]
    return take_over(run_dir, "recover", accept_left=accept_left, hands=hands_for(run_dir))


def _open_hold(run: str, runs: Path) -> Hold:
    for hold in holds.open_runs():
        if hold.run == run or Path(hold.dir) == Path(run).resolve():
            return hold
    run_dir = rundir.find(run, runs)
    for hold in holds.open_runs():
        if Path(hold.dir) == run_dir:
            return hold
    if (run_dir / NAME).exists() and _line_of(run_dir, None).state == "running":
        where = "it is held from another state directory; write its XDG_STATE_HOME before this command"
        raise Refused(f"run {run_dir.name} goes on, and {where}")
    raise Refused(f"run {run_dir.name} is not going on; see stormdrill runs")


def _ends(hold: Hold, who: procfs.Identity, seen: int, react_limit_s: float) -> bool:
    """Whether the run ends after `who` was asked: at once when nobody reacts, at length while somebody works on it."""

    def over() -> bool:
        now = holds.hold_of(hold.run)
        return now is None or bool(now.left)

    def reacted() -> bool:
        return over() or not who.lives or _abort_heard(hold, seen)

    if not _until(reacted, react_limit_s):
        return False
    return _until(lambda: over() or not hold.alive, END_LIMIT_S) and over()


def _abort_heard(hold: Hold, after_seq: int) -> bool:
    return any(
        isinstance(recorded.event, AbortRequested | RunEnded) and recorded.seq > after_seq for recorded in _events(hold)
    )


def _last_seq(hold: Hold) -> int:
    return max((recorded.seq for recorded in _events(hold)), default=0)


def _events(hold: Hold) -> list[Recorded]:
    return list(Follower(hold.journal).poll())


def _until(holds_true: Callable[[], bool], limit_s: float) -> bool:
    until = time.monotonic() + limit_s
    while not (reached := holds_true()) and time.monotonic() < until:
        time.sleep(_LOOK_S)
    return reached


def _line_of(run_dir: Path, hold: Hold | None) -> RunLine:
    first, last = _ends_of_journal(run_dir / NAME)
    if hold is not None and hold.left:
        state = "dirty"
    elif last.get("type") == "run-ended":
        state = str(last.get("status"))
    elif hold is not None:
        state = "running" if hold.alive else "killed"
    else:
        state = _unheld(run_dir)
    return RunLine(
        run=run_dir.name,
        dir=str(run_dir),
        system=str(first.get("system", hold.system if hold else "")),
        target=str(first.get("target", hold.target if hold else "")),
        title=str(first.get("title", "")),
        started_at=str(first.get("at", hold.since if hold else "")),
        state=state,
        left=hold.left if hold else (),
        held=hold is not None,
    )


def _unheld(run_dir: Path) -> str:
    """Of a run whose record has no end and that nobody holds here, as it is where another state directory was its:
    its processes are those that the record names."""
    try:
        events = [recorded.event for recorded in salvage(run_dir / NAME).events]
    except JournalBroken:
        return "killed"
    boot = next((event.boot_id for event in events if isinstance(event, RunStarted)), procfs.boot_id())
    if any(who.lives for who in _processes(events, boot)):
        return "running"
    return "killed" if boot == procfs.boot_id() else "unknown"


def _processes(events: Iterable[Event], boot: str) -> Iterator[procfs.Identity]:
    for event in events:
        if isinstance(event, RunStarted):
            yield procfs.Identity(event.runner_pid, event.runner_start_ticks, boot)
        elif isinstance(event, KeeperStarted):
            yield procfs.Identity(event.pid, event.start_ticks, boot)


def _ends_of_journal(path: Path) -> tuple[dict[str, object], dict[str, object]]:
    """First and last line, empty where they cannot be read: a list of runs must not fail over one of them."""
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline())
        last = json.loads(last_line(path) or b"{}")
    except (OSError, ValueError):
        return {}, {}
    return first, last
