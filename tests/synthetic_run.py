"""Run directories without a run: complete, plausible, seeded, the same to the byte every time.

`make_run(directory, scenario="pass")` writes what a region loss of the platform leaves behind. `SCENARIOS` names what
can be different; a test that needs something else passes knobs: `make_run(directory, rate_per_s=200.0, hogs=True)`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from stormdrill.model import event as ev
from stormdrill.model.experiment import Experiment, FaultUse, LoadUse, Objective, Phases, RunbookUse, Window
from stormdrill.model.expression import AlertWithin, Comparison, Expression
from stormdrill.model.plan import Injection, Plan
from stormdrill.model.profile import Profile, Stream
from stormdrill.model.system import AlertSource, JobLedger, MetricSource, Ready, ServiceInstance, System
from stormdrill.store.records import DTYPE, FORMAT, UNTOLD, Flag, Outcome

BOOT_ID = "5a1d2c0e-7b34-4c53-9d0c-0f5e8f1f2a77"
START_AT = datetime(2026, 11, 21, 20, 14, 2, tzinfo=UTC)
START_MS = 5_000_000.0
"""The monotonic clock when the run began."""
FIRST_PREV = "0" * 64
EU = ("gateway-eu", "cpu-eu", "gpu-eu")
STREAMS = (
    Stream("interactive", 0.5, {"tier": "1", "kind": "api"}, 1.0),
    Stream("batch", 0.3, {"tier": "2", "kind": "batch"}, 2.0),
    Stream("report", 0.2, {"tier": "3", "kind": "report"}, 3.0),
)


PHASES = Phases(5.0, 20.0, 30.0, 20.0)


@dataclass(frozen=True)
class Knobs:
    """What a synthetic run can be like. The defaults are a run that passes."""

    seed: int = 7
    rate_per_s: float = 60.0
    phases: Phases = PHASES
    fault_for_s: float | None = None
    """What `for:` asks of the faults; None: the whole phase that the experiment declares."""
    outage_s: float = 1.9
    """How long after the injection half of the requests time out; beyond the phase: no failover."""
    fault_latency_ms: float = 60.0
    """Mean of what is added to each answer while one region carries all."""
    baseline_bad: float = 0.0
    """Share of requests that end in 503 before the fault."""
    lag_ms: float = 0.4
    dropped: int = 0
    unsent: int = 0
    """Records that are missing at the end of the file."""
    lost_workers: int = 0
    closed: bool = True
    torn: bool = False
    """The record file ends in half a record."""
    boot_id: str = BOOT_ID
    hogs: bool = False
    host_samples: bool = True
    lost: int = 0
    doubled: int = 0
    open_jobs: int = 0
    ledger: bool = True
    bit: bool = True
    served: int = 400
    """Requests that the frozen group had served when the baseline ended."""
    gone: bool | None = True
    """What was seen after the revert; None: nobody looked."""
    guard: bool = False
    abort_by: str = ""
    abort_after_s: float = 12.0
    """Since the first inject; below 0: in the baseline."""
    alert_after_s: float | None = 2.4
    alert_before: bool = False
    runbook_trigger: str = "alert(RegionDown)"
    """Empty: it never started."""
    runbook_outcome: str = "done"
    reading_gap: bool = False
    """No fresh reading of queue_age in the fault's second half."""
    queue_age_s: float = 2.0
    ended: bool = True
    extra_objectives: tuple[Objective, ...] = ()
    with_runbook: bool = True

    @property
    def fault_s(self) -> float:
        """How long the fault phase is planned to last."""
        return self.phases.fault_s if self.fault_for_s is None else self.fault_for_s


SCENARIOS: dict[str, dict[str, object]] = {
    "pass": {},
    "fail": {"outage_s": 60.0, "alert_after_s": 2.4, "runbook_outcome": "failed"},
    "slow": {"fault_latency_ms": 900.0},
    "few-samples": {"rate_per_s": 4.0, "served": 40},
    "dropped": {"dropped": 3},
    "late-generator": {"lag_ms": 30.0},
    "lost-worker": {"lost_workers": 1},
    "missing-records": {"unsent": 40},
    "unclosed-records": {"closed": False, "torn": True},
    "other-boot": {"boot_id": "00000000-0000-4000-8000-000000000000"},
    "hogs": {"hogs": True, "fault_latency_ms": 900.0},
    "lost-jobs": {"lost": 2},
    "lost-jobs-tainted": {"lost": 2, "hogs": True},
    "doubled-jobs": {"doubled": 1},
    "no-ledger": {"ledger": False},
    "unhealthy-baseline": {"baseline_bad": 0.2},
    "not-exposed": {"served": 11},
    "not-bitten": {"bit": False, "outage_s": 0.0, "fault_latency_ms": 0.0},
    "dirty": {"gone": False},
    "unverified": {"gone": None},
    "guard": {"guard": True, "outage_s": 60.0},
    "aborted": {"abort_by": "person"},
    "no-alert": {"alert_after_s": None, "runbook_trigger": "else_after"},
    "alert-before": {"alert_before": True, "alert_after_s": None},
    "runbook-late": {"runbook_trigger": "else_after", "alert_after_s": 11.5},
    "runbook-failed": {"runbook_outcome": "failed"},
    "no-runbook-start": {"runbook_trigger": ""},
}


def comparison(text: str, metric: str, op: str, limit: float, unit: str = "", **more: object) -> Comparison:
    return msgspec.convert(
        {"type": "comparison", "text": text, "metric": metric, "op": op, "limit": limit, "unit": unit, **more},
        Comparison,
    )


def objective(window: str, expression: Expression, after_s: float = 0.0) -> Objective:
    return Objective(msgspec.convert({"phase": window, "after_s": after_s}, Window), expression)


TIER1 = {"tier": "1"}
SUCCESS_98 = comparison("success{tier=1} > 98%", "success", ">", 98.0, "%", labels=TIER1)
SUCCESS_95 = comparison("success{tier=1} > 95%", "success", ">", 95.0, "%", labels=TIER1)
P95_400 = comparison("p95{tier=1} < 400ms", "p95", "<", 0.4, "ms", labels=TIER1)
GUARD = comparison("success{tier=1} < 50% for 10s", "success", "<", 50.0, "%", labels=TIER1, for_s=10.0)
OBJECTIVES = (
    objective("baseline", SUCCESS_98),
    objective("fault", SUCCESS_95, 10.0),
    objective("fault", P95_400, 10.0),
    objective("recovery", SUCCESS_98),
    objective("whole run", AlertWithin("alert(RegionDown) within 10s", "RegionDown", {}, 10.0)),
    objective("whole run", comparison("jobs_lost = 0", "jobs_lost", "=", 0.0)),
    objective("whole run", comparison("jobs_doubled = 0", "jobs_doubled", "=", 0.0)),
)


def make_plan(knobs: Knobs) -> Plan:
    """The plan of a region loss in mode freeze, as the runner would have written it."""
    experiment = Experiment(
        name="region-loss",
        title="Tier 1 survives losing a region within 15 s",
        hypothesis="When eu goes silent under peak load, us carries tier 1; no accepted job is lost or done twice.",
        owner="serving",
        system="platform",
        phases=knobs.phases,
        faults=(FaultUse("region-loss", {"region": "eu", "mode": "freeze"}),),
        objectives=OBJECTIVES + knobs.extra_objectives,
        parameters={"region": "eu"},
        load=LoadUse("peak", knobs.rate_per_s),
        guards=(GUARD,),
        runbook=RunbookUse("region-loss", AlertWithin("alert(RegionDown)", "RegionDown"), 12.0, ("shed",))
        if knobs.with_runbook
        else None,
    )
    injections = tuple(
        Injection(f"region-loss/{name}", "region-loss", 0, name, "freeze", "thaw", 0.0, knobs.fault_s) for name in EU
    )
    return Plan(
        experiment=experiment,
        system=make_system(),
        target="process",
        seed=knobs.seed,
        injections=injections,
        duration_s=knobs.phases.total_s,
        worst_case="tier 1 at half capacity",
        irreversible=(),
        permissions=(),
        profile=Profile("peak", "platform_user.py", "poisson", (), STREAMS),
        digest="3f9c21aa07b1",
    )


def make_system() -> System:
    def one(name: str, service: str, **labels: str) -> ServiceInstance:
        command = ("python", "-m", "stormdrill.platform", service)
        return ServiceInstance(name, service, command, {"role": service, **labels}, ready=Ready("GET", "/healthz"))

    regions = ("eu", "us")
    return System(
        name="platform",
        entry="edge",
        admin="gateway",
        instances=(
            one("edge-1", "edge"),
            one("edge-2", "edge"),
            *(one(f"gateway-{region}", "gateway", region=region) for region in regions),
            *(one(f"cpu-{region}", "cpu", region=region, pool="cpu") for region in regions),
            *(one(f"gpu-{region}", "gpu", region=region, pool="gpu") for region in regions),
            one("feed", "feed"),
        ),
        labels=("region", "pool", "tier", "role"),
        parameters={"bug": "none"},
        metrics=(
            MetricSource("queue_age", "gateway", "queue_oldest_age_seconds"),
            MetricSource("queue_depth", "gateway", "queue_depth"),
        ),
        alerts=(AlertSource("RegionDown", "edge", "alerts"),),
        served=MetricSource("served", "gateway", "served_total"),
        jobs=JobLedger("gateway", "/jobs"),
        capacity={"cpu": "16 slots", "gpu": "8 slots"},
    )


@dataclass(frozen=True)
class Edges:
    """Monotonic ms of the phases' edges."""

    warmup: float
    baseline: float
    fault: float
    recovery: float
    end: float
    injected: bool = True

    @staticmethod
    def of(knobs: Knobs) -> Edges:
        phases = knobs.phases
        warmup = START_MS + 2_000.0
        baseline = warmup + phases.warmup_s * 1000
        fault = baseline + phases.baseline_s * 1000 + 12.0
        if knobs.baseline_bad > 0.02 or (knobs.abort_by and knobs.abort_after_s < 0):
            return Edges(warmup, baseline, fault, fault, fault, injected=False)
        recovery = fault + knobs.fault_s * 1000 + 9.0
        if knobs.guard or knobs.abort_by:
            cut = fault + knobs.abort_after_s * 1000
            return Edges(warmup, baseline, fault, cut, cut)
        return Edges(warmup, baseline, fault, recovery, recovery + (phases.recovery_s + phases.failback_s) * 1000)


def make_run(directory: Path, *, scenario: str = "pass", **knobs: object) -> Path:
    """Write the run directory `directory` (made when missing) and return it."""
    chosen = replace(Knobs(), **{**SCENARIOS[scenario], **knobs})  # type: ignore[arg-type]  # the names are Knobs' own
    edges = Edges.of(chosen)
    (directory / "load").mkdir(parents=True, exist_ok=True)
    for name, text in INPUTS.items():
        (directory / name).write_text(text, encoding="utf-8")
    plan = make_plan(chosen)
    (directory / "plan.json").write_bytes(msgspec.json.encode(plan))
    rows = make_rows(chosen, edges)
    records = directory / "load" / "worker-0.records"
    records.write_bytes(record_bytes(rows, chosen, edges))
    if chosen.ledger:
        (directory / "load" / "jobs.ndjson").write_text(ledger_text(rows, chosen), encoding="utf-8")
    events = make_events(plan, chosen, edges, rows, records, _digests(directory))
    write_journal(directory / "journal.ndjson", events)
    return directory


# --- the records -----------------------------------------------------------------------------------------


def uniform(seed: int, stream: int, n: int) -> npt.NDArray[np.float64]:
    """`n` numbers in [0, 1), the same with every numpy."""
    raw = np.random.Philox(key=(seed << 16) + stream).random_raw(n)
    return np.asarray(raw >> np.uint64(11), np.float64) / 2.0**53


def make_rows(knobs: Knobs, edges: Edges) -> npt.NDArray[np.void]:
    length_s = (edges.end - edges.warmup) / 1000
    gaps = -np.log1p(-uniform(knobs.seed, 1, int(length_s * knobs.rate_per_s * 1.3) + 100)) / knobs.rate_per_s
    at_s = np.cumsum(gaps)
    at_s = at_s[at_s < length_s]
    n = len(at_s)
    rows = np.zeros(n, dtype=np.dtype(DTYPE))
    rows["intended_us"] = (at_s * 1e6).astype(np.uint64)
    rows["job"] = np.arange(n)
    rows["labels"] = np.searchsorted(
        np.cumsum([s.share for s in STREAMS])[:-1], uniform(knobs.seed, 2, n), side="right"
    )
    lag_ms = 0.1 - np.log1p(-uniform(knobs.seed, 3, n)) * knobs.lag_ms
    latency_ms = lag_ms + 8.0 - 6.0 * np.log1p(-uniform(knobs.seed, 4, n)) - 6.0 * np.log1p(-uniform(knobs.seed, 5, n))
    rows["status"] = np.where(rows["labels"] == 1, 202, 200)
    _harm(rows, latency_ms, at_s * 1000 + edges.warmup, knobs, edges)
    rows["lag_us"] = rows["sent_us"] = (lag_ms * 1000).astype(np.uint32)
    rows["flags"], rows["region"] = Flag.FINAL, UNTOLD
    rows["latency_us"] = (latency_ms * 1000).astype(np.uint32)
    in_fault = np.flatnonzero(at_s * 1000 + edges.warmup > (edges.fault + edges.recovery) / 2)[: knobs.dropped]
    rows["outcome"][in_fault] = Outcome.DROPPED
    rows["status"][in_fault] = 0
    return rows


def _harm(
    rows: npt.NDArray[np.void],
    latency_ms: npt.NDArray[np.float64],
    at_ms: npt.NDArray[np.float64],
    knobs: Knobs,
    edges: Edges,
) -> None:
    n = len(rows)
    luck, more = uniform(knobs.seed, 6, n), uniform(knobs.seed, 7, n)
    deadline_ms = np.array([s.deadline_s * 1000 for s in STREAMS])[rows["labels"]]
    before = at_ms < edges.fault
    bad = before & (luck < knobs.baseline_bad)
    rows["status"][bad] = 503
    latency_ms[bad] = 3.0
    if not edges.injected:
        return
    inside = ~before & (at_ms < edges.recovery)
    latency_ms[inside] += (-np.log1p(-more) * knobs.fault_latency_ms)[inside]
    shed = inside & (rows["labels"] == 2) & (luck < (0.6 if knobs.bit else 0.0))
    rows["status"][shed] = 429
    latency_ms[shed] = 2.5
    silent = inside & (at_ms < edges.fault + knobs.outage_s * 1000) & (rows["job"] % 2 == 0) & ~shed
    rows["status"][silent] = 0
    rows["outcome"][silent] = Outcome.TIMED_OUT
    latency_ms[silent] = deadline_ms[silent]


def record_bytes(rows: npt.NDArray[np.void], knobs: Knobs, edges: Edges) -> bytes:
    header = {
        "format": FORMAT,
        "worker": 0,
        "boot_id": knobs.boot_id,
        "epoch_mono_ns": round(edges.warmup * 1e6),
        "epoch_at": _wall(edges.warmup),
        "labels": [{"labels": stream.labels, "deadline_ms": stream.deadline_s * 1000} for stream in STREAMS],
        "regions": [],
        "loop": "open",
        "clock_error_ms": 0.0,
    }
    kept = rows[: len(rows) - knobs.unsent]
    return json.dumps(header).encode() + b"\n" + kept.tobytes() + (b"\x01" * 11 if knobs.torn else b"")


def ledger_text(rows: npt.NDArray[np.void], knobs: Knobs) -> str:
    acknowledged = np.flatnonzero((rows["status"] == 200) | (rows["status"] == 202))
    acknowledged = acknowledged[rows["outcome"][acknowledged] == Outcome.ANSWERED]
    middle = len(acknowledged) // 2
    lost = set(acknowledged[middle : middle + knobs.lost].tolist())
    doubled = set(acknowledged[middle + 10 : middle + 10 + knobs.doubled].tolist())
    still_open = set(acknowledged[len(acknowledged) - knobs.open_jobs :].tolist())
    lines = []
    for job, latency_us in zip(acknowledged.tolist(), rows["latency_us"][acknowledged].tolist(), strict=True):
        line: dict[str, object] = {"job": job, "state": "done", "done": 1, "took_ms": latency_us / 1000, "region": "us"}
        if job in lost:
            line = {"job": job, "state": "unknown", "done": 0, "took_ms": None, "region": "us"}
        elif job in still_open:
            line = {"job": job, "state": "queued", "done": 0, "took_ms": None, "region": "us"}
        lines.append(line)
        if job in doubled:
            lines.append({**line, "region": "eu"})
    return "".join(json.dumps(line) + "\n" for line in lines)


# --- the journal -----------------------------------------------------------------------------------------


def _wall(mono_ms: float) -> str:
    return (START_AT + timedelta(milliseconds=mono_ms - START_MS)).isoformat(timespec="milliseconds")


def write_journal(path: Path, events: Iterable[tuple[float, ev.Event]]) -> None:
    """One chained line an event, in the order given."""
    prev = FIRST_PREV
    lines = []
    for seq, (mono_ms, event) in enumerate(events, 1):
        envelope = {"seq": seq, "at": _wall(mono_ms), "mono_ms": mono_ms, "type": event.type, "prev": prev}
        line = json.dumps({**envelope, **ev.event_to_json(event)}, separators=(",", ":"))
        prev = hashlib.sha256(line.encode()).hexdigest()
        lines.append(line + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def _digests(directory: Path) -> dict[str, str]:
    return {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in INPUTS}


def make_events(
    plan: Plan, knobs: Knobs, edges: Edges, rows: npt.NDArray[np.void], records: Path, inputs: dict[str, str]
) -> list[tuple[float, ev.Event]]:
    """Everything that such a run writes down, ordered by time."""
    events = _starting(plan, knobs, edges, inputs)
    events += _seeing(knobs, edges)
    if edges.injected:
        events += _fault(plan, knobs, edges)
        events += _alert(knobs, edges)
        if knobs.with_runbook:
            events += _runbook(knobs, edges)
    events += _phases(knobs, edges)
    events.sort(key=lambda item: item[0])
    return events + _ending(knobs, edges, rows, records)


def _starting(plan: Plan, knobs: Knobs, edges: Edges, inputs: dict[str, str]) -> list[tuple[float, ev.Event]]:
    started = ev.RunStarted(
        run="20261121T201402Z-region-loss-3f9c",
        version="0.1.0",
        boot_id=BOOT_ID,
        title=plan.experiment.title,
        experiment="region-loss",
        system="platform",
        target="process",
        seed=knobs.seed,
        fast=False,
        settings={},
        inputs=inputs,
        runner_pid=4100,
        runner_start_ticks=77001,
        cores=2,
        kernel="Linux 6.1",
    )
    events: list[tuple[float, ev.Event]] = [
        (START_MS, started),
        (START_MS + 3, ev.KeeperStarted(4101, 77002)),
    ]
    for index, instance in enumerate(plan.system.instances):
        at_ms, pid, port = START_MS + 20 + index, 4200 + index, 40100 + index
        argv, address = list(instance.command), f"127.0.0.1:{port}"
        spawned = ev.ProcessSpawned(
            instance.name, instance.service, "system", pid, 77100 + index, argv, {}, ".", f"logs/{instance.name}.log",
            address, instance.labels,
        )  # fmt: skip
        events.append((at_ms, spawned))
        events.append((at_ms + 900, ev.InstanceReady(instance.name, 900.0, "GET /healthz answered 200")))
    events.append((START_MS + 1_400, ev.SystemReady(len(plan.system.instances), 1_400.0)))
    events.append((edges.warmup - 300, ev.LoadStarted("peak", 1, edges.warmup)))
    return events


def _phases(knobs: Knobs, edges: Edges) -> list[tuple[float, ev.Event]]:
    phases = knobs.phases
    events: list[tuple[float, ev.Event]] = [
        (edges.warmup, ev.PhaseEntered("warmup", phases.warmup_s)),
        (edges.baseline, ev.PhaseEntered("baseline", phases.baseline_s)),
    ]
    cut = knobs.guard or bool(knobs.abort_by)
    if not edges.injected:
        by = knobs.abort_by or "baseline"
        if not knobs.abort_by:
            events.append((edges.fault - 6, ev.BaselineJudged(False, "success{tier=1} > 98% did not hold")))
        events.append((edges.fault - 5, ev.AbortRequested(by, "the baseline was not healthy")))
    else:
        events.append((edges.fault - 6, ev.BaselineJudged(True, "")))
        events.append((edges.fault, ev.PhaseEntered("fault", knobs.fault_s)))
        if cut:
            if knobs.guard:
                events.append((edges.recovery - 15, ev.GuardTripped(GUARD.text, 31.0, "31% for 10 s")))
            by = "guard" if knobs.guard else knobs.abort_by
            events.append((edges.recovery - 14, ev.AbortRequested(by, "Ctrl-C" if by == "person" else GUARD.text)))
        else:
            events.append((edges.recovery, ev.PhaseEntered("recovery", phases.recovery_s)))
            if phases.failback_s:
                back_ms = edges.recovery + phases.recovery_s * 1000
                events.append((back_ms, ev.PhaseEntered("failback", phases.failback_s)))
    events.append((edges.end, ev.PhaseEntered("end", 0.0)))
    return events


def _fault(plan: Plan, knobs: Knobs, edges: Edges) -> list[tuple[float, ev.Event]]:
    events: list[tuple[float, ev.Event]] = []
    cause = "guard" if knobs.guard else ("abort" if knobs.abort_by else "planned")
    for index, injection in enumerate(plan.injections):
        at_ms, name = edges.fault + index * 0.4, injection.id
        undo = {"kind": "signal", "instance": injection.instance, "pid": 4203 + index, "start_ticks": 77103 + index,
                "boot_id": BOOT_ID, "signal": "SIGCONT"}  # fmt: skip
        expires_ms = edges.fault + (knobs.fault_s + 5) * 1000
        armed = ev.Armed(name, "region-loss", injection.instance, "freeze", [undo], expires_ms, _wall(expires_ms))
        events.append((edges.fault - 4 + index * 0.5, armed))
        events.append((at_ms, ev.InjectStarted(name)))
        events.append((at_ms + 0.2, ev.Injected(name, "done", "", 0.2)))
        state = "T (stopped)" if knobs.bit else "S (sleeping)"
        events.append((at_ms + 2.1, ev.EffectObserved(name, knobs.bit, "process state", state, 2.1)))
        back = edges.recovery - 6 + index * 0.5
        events.append((back, ev.RevertStarted(name, cause, "keeper")))
        events.append((back + 0.4, ev.Reverted(name, "done", "SIGCONT", 0.4)))
        if knobs.gone is not None:
            gone = knobs.gone or index > 0
            seen = min(back + 3.1, edges.recovery) if index < 2 else edges.recovery
            events.append((seen, ev.RevertVerified(name, gone, "process state", "S" if gone else "T", seen - back)))
    events.append((edges.recovery + 420, ev.Restored(True, "9 of 9 instances as in the baseline")))
    return events


def _alert(knobs: Knobs, edges: Edges) -> list[tuple[float, ev.Event]]:
    labels = {"region": "eu", "severity": "page"}
    events: list[tuple[float, ev.Event]] = []
    if knobs.alert_before:
        events.append((edges.baseline + 2_000, ev.AlertChanged("RegionDown", True, labels, "edge")))
    if knobs.alert_after_s is not None:
        events.append((edges.fault + knobs.alert_after_s * 1000, ev.AlertChanged("RegionDown", True, labels, "edge")))
        events.append((edges.recovery + 1_200, ev.AlertChanged("RegionDown", False, labels, "edge")))
    return [item for item in events if item[0] < max(edges.end, edges.recovery + 1_500)]


def _runbook(knobs: Knobs, edges: Edges) -> list[tuple[float, ev.Event]]:
    if not knobs.runbook_trigger:
        return []
    begin = edges.fault + (12_000 if "else" in knobs.runbook_trigger else (knobs.alert_after_s or 2.4) * 1000 + 40)
    digest = hashlib.sha256(INPUTS["runbook.md"].encode()).hexdigest()
    events: list[tuple[float, ev.Event]] = [
        (begin, ev.RunbookStarted("region-loss", digest, knobs.runbook_trigger, {"region": "eu"}, False))
    ]
    failed = knobs.runbook_outcome == "failed"
    steps = (("edge-sees-it", "check", 120.0, "ok", ""), ("drain", "action", 310.0, "ok", ""),
             ("room", "decision", 35.0, "ok", "shed"), ("shed", "action", 240.0, "ok", ""),
             ("watch", "wait-until", 6_400.0, "timed-out" if failed else "ok", ""))  # fmt: skip
    at_ms = begin
    for step, kind, took_ms, outcome, goes_to in steps:
        events.append((at_ms, ev.StepStarted(step, kind, 1, f"{kind} {step}", digest, "low")))
        if step == "shed":
            events.append((at_ms + 1, ev.Approval(step, "experiment", True, digest)))
        if kind == "action":
            undo = {
                "kind": "call",
                "method": "POST",
                "url": f"http://127.0.0.1:40103/{step}",
                "body": "",
                "timeout_s": 5.0,
            }
            late = edges.end + 60_000
            armed = ev.Armed(f"runbook/{step}", "runbook", "gateway-us", step, [undo], late, _wall(late))
            events.append((at_ms + 2, armed))
            events.append((edges.end - 60, ev.RevertStarted(f"runbook/{step}", "planned", "keeper")))
            events.append((edges.end - 50, ev.Reverted(f"runbook/{step}", "done", "HTTP 200", 6.0)))
        at_ms += took_ms
        events.append((at_ms, ev.StepFinished(step, outcome, "", {}, goes_to, took_ms)))
    cut = knobs.guard or knobs.abort_by
    outcome = "cancelled" if cut and at_ms > edges.recovery - 20 else knobs.runbook_outcome
    detail = "success{tier=1} > 98% was not met" if failed else ""
    events.append((at_ms + 5, ev.RunbookFinished("region-loss", outcome, detail, at_ms + 5 - begin)))
    return events


def _seeing(knobs: Knobs, edges: Edges) -> list[tuple[float, ev.Event]]:
    events: list[tuple[float, ev.Event]] = []
    served = knobs.served / len(EU)
    for name in (*EU, "gateway-us"):
        share = served if name in EU else 500.0
        events.append((edges.baseline + 30, ev.Reading("served", name, 120.0)))
        events.append((edges.fault - 20, ev.Reading("served", name, 120.0 + round(share))))
    for second in range(int((edges.end - edges.warmup) / 1000)):
        at_ms = edges.warmup + second * 1000 + 200
        events += _readings(at_ms, knobs, edges)
        if knobs.host_samples:
            run_delay, foreign = (0.78, 1.4) if knobs.hogs else (0.12, 0.06)
            wobble = (second * 37 % 11) / 200
            sample = ev.HostSampled(1000.0, foreign + wobble, run_delay + wobble, 0.03 + wobble, 0.11, 1.2 + wobble)
            events.append((at_ms + 31, sample))
    return events


def _readings(at_ms: float, knobs: Knobs, edges: Edges) -> list[tuple[float, ev.Event]]:
    frozen = edges.injected and edges.fault <= at_ms < edges.recovery
    silent = knobs.reading_gap and at_ms > (edges.fault + edges.recovery) / 2 and frozen
    events: list[tuple[float, ev.Event]] = []
    for gateway in ("gateway-eu", "gateway-us"):
        if silent or (frozen and gateway == "gateway-eu" and knobs.bit):
            for metric in ("queue_age", "queue_depth"):
                events.append((at_ms, ev.Reading(metric, gateway, None, {}, "no answer within 500 ms")))
            continue
        busy = frozen and gateway == "gateway-us"
        depth = 31.0 if busy else 2.0
        age = knobs.queue_age_s if busy else 0.1
        events.append((at_ms, ev.Reading("queue_age", gateway, age)))
        events.append((at_ms, ev.Reading("queue_depth", gateway, depth)))
    return events


def _ending(knobs: Knobs, edges: Edges, rows: npt.NDArray[np.void], records: Path) -> list[tuple[float, ev.Event]]:
    scheduled = len(rows)
    lag_ms = rows["lag_us"] / 1000
    lag_p99_ms = float(np.sort(lag_ms)[int(0.99 * (len(lag_ms) - 1))]) if len(lag_ms) else 0.0
    ended = ev.LoadEnded(scheduled, scheduled - knobs.dropped - knobs.unsent, knobs.dropped, 0, round(lag_p99_ms, 3),
                         knobs.lost_workers, "")  # fmt: skip
    content = records.read_bytes()
    closed = ev.RecordClosed("load/worker-0.records", hashlib.sha256(content).hexdigest(), len(content), knobs.closed)
    events: list[tuple[float, ev.Event]] = [(edges.end + 900, ended), (edges.end + 905, closed)]
    if knobs.ended:
        status = "dirty" if knobs.gone is not True and edges.injected else "completed"
        if knobs.guard or knobs.abort_by or not edges.injected:
            status = "aborted"
        events.append((edges.end + 1_400, ev.TornDown("keeper", 9, [], 300.0)))
        events.append((edges.end + 1_410, ev.RunEnded(status, "")))
    return events


def read_events(directory: Path) -> list[tuple[float, ev.Event]]:
    """The journal of a synthetic run, to change it and write it again."""
    found = []
    for line in (directory / "journal.ndjson").read_text(encoding="utf-8").splitlines():
        value = json.loads(line)
        mono_ms, word = value["mono_ms"], value["type"]
        fields = {key: item for key, item in value.items() if key not in ("seq", "at", "mono_ms", "type", "prev")}
        found.append((mono_ms, ev.event_from_json(word, fields)))
    return found


def change_journal(directory: Path, events: Sequence[tuple[float, ev.Event]]) -> None:
    """Write other events, chained anew."""
    write_journal(directory / "journal.ndjson", events)


INPUTS = {
    "experiment.yaml": """title: Tier 1 survives losing a region within 15 s
hypothesis: When eu goes silent under peak load, us carries tier 1; no accepted job is lost or done twice.
owner: serving
system: platform
parameters: {region: eu}
load: {profile: peak, rate: 60/s}
phases: {warmup: 5s, baseline: 20s, fault: 30s, recovery: 20s}
faults:
  - region-loss: {region: $region, mode: freeze}
objectives:
  baseline, recovery:
    - success{tier=1} > 98%
  fault after 10s:
    - success{tier=1} > 95%
    - p95{tier=1} < 400ms
  whole run:
    - alert(RegionDown) within 10s
    - jobs_lost = 0
    - jobs_doubled = 0
guards:
  - success{tier=1} < 50% for 10s
runbook: {run: region-loss, start: alert(RegionDown), else_after: 12s, approve: [shed]}
""",
    "system.yaml": """name: platform
entry: edge
admin: gateway
parameters: {bug: none}
labels: [region, pool, tier, role]
process:
  services:
    edge: {command: [python, -m, stormdrill.platform, edge], instances: 2, ready: GET /healthz}
""",
    "policy.yaml": "targets: [process]\nmax_share: 0.5\n",
    "profile.yaml": """user: platform_user.py
arrivals: poisson
streams:
  interactive: {share: 50%, labels: {tier: 1, kind: api}, deadline: 1s}
  batch: {share: 30%, labels: {tier: 2, kind: batch}, deadline: 2s}
  report: {share: 20%, labels: {tier: 3, kind: report}, deadline: 3s}
""",
    "runbook.md": """---
title: A region lost capacity
answers: [RegionDown]
service: platform
owner: serving
escalation: "#serving-oncall, then the platform duty manager"
severity: SEV-2; SEV-1 when tier 1 is below 99%
exit: success{tier=1} > 98% for 10s
proved_by: [region-loss]
---
Users see errors or slow answers; the other region carries their traffic when it has room.
""",
}
