"""One kill: whom, when, and what was seen after it. A case is a line of text, so that just this one can be repeated."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import killing_engine
import killing_look
import killing_runs
from killing_runs import Place, Watch
from killing_scenarios import scenarios

from stormdrill.keeper import procfs
from stormdrill.keeper.actions import recover
from stormdrill.keeper.engine import ask
from stormdrill.model.event import AbortRequested, Recorded, RevertStarted, RunEnded
from stormdrill.store.journal import NAME, salvage

KILLS = (("runner",), ("keeper",), ("runner", "keeper"), ("keeper", "runner"))
"""In this order, some milliseconds apart."""
SIGNALS = (
    ("TERM",),
    ("INT",),
    ("HUP",),
    ("TERM", "TERM", "INT"),
    ("INT", "HUP", "TERM"),
    ("keeper-TERM",),
    ("keeper-INT", "keeper-HUP"),
    ("TERM", "runner"),
    ("TERM", "keeper"),
    ("TERM", "runner", "keeper"),
    ("runner", "keeper", "recover"),
)
"""What a person or a terminal sends, a second and a third time during the revert, and kills that come during it."""
TROUBLES = (
    ("engine-500",),
    ("engine-500", "runner"),
    ("engine-500", "keeper"),
    ("engine-late", "runner"),
    ("engine-late", "keeper"),
    ("engine-500", "TERM"),
    ("remove-back",),
    ("remove-proxy",),
    ("remove-back", "runner"),
    ("remove-front", "keeper"),
)
"""Each call that changes something is refused twice, or answered late; a container is removed by hand."""
RESTARTS = (
    ("restart-TERM",),
    ("restart-KILL",),
    ("runner", "restart-TERM"),
    ("keeper", "restart-KILL"),
    ("restart-TERM", "runner"),
    ("runner", "keeper", "restart-TERM"),
)
"""The engine's daemon goes and comes back."""
GONE_WITHIN_S = {"process": 5.0, "attach": 15.0, "docker": 30.0, "restart": 60.0}
"""On a machine that does other things as well; the figures say how long it took. An engine takes its time to stop."""
LONGEST_GAP_MS = 5.0
LATE_GAP_MS = 80.0
"""A second blow while the revert that the first one began is going on."""


@dataclass(frozen=True, slots=True)
class Case:
    target: str
    scenario: str
    blows: tuple[str, ...]
    lines: int
    """The first blow falls as soon as the journal has so many lines; 0: counted from the start of the runner."""
    after_ms: float
    gap_ms: float
    """Between two blows."""

    def __str__(self) -> str:
        return ":".join(
            (
                self.target,
                self.scenario,
                "+".join(self.blows),
                str(self.lines),
                f"{self.after_ms:g}",
                f"{self.gap_ms:g}",
            )
        )

    @classmethod
    def of(cls, text: str) -> Case:
        target, scenario, blows, lines, after_ms, gap_ms = text.split(":")
        return cls(target, scenario, tuple(blows.split("+")), int(lines), float(after_ms), float(gap_ms))

    @property
    def category(self) -> str:
        if self.blows in KILLS:
            when = "at a boundary" if self.lines and not self.after_ms else "at a random moment"
            return f"SIGKILL of {', then '.join(self.blows)} {when}"
        return ", then ".join(self.blows)

    @property
    def both(self) -> bool:
        """Whether nobody is left who could revert."""
        return {"runner", "keeper"} <= set(self.blows)


@dataclass(frozen=True, slots=True)
class Seen:
    case: Case
    hit: bool
    """False: the run had ended before its moment came."""
    alive: int = 0
    """Processes of the run just after the first blow."""
    reverted: int = 0
    """Undos that somebody had to carry out because of it."""
    gone_s: float = 0.0
    faults: tuple[str, ...] = field(default=())
    """What should not have been; empty when the law held."""


def at_every_boundary(target: str, lines: Mapping[str, int], rng: random.Random, each: int = 1) -> Iterator[Case]:
    """At each line of each scenario's journal `each` of the four kills; over four of them, all."""
    for name, count in lines.items():
        first = rng.randrange(len(KILLS))
        for number in range(1, count + 1):
            for turn in range(each):
                blows = KILLS[(first + number + turn) % len(KILLS)]
                yield Case(target, name, blows, number, 0.0, _gap(rng, blows))


def at_random(target: str, lines: Mapping[str, int], rng: random.Random, count: int) -> Iterator[Case]:
    """A quarter before the first line or soon after it, the others anywhere."""
    for index in range(count):
        name = rng.choice(sorted(lines))
        blows = KILLS[index % len(KILLS)]
        if rng.random() < 0.25:
            yield Case(target, name, blows, 0, round(rng.uniform(0.0, 300.0), 2), _gap(rng, blows))
        else:
            number = rng.randint(1, lines[name])
            yield Case(target, name, blows, number, round(rng.uniform(0.01, 60.0), 2), _gap(rng, blows))


def with_signals(target: str, lines: Mapping[str, int], rng: random.Random, count: int) -> Iterator[Case]:
    """Once the run is under way, so that its handlers are there; blows after the first fall into the revert."""
    for index in range(count):
        name = rng.choice(sorted(lines))
        blows = SIGNALS[index % len(SIGNALS)]
        number = rng.randint(3, lines[name])
        yield Case(
            target, name, blows, number, round(rng.uniform(0.0, 20.0), 2), round(rng.uniform(0.0, LATE_GAP_MS), 2)
        )


def with_the_engine(target: str, lines: Mapping[str, int], rng: random.Random, count: int) -> Iterator[Case]:
    """Once there are containers."""
    kinds = RESTARTS if target == "restart" else TROUBLES
    if target == "attach":  # what is somebody else's is not removed here: it could not be put back as it was
        kinds = tuple(blows for blows in kinds if not blows[0].startswith("remove"))
    for index in range(count):
        name = rng.choice(sorted(lines))
        number = rng.randint(6, lines[name])
        yield Case(target, name, kinds[index % len(kinds)], number, round(rng.uniform(0.0, 60.0), 2), 2.0)


def _gap(rng: random.Random, blows: tuple[str, ...]) -> float:
    if len(blows) == 1:
        return 0.0
    longest = LATE_GAP_MS if rng.random() < 0.2 else LONGEST_GAP_MS
    return round(rng.uniform(0.0, longest), 2)


def lines_of(ground: Ground, name: str) -> tuple[int, list[str]]:
    """How many lines the journal of this scenario has when nobody is killed; and what was left even so."""
    with ground.place(name) as place:
        runner = killing_runs.begin(place)
        _, code = killing_look.gone_after_s(place, runner, time.monotonic())
        faults = killing_look.left_behind(place, b"") + ground.left(place)
        if code != 0:
            faults.append(f"exit code {code}: {(place.root / killing_runs.LOG).read_text()[-2000:]}")
        run_dir = place.run_dir
        return (run_dir / NAME).read_bytes().count(b"\n") if run_dir else 0, faults


class Ground:
    """Where runs are killed: local processes, or an engine, perhaps with containers that outlive them."""

    def __init__(self, target: str, number: int = 0) -> None:
        self.target = target
        self.own = killing_engine.OwnEngine() if target == "restart" else None
        self.engine = "" if target == "process" else self.own.url if self.own else killing_engine.MACHINES
        self.attached = killing_engine.Attached(self.engine, number) if target == "attach" else None

    def __enter__(self) -> Ground:
        if self.own:
            self.own.make()
        if self.engine:
            import stormdrill.targets.docker.starting  # noqa: F401  (once, and not in every run)
        if self.attached:
            self.attached.make()
        return self

    def __exit__(self, *_: object) -> None:
        if self.attached:
            self.attached.remove()
        if self.own:
            self.own.remove()

    @contextlib.contextmanager
    def place(self, scenario: str) -> Iterator[Place]:
        """A fresh folder, with somebody in it who stands between the run and its engine; removed afterwards."""
        assert scenario in scenarios(self.target), scenario
        root = Path(tempfile.mkdtemp(prefix="stormdrill-kill-"))
        between = 0
        engine = self.engine
        try:
            if self.engine:
                engine, log = f"unix://{root}/e.sock", root / "between.log"
                between = killing_runs.fork(lambda: killing_engine.stand_between(root, self.engine), log)
                killing_engine.await_engine(engine)
            yield Place(root, self.target, scenario, self.attached.labels if self.attached else None, engine)
        finally:
            if between:
                os.kill(between, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(between, 0)
            if not os.environ.get("KEEP_KILLED_RUNS"):
                shutil.rmtree(root, ignore_errors=True)

    def left(self, place: Place) -> list[str]:
        """On the engine; and what was only borrowed is as it was."""
        run_dir = place.run_dir
        if not self.engine or run_dir is None:
            return []
        found = killing_engine.left_on(self.engine, run_dir.name, _events(place))
        return found + (self.attached.differences() if self.attached else [])

    def remove_by_hand(self, place: Place, instance: str) -> None:
        if place.run_dir is None:
            return
        labels = {"stormdrill": place.run_dir.name, "stormdrill.instance": instance}
        for one in killing_engine.listed(self.engine, "/containers/json?all=1&", **labels):
            ask(self.engine, "DELETE", f"/containers/{one['Id']}?force=1", timeout_s=20.0)


def strike(case: Case, ground: Ground) -> Seen:
    """Start a run, strike at that moment, and look."""
    with ground.place(case.scenario) as place:
        runner = killing_runs.begin(place)
        watch = Watch(place)
        codes: list[int | None] = [None]

        def over() -> bool:
            codes[0] = codes[0] if codes[0] is not None else killing_look.reap(runner)
            return codes[0] is not None

        came = watch.until(case.lines, over)
        _pause(case.after_ms)
        hit = came and not over()
        watch.poll()
        since_s = time.monotonic()
        if hit:
            _strike(case, runner, place, ground)
        alive = len(killing_look.alive(place))
        faults = (
            [] if not case.both or not hit else killing_look.refused_until_recovered(place, "recover" in case.blows)
        )
        gone_s, code = killing_look.gone_after_s(place, runner, since_s, codes[0])
        (place.root / killing_engine.TROUBLE).unlink(missing_ok=True)
        faults += killing_look.left_behind(place, watch.complete) + ground.left(place)
        faults += _odd_end(case, code, place) + killing_look.accepts_a_new_run(place)
        if gone_s > GONE_WITHIN_S[case.target]:
            faults.append(f"gone only after {gone_s:.1f} s")
        watch.close()
        return Seen(case, hit, alive, _reverted(place), gone_s, tuple(faults))


def _pause(ms: float) -> None:
    if ms:
        time.sleep(ms / 1000)


def _strike(case: Case, runner_pid: int, place: Place, ground: Ground) -> None:
    keeper = killing_runs.keeper_of(runner_pid)
    runner = procfs.identity_of(runner_pid)
    assert runner is not None
    for number, blow in enumerate(case.blows):
        if number:
            _pause(case.gap_ms)
        who, _, name = blow.rpartition("-")
        if blow == "runner":
            procfs.send(runner, signal.SIGKILL)
        elif blow == "keeper":
            keeper = keeper or killing_runs.keeper_of(runner_pid)
            if keeper:
                procfs.send(keeper, signal.SIGKILL)
        elif blow == "recover":
            _kill_a_recover(place, case.gap_ms)
        elif who == "engine":
            (place.root / killing_engine.TROUBLE).write_text(name)
        elif who == "remove":
            ground.remove_by_hand(place, name)
        elif who == "restart":
            assert ground.own is not None
            ground.own.restart(signal.Signals[f"SIG{name}"])
        else:
            victim = keeper if who == "keeper" else runner
            if victim:
                procfs.send(victim, signal.Signals[f"SIG{name}"])


def _kill_a_recover(place: Place, after_ms: float) -> None:
    def work() -> int:
        recover()
        return 0

    pid = killing_runs.fork(work, place.root / killing_runs.LOG)
    _pause(after_ms)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _odd_end(case: Case, code: int | None, place: Place) -> list[str]:
    """The runner's own end: killed when it was, else a code that it should have."""
    allowed = {0, 4}
    if "runner" in case.blows:
        allowed.add(-signal.SIGKILL)
    if "keeper" in case.blows:
        allowed.add(75)  # before the keeper had said that it is there
    events = [item.event for item in _events(place)]
    orphaned = any(isinstance(event, AbortRequested) and event.by == "runner-gone" for event in events)
    if any(isinstance(event, RunEnded) for event in events) and not orphaned:  # the signal came when all was over
        allowed |= {-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}
    return [] if code in allowed else [f"the runner ended with {code}"]


def _reverted(place: Place) -> int:
    events = [item.event for item in _events(place)]
    if not any(isinstance(event, AbortRequested) for event in events):
        return 0
    return sum(isinstance(event, RevertStarted) and event.cause != "planned" for event in events)


def _events(place: Place) -> list[Recorded]:
    run_dir = place.run_dir
    return salvage(run_dir / NAME).events if run_dir and (run_dir / NAME).exists() else []
