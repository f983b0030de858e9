"""A system under more work than it can do, simulated: known truth for the backpressure checks.

A G/G/c station behind a bounded queue that admits by tier, offered a staircase and then a surge (base, trigger, after,
down), with clients that try again. `simulate()` is sound: every check should pass. Each knob is one defect; which check
it is for stands beside it. Seeded; the same to the byte every time.

    case = case_of(simulate())                      a `core.case.Case`
    case = case_of(simulate(blind=True))            sheds whoever comes, whatever its tier
    found = simulate(steps=(0.5, 1.0), rate_per_s=20.0).evidence
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from math import log, log1p
from pathlib import Path
from random import Random

import msgspec
import numpy as np

from stormdrill.core.backpressure.asked import ASKED
from stormdrill.core.case import Case
from stormdrill.core.evidence import Evidence, Kind, RecordFile
from stormdrill.model import event as ev
from stormdrill.model.experiment import CheckUse, Experiment, LoadUse, Objective, Phases, Scalar
from stormdrill.model.plan import Plan
from stormdrill.model.profile import Piece, Profile, Retry, Role, Stage, Stream
from stormdrill.model.system import HopCounters, MetricSource, Pressure, Ready, ServiceInstance, System
from stormdrill.store.records import DTYPE, FORMAT, UNTOLD, Flag, Outcome
from synthetic_run import BOOT_ID, START_AT, START_MS, comparison, objective, write_journal

TIERS = (
    Stream("interactive", 0.2, {"tier": "1", "kind": "api"}, 2.0),
    Stream("batch", 0.4, {"tier": "2", "kind": "batch"}, 4.0),
    Stream("report", 0.4, {"tier": "3", "kind": "report"}, 8.0),
)
GATEWAY, EDGE, WORKER = "gateway-1", "edge-1", "worker-1"
PRESSURE = Pressure(
    depth="queue_depth",
    limit="queue_limit",
    in_flight="in_flight",
    memory="memory",
    hops=(HopCounters("edge", "edge_received", "edge_sent"), HopCounters("gateway", "gw_received", "gw_sent")),
    breaker="breaker_open",
    probes="breaker_probes",
    hedges="hedges",
)
GRACE_S = 0.25
"""By which the client waits beyond a deadline."""


@dataclass(frozen=True)
class Knobs:
    """The system, the demand, and what is wrong. The defaults are sound and carry about 100 requests/s."""

    seed: int = 11
    rate_per_s: float = 64.0
    steps: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0)
    """Factors of the rate; empty: no staircase."""
    step_s: float = 10.0
    episode: bool = True
    """base, trigger, after and down follow the staircase."""
    episodes: int = 1
    """As many times, each with a rest before it."""
    base: float = 1.0
    trigger: float = 3.0
    down: float = 0.4
    base_s: float = 10.0
    trigger_s: float = 10.0
    after_s: float = 12.0
    down_s: float = 8.0
    every_s: float = 0.5
    """Between two readings."""
    # the system
    slots: int = 16
    service_s: float = 0.16
    """Mean: a fixed half, and an exponential one."""
    queue_limit: int = 40
    rooms: tuple[float, float, float] = (1.0, 0.7, 0.4)
    """Share of the queue that each tier may fill."""
    rejection_s: float = 0.003
    retry_after: tuple[int, int] = (1, 4)
    backlog_limit: int = 200
    """Background work that the surge leaves behind, a second queue (`worker-1`)."""
    # the client
    attempts: int = 3
    """At most, each arrival."""
    budget: float = 0.05
    """Share of the arrivals that may be tried again at all."""
    obey: bool = True
    # what is wrong, and the check that names it
    carries: float = 1.0
    """capacity: the slots serve this share of what they should."""
    collapse: float = 0.0
    """goodput-plateau: each service takes longer by this share while much is offered."""
    stragglers: float = 0.0
    """admitted-latency: this share of what is admitted under overload is served, after its deadline."""
    slow_rejection_s: float = 0.0
    """cheap-rejection: what is rejected is kept waiting first."""
    silent: float = 0.0
    """cheap-rejection: this share of what is rejected is never answered."""
    bare: float = 0.0
    """rejection-contract: share of the rejections without Retry-After."""
    garbled: float = 0.0
    """rejection-contract: share of the rejections whose Retry-After can't be read."""
    wrong_status: float = 0.0
    """rejection-contract: share of the rejections that say 500."""
    in_step: bool = False
    """rejection-contract: all rejections name the same second."""
    broken_promise: float = 0.0
    """rejection-contract: share of those who come back as told that are turned away whatever room there is."""
    leak: float = 0.0
    """bounded-queue: items a second by which a side queue grows under overload, and 1 MB each."""
    over_limit: bool = False
    """bounded-queue: the side queue stands above the limit that it names."""
    hidden_s: float = 0.0
    """littles-law: how long accepted connections wait, under overload, where the system doesn't see them."""
    blind: bool = False
    """priority: sheds whoever comes, whatever its tier."""
    inverted: bool = False
    """priority: sheds the first tier first."""
    hop_tries: float = 1.02
    """retry-amplification: what the edge sends on for each request that it receives."""
    slow_drain: float = 1.0
    """drain: share of the spare capacity with which the background work is done."""
    metastable: bool = False
    """recovery: what the surge left behind keeps half of the capacity busy until the load goes down."""
    breaker_opens_s: float = 1.0
    """breaker: after the trigger began."""
    breaker_closes_s: float = 2.0
    """breaker: after the trigger ended; far beyond: never."""
    breaker_probes_per_s: float = 1.0
    """breaker: while it is open."""
    hedged: float = 0.02
    """breaker: hedges for each request that the edge receives."""
    # what taints or hides the evidence
    lag_ms: float = 0.3
    hogs: bool = False
    silent_after_s: float = float("inf")
    """Readings have no value from here on, seconds since the epoch."""
    stop_at_s: float = float("inf")
    """A person stops the run here, seconds since the epoch."""
    checks: tuple[str, ...] = ()
    """Words that the experiment asks for, with their defaults."""


@dataclass(frozen=True)
class Simulated:
    """A run, and what is true of it."""

    knobs: Knobs
    plan: Plan
    events: tuple[ev.Recorded, ...]
    rows: np.ndarray
    stages: tuple[Stage, ...]
    capacity_per_s: float
    """What the slots can serve."""

    @property
    def evidence(self) -> Evidence:
        kinds = tuple(Kind(stream.labels, stream.deadline_s * 1000) for stream in TIERS)
        record = RecordFile("load/worker-0.records", BOOT_ID, round(_epoch_ms() * 1e6), kinds, self.rows)
        return Evidence(self.plan, self.events, (record,), None)


def case_of(found: Simulated) -> Case:
    evidence = found.evidence
    return Case(evidence.plan, evidence.events, evidence.records, evidence.ledger)


def simulate(**knobs: object) -> Simulated:
    """One run. Equal knobs are simulated once a process: don't change what comes back."""
    return _simulated(Knobs(**knobs))  # type: ignore[arg-type]  # the names are Knobs' own


@lru_cache(maxsize=64)
def _simulated(knobs: Knobs) -> Simulated:
    stages = stages_for(knobs)
    station = Station(knobs, stages)
    station.run()
    plan = make_plan(knobs, stages)
    rows = station.table()
    timed = make_events(knobs, stages, station, rows)
    events = tuple(ev.Recorded(seq, "", at_ms, event) for seq, (at_ms, event) in enumerate(timed, 1))
    return Simulated(knobs, plan, events, rows, stages, knobs.slots / knobs.service_s * knobs.carries)


def write(directory: Path, found: Simulated) -> Path:
    """The same as a run directory."""
    (directory / "load").mkdir(parents=True, exist_ok=True)
    (directory / "plan.json").write_bytes(msgspec.json.encode(found.plan))
    header = {
        "format": FORMAT,
        "worker": 0,
        "boot_id": BOOT_ID,
        "epoch_mono_ns": round(_epoch_ms() * 1e6),
        "epoch_at": START_AT.isoformat(),
        "labels": [{"labels": stream.labels, "deadline_ms": stream.deadline_s * 1000} for stream in TIERS],
        "regions": [],
        "loop": "open",
        "clock_error_ms": 0.0,
    }
    content = json.dumps(header).encode() + b"\n" + found.rows.tobytes()
    (directory / "load" / "worker-0.records").write_bytes(content)
    closed = ev.RecordClosed("load/worker-0.records", hashlib.sha256(content).hexdigest(), len(content), True)
    events = [(one.mono_ms, closed if isinstance(one.event, ev.RecordClosed) else one.event) for one in found.events]
    write_journal(directory / "journal.ndjson", events)
    return directory


# --- the demand ------------------------------------------------------------------------------------------

WARMUP_S, BASELINE_S, REST_S, RECOVERY_S = 2.0, 8.0, 4.0, 6.0
BASELINE_FACTOR, REST_FACTOR = 0.5, 0.1


def _epoch_ms() -> float:
    return START_MS + 2_000.0


def stages_for(knobs: Knobs) -> tuple[Stage, ...]:
    """From the fault phase's beginning: the staircase, a rest, then the surge."""
    at_s = WARMUP_S + BASELINE_S
    found: list[Stage] = []

    def add(role: Role, length_s: float, factor: float, episode: int = 0) -> None:
        nonlocal at_s
        found.append(Stage(role, at_s, at_s + length_s, factor, episode))
        at_s += length_s

    for factor in knobs.steps:
        add("step", knobs.step_s, factor)
    for number in range(1, knobs.episodes + 1) if knobs.episode else ():
        if knobs.steps or number > 1:
            add("rest", REST_S, REST_FACTOR, number)
        add("base", knobs.base_s, knobs.base, number)
        add("trigger", knobs.trigger_s, knobs.trigger, number)
        add("after", knobs.after_s, knobs.base, number)
        add("down", knobs.down_s, knobs.down, number)
    return tuple(found)


def length_s(stages: tuple[Stage, ...]) -> float:
    """Of the load."""
    return (stages[-1].end_s if stages else WARMUP_S + BASELINE_S + 20.0) + RECOVERY_S


class Demand:
    """The factor at each moment since the epoch, and which stage that is."""

    def __init__(self, stages: tuple[Stage, ...]) -> None:
        self._stages = stages

    def stage(self, at_s: float) -> Stage | None:
        return next((stage for stage in self._stages if stage.start_s <= at_s < stage.end_s), None)

    def factor(self, at_s: float) -> float:
        found = self.stage(at_s)
        return found.factor if found else BASELINE_FACTOR


# --- the system ------------------------------------------------------------------------------------------


@dataclass
class Flight:
    """One attempt of one arrival."""

    job: int
    tier: int
    intended_s: float
    sent_s: float
    attempt: int = 0
    may_retry: bool = False
    told: bool = False
    """It comes back when it was told to."""
    gone: bool = False
    """The client waits no longer."""


@dataclass
class Seen:
    """What the system tells of itself at one moment."""

    at_s: float
    depth: float
    in_flight: float
    side: float
    backlog: float
    received: float
    hedges: float


@dataclass
class Station:
    knobs: Knobs
    stages: tuple[Stage, ...]
    rows: list[tuple[object, ...]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.knobs.seed)
        self.demand = Demand(self.stages)
        self.length_s = length_s(self.stages)
        self.heap: list[tuple[float, int, Callable[[float], None]]] = []
        self.number = 0
        self.queue: deque[Flight] = deque()
        self.busy = 0
        self.late = 0
        """Done, and not answered yet."""
        self.received = 0
        self.side = 0.0
        self.backlog = 0.0
        self.held = False
        self.capacity = self.knobs.slots / self.knobs.service_s * self.knobs.carries

    def at(self, at_s: float, what: Callable[[float], None]) -> None:
        self.number += 1
        heapq.heappush(self.heap, (at_s, self.number, what))

    def run(self) -> None:
        self._arrivals()
        tick = 0.0
        while tick < self.length_s:
            self.at(tick, self._look)
            tick += self.knobs.every_s
        while self.heap:
            at_s, _, what = heapq.heappop(self.heap)
            what(at_s)

    def _arrivals(self) -> None:
        at_s, job, shares = 0.0, 0, [stream.share for stream in TIERS]
        while True:
            # thinned: the rate changes in steps, and no arrival may be drawn over an edge
            at_s += -log(1 - self.random.random()) / (self.knobs.rate_per_s * self._highest)
            if at_s >= min(self.length_s, self.knobs.stop_at_s):
                return
            if self.random.random() * self._highest >= self.demand.factor(at_s):
                continue
            tier = self.random.choices(range(len(TIERS)), shares)[0]
            flight = Flight(job, tier, at_s, at_s + self._lag_s(), may_retry=self.random.random() < self.knobs.budget)
            job += 1
            self._send(flight)

    @property
    def _highest(self) -> float:
        return max([BASELINE_FACTOR, *(stage.factor for stage in self.stages)])

    def _lag_s(self) -> float:
        return (0.05 - log1p(-self.random.random()) * self.knobs.lag_ms) / 1000

    def _overloaded(self, at_s: float) -> bool:
        return self.demand.factor(at_s) * self.knobs.rate_per_s > self.capacity

    def _send(self, flight: Flight) -> None:
        hidden_s = self.knobs.hidden_s if self._overloaded(flight.sent_s) else 0.0
        self.at(flight.sent_s + hidden_s + 0.0005, lambda at_s: self._arrive(flight, at_s))
        limit_s = flight.intended_s + TIERS[flight.tier].deadline_s + GRACE_S
        self.at(max(limit_s, flight.sent_s), lambda at_s: self._give_up(flight, at_s))

    def _arrive(self, flight: Flight, at_s: float) -> None:
        self.received += 1
        promised = flight.told and self.random.random() < self.knobs.broken_promise
        if self.busy < self.knobs.slots and not promised:
            self._serve(flight, at_s)
        elif len(self.queue) < self.knobs.queue_limit * self._room(flight.tier) and not promised:
            self.queue.append(flight)
        else:
            self._reject(flight, at_s)

    def _room(self, tier: int) -> float:
        if self.knobs.blind:
            return self.knobs.rooms[1]
        return self.knobs.rooms[2 - tier if self.knobs.inverted else tier]

    def _serve(self, flight: Flight, at_s: float) -> None:
        self.busy += 1
        mean_s = self.knobs.service_s / self.knobs.carries
        if self._overloaded(at_s):
            mean_s *= 1 + self.knobs.collapse
        if self._stuck(at_s):
            mean_s *= 2.2
        took_s = mean_s * (0.5 - 0.5 * log1p(-self.random.random()))
        late = self._overloaded(at_s) and self.random.random() < self.knobs.stragglers
        self.at(at_s + took_s, lambda done_s: self._served(flight, done_s, late))

    def _stuck(self, at_s: float) -> bool:
        stage = self.demand.stage(at_s)
        if self.knobs.metastable and stage is not None and stage.role in ("trigger", "down"):
            self.held = stage.role == "trigger"
        return self.held

    def _served(self, flight: Flight, at_s: float, late: bool) -> None:
        self.busy -= 1
        if self.queue:
            self._serve(self.queue.popleft(), at_s)
        if late:  # it was done, and its answer waits for something that isn't work
            self.late += 1
            at_s = max(at_s, flight.intended_s + TIERS[flight.tier].deadline_s + 0.5 * GRACE_S)
        self.at(at_s + 0.0005, lambda done_s: self._answered(flight, done_s, late))

    def _answered(self, flight: Flight, at_s: float, late: bool) -> None:
        self.late -= late
        self._end(flight, at_s, 200)

    def _reject(self, flight: Flight, at_s: float) -> None:
        if self.random.random() < self.knobs.silent:
            return  # nobody answers
        done_s = at_s + self.knobs.rejection_s * (0.5 - 0.5 * log1p(-self.random.random()))
        if self.knobs.slow_rejection_s:
            done_s += self.knobs.slow_rejection_s
        self.at(done_s, lambda then_s: self._rejected(flight, then_s))

    def _rejected(self, flight: Flight, at_s: float) -> None:
        luck, knobs = self.random.random(), self.knobs
        after_s = knobs.retry_after[0] if knobs.in_step else self.random.randint(*knobs.retry_after)
        status, flags = 429, int(Flag.RETRY_AFTER)
        if luck < knobs.bare:
            flags = 0
        elif luck < knobs.bare + knobs.garbled:
            flags = int(Flag.GARBLED)
        elif luck < knobs.bare + knobs.garbled + knobs.wrong_status:
            status = 500
        self._end(flight, at_s, status, flags, after_s if flags & Flag.RETRY_AFTER else 0)

    def _give_up(self, flight: Flight, at_s: float) -> None:
        if not flight.gone:
            flight.gone = True
            self._row(flight, at_s, 0, Outcome.TIMED_OUT, int(Flag.FINAL), 0)

    def _end(self, flight: Flight, at_s: float, status: int, flags: int = 0, after_s: int = 0) -> None:
        if flight.gone:
            return
        flight.gone = True
        again = self._again(flight, at_s, after_s) if status != 200 else None
        self._row(flight, at_s, status, Outcome.ANSWERED, flags | (0 if again else int(Flag.FINAL)), after_s)
        if again:
            self._send(again)

    def _again(self, flight: Flight, at_s: float, after_s: int) -> Flight | None:
        if not flight.may_retry or flight.attempt + 1 >= self.knobs.attempts:
            return None
        wait_s = 0.1 * 2**flight.attempt
        told = bool(self.knobs.obey and after_s)
        if told:
            wait_s = max(wait_s, after_s + 0.01 + 0.3 * self.random.random())
        if at_s + wait_s >= flight.intended_s + TIERS[flight.tier].deadline_s:
            return None
        return Flight(flight.job, flight.tier, flight.intended_s, at_s + wait_s, flight.attempt + 1, True, told)

    def _row(self, flight: Flight, at_s: float, status: int, outcome: Outcome, flags: int, after_s: int) -> None:
        intended_us = round(flight.intended_s * 1e6)
        sent_us = max(0, round(flight.sent_s * 1e6) - intended_us)
        latency_us = round(at_s * 1e6) - intended_us
        row = (intended_us, sent_us, latency_us, flight.job, status, flight.tier, int(outcome), sent_us)
        self.rows.append((*row, flight.attempt, flags, after_s, UNTOLD))

    def table(self) -> np.ndarray:
        rows = np.array(self.rows, dtype=np.dtype(DTYPE))
        first = {row[3]: row[1] for row in self.rows if row[8] == 0}
        rows["lag_us"] = [first[job] for job in rows["job"].tolist()]
        return rows

    def _look(self, at_s: float) -> None:
        """Told of itself, and background work done meanwhile."""
        offered, every_s = self.demand.factor(at_s) * self.knobs.rate_per_s, self.knobs.every_s
        stage = self.demand.stage(at_s)
        if stage is not None and stage.role == "trigger":
            self.backlog = min(float(self.knobs.backlog_limit), self.backlog + (offered - self.capacity) * every_s)
        else:
            spare = max(0.0, self.capacity - offered) * self.knobs.slow_drain
            self.backlog = max(0.0, self.backlog - spare * every_s)
        if self._overloaded(at_s):
            self.side += self.knobs.leak * every_s
        inside = self.busy + len(self.queue) + self.late
        hedges = self.received * self.knobs.hedged
        self.seen.append(Seen(at_s, len(self.queue), inside, self.side, self.backlog, self.received, hedges))


# --- the plan and the journal ----------------------------------------------------------------------------


def make_plan(knobs: Knobs, stages: tuple[Stage, ...]) -> Plan:
    fault_s = length_s(stages) - WARMUP_S - BASELINE_S - RECOVERY_S
    shape = [Piece(0.0, BASELINE_FACTOR)]
    for stage in stages:
        shape += [Piece(stage.start_s, shape[-1].factor), Piece(stage.start_s, stage.factor)]
    if stages:
        shape += [Piece(stages[-1].end_s, shape[-1].factor), Piece(stages[-1].end_s, BASELINE_FACTOR)]
    retry = Retry(knobs.attempts, 0.1, 0.0, knobs.obey, knobs.budget) if knobs.attempts > 1 else None
    healthy: tuple[Objective, ...] = (objective("baseline", comparison("success > 95%", "success", ">", 95.0, "%")),)
    experiment = Experiment(
        name="overload",
        title="More work than there is room for is turned away, and the rest is done",
        hypothesis="At three times its capacity the service does as much as at its capacity, for the first tier first.",
        owner="serving",
        system="station",
        phases=Phases(WARMUP_S, BASELINE_S, fault_s, RECOVERY_S),
        faults=(),
        objectives=healthy,
        load=LoadUse("overload", knobs.rate_per_s),
        backpressure=tuple(check_use(word) for word in knobs.checks),
    )
    profile = Profile("overload", "platform_user", "poisson", tuple(shape), TIERS, "", stages, retry)
    return Plan(
        experiment=experiment,
        system=make_system(),
        target="process",
        seed=knobs.seed,
        injections=(),
        duration_s=experiment.phases.total_s,
        worst_case="",
        irreversible=(),
        permissions=(),
        profile=profile,
        digest="3f9c21aa07b1",
    )


def check_use(word: str, **own: Scalar) -> CheckUse:
    """As the reader makes it: every threshold, those in `own` instead of the defaults."""
    usual = ASKED[word].parameters()
    return CheckUse(word, {name: own.get(name, getattr(usual, name)) for name in usual.__struct_fields__})


def asking(found: Simulated, *uses: CheckUse) -> Evidence:
    """The same run, asked for other checks."""
    evidence = found.evidence
    experiment = msgspec.structs.replace(evidence.plan.experiment, backpressure=uses)
    return msgspec.structs.replace(evidence, plan=msgspec.structs.replace(evidence.plan, experiment=experiment))


def make_system() -> System:
    def one(name: str, service: str) -> ServiceInstance:
        return ServiceInstance(name, service, ("serve", service), {"role": service}, ready=Ready("GET", "/healthz"))

    metrics = {
        "gateway": ("queue_depth", "queue_limit", "in_flight", "gw_received", "gw_sent", "memory"),
        "edge": ("edge_received", "edge_sent", "breaker_open", "breaker_probes", "hedges"),
    }
    return System(
        name="station",
        entry="gateway",
        instances=(one(EDGE, "edge"), one(GATEWAY, "gateway"), one(WORKER, "worker")),
        labels=("role",),
        metrics=tuple(
            MetricSource(name, service, name, every_s=0.5) for service, names in metrics.items() for name in names
        ),
        pressure=PRESSURE,
    )


Timed = list[tuple[float, ev.Event]]


def make_events(knobs: Knobs, stages: tuple[Stage, ...], station: Station, rows: np.ndarray) -> Timed:
    epoch_ms, total_s = _epoch_ms(), length_s(stages)
    end_s = min(total_s, knobs.stop_at_s)
    fault_s = total_s - WARMUP_S - BASELINE_S - RECOVERY_S
    started = ev.RunStarted(
        run="20261121T201402Z-overload-3f9c", version="0.1.0", boot_id=BOOT_ID, title="overload", experiment="overload",
        system="station", target="process", seed=knobs.seed, fast=False, settings={}, inputs={}, runner_pid=4100,
        runner_start_ticks=77001, cores=2, kernel="Linux 6.1",
    )  # fmt: skip
    events: Timed = [
        (START_MS, started),
        (START_MS + 1_400, ev.SystemReady(3, 1_400.0)),
        (epoch_ms - 300, ev.LoadStarted("overload", 1, epoch_ms)),
    ]
    at_s = 0.0
    for phase, planned_s in (
        ("warmup", WARMUP_S), ("baseline", BASELINE_S), ("fault", fault_s), ("recovery", RECOVERY_S),
    ):  # fmt: skip
        if at_s < end_s:
            events.append((epoch_ms + at_s * 1000, ev.PhaseEntered(phase, planned_s)))
            if phase == "fault":
                events.append((epoch_ms + at_s * 1000 - 5, ev.BaselineJudged(True, "")))
        at_s += planned_s
    if end_s < total_s:
        events.append((epoch_ms + end_s * 1000 - 5, ev.AbortRequested("person", "Ctrl-C")))
    events += readings(knobs, stages, station, end_s)
    events.append((epoch_ms + end_s * 1000, ev.PhaseEntered("end", 0.0)))
    events.sort(key=lambda item: item[0])
    scheduled = len(np.unique(rows["job"]))
    size, after = len(rows) * 32, epoch_ms + end_s * 1000 + 8_000
    lag_ms = float(np.quantile(rows["lag_us"], 0.99)) / 1000
    events += [
        (after, ev.LoadEnded(scheduled, scheduled, 0, 0, round(lag_ms, 3), 0, "")),
        (after + 5, ev.RecordClosed("load/worker-0.records", "0" * 64, size, True)),
        (after + 500, ev.TornDown("keeper", 3, [], 300.0)),
        (after + 510, ev.RunEnded("aborted" if end_s < total_s else "completed", "")),
    ]
    return events


def readings(knobs: Knobs, stages: tuple[Stage, ...], station: Station, end_s: float) -> Timed:
    """What probes read, and samples of the host."""
    epoch_ms, events = _epoch_ms(), Timed()
    trigger = next((stage for stage in stages if stage.role == "trigger"), None)
    probes = 0.0
    for seen in station.seen:
        if seen.at_s > end_s:
            break
        at_ms = epoch_ms + seen.at_s * 1000
        is_open = trigger is not None and (
            trigger.start_s + knobs.breaker_opens_s <= seen.at_s < trigger.end_s + knobs.breaker_closes_s
        )
        probes += knobs.breaker_probes_per_s * knobs.every_s if is_open else 0.0
        side_limit = 1000.0 if not knobs.over_limit else 5.0
        side = seen.side if not knobs.over_limit else 9.0
        told = [
            ("queue_depth", GATEWAY, seen.depth), ("queue_limit", GATEWAY, float(knobs.queue_limit)),
            ("queue_depth", WORKER, seen.backlog), ("queue_limit", WORKER, float(knobs.backlog_limit)),
            ("queue_depth", EDGE, side), ("queue_limit", EDGE, side_limit),
            ("in_flight", GATEWAY, seen.in_flight), ("memory", GATEWAY, 80e6 + 1e6 * seen.side),
            ("edge_received", EDGE, seen.received), ("edge_sent", EDGE, round(seen.received * knobs.hop_tries)),
            ("gw_received", GATEWAY, round(seen.received * knobs.hop_tries)),
            ("gw_sent", GATEWAY, round(seen.received * knobs.hop_tries * 1.01)),
            ("breaker_open", EDGE, float(is_open)), ("breaker_probes", EDGE, float(int(probes))),
            ("hedges", EDGE, float(int(seen.hedges))),
        ]  # fmt: skip
        for metric, instance, value in told:
            dumb = seen.at_s >= knobs.silent_after_s
            reading = ev.Reading(metric, instance, None if dumb else value, {}, "no answer" if dumb else "")
            events.append((at_ms, reading))
    for second in range(int(end_s) + 1):
        run_delay, foreign = (0.78, 1.4) if knobs.hogs else (0.12, 0.06)
        sample = ev.HostSampled(1000.0, foreign, run_delay, 0.03, 0.11, 1.2)
        events.append((epoch_ms + second * 1000 + 231, sample))
    return events
