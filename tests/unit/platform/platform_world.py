"""A world of two regions, an edge, workers and clients in one thread: time, deaths, delays and cuts are drawn by lot.

The regions and their stores are the real ones; what is played is the network, the processes' deaths and pauses, and
the edge's and workers' part of the protocol. Everything follows from the seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import structs

from stormdrill.platform import bugs
from stormdrill.platform.broken import SplitBrain, region_with
from stormdrill.platform.jobs import POOLS, JobRequest, Kind, place
from stormdrill.platform.messages import Attempt, Lease, Outcome
from stormdrill.platform.peers import REJOIN_LIMIT_S
from stormdrill.platform.queue import End
from stormdrill.platform.region import Region
from stormdrill.platform.store import Store

REGIONS = ("eu", "us")
STEP_S = 0.05
ATTEMPT_S = 0.4
DEADLINE_MS = 1000.0
SETTLE_STEPS = 2400


class HandClock:
    """Moves when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def mono_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> float:
        return 1.7e12 + self.now_s * 1000.0

    def boot_id(self) -> str:
        return "this boot"


@dataclass
class Host:
    """One region's processes; frozen they keep what is sent to them, crashed they lose it."""

    name: str
    store: Store
    region: Region | None
    frozen: bool = False
    mailbox: list[tuple[float, int, Callable[[Region], None]]] = field(default_factory=list)
    leases: list[tuple[float, Lease, str]] = field(default_factory=list)
    rejoining_since_s: float | None = None

    @property
    def alive(self) -> bool:
        return self.region is not None and not self.frozen


@dataclass
class Asked:
    """A job as its user knows it."""

    request: JobRequest
    acknowledged: bool = False
    tries: int = 0
    open: tuple[str, float] | None = None
    """Region and end of the attempt that the edge is waiting for."""
    second: str | None = None


class World:
    def __init__(self, seed: int, bug: str = bugs.NONE) -> None:
        self.clock = HandClock()
        self.rng = random.Random(seed)
        self.bug = bug
        self.hosts = {name: Host(name, self._store(), None) for name in REGIONS}
        for host in self.hosts.values():
            self._start(host)
        self.jobs: dict[str, Asked] = {}
        self.apart = False
        """The regions don't hear each other; edges hear both."""
        self._messages = 0

    def _store(self) -> Store:
        path = Path(":memory:")
        return bugs.ForgetfulStore(path, self.clock) if self.bug == bugs.LOST_ACKNOWLEDGEMENT else Store(path)

    # what happens to hosts

    def _start(self, host: Host) -> None:
        seed = self.rng.randrange(9999)
        host.region = region_with(self.bug)(host.name, REGIONS, host.store, self.clock, bug=self.bug, seed=seed)
        host.rejoining_since_s = self.clock.now_s

    def crash(self, host: Host) -> None:
        host.region, host.frozen, host.mailbox, host.leases = None, False, [], []

    def cut(self) -> None:
        self.apart = True
        for host in self.hosts.values():
            other = self._other(host)
            if isinstance(host.region, SplitBrain) and isinstance(other.region, SplitBrain):
                host.region.adopt(other.region.open_jobs())

    def trouble(self) -> None:
        if self.apart:
            self.apart = self.rng.random() >= 0.05
        elif self.rng.random() < 0.02:
            self.cut()
        host = self.hosts[self.rng.choice(REGIONS)]
        lot = self.rng.random()
        if host.region is None:
            if lot < 0.10:
                self._start(host)
        elif host.frozen:
            host.frozen = lot >= 0.08
        elif lot < 0.012:
            host.frozen = True
        elif lot < 0.018:
            self.crash(host)

    def send(self, host: Host, message: Callable[[Region], None]) -> None:
        """Arrives soon, mostly; late sometimes; twice now and then; never at a crashed host."""
        for _ in range(2 if self.rng.random() < 0.05 else 1):
            late_s = self.rng.choice((0.0, 0.0, 0.0, 0.05, 0.3, 1.5))
            self._messages += 1
            if host.region is not None:
                host.mailbox.append((self.clock.now_s + late_s, self._messages, message))

    # the edge's and the client's part

    def ask(self) -> None:
        number = len(self.jobs)
        kind: Kind = self.rng.choice((*["api", "inference", "batch"] * 4, "training"))
        wait = kind in ("api", "inference")
        request = JobRequest(
            f"job-{number}", kind, self.rng.choice((1, 2, 3)), DEADLINE_MS if wait else 60_000.0,
            self.rng.choice((None, None, None, *REGIONS)), wait, "hot" if number % 3 == 0 else "",
        )  # fmt: skip
        self.jobs[request.id] = Asked(request)
        self._submit(self.jobs[request.id])

    def _submit(self, asked: Asked) -> None:
        residency = None if self.bug == bugs.RESIDENCY_IGNORED else asked.request.residency
        placement = place(asked.request.id, residency, REGIONS)
        assert placement is not None
        asked.tries += 1
        first, second = placement.home, placement.fallback
        if second is not None and self.rng.random() < 0.2:
            first, second = second, None  # this edge believes that home is lost
        asked.second = second
        self._attempt(asked, first)

    def _attempt(self, asked: Asked, to: str) -> None:
        ends_s = self.clock.now_s + ATTEMPT_S
        asked.open = (to, ends_s)
        attempt = Attempt(asked.request, self.clock.wall_ms() + ATTEMPT_S * 1000.0)
        mine = asked.open

        def answered(status: int) -> None:
            if asked.open is not mine:
                return  # given up before
            asked.open = None
            if 200 <= status < 300:
                asked.acknowledged = True
            elif status in (503, 504, 409) and asked.second is not None:
                second, asked.second = asked.second, None
                self._attempt(asked, second)

        def reply(status: int) -> None:
            if self.rng.random() > 0.1:  # else the answer is lost on its way
                answered(status)

        def arrive(region: Region) -> None:
            admission = region.admit(attempt)
            if admission.entry is None or admission.status == 202:
                reply(admission.status)
                return

            def ended(end: End, reason: str, result: bytes) -> None:
                reply(200 if end == "done" else 409 if end == "superseded" else 504)

            admission.entry.watchers.append(ended)

        self.send(self.hosts[to], arrive)

    def edges(self) -> None:
        for asked in self.jobs.values():
            if asked.open is not None and self.clock.now_s >= asked.open[1]:
                asked.open = None
                if asked.second is not None:
                    second, asked.second = asked.second, None
                    self._attempt(asked, second)
            elif asked.open is None and not asked.acknowledged and asked.tries < 3 and self.rng.random() < 0.05:
                self._submit(asked)  # the user asks again, by the same id

    # what the processes do when they can

    def run(self, host: Host) -> None:
        region = host.region
        if region is None or host.frozen:
            return
        due = sorted(item[:2] for item in host.mailbox if item[0] <= self.clock.now_s)
        self.rng.shuffle(due)
        for key in due:
            message = next(item for item in host.mailbox if item[:2] == key)
            host.mailbox.remove(message)
            message[2](region)
        region.tick()
        self._rejoin(host, region)
        self._work(host, region)
        self._outbox(host, region)

    def _rejoin(self, host: Host, region: Region) -> None:
        if region.active:
            host.rejoining_since_s = None
            return
        if host.rejoining_since_s is None:
            host.rejoining_since_s = self.clock.now_s
        other = self._other(host)
        if other.alive and other.region is not None and not self.apart:
            region.supersede(other.name, other.store.claims_against(host.name, 10**6))
        elif self.clock.now_s - host.rejoining_since_s < REJOIN_LIMIT_S:
            return
        region.finish_rejoin()

    def _work(self, host: Host, region: Region) -> None:
        for pool in POOLS:
            for lease in region.lease(pool, f"{pool}-{host.name}", self.rng.choice((1, 4))):
                host.leases.append((self.clock.now_s + self.rng.choice((0.1, 0.2, 2.5)), lease, f"{pool}-{host.name}"))
        for due in [item for item in host.leases if item[0] <= self.clock.now_s]:
            host.leases.remove(due)
            self._step(host, *due[1:])

    def _step(self, host: Host, lease: Lease, worker: str) -> None:
        """A worker goes on: it dies, loses its device, tells of a step, or is done."""
        lot = self.rng.random()
        steps_done = lease.steps_done + 1
        if lot < 0.03:
            return
        if lot < 0.06:
            self.send(host, lambda there: there.hand_back(worker, lease.id, lease.token))
        elif steps_done < lease.steps:
            told = structs.replace(lease, steps_done=steps_done)
            self.send(host, lambda there: self._told(host, there, told, worker))
        else:
            self.send(host, lambda there: there.complete(worker, Outcome(lease.id, lease.token)) and None)

    def _told(self, host: Host, region: Region, lease: Lease, worker: str) -> None:
        if region.checkpoint(lease.id, lease.token, lease.steps_done):
            host.leases.append((self.clock.now_s + self.rng.choice((0.05, 0.05, 0.1, 0.1, 2.5)), lease, worker))

    def _outbox(self, host: Host, region: Region) -> None:
        if self.apart or self.rng.random() < 0.5:
            return
        held = host.store.claims_against(self._other(host).name, 100)

        def deliver(there: Region) -> None:
            if self.apart:
                return
            done_there = there.supersede(host.name, held)
            if self.rng.random() < 0.8:  # else the answer is lost
                self.send(host, lambda here: here.settle(there.name, held, set(done_there)))

        if held:
            self.send(self._other(host), deliver)

    def _other(self, host: Host) -> Host:
        return self.hosts["us" if host.name == "eu" else "eu"]

    # the whole story

    def play(self, steps: int) -> None:
        for _ in range(steps):
            self.clock.now_s += STEP_S
            if self.rng.random() < 0.5:
                self.ask()
            self.trouble()
            self.edges()
            for host in self.hosts.values():
                self.run(host)
        self._settle()

    def _settle(self) -> None:
        """Everything comes back, and time enough passes."""
        self.apart = False
        for host in self.hosts.values():
            host.frozen = False
            if host.region is None:
                self._start(host)
        for step in range(SETTLE_STEPS):
            if step >= SETTLE_STEPS / 4 and step % 100 == 0 and not self.lost:
                return
            self.clock.now_s += STEP_S
            self.edges()
            for host in self.hosts.values():
                self.run(host)

    def done(self) -> Mapping[str, int]:
        """Completions that count, over both regions."""
        counts = dict.fromkeys(self.jobs, 0)
        for host in self.hosts.values():
            for row in host.store.ledger(host.name):
                counts[row.id] += row.done
        return counts

    @property
    def moved(self) -> list[str]:
        """Done where they must not be."""
        rows = [row for host in self.hosts.values() for row in host.store.ledger(host.name)]
        return [row.id for row in rows if row.done and row.residency not in (None, row.region)]

    @property
    def lost(self) -> list[str]:
        done = self.done()
        return [job for job, asked in self.jobs.items() if asked.acknowledged and not done[job]]

    @property
    def doubled(self) -> list[str]:
        return [job for job, count in self.done().items() if count > 1]
