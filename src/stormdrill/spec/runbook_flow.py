"""Where a runbook can go: unknown targets, steps that nothing reaches, loops without a bound, values used too early."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from stormdrill.model.runbook import Step
from stormdrill.spec.runbook_body import ENDINGS, Content

ON_FAILURE = ("stop", "continue", "rollback")


class Trouble(NamedTuple):
    """One problem with a step: which, what, and what to write. `line` counts in its body; 0: its first line."""

    step: str
    line: int
    what: str
    fix: str = ""
    token: str = ""
    target: str = ""
    """The step that was meant and isn't there."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One way from a step to the next; `after_success` says whether what it captured is known there."""

    to: str
    after_success: bool


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean x?`, or what is known."""
    words = list(known)
    close = get_close_matches(word, words, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(words) or 'none'}"


def edges_of(steps: tuple[Step, ...], contents: Mapping[str, Content]) -> dict[str, list[Edge]]:
    """Step id → where it can go, endings left out; unknown targets too."""
    known = {step.id for step in steps}
    found: dict[str, list[Edge]] = {}
    for index, step in enumerate(steps):
        following = steps[index + 1].id if index + 1 < len(steps) else "done"
        targets: list[Edge] = []
        if step.kind == "decision":
            targets += [Edge(branch.go, True) for branch in contents[step.id].branches]
        else:
            targets.append(Edge(step.then or following, True))
        if step.on_failure == "continue":
            targets.append(Edge(following, False))
        elif step.on_failure not in ON_FAILURE:
            targets.append(Edge(step.on_failure, False))
        if step.kind == "manual" and step.unattended == "skip":
            targets.append(Edge(step.then or following, False))
        found[step.id] = [edge for edge in targets if edge.to in known]
    return found


def flow_troubles(
    steps: tuple[Step, ...], contents: Mapping[str, Content], *, lost: Collection[str] = (), shaky: bool = False
) -> list[Trouble]:
    """Everything wrong with the order of things. Pure.

    `lost`: ids of blocks that could not be read. `shaky`: ways may be missing only because of another problem.
    """
    if not steps:
        return []
    found = [trouble for trouble in _unknown_targets(steps, contents) if trouble.target not in lost]
    edges = edges_of(steps, contents)
    reached = _reached(steps[0].id, edges)
    if not found and not shaky:
        fix = "let a step go to it, or remove it"
        unreached = [step.id for step in steps if step.id not in reached]
        found += [Trouble(id, 0, f"nothing leads to the step {id}", fix) for id in unreached]
    found += _unbounded(steps, edges)
    return found


def _unknown_targets(steps: tuple[Step, ...], contents: Mapping[str, Content]) -> list[Trouble]:
    ids = [step.id for step in steps]
    found: list[Trouble] = []
    for step in steps:
        for branch in contents[step.id].branches:
            if branch.go not in (*ids, *ENDINGS):
                fix = nearest(branch.go, (*ids, *ENDINGS))
                found.append(
                    Trouble(step.id, branch.line, f"no step {branch.go!r} to go to", fix, branch.go, branch.go)
                )
        if step.on_failure not in (*ids, *ON_FAILURE):
            fix = nearest(step.on_failure, (*ON_FAILURE, *ids))
            found.append(
                Trouble(step.id, 0, f"on_failure={step.on_failure} names no step", fix, "on_failure=", step.on_failure)
            )
        if step.then and step.then not in (*ids, *ENDINGS):
            fix = nearest(step.then, (*ids, *ENDINGS))
            found.append(Trouble(step.id, 0, f"then={step.then} names no step", fix, "then=", step.then))
    return found


def _reached(start: str, edges: Mapping[str, list[Edge]]) -> set[str]:
    seen, waiting = {start}, [start]
    while waiting:
        for edge in edges[waiting.pop()]:
            if edge.to not in seen:
                seen.add(edge.to)
                waiting.append(edge.to)
    return seen


def _unbounded(steps: tuple[Step, ...], edges: Mapping[str, list[Edge]]) -> list[Trouble]:
    """A cycle is bounded when one of its steps says how often it may run; without those no cycle may be left."""
    bounded = {step.id for step in steps if step.at_most}
    rest = {step.id: {edge.to for edge in edges[step.id] if edge.to not in bounded} for step in steps}
    rest = {id: targets for id, targets in rest.items() if id not in bounded}
    on_cycle = [step for step in steps if step.id in rest and step.id in _from(step.id, rest)]
    if not on_cycle:
        return []
    first = on_cycle[0]
    names = ", ".join(step.id for step in on_cycle)
    what = (
        f"the steps {names} can go round for ever" if len(on_cycle) > 1 else f"the step {names} can go round for ever"
    )
    return [Trouble(first.id, 0, what, f"give {first.id} a bound: at_most=3")]


def _from(start: str, targets: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in targets[waiting.pop()]:
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def surely_captured(steps: tuple[Step, ...], contents: Mapping[str, Content]) -> dict[str, set[str]]:
    """Step id → names that were captured on every way to it."""
    edges = edges_of(steps, contents)
    everything = {capture.name for content in contents.values() for capture in content.captures}
    known = {step.id: set(everything) for step in steps}
    if not steps:
        return known
    known[steps[0].id] = set()
    changed = True
    while changed:
        changed = False
        for step in steps:
            own = {capture.name for capture in contents[step.id].captures}
            for edge in edges[step.id]:
                arriving = known[step.id] | own if edge.after_success else known[step.id]
                if not known[edge.to] <= arriving:
                    known[edge.to] &= arriving
                    changed = True
    return known
