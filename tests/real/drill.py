"""A user's own repository with a small system, and the command run on it as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from small_system import SERVER

from stormdrill.model.event import Recorded
from stormdrill.store import journal

TRIES = 3
STARVED = "other programs starved this machine"
SYSTEM = """
name: {name}
entry: web
parameters: {{regions: [eu, us]}}
labels: [region]
process:
  services:
    web:
      command: [python, {server}, $port]
      each: regions
      labels: {{region: $region}}
      ready: GET /
served: {{prometheus: served_total, from: web}}
metrics:
  queue_depth: {{prometheus: queue_depth, from: web}}
"""

PROFILE = """
description: One GET after the other
user: http_user
arrivals: constant
streams:
  get: {share: 100%, labels: {tier: 1}, deadline: 500ms}
"""

EXPERIMENT = """
title: {title}
hypothesis: it survives
owner: tests
system: {name}
parameters: {{mode: freeze}}
load: {{profile: one, rate: {rate}/s}}
phases: {{warmup: 500ms, baseline: {baseline}, fault: {fault}, recovery: 2s}}
faults:
  - region-loss: {{region: {region}, mode: $mode}}
objectives:
  baseline:
    - success > 80%
  fault:
    - {during}
  recovery:
    - success > {after}
guards: {guards}
"""


@dataclass
class Repository:
    root: Path
    name: str = "small"
    environment: dict[str, str] = field(default_factory=dict)

    def lay_out(self, server: str = SERVER, **what: str) -> Repository:
        settings = {
            "title": "A small system",
            "rate": "40",
            "baseline": "2s",
            "fault": "2s",
            "region": "eu",
            "during": "success > 20%",
            "after": "80%",
            "guards": "[]",
        } | what
        (self.root / "experiments" / "systems").mkdir(parents=True)
        (self.root / "loadgen").mkdir()
        place = self.root / "server.py"
        place.write_text(server)
        system = SYSTEM.format(name=self.name, server=place)
        (self.root / "experiments" / "systems" / f"{self.name}.yaml").write_text(system)
        (self.root / "experiments" / "small.yaml").write_text(EXPERIMENT.format(name=self.name, **settings))
        (self.root / "loadgen" / "one.yaml").write_text(PROFILE)
        return self

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "stormdrill", *arguments],
            cwd=self.root,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(self, *arguments: str, limit_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=limit_s)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def drill(self, *arguments: str) -> Drilled:
        process = self.start("run", "experiments/small.yaml", "--json", *arguments)
        return Drilled(self, process)

    def bitten(self, *arguments: str) -> Drilled:
        """A drill whose fault has just been seen to bite; begun again when strangers kept the baseline from health."""
        for _ in range(TRIES):
            run = self.drill(*arguments)
            while run.process.poll() is None:
                if any(item.event.type == "effect-observed" for item in self.seen()):
                    return run
                time.sleep(0.01)
            outcome = run.end()
            if STARVED not in " ".join(outcome.progress.split()):  # lines are wrapped
                raise AssertionError(f"the fault never bit:\n{outcome.progress}")
            wait_for_quiet()
        raise AssertionError(f"this machine is too busy to drill anything:\n{outcome.progress}")

    def seen(self) -> list[Recorded]:
        """What the newest run has written until now."""
        runs = self.root / "runs"
        if not runs.is_dir() or not any(runs.iterdir()):
            return []
        path = self.run_dir / journal.NAME
        return journal.salvage(path).events if path.exists() else []

    def conclude(self, *arguments: str) -> Outcome:
        """A drill to its end. When strangers starved this machine the honest verdict is INVALID, and the drill is
        repeated, as a person would, a bounded number of times."""
        for _ in range(TRIES):
            outcome = self.drill(*arguments).end()
            if STARVED not in " ".join(outcome.progress.split()):  # lines are wrapped
                return outcome
            wait_for_quiet()
        raise AssertionError(f"this machine is too busy to judge anything:\n{outcome.progress}")

    @property
    def run_dir(self) -> Path:
        found = sorted((self.root / "runs").iterdir())
        return found[-1]

    def events(self) -> list[Recorded]:
        return journal.read(self.run_dir / journal.NAME)

    def until(self, seen: Callable[[Recorded], bool], limit_s: float = 20.0) -> Recorded:
        """The first event of the newest run that `seen` accepts; waits for it."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            for recorded in self.seen():
                if seen(recorded):
                    return recorded
            time.sleep(0.01)
        raise AssertionError("that event never came")

    def pids(self) -> list[int]:
        return [r.event.pid for r in self.events() if r.event.type in ("process-spawned", "keeper-started")]  # type: ignore[attr-defined]

    def alive(self) -> list[int]:
        return [pid for pid in self.pids() if lives(pid)]


@dataclass
class Drilled:
    """One `stormdrill run --json` under way."""

    repository: Repository
    process: subprocess.Popen[str]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, limit_s: float = 60.0) -> Outcome:
        out, err = self.process.communicate(timeout=limit_s)
        return Outcome(self.process.returncode, json.loads(out) if out.strip() else {}, err)


@dataclass
class Outcome:
    code: int
    told: dict[str, object]
    progress: str

    @property
    def words(self) -> tuple[int, object, object]:
        return self.code, self.told.get("status"), self.told.get("verdict")


def wait_for_quiet(limit_s: float = 60.0) -> None:
    """Until two seconds went by in which half of the machine was idle; bounded."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        before = idle_s()
        time.sleep(2.0)
        if idle_s() - before > (os.cpu_count() or 1):
            return


def idle_s() -> float:
    return int(Path("/proc/stat").read_text().split()[4]) / os.sysconf("SC_CLK_TCK")


def lives(pid: int) -> bool:
    """State Z counts as gone: PID 1 of a container may never reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
