"""`python tests/real/killing_cluster.py N [--seed S] [--jobs J]`: N times a runner, its watchdog, or both are
killed on the fake cluster, before or after a change that either sends, or at random; then what is left is compared.

The runner is a process of its own that makes and takes back a change of every kind; the watchdog is the process that
the fake's kubelet runs for its Job.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

import cluster_rig as rig  # noqa: E402  # after the path
from fake_cluster import FakeCluster  # noqa: E402
from fake_cluster.access import TokenAccess  # noqa: E402
from fake_cluster.calls import Request  # noqa: E402
from fake_cluster.processes import kill_marked  # noqa: E402
from stormdrill.cluster import naming  # noqa: E402
from stormdrill.cluster.api import Api  # noqa: E402
from stormdrill.cluster.asking import Until, read  # noqa: E402
from stormdrill.cluster.hold import Hold  # noqa: E402
from stormdrill.cluster.job import Wanted  # noqa: E402
from stormdrill.cluster.ledger import CLOSED, Ledger  # noqa: E402

LEASE_S = 1.0
RUN = "r1"
USUAL = 40
"""About as many changes as a run sends that nobody kills."""
END_S = 40.0
LATE_S = 15.0
LATE = "late for"
WHEN = ("before", "after", LATE)
"""The runner is killed before a change takes effect, after it did and before the answer, or while it is on its way:
then it arrives when everything is reverted."""


@dataclass(frozen=True, slots=True)
class Case:
    """Who is killed, and when."""

    number: int
    runner_at: int
    """At the nth change that anybody sends; 0: after `delay_s`."""
    when: str
    delay_s: float
    dog_at: int
    """The watchdog at the nth change that anybody sends after the runner's death; negative: at that many, the runner
    lives; 0: never."""

    def __str__(self) -> str:
        runner = f"{self.when} change {self.runner_at}" if self.runner_at else f"after {self.delay_s:.2f} s"
        return f"runner {runner}" + (f", watchdog at {self.dog_at}" if self.dog_at else "")


@dataclass(frozen=True, slots=True)
class Seen:
    case: Case
    wrong: tuple[str, ...]
    killed: bool
    """The runner was; else it had ended before."""
    dogs: int
    """How often the watchdog was killed."""
    armed: int
    reverted_s: float
    """From the runner's death to the closed ledger."""


def drive(url: str, run: str) -> None:
    """The runner."""
    api = Api(TokenAccess(url, "admin"))
    there = {path: read(api, path, Until(5.0)) or {} for path in rig.PATHS}
    hold = Hold(
        api,
        run,
        "platform",
        rig.IMAGE,
        lease_s=LEASE_S,
        wanted=Wanted(keep_off=("eu-cpu-1",)),
        namespaces=(rig.PLATFORM,),
        ready_s=30.0,
    )
    plan = rig.plan(there, run)
    hold.open()
    for injection, changes in plan.items():
        hold.arm(injection, rig.undos(changes), 60.0)
        for change in changes:
            hold.apply(injection, change)
    time.sleep(0.1)
    for injection in reversed(plan):
        undone = hold.revert(injection)
        assert undone.word == "done", (injection, undone)
    left = hold.close()
    assert not left, left


def cases(number: int, seed: int) -> list[Case]:
    rng = random.Random(seed)
    found = []
    for at in range(number):
        dog = rng.choice((0, 0, 0, 1, 2, 3, 5, 8, -3, -8, -20))
        runner_at = at // len(WHEN) % (USUAL + 2) + 1 if rng.random() < 0.8 else 0
        found.append(Case(at, runner_at, WHEN[at % len(WHEN)], rng.uniform(0.2, 1.8), dog))
    return found


def one(case: Case) -> Seen:
    with FakeCluster(run_images={rig.IMAGE: []}) as cluster:
        rig.small_world(cluster)
        cluster.settle()
        before = rig.still(cluster)
        kills = _Kills(cluster, case)
        driver = subprocess.Popen(
            [sys.executable, __file__, "--drive", cluster.url],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        kills.runner = driver
        kills.begin()
        said, _ = driver.communicate(timeout=END_S)
        died_s = kills.died_s or time.monotonic()
        wrong = (
            []
            if driver.returncode in (0, -signal.SIGKILL)
            else [f"the runner ended with {driver.returncode}: {said[-600:]}"]
        )
        armed = _armed(cluster)
        wrong += _ended(cluster)
        reverted_s = time.monotonic() - died_s
        kills.arrival()
        cluster.settle()
        wrong += rig.differences(before, _without_inert(rig.still(cluster)) if kills.on_its_way else rig.still(cluster))
        if kills.on_its_way:
            cluster.registry.end("configmaps", rig.PLATFORM, naming.ledger(RUN))
            before = rig.still(cluster)
        if case.number % 4 == 0:
            wrong += _next(cluster, before)
        return Seen(case, tuple(wrong), driver.returncode != 0, kills.dogs, armed, reverted_s)


def _without_inert(taken: dict[str, Any]) -> dict[str, Any]:
    """Without what may remain of a request that arrives after everything was taken down, and that does nothing."""
    taken.pop(f"configmaps/{rig.PLATFORM}/{naming.ledger(RUN)}", None)
    for thing in taken.values():
        annotations = thing["metadata"].get("annotations", {})
        for name in [name for name in annotations if name.startswith(f"{naming.PREFIX}fence-")]:
            del annotations[name]
            if not annotations:
                del thing["metadata"]["annotations"]
    return taken


class _Kills:
    """Carries the case out."""

    def __init__(self, cluster: FakeCluster, case: Case) -> None:
        self.cluster, self.case = cluster, case
        self.runner: subprocess.Popen[str] | None = None
        self.died_s = 0.0
        self.dogs = 0
        self.on_its_way = False
        self.arrived = threading.Event()

    def begin(self) -> None:
        if self.case.runner_at and self.case.when == LATE:
            self.cluster.at(self.case.runner_at, self._hold_back, "before")
            self.cluster.at(self.case.runner_at, lambda _: self.arrived.set(), "after")
        elif self.case.runner_at:
            self.cluster.at(self.case.runner_at, self._end_runner, self.case.when)
        else:
            timer = threading.Timer(self.case.delay_s, self._end_runner)
            timer.daemon = True
            timer.start()
        if self.case.dog_at < 0:
            self.cluster.at(-self.case.dog_at, self._end_dog)

    def _end_runner(self, _: Request | None = None) -> None:
        assert self.runner is not None
        if self.runner.poll() is None and not self.died_s:
            self.died_s = time.monotonic()
            self.runner.kill()
            if self.case.dog_at > 0:
                self.cluster.at(self.case.dog_at, self._end_dog, "after" if self.case.when == "after" else "before")

    def _hold_back(self, _: Request) -> None:
        """The runner dies with this request on its way; it goes on when the watchdog has ended its work."""
        self.on_its_way = True
        self._end_runner()
        end_s = time.monotonic() + LATE_S
        while time.monotonic() < end_s and not self._closed():
            time.sleep(0.02)

    def _closed(self) -> bool:
        ledger = self.cluster.registry.read("configmaps", rig.SUITE, naming.ledger(RUN))
        return ledger is None or ledger["data"].get("state") == CLOSED

    def arrival(self) -> None:
        """Wait for the request that was held back."""
        if self.on_its_way:
            self.arrived.wait(LATE_S * 2)

    def _end_dog(self, _: Request | None = None) -> None:
        pods = [pod["metadata"]["uid"] for pod in self.cluster.objects("pods", rig.SUITE)]
        if pods:
            self.dogs += 1
            kill_marked(pods, 0.5)


def _armed(cluster: FakeCluster) -> int:
    book = Ledger(Api(cluster.admin), rig.SUITE, RUN).read()
    return len(book.armed) if book else 0


def _ended(cluster: FakeCluster) -> list[str]:
    """Wait until somebody has closed the ledger; what never armed anything and has no watchdog needs nobody."""
    ledger = Ledger(Api(cluster.admin), rig.SUITE, RUN)
    end_s = time.monotonic() + END_S
    while time.monotonic() < end_s:
        book = ledger.read()
        jobs = cluster.objects("jobs", rig.SUITE)
        if book is None or book.state == CLOSED or not (book.armed or jobs):
            return []
        time.sleep(0.02)
    logs = [json.dumps(pod.get("status")) for pod in cluster.objects("pods", rig.SUITE)]
    return [f"the ledger is still {book.state if book else 'absent'} after {END_S:g} s; pods: {logs}"]


def _next(cluster: FakeCluster, before: dict[str, object]) -> list[str]:
    """The next run on the same system can begin, and leaves nothing either."""
    hold = Hold(Api(cluster.admin), "r2", "platform", rig.IMAGE, lease_s=LEASE_S, namespaces=(rig.PLATFORM,))
    try:
        hold.open()
        left = hold.close()
    except Exception as error:
        return [f"the next run could not begin: {error}"]
    cluster.settle()
    return [*left, *rig.differences(before, rig.still(cluster))]


def sweep(number: int, seed: int, jobs: int) -> list[Seen]:
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        seen = []
        for each in pool.map(one, cases(number, seed)):
            seen.append(each)
            if each.wrong:
                say(f"WRONG {each.case}: {'; '.join(each.wrong)}")
        return seen


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", type=int, nargs="?", default=300)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--drive", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drive:
        drive(given.drive, RUN)
        return 0
    seen = sweep(given.number, given.seed, given.jobs)
    killed = [each for each in seen if each.killed]
    wrong = [each for each in seen if each.wrong]
    alone = sorted(each.reverted_s for each in killed if each.armed and not each.dogs)
    say(
        f"{len(seen)} runs, {len(killed)} runners killed ({sum(1 for each in killed if each.armed)} of them with "
        f"something armed), watchdogs killed {sum(each.dogs for each in seen)} times: {len(wrong)} mismatches"
    )
    if alone:
        say(
            f"runner killed, armed, watchdog left alone: closed after {alone[len(alone) // 2]:.2f} s in the middle, "
            f"{alone[-1]:.2f} s at most; the Lease lasts {LEASE_S:g} s"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
