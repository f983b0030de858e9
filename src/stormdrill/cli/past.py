"""A run that is over, or goes on elsewhere, read back from its directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from stormdrill.cli.outline import plan_lines
from stormdrill.cli.report import near, verdict_lines
from stormdrill.cli.scene import Scene
from stormdrill.cli.terminal import layout
from stormdrill.model.event import Recorded, RunEnded
from stormdrill.model.plan import Plan
from stormdrill.model.verdict import Verdict
from stormdrill.store.journal import NAME, salvage


def story_lines(directory: Path, width: int) -> list[str]:
    """Plan, events, verdict, as far as they are there: a run that was killed has no verdict."""
    lines = [""]
    plan = None
    if (directory / "plan.json").is_file():
        plan = msgspec.json.decode((directory / "plan.json").read_bytes(), type=Plan)
        lines += [*plan_lines(plan, width), ""]
    found = salvage(directory / NAME)
    scene = Scene(plan, _sent_per_s(directory, plan, found.events) if plan else None)
    for recorded in found.events:
        for line in scene.tell(recorded):
            lines += layout(line, width)
    lines += ["", *_end_lines(directory, width)]
    if not any(isinstance(recorded.event, RunEnded) for recorded in found.events):
        lines.append("  the record has no end: the run goes on, or was killed (stormdrill runs says which)")
    lines += [f"  {problem}" for problem in found.problems]
    lines.append(f"  record   {near(directory)}   head {found.head[:4]}…{found.head[-2:]}")
    return lines


def _sent_per_s(directory: Path, plan: Plan, events: Sequence[Recorded]) -> dict[str, float]:
    """What was sent in each phase, by intended start: from the records, as the verdict counts."""
    from stormdrill.core.evidence import DROPPED, requests_of
    from stormdrill.core.windows import phases
    from stormdrill.store.evidence import so_far

    requests = requests_of(so_far(directory, plan, events).records).logical
    sent = requests.where(requests.outcome != DROPPED)
    spans = [span for span in phases(plan, events).values() if span.length_s > 0] if len(requests) else []
    return {span.name: len(sent.between(span.start_ms, span.end_ms)) / span.length_s for span in spans}


def _end_lines(directory: Path, width: int) -> list[str]:
    place = directory / "verdict.json"
    if not place.is_file():
        return ["  no verdict was computed yet: stormdrill judge " + directory.name, ""]
    return [*verdict_lines(msgspec.json.decode(place.read_bytes(), type=Verdict), width), ""]


def story_object(directory: Path) -> dict[str, object]:
    """The run for a program: the journal's events in order, and the verdict when there is one."""
    lines = (directory / NAME).read_text(encoding="utf-8", errors="replace").splitlines()
    place = directory / "verdict.json"
    return {
        "run": directory.name,
        "dir": str(directory),
        "events": [json.loads(line) for line in lines if line.endswith("}")],
        "verdict": json.loads(place.read_bytes()) if place.is_file() else None,
        "budget": _budget(directory) if place.is_file() else [],
    }


def _budget(directory: Path) -> list[object]:
    """What the run spent of each objective's error budget; nothing of a run that can't be read."""
    import msgspec

    from stormdrill.core.budget import budgets
    from stormdrill.errors import StormdrillError
    from stormdrill.store.evidence import load

    try:
        found = load(directory)
    except StormdrillError:
        return []
    return [msgspec.to_builtins(one) for one in budgets(found.plan, found.events, found.records)]
