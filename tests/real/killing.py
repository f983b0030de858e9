"""Kills runner, keeper or both at random moments of a real run, and looks whether anything was left behind.

`python tests/real/killing.py 300 50` sweeps: 300 kills of the runner or the keeper, 50 of both at once. The bench
imports `sweep`. The runner that is killed is this file too (`--as-runner`): hold, keeper, three processes that don't
die willingly, and a freeze armed, injected and reverted over and over.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from stormdrill.errors import KeeperGone, Refused
from stormdrill.keeper import procfs
from stormdrill.keeper.actions import list_runs, recover
from stormdrill.keeper.client import KeeperClient
from stormdrill.keeper.takeover import take_over
from stormdrill.model.event import InjectStarted, KeeperStarted, ProcessSpawned, Reading, RevertStarted, RunStarted
from stormdrill.model.undo import Signal, Spawn
from stormdrill.store import holds, rundir
from stormdrill.store.journal import NAME, salvage
from stormdrill.store.verify import verify

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
if os.fork() == 0:            # a grandchild that outlives its parent
    if os.fork() == 0:        # and one that leaves its session
        os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    time.sleep(100)
"""
SYSTEM = {
    "stubborn": [sys.executable, "-S", "-c", STUBBORN],
    "shell": ["sh", "-c", "sleep 1000 & sleep 1001"],
    "plain": ["sleep", "1002"],
}
GONE_LIMIT_S = float(os.environ.get("GONE_LIMIT_S", "1.0"))
"""What is asked; tests on a busy machine allow more."""


def started_event(run: str, system: str = "stubborn-system") -> RunStarted:
    me = procfs.own_identity()
    return RunStarted(
        run=run,
        version="0",
        boot_id=procfs.boot_id(),
        title="kills",
        experiment="kills",
        system=system,
        target="process",
        seed=1,
        fast=True,
        settings={},
        inputs={},
        runner_pid=me.pid,
        runner_start_ticks=me.start_ticks,
        cores=os.cpu_count() or 1,
        kernel=os.uname().release,
    )


def spawn(keeper: KeeperClient, name: str, argv: list[str]) -> procfs.Identity:
    spawned = keeper.spawn(name, service=name, role="system", argv=argv, env={}, cwd="", address="", labels={})
    return procfs.Identity(spawned.pid, spawned.start_ticks, procfs.boot_id())


def thaw(name: str, who: procfs.Identity) -> Signal:
    return Signal(name, who.pid, who.start_ticks, who.boot_id, "SIGCONT")


# --- the runner that is killed ---------------------------------------------------------------------------


def be_the_runner(runs: Path) -> int:
    """Freeze and thaw, crash and start again, until somebody kills this process or its keeper."""
    run_dir = rundir.create(runs, "kills")
    hold = holds.acquire("stubborn-system", "process", run_dir.name, run_dir)
    try:
        keeper = KeeperClient.start(
            run_dir, run=run_dir.name, system=hold.system, target=hold.target, hold=hold, grace_s=0.2
        )
        keeper.record(started_event(run_dir.name))
        who = {name: spawn(keeper, name, argv) for name, argv in SYSTEM.items()}
        for turn in range(10_000):
            _freeze_and_thaw(keeper, turn, who)
            _crash_and_restart(keeper, turn, run_dir.name)
            keeper.record(Reading("queue_depth", "plain", float(turn)))
        keeper.close("completed", "")
    except KeeperGone:
        if (run_dir / NAME).exists():
            take_over(run_dir, "runner")
        else:
            holds.release(hold)
        return 4
    return 0


def freeze_and_wait(runs: Path, expires_in_s: float) -> int:
    """A runner that freezes one process, says so, and then does nothing any more."""
    run_dir = rundir.create(runs, "waits")
    hold = holds.acquire("sleeper", "process", run_dir.name, run_dir)
    keeper = KeeperClient.start(run_dir, run=run_dir.name, system=hold.system, target=hold.target, hold=hold)
    keeper.record(started_event(run_dir.name, "sleeper"))
    who = spawn(keeper, "plain", SYSTEM["plain"])
    keeper.arm(
        "freeze/plain",
        fault="freeze",
        instance="plain",
        mechanism="freeze",
        undo=[thaw("plain", who)],
        expires_in_s=expires_in_s,
    )
    procfs.send(who, signal.SIGSTOP)
    while not procfs.frozen(who.pid, who.start_ticks):
        time.sleep(0.001)
    sys.stdout.write(json.dumps({"dir": str(run_dir), "victim": who, "keeper": keeper.identity}) + "\n")
    sys.stdout.flush()
    signal.pause()
    return 0


def _freeze_and_thaw(keeper: KeeperClient, turn: int, who: dict[str, procfs.Identity]) -> None:
    frozen = [name for name in ("stubborn", "shell") if who[name].lives]
    for name in frozen:
        keeper.arm(
            f"freeze-{turn}/{name}",
            fault="freeze",
            instance=name,
            mechanism="freeze",
            undo=[thaw(name, who[name])],
            expires_in_s=30.0,
        )
        keeper.record(InjectStarted(f"freeze-{turn}/{name}"))
        procfs.send(who[name], signal.SIGSTOP)
    for name in frozen:
        keeper.revert(f"freeze-{turn}/{name}", "planned")


def _crash_and_restart(keeper: KeeperClient, turn: int, run: str) -> None:
    injection = f"crash-{turn}/plain"
    keeper.arm(injection, fault="crash", instance="plain", mechanism="crash", undo=[Spawn("plain")], expires_in_s=30.0)
    keeper.record(InjectStarted(injection))
    for who in procfs.marked(run, "plain"):
        procfs.send(who, signal.SIGKILL)
    keeper.revert(injection, "planned")


# --- the killer ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """When to kill: once the journal has so many lines (0: not even begun), and that much later."""

    lines: int
    after_s: float


def random_moment(rng: random.Random) -> Moment:
    """One in four while everything is only being started, the others while faults come and go."""
    if rng.random() < 0.25:
        return Moment(0, rng.uniform(0.0, 0.3))
    return Moment(rng.randint(1, 60), rng.uniform(0.0, 0.01))


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill and what was seen after it."""

    victims: str
    """runner, keeper, both."""
    moment: Moment
    alive: int
    """Processes of the system that lived just before the kill."""
    armed: int
    """Undos that the one who was left had to carry out."""
    gone_s: float
    """From the kill until nothing of the run was alive (state Z counts as gone)."""
    faults: tuple[str, ...]
    """What should not have been; empty when the law held."""


def kill_once(victims: str, moment: Moment, limit_s: float = GONE_LIMIT_S) -> Kill:
    """Start a run, kill at that moment, and look. `both`: also that the next run is refused until `recover`.

    `limit_s`: how long what was started may live after the kill.
    """
    with tempfile.TemporaryDirectory(prefix="stormdrill-kill-") as name:
        os.environ["XDG_STATE_HOME"] = str(Path(name) / "state")
        runs = Path(name) / "runs"
        runner = subprocess.Popen(
            [sys.executable, "-P", __file__, "--as-runner", str(runs)], cwd=name, start_new_session=True
        )
        _await_lines(runs, moment.lines)
        alive = sum(len(procfs.marked(path.name)) for path in rundir.all_runs(runs)) if moment.lines else 0
        time.sleep(moment.after_s)
        killed_at_s = _kill(runner, victims, runs)
        faults: list[str] = []
        if victims == "both":
            faults += _refused_until_recovered(runs)
        gone_s = _gone_after_s(runs, runner, killed_at_s)
        faults += _left_behind(runs)
        if victims != "both" and gone_s > limit_s:
            faults.append(f"gone only after {gone_s:.2f} s")
        armed = sum(
            isinstance(recorded.event, RevertStarted) and recorded.event.cause != "planned"
            for path in rundir.all_runs(runs)
            if (path / NAME).exists()
            for recorded in salvage(path / NAME).events
        )
        return Kill(victims, moment, alive, armed, gone_s, tuple(faults))


def _await_lines(runs: Path, lines: int) -> None:
    until = time.monotonic() + 20.0
    while lines and time.monotonic() < until:
        for path in rundir.all_runs(runs):
            if (path / NAME).exists() and (path / NAME).read_bytes().count(b"\n") >= lines:
                return
        time.sleep(0.001)


def _kill(runner: subprocess.Popen[bytes], victims: str, runs: Path) -> float:
    keeper = _keeper_of(runner.pid)
    killed_at_s = time.monotonic()
    if victims in ("keeper", "both") and keeper is not None:
        procfs.send(keeper, signal.SIGKILL)
    if victims in ("runner", "both") or keeper is None:
        runner.send_signal(signal.SIGKILL)
    return killed_at_s


def _keeper_of(runner_pid: int) -> procfs.Identity | None:
    for item in procfs.snapshot().values():
        if item.parent == runner_pid and item.session == item.pid:
            return procfs.identity_of(item.pid)
    return None


def _alive(runs: Path) -> list[procfs.Identity]:
    """Everything of any run in the directory: marked, journalled, or its keeper."""
    found: set[procfs.Identity] = set()
    for run_dir in rundir.all_runs(runs):
        found |= set(procfs.marked(run_dir.name))
        if (run_dir / NAME).exists():
            for recorded in salvage(run_dir / NAME).events:
                if isinstance(recorded.event, ProcessSpawned | KeeperStarted):
                    who = procfs.Identity(recorded.event.pid, recorded.event.start_ticks, procfs.boot_id())
                    found |= {who} if who.lives else set()
        for item in procfs.snapshot().values():
            if run_dir.name.encode() in _command_line(item.pid) and item.state not in procfs.GONE_STATES:
                found.add(procfs.Identity(item.pid, item.start_ticks, procfs.boot_id()))
    return sorted(found)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _gone_after_s(runs: Path, runner: subprocess.Popen[bytes], killed_at_s: float) -> float:
    until = killed_at_s + 20.0
    while time.monotonic() < until:
        if runner.poll() is not None and not _alive(runs):
            break
        time.sleep(0.005)
    gone_s = time.monotonic() - killed_at_s
    if runner.poll() is None:
        runner.kill()
    runner.wait()
    return gone_s


def _refused_until_recovered(runs: Path) -> list[str]:
    faults = []
    open_ = holds.open_runs()
    for hold in open_:
        until = time.monotonic() + 2.0
        while hold.alive and time.monotonic() < until:
            time.sleep(0.002)
        if hold.spent:  # ended, or killed before there was anything to undo
            continue
        if (line := next((line for line in list_runs(runs) if line.run == hold.run), None)) is None:
            faults.append("the killed run isn't listed")
        elif line.state != "killed":
            faults.append(f"the killed run is listed as {line.state}")
        try:
            holds.acquire(hold.system, hold.target, "another", runs)
            faults.append("a new run was allowed before recover")
        except Refused as refused:
            if "recover" not in str(refused):
                faults.append(f"the refusal doesn't name recover: {refused}")
    for result in recover():
        if result.status != "aborted":
            faults.append(f"recovered with status {result.status}: {result.left}")
    if holds.open_runs():
        faults.append("a hold is left after recover")
    return faults


def _left_behind(runs: Path) -> list[str]:
    faults = [f"still alive: {who}" for who in _alive(runs)]
    for who in _alive(runs):
        procfs.send(who, signal.SIGKILL)
    for hold in holds.open_runs():
        faults += [] if hold.ended() else [f"{hold.run} is still held"]
    for run_dir in rundir.all_runs(runs):
        if (run_dir / NAME).exists() and (run_dir / NAME).stat().st_size:
            faults += [str(problem) for problem in verify(run_dir)]
        log = run_dir / "logs" / "keeper.log"
        if log.exists() and log.stat().st_size:
            faults.append(f"the keeper wrote: {log.read_text()[-2000:]}")
    return faults


def sweep(alone: int, both: int, seed: int) -> list[Kill]:
    """`alone` kills of runner or keeper and `both` of both at once, at random moments from the very start on."""
    rng = random.Random(seed)
    who = ["runner" if index % 2 else "keeper" for index in range(alone)] + ["both"] * both
    rng.shuffle(who)
    return [kill_once(victims, random_moment(rng)) for victims in who]


def figures_of(kills: list[Kill]) -> dict[str, float]:
    """What a sweep showed; `with_armed` and `with_alive` say how many of the kills found something to undo."""
    gone = sorted(kill.gone_s for kill in kills if kill.victims != "both") or [0.0]
    return {
        "kills": len(kills),
        "held": sum(not kill.faults for kill in kills),
        "with_alive": sum(kill.alive > 0 for kill in kills),
        "with_armed": sum(kill.armed > 0 for kill in kills),
        "gone_median_ms": round(1000 * gone[len(gone) // 2]),
        "gone_worst_ms": round(1000 * gone[-1]),
    }


def main() -> int:
    if sys.argv[1] == "--as-runner":
        return be_the_runner(Path(sys.argv[2]))
    if sys.argv[1] == "--freeze-and-wait":
        return freeze_and_wait(Path(sys.argv[2]), float(sys.argv[3]))
    alone, both, seed = int(sys.argv[1]), int(sys.argv[2]), int((sys.argv[3:] or ["1"])[0])
    kills = sweep(alone, both, seed)
    broken = [kill for kill in kills if kill.faults]
    for kill in broken:
        sys.stderr.write(f"{kill}\n")
    sys.stdout.write(json.dumps(figures_of(kills)) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
