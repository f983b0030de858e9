"""`make kill-sweep`: kill runner, keeper, both, at every journal boundary and at random, and look what is left.

    python tests/real/killing_sweep.py [--target process|docker|attach|restart] [--kills N] [--seed N] [--limit-s N]
                                       [--resume] [--quick] [--only SCENARIO,…]
    python tests/real/killing_sweep.py --replay 'process:late-stall:runner+keeper:17:0:3.2'

Without a target: all of them, and a system that doesn't die willingly. The seed decides every kill. `--resume` leaves
out those that the last sweep with this seed has seen to hold already.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import killing
import killing_cases
import killing_engine
from killing_cases import Case, Ground, Seen
from killing_scenarios import scenarios

BUILD = Path(__file__).resolve().parents[2] / "build"
SEED = 20261122
PARALLEL = 2
SHOWN_EVERY_S = 10.0
KILLS = {"process": 1100, "docker": 150, "attach": 110, "restart": 16}
STUBBORN = 60, 20
"""Of one and of both, in `killing.py`."""
USUAL, COMPOSED = 30, 58
"""Lines of a journal that nobody cut short."""
PR_SET_CHILD_SUBREAPER = 36
PR_SET_PDEATHSIG = 1


def plan(target: str, lines: dict[str, int], kills: int, seed: int) -> list[Case]:
    """Every boundary at least once where there is room for it, the rest at random and by signals; in a random order."""
    rng = random.Random(seed)
    if target == "restart":
        return list(killing_cases.with_the_engine(target, lines, rng, kills))
    signals, moments = max(1, kills // 8), max(1, kills // 8)
    troubles = 0 if target == "process" else kills // 5
    boundaries = list(killing_cases.at_every_boundary(target, lines, rng))
    room = kills - signals - moments - troubles
    if len(boundaries) > room:
        boundaries = rng.sample(boundaries, room)
    moments += room - len(boundaries)
    cases = [
        *boundaries,
        *killing_cases.at_random(target, lines, rng, moments),
        *killing_cases.with_signals(target, lines, rng, signals),
        *killing_cases.with_the_engine(target, lines, rng, troubles),
    ]
    rng.shuffle(cases)
    return cases


def strike_all(cases: Sequence[Case], target: str, until_s: float) -> Iterator[Seen]:
    """By processes of their own that reap what they orphan. What the time doesn't suffice for is left out."""
    readers = []
    parallel = 1 if target == "restart" else PARALLEL
    for part in range(parallel):
        read, write = os.pipe()
        if os.fork() == 0:
            code = 1
            try:
                os.close(read)
                os.setsid()
                ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
                with os.fdopen(write, "w", buffering=1) as out, Ground(target, part) as ground:
                    _strike_some(cases[part::parallel], ground, until_s, out.write)
                code = 0
            finally:
                os._exit(code)
        os.close(write)
        readers.append(read)
    yield from _told(readers)
    for _ in readers:
        os.wait()


def _strike_some(cases: Sequence[Case], ground: Ground, until_s: float, tell: Callable[[str], object]) -> None:
    for case in cases:
        if time.monotonic() > until_s:
            return
        try:
            seen = killing_cases.strike(case, ground)
        except Exception as error:
            seen = Seen(case, True, faults=(f"the sweep itself broke: {type(error).__name__}: {error}",))
        told = (str(case), seen.hit, seen.alive, seen.reverted, seen.gone_s, seen.faults)
        tell(json.dumps(told) + "\n")


def _told(readers: list[int]) -> Iterator[Seen]:
    import selectors

    selector = selectors.DefaultSelector()
    rest = dict.fromkeys(readers, b"")
    for fd in readers:
        selector.register(fd, selectors.EVENT_READ)
    while rest:
        for key, _ in selector.select():
            fd = key.fd
            data = os.read(fd, 1 << 16)
            if not data:
                selector.unregister(fd)
                os.close(fd)
                del rest[fd]
                continue
            *lines, rest[fd] = (rest[fd] + data).split(b"\n")
            yield from map(seen_of, lines)


def seen_of(line: bytes | str) -> Seen:
    case, hit, alive, reverted, gone_s, faults = json.loads(line)
    return Seen(Case.of(case), hit, alive, reverted, gone_s, tuple(faults))


def line_of(seen: Seen) -> str:
    return json.dumps((str(seen.case), seen.hit, seen.alive, seen.reverted, seen.gone_s, seen.faults))


class Tally:
    """What is said while it goes on and at its end."""

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.seen: list[Seen] = []
        self._started_s = self._said_s = time.monotonic()

    def add(self, seen: Seen) -> None:
        self.seen.append(seen)
        for fault in seen.faults:
            say(f"  LEFT  {fault}\n        again: {sys.executable} tests/real/killing_sweep.py --replay '{seen.case}'")
        if time.monotonic() - self._said_s > SHOWN_EVERY_S:
            self._said_s = time.monotonic()
            took_s = self._said_s - self._started_s
            say(f"  {len(self.seen)} of {self.planned} after {took_s:.0f} s, {len(self.broken)} left something")

    @property
    def broken(self) -> list[Seen]:
        return [item for item in self.seen if item.faults]

    def report(self) -> None:
        kills = [item for item in self.seen if item.hit]
        names = Counter(item.case.category for item in kills)
        say(f"  {'':58} kills  held  armed  gone after ms: median, worst")
        for name in sorted(names):
            some = [item for item in kills if item.case.category == name]
            say(f"  {name:58} {_row(some)}")
        say(f"  {'all':58} {_row(kills)}")
        say(f"  {len(self.seen) - len(kills)} came after the run's end and don't count")


def _row(kills: Sequence[Seen]) -> str:
    gone = sorted(item.gone_s * 1000 for item in kills) or [0.0]
    held, armed = sum(not item.faults for item in kills), sum(item.reverted > 0 for item in kills)
    return f"{len(kills):5} {held:5} {armed:6}  {gone[len(gone) // 2]:6.0f} {gone[-1]:6.0f}"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def measure_lines(target: str, names: Sequence[str], quick: bool) -> tuple[dict[str, int], list[str]]:
    """How long each journal is when nobody is killed. In containers that takes long, and is about as on processes."""
    if quick or target != "process":
        return {name: COMPOSED if name == "composed" else USUAL for name in names}, []
    lines, faults = {}, []
    with Ground(target) as ground:
        for name in names:
            lines[name], left = killing_cases.lines_of(ground, name)
            faults += [f"{name}, whom nobody killed: {text}" for text in left]
    return lines, faults


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill runner, keeper and both, and look what is left.")
    parser.add_argument("--target", default="", choices=["", *KILLS])
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--limit-s", type=float, default=3600.0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--quick", action="store_true", help="don't measure first what happens without a kill")
    parser.add_argument("--replay", default="")
    parser.add_argument("--only", default="", help="scenarios, separated by commas")
    asked = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if asked.replay:
        with Ground(Case.of(asked.replay).target) as ground:
            seen = killing_cases.strike(Case.of(asked.replay), ground)
        say(str(seen))
        return 1 if seen.faults else 0
    if asked.target:
        asked.kills = asked.kills or KILLS[asked.target]
        return sweep(asked)
    return sweep_all(asked)


def sweep_all(asked: argparse.Namespace) -> int:
    """Every target, one after the other; containers only where they can be had, which is said."""
    bad = sweep_stubborn(asked.seed)
    why = killing_engine.why_not()
    for asked.target, asked.kills in KILLS.items():
        if asked.target == "process" or not why:
            needed = [word for word in ("dockerd", "containerd", "ip") if shutil.which(word) is None]
            if asked.target == "restart" and (os.geteuid() or needed):
                say(f"restart: left out: only root, with {' and '.join(needed) or 'its rights'}, can start an engine")
                continue
            bad = sweep(asked) or bad
        else:
            say(f"{asked.target}: left out: {why}")
    return bad


def sweep_stubborn(seed: int) -> int:
    """A system that ignores signals, and whose processes leave their parents and their sessions."""
    kills = killing.sweep(*STUBBORN, seed)
    broken = [kill for kill in kills if kill.faults]
    for kill in broken:
        say(f"  LEFT  {kill}")
    say(f"stubborn processes: {json.dumps(killing.figures_of(kills))}")
    return 1 if broken else 0


def sweep(asked: argparse.Namespace) -> int:
    until_s = time.monotonic() + asked.limit_s
    names = asked.only.split(",") if asked.only else list(scenarios(asked.target))
    say(f"{asked.target}: {len(names)} scenarios, {asked.kills} kills, seed {asked.seed}")
    lines, faults = measure_lines(asked.target, names, asked.quick)
    say(f"  {sum(lines.values())} journal boundaries")
    for fault in faults:
        say(f"  LEFT  {fault}")
    kept = BUILD / f"kills-{asked.target}-{asked.seed}.ndjson"
    BUILD.mkdir(exist_ok=True)
    cases = plan(asked.target, lines, asked.kills, asked.seed)
    tally = Tally(len(cases))
    if asked.resume and kept.exists():
        for old in map(seen_of, kept.read_text().splitlines()):
            if not old.faults:
                tally.seen.append(old)
        done = {str(old.case) for old in tally.seen}
        cases = [case for case in cases if str(case) not in done]
    with kept.open("w") as out:
        out.writelines(line_of(old) + "\n" for old in tally.seen)
        for seen in strike_all(cases, asked.target, until_s):
            tally.add(seen)
            out.write(line_of(seen) + "\n")
            out.flush()
    tally.report()
    short = asked.kills - len(tally.seen)
    if short > 0:
        say(f"  {short} were left out: the time was over; go on with --seed {asked.seed} --resume")
    return 1 if tally.broken or faults or short > 0 else 0


if __name__ == "__main__":
    sys.exit(main())
