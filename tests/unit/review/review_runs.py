"""Run directories for the review's tests, written without a run: small, exact, and awkward on request."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np

from stormdrill.model import event as e
from stormdrill.model.experiment import Experiment, FaultUse, LoadUse, Objective, Phases, RunbookUse, Window
from stormdrill.model.expression import AlertWithin, Comparison
from stormdrill.model.plan import Injection, Plan
from stormdrill.model.system import ServiceInstance, System
from stormdrill.model.verdict import (
    FaultVerdict,
    LoadVerdict,
    ObjectiveVerdict,
    RunbookVerdict,
    StepVerdict,
    Times,
    Verdict,
)
from stormdrill.store.records import DTYPE, FORMAT, Outcome

RUN = "20261121T201402Z-region-loss-3f9c"
ZERO = datetime(2026, 11, 21, 20, 14, 2, 100_000, tzinfo=UTC)
MONO_0 = 812_345.0
HIT = ("gateway-eu", "cpu-eu", "gpu-eu")
RUNBOOK = """---
title: A region lost capacity
answers: [RegionDown]
service: platform
owner: serving
escalation: "#serving-oncall, then the platform duty manager"
severity: SEV-2; SEV-1 when tier 1 is below 99%
exit: success{tier=1} > 98% for 10s
---
Users see errors.
"""


class Journal:
    """Writes events at given seconds of the run, chained as the keeper chains them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.previous = "0" * 64

    def add(self, at_s: float, event: e.Event) -> int:
        seq = len(self.lines) + 1
        at = (ZERO + timedelta(seconds=at_s)).isoformat(timespec="milliseconds")
        envelope = {"seq": seq, "at": at, "mono_ms": round(MONO_0 + at_s * 1000, 3), "type": event.type}
        line = json.dumps({**envelope, "prev": self.previous, **e.event_to_json(event)}, separators=(",", ":"))
        self.previous = hashlib.sha256(line.encode()).hexdigest()
        self.lines.append(line)
        return seq

    def write(self, run_dir: Path) -> None:
        (run_dir / "journal.ndjson").write_text("".join(line + "\n" for line in self.lines), encoding="utf-8")


def make(run_dir: Path, *, title: str = "Tier 1 survives losing a region within 15 s", load: bool = True) -> Path:
    """A passing run of region-loss: 5 s warm-up, 20 s baseline, 30 s fault, 20 s recovery at 60/s."""
    run_dir.mkdir(parents=True, exist_ok=True)
    journal = Journal()
    seqs = _journal(journal, title, load)
    journal.write(run_dir)
    (run_dir / "plan.json").write_bytes(msgspec.json.encode(plan(title)))
    (run_dir / "verdict.json").write_bytes(msgspec.json.encode(verdict(seqs, load)))
    (run_dir / "runbook.md").write_text(RUNBOOK, encoding="utf-8")
    if load:
        records(run_dir)
    return run_dir


def change_verdict(run_dir: Path, **changes: object) -> None:
    path = run_dir / "verdict.json"
    values = json.loads(path.read_bytes())
    values.update(changes)
    path.write_text(json.dumps(values), encoding="utf-8")


def plan(title: str) -> Plan:
    def share(window: str, limit: float, after_s: float = 0.0) -> Objective:
        text = f"success{{tier=1}} > {limit:g}%"
        asked = Comparison(text, "success", ">", limit, "%", labels={"tier": "1"})
        return Objective(Window(window, after_s), asked)  # type: ignore[arg-type]

    p95 = Comparison("p95{tier=1} < 400ms", "p95", "<", 0.4, "ms", labels={"tier": "1"})
    alert = AlertWithin("alert(RegionDown) within 10s", "RegionDown", within_s=10)
    lost = Comparison("jobs_lost = 0", "jobs_lost", "=", 0)
    experiment = Experiment(
        name="region-loss",
        title=title,
        hypothesis="When eu goes silent under peak load, us carries tier 1; no accepted job is lost or done twice.",
        owner="serving",
        system="platform",
        phases=Phases(5, 20, 30, 20),
        faults=(FaultUse("region-loss", {"region": "eu", "mode": "freeze"}),),
        objectives=(
            share("baseline", 98),
            share("fault", 95, 10),
            Objective(Window("fault", 10), p95),
            share("recovery", 98),
            Objective(Window("whole run"), alert),
            Objective(Window("whole run"), lost),
        ),
        parameters={"region": "eu"},
        load=LoadUse("peak", 60),
        runbook=RunbookUse("region-loss", AlertWithin("alert(RegionDown)", "RegionDown"), 12, ("shed",)),
    )
    system = System("platform", "edge", (ServiceInstance("edge-1", "edge", ("edge",)),), labels=("region", "tier"))
    injections = tuple(
        Injection(f"region-loss/{name}", "region-loss", 0, name, "freeze", "thaw", 0, 30) for name in HIT
    )
    return Plan(
        experiment,
        system,
        "process",
        7,
        injections,
        75,
        "tier 1 at half capacity",
        (),
        ("signal own processes",),
        digest="3f9c21",
    )


def _journal(journal: Journal, title: str, load: bool) -> dict[str, int]:
    add = journal.add
    seqs = {"start": add(0, e.RunStarted(
        RUN, "0.1.0", "b00t", title, "region-loss", "platform", "process", 7, False, {"region": "eu"},
        {"experiment.yaml": "ab" * 32}, 100, 5000, 2, "Linux 6.1"))}  # fmt: skip
    add(0.01, e.KeeperStarted(101, 5001))
    for index in range(9):
        add(0.1 + index / 100, e.ProcessSpawned(
            f"svc-{index}", "svc", "system", 200 + index, 6000, ["svc"], {}, "", f"logs/svc-{index}.log", "127.0.0.1:1", {}))  # fmt: skip
    add(1.4, e.SystemReady(9, 1400))
    if load:
        seqs["load"] = add(1.5, e.LoadStarted("peak", 1, MONO_0 + 2000))
    add(2, e.PhaseEntered("warmup", 5))
    seqs["baseline"] = add(7, e.PhaseEntered("baseline", 20))
    for tenth in range(20, 770, 5):
        at = tenth / 10
        _readings(journal, at)
    _fault(journal, seqs)
    add(57.05, e.PhaseEntered("recovery", 20))
    add(57.4, e.Restored(True, "9 instances as in the baseline"))
    add(77, e.PhaseEntered("end", 0))
    if load:
        seqs["load-ended"] = add(77.5, e.LoadEnded(4500, 4500, 0, 0, 0.8, 0, ""))
        seqs["records"] = add(77.6, e.RecordClosed("load/worker-1.records", "cd" * 32, 108_000, True))
    add(78, e.TornDown("keeper", 9, [], 300))
    seqs["end"] = add(78.1, e.RunEnded("completed", ""))
    return seqs


def _readings(journal: Journal, at: float) -> None:
    if 27 <= at < 57:
        journal.add(at, e.Reading("queue_depth", "gateway-eu", None, {}, "no answer within 250 ms"))
        journal.add(at, e.Reading("queue_depth", "gateway-us", min(31.0, 2 + (at - 27) * 2)))
    else:
        for name in ("gateway-eu", "gateway-us"):
            journal.add(at, e.Reading("queue_depth", name, 2.0 + (at * 10) % 3))
    journal.add(at, e.Reading("queue_limit", "gateway-us", 64.0))
    if at % 1 == 0:
        journal.add(at, e.HostSampled(1000, 0.1, 0.05, 0.02, 0.3, 1.1))


def _fault(journal: Journal, seqs: dict[str, int]) -> None:
    add = journal.add
    undo: list[dict[str, object]] = [{"kind": "signal", "instance": "x", "pid": 1, "signal": "SIGCONT"}]
    for index, name in enumerate(HIT):
        add(26.9 + index / 100, e.Armed(
            f"region-loss/{name}", "region-loss", name, "freeze", undo, MONO_0 + 60_000, "2026-11-21T20:15:02.100+00:00"))  # fmt: skip
    seqs["fault"] = add(27, e.PhaseEntered("fault", 30))
    for index, name in enumerate(HIT):
        at = 27 + index / 1000
        seqs.setdefault("inject", add(at, e.InjectStarted(f"region-loss/{name}")))
        add(at + 0.0005, e.Injected(f"region-loss/{name}", "done", "", 0.3))
        seqs.setdefault("bit", add(at + 0.002, e.EffectObserved(
            f"region-loss/{name}", True, "process state", "T (stopped)", 2.1)))  # fmt: skip
    seqs["alert"] = add(29.4, e.AlertChanged("RegionDown", True, {"region": "eu"}, "edge"))
    seqs["runbook"] = add(
        29.5, e.RunbookStarted("region-loss", "ef" * 32, "alert(RegionDown)", {"region": "eu"}, False)
    )
    at = 29.6
    for step, kind, took in (("edge-sees-it", "check", 40), ("drain", "action", 120), ("room", "decision", 10),
                             ("shed", "action", 80), ("watch", "wait-until", 9000)):  # fmt: skip
        add(at, e.StepStarted(step, kind, 1, "GET /regions/eu", "aa" * 32, "medium"))
        if step == "shed":
            add(at, e.Approval("shed", "experiment", True, "aa" * 32))
        at += took / 1000
        add(at, e.StepFinished(step, "ok", "", {}, "shed" if step == "room" else "", took))
    seqs["runbook-end"] = add(at, e.RunbookFinished("region-loss", "done", "exit criterion held", 9700))
    for index, name in enumerate(HIT):
        begin = 57 + index / 100
        add(begin, e.RevertStarted(f"region-loss/{name}", "planned", "keeper"))
        add(begin + 0.001, e.Reverted(f"region-loss/{name}", "done", "SIGCONT", 0.4))
        seqs["gone"] = add(begin + 0.003, e.RevertVerified(f"region-loss/{name}", True, "process state", "S", 3))
    add(58.1, e.AlertChanged("RegionDown", False, {"region": "eu"}, "edge"))


def verdict(seqs: dict[str, int], load: bool) -> Verdict:
    at = tuple(seqs[name] for name in ("baseline", "fault", "records") if name in seqs)
    objectives = (
        ObjectiveVerdict("success{tier=1} > 98%", "baseline", "PASS", 100.0, 99.4, 100.0, 98.0, "%", 600,
                         "100% [99.4, 100] of 600 tier-1 requests succeeded in the baseline; > 98% was asked", at),
        ObjectiveVerdict("success{tier=1} > 95%", "fault after 10s", "PASS", 99.2, 98.1, 99.7, 95.0, "%", 600,
                         "99.2% [98.1, 99.7] of 600 tier-1 requests succeeded in the fault; > 95% was asked", at),
        ObjectiveVerdict("p95{tier=1} < 400ms", "fault after 10s", "PASS", 0.238, 0.221, 0.262, 0.4, "ms", 600,
                         "p95 was 238 ms [221, 262] over 600 admitted tier-1 requests; < 400 ms was asked", at),
        ObjectiveVerdict("success{tier=1} > 98%", "recovery", "PASS", 100.0, 99.4, 100.0, 98.0, "%", 600,
                         "100% [99.4, 100] of 600 tier-1 requests succeeded in recovery; > 98% was asked", at),
        ObjectiveVerdict("alert(RegionDown) within 10s", "whole run", "PASS", 2.4, None, None, 10.0, "s", 1,
                         "RegionDown fired after 2.4 s; within 10 s was asked", (seqs["alert"],)),
        ObjectiveVerdict("jobs_lost = 0", "whole run", "PASS", 0.0, None, None, 0.0, "", 4006,
                         "0 of 4,006 accepted jobs were lost", at),
    )  # fmt: skip
    faults = tuple(
        FaultVerdict("region-loss", name, True, True, 2.1, True, 3.0, "", (seqs["bit"], seqs["gone"])) for name in HIT
    )
    steps = (("edge-sees-it", "check", 40), ("drain", "action", 120), ("room", "decision", 10), ("shed", "action", 80),
             ("watch", "wait-until", 9000))  # fmt: skip
    return Verdict(
        run=RUN,
        status="completed",
        verdict="PASS",
        sentence="6 objectives held.",
        objectives=objectives,
        faults=faults,
        load=LoadVerdict(4500, 4500, 0, 0, 0.8, True, "") if load else None,
        runbook=RunbookVerdict("region-loss", "PASS", "alert(RegionDown)",
                               tuple(StepVerdict(step, kind, "ok", took) for step, kind, took in steps),
                               "5 steps, all ok; the exit criterion held."),
        times=Times(0.002, 2.4, 8.6, 30.02, 31.1),
    )  # fmt: skip


def records(run_dir: Path) -> None:
    rate, length_s = 60, 75
    n = rate * length_s
    noise = np.random.Generator(np.random.PCG64(7)).random((n, 3))
    at = np.arange(n) / rate
    tier = np.where(noise[:, 0] < 0.5, 0, np.where(noise[:, 0] < 0.75, 1, 2))
    latency = 12 + 30 * noise[:, 1] ** 4 / (1.001 - noise[:, 1])
    status = np.full(n, 200)
    outcome = np.full(n, int(Outcome.ANSWERED))
    blind = (at >= 25) & (at < 26.9) & (np.arange(n) % 2 == 0)
    outcome[blind], status[blind], latency[blind] = int(Outcome.TIMED_OUT), 0, 2000
    slow = (at >= 26.9) & (at < 55)
    latency[slow] = latency[slow] * 2.5 + 90
    shed = (at >= 28) & (at < 55) & (tier == 2) & (noise[:, 2] < 0.8)
    status[shed], latency[shed] = 429, 2
    found = np.zeros(n, dtype=DTYPE)
    found["intended_us"] = (at * 1e6).astype(np.uint64)
    found["lag_us"] = (noise[:, 2] * 800).astype(np.uint32)
    found["latency_us"] = (latency * 1000).astype(np.uint32)
    found["job"], found["status"], found["labels"], found["outcome"] = np.arange(n), status, tier, outcome
    header = {
        "format": FORMAT,
        "worker": 1,
        "boot_id": "b00t",
        "epoch_mono_ns": int((MONO_0 + 2000) * 1e6),
        "epoch_at": "2026-11-21T20:14:04.100+00:00",
        "labels": [{"labels": {"tier": str(name)}, "deadline_ms": 1000} for name in (1, 2, 3)],
    }
    (run_dir / "load").mkdir(exist_ok=True)
    (run_dir / "load" / "worker-1.records").write_bytes(json.dumps(header).encode() + b"\n" + found.tobytes())
