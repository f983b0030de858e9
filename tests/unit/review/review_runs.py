"""Judged run directories for the review's tests: a synthetic run, and the verdict that the judge finds in it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from stormdrill.core.judge import judge
from stormdrill.model import event as ev
from stormdrill.store.evidence import load
from synthetic_run import change_journal, make_run, read_events


def make(run_dir: Path, scenario: str = "pass", **knobs: object) -> Path:
    make_run(run_dir, scenario=scenario, **knobs)
    return judged(run_dir)


def judged(run_dir: Path) -> Path:
    found = load(run_dir)
    verdict = judge(found.plan, found.events, found.records, found.ledger)
    (run_dir / "verdict.json").write_bytes(msgspec.json.format(msgspec.json.encode(verdict)))
    return run_dir


def change(path: Path, **changes: object) -> None:
    """Other values in a JSON file's outermost object."""
    values = json.loads(path.read_bytes())
    values.update(changes)
    path.write_text(json.dumps(values), encoding="utf-8")


def in_containers(run_dir: Path, *happened: tuple[float, ev.Event]) -> Path:
    """The same run, had it been one of containers; `happened`: what the engine told, in ms from the first inject."""
    events: list[tuple[float, ev.Event]] = []
    for at_ms, event in read_events(run_dir):
        if isinstance(event, ev.KeeperStarted):
            claimed = ev.ResourcesClaimed("unix:///var/run/docker.sock", ["a", "b"], ["net"], ["platform:1"])
            events.append((at_ms + 1, claimed))
        if isinstance(event, ev.ProcessSpawned):
            name, service, labels = event.instance, event.service, event.labels
            event = ev.ContainerStarted(
                name, service, event.role, f"{event.pid:064x}", f"stormdrill-r1-{name}", event.pid, "platform:1",
                event.address, labels, True,
            )  # fmt: skip
        events.append((at_ms, event))
    inject_ms = next(at_ms for at_ms, event in events if isinstance(event, ev.InjectStarted))
    events += [(inject_ms + after_ms, event) for after_ms, event in happened]
    change_journal(run_dir, events)
    plan = json.loads((run_dir / "plan.json").read_bytes())
    for instance in plan["system"]["instances"]:
        instance["memory_mb"] = 256.0
    change(run_dir / "plan.json", target="docker", system=plan["system"])
    return judged(run_dir)


def told_of(action: str, instance: str = "gateway-eu", code: int | None = None, expected: bool = False) -> ev.Event:
    return ev.ContainerEvent(instance, "c1", action, code, expected, "")
