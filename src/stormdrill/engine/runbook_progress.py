"""How far a runbook came, from its journal alone: what resuming rests on. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from stormdrill.model.event import Armed, Event, Reverted, RunbookFinished, RunbookStarted, StepFinished, StepStarted
from stormdrill.model.runbook import Runbook, Step
from stormdrill.spec.runbook_template import Value

PREFIX = "runbook/"
EXIT = "exit"
"""The exit criterion stands in the record as a step of this name."""
GOOD = ("ok", "skipped")


@dataclass(slots=True)
class Progress:
    started: RunbookStarted | None = None
    finished: RunbookFinished | None = None
    visits: dict[str, int] = field(default_factory=dict)
    captured: dict[str, Value] = field(default_factory=dict)
    armed: list[str] = field(default_factory=list)
    """Injections that still wait to be undone, oldest first."""
    undos: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    """Injection → its undo as journalled."""
    undone: list[str] = field(default_factory=list)
    """Injections that were undone: what rested on them no longer holds."""
    open: StepStarted | None = None
    """Started, and not finished well: what it did is unknown, or it did nothing and is to be done again."""
    last: StepFinished | None = None
    outcomes: list[StepFinished] = field(default_factory=list)


def progress_of(events: Iterable[Event]) -> Progress:
    found = Progress()
    for event in events:
        if isinstance(event, RunbookStarted):
            found.started, found.finished = event, None
        elif isinstance(event, StepStarted):
            if event.attempt == 1:
                found.visits[event.step] = found.visits.get(event.step, 0) + 1
            found.open = event
            found.captured.update(_values(event.captured))
        elif isinstance(event, Armed) and event.injection.startswith(PREFIX):
            found.armed.append(event.injection)
            found.undos[event.injection] = event.undo
        elif isinstance(event, Reverted) and event.injection in found.armed and event.outcome != "failed":
            found.armed.remove(event.injection)
            if event.outcome == "done":
                found.undone.append(event.injection)
        elif isinstance(event, StepFinished):
            found.captured.update(_values(event.captured))
            found.last = event
            if event.outcome in GOOD or event.goes_to:
                found.open = None
            found.outcomes.append(event)
        elif isinstance(event, RunbookFinished):
            found.finished = event
    return found


def _values(texts: dict[str, str]) -> dict[str, Value]:
    return {name: json.loads(text) for name, text in texts.items()}


def next_step(runbook: Runbook, progress: Progress) -> str:
    """Where to go on: the step that is open or did not end well, or what follows the last good one.

    Raises KeyError for a step that the document doesn't have (its digest was not compared).
    """
    ids = [step.id for step in runbook.steps]
    if progress.open is not None:
        return "done" if progress.open.step == EXIT else progress.open.step
    if progress.last is None:
        return ids[0]
    if progress.last.step == EXIT:
        return "done"
    if progress.last.goes_to and progress.last.goes_to != "stop":
        return progress.last.goes_to
    if progress.last.goes_to == "stop":
        return progress.last.step
    return following(runbook, progress.last.step)


def surely_not_done(step: Step, progress: Progress) -> bool:
    """True when its undo would be armed had it done anything: arming comes before the call."""
    mine = (PREFIX + step.id, f"{PREFIX}{step.id}/")
    return bool(step.undo) and not any(name == mine[0] or name.startswith(mine[1]) for name in progress.armed)


def following(runbook: Runbook, id: str) -> str:
    ids = [step.id for step in runbook.steps]
    if id not in ids:
        raise KeyError(id)
    at = ids.index(id) + 1
    return ids[at] if at < len(ids) else "done"


def step_of(runbook: Runbook, id: str) -> Step:
    for step in runbook.steps:
        if step.id == id:
            return step
    raise KeyError(id)
