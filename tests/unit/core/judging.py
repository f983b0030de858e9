"""Shorthands for tests of the judge: a synthetic run, changed a little, judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from stormdrill.core.evidence import Evidence
from stormdrill.core.judge import judge
from stormdrill.model import event as ev
from stormdrill.model.experiment import Objective
from stormdrill.model.verdict import ObjectiveVerdict, Verdict
from stormdrill.store.evidence import load
from synthetic_run import make_run

Change = Callable[[ev.Recorded], ev.Recorded | None]


def evidence(tmp_path: Path, scenario: str = "pass", **knobs: object) -> Evidence:
    return load(make_run(tmp_path / "run", scenario=scenario, **knobs))


def judged(found: Evidence) -> Verdict:
    return judge(found.plan, found.events, found.records, found.ledger)


def run(tmp_path: Path, scenario: str = "pass", **knobs: object) -> Verdict:
    return judged(evidence(tmp_path, scenario, **knobs))


def asking(found: Evidence, *objectives: Objective) -> Evidence:
    """The same run, judged by other objectives only."""
    return replace(found, plan=replace(found.plan, experiment=replace(found.plan.experiment, objectives=objectives)))


def one(found: Evidence, objective: Objective) -> ObjectiveVerdict:
    return judged(asking(found, objective)).objectives[0]


def with_events(found: Evidence, change: Change, more: Sequence[ev.Recorded] = ()) -> Evidence:
    changed = [new for old in found.events if (new := change(old)) is not None]
    return replace(found, events=tuple(changed) + tuple(more))


def named(verdict: Verdict, name: str, phase: str = "") -> ObjectiveVerdict:
    return next(item for item in verdict.objectives if item.name.startswith(name) and item.phase.startswith(phase))
