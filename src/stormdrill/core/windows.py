"""Which stretch of the run an objective speaks of. All edges come from the journal, none from what was planned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from stormdrill.model import event as ev
from stormdrill.model.experiment import Objective
from stormdrill.model.expression import Comparison
from stormdrill.model.plan import Injection, Plan

_E = TypeVar("_E", bound=ev.Event)
WHOLE = "whole run"
GIVEN_UP_MS = 500.0
"""After its deadline, by when a request's record has been written whatever became of it."""
SHORTEST = 0.9
"""A phase that lasted less than this share of what was planned was cut short, whatever the reason."""


class Span(Struct, frozen=True):
    """A stretch of time on the journal's monotonic clock, the end excluded."""

    name: str
    start_ms: float
    end_ms: float
    complete: bool
    """False: the run was stopped, or its record ends, before the phase did."""
    events: tuple[int, ...]
    """Sequence numbers of the edges."""

    @property
    def length_s(self) -> float:
        return (self.end_ms - self.start_ms) / 1000


def all_of(events: Iterable[ev.Recorded], kind: type[_E]) -> list[tuple[ev.Recorded, _E]]:
    """The events of one type, with their envelopes."""
    return [(recorded, recorded.event) for recorded in events if isinstance(recorded.event, kind)]


def call_of(injection: Injection, events: Iterable[ev.Recorded]) -> ev.Recorded | None:
    """Its inject call; None: it wasn't injected."""
    calls = all_of(events, ev.InjectStarted)
    return _earliest(recorded for recorded, event in calls if event.injection == injection.id)


def in_force_since(injection: Injection, events: Sequence[ev.Recorded]) -> ev.Recorded | None:
    """From when an injection is in force, which is what its time and everybody's answers count from: its call, or,
    where what does it has to be started first, the answer that this is done. An answer that says anything else, or that
    came once its revert had begun, vouches for nothing: then it counts from the call. None: it wasn't injected."""
    call = call_of(injection, events)
    if call is None or not injection.starts_up:
        return call
    answer = _earliest(r for r, event in all_of(events, ev.Injected) if event.injection == injection.id)
    revert = _earliest(r for r, event in all_of(events, ev.RevertStarted) if event.injection == injection.id)
    if answer is None or (revert is not None and (revert.mono_ms, revert.seq) < (answer.mono_ms, answer.seq)):
        return call
    return answer if isinstance(answer.event, ev.Injected) and answer.event.outcome == "done" else call


def first_inject(plan: Plan, events: Sequence[ev.Recorded]) -> ev.Recorded | None:
    """Since when the first of the plan's faults is in force; what a runbook did is none. Where a plan injects nothing
    its load is the trigger, and comes when the fault phase begins."""
    if not plan.injections:
        return _earliest(recorded for recorded, event in all_of(events, ev.PhaseEntered) if event.phase == "fault")
    return _earliest(since for item in plan.injections if (since := in_force_since(item, events)) is not None)


def first_call(plan: Plan, events: Sequence[ev.Recorded]) -> ev.Recorded | None:
    """The first inject call, from which on nothing is as it was before: a pod of ours may be on its way. Where a plan
    injects nothing, its `first_inject`."""
    if not plan.injections:
        return first_inject(plan, events)
    return _earliest(call for item in plan.injections if (call := call_of(item, events)) is not None)


def began(inject: ev.Recorded | None) -> str:
    """What `first_inject` is, for a sentence: `after …`, `before …`."""
    if inject is not None and isinstance(inject.event, ev.Injected):
        return "the first fault was in force"
    return "the fault phase began" if inject and isinstance(inject.event, ev.PhaseEntered) else "the first inject"


def _earliest(found: Iterable[ev.Recorded]) -> ev.Recorded | None:
    return min(found, key=lambda recorded: (recorded.mono_ms, recorded.seq), default=None)


def phases(plan: Plan, events: Sequence[ev.Recorded]) -> dict[str, Span]:
    """Each phase that was entered, and `whole run` from the baseline's start on (warming up is not judged)."""
    entered = sorted(all_of(events, ev.PhaseEntered), key=lambda item: (item[0].mono_ms, item[0].seq))
    edges = [_edge(plan, events, recorded, event) for recorded, event in entered]
    aborts = [(recorded.mono_ms, recorded.seq) for recorded, _ in all_of(events, ev.AbortRequested)]
    last_ms = max((recorded.mono_ms for recorded in events), default=0.0)
    found: dict[str, Span] = {}
    for index, edge in enumerate(edges):
        if edge.phase == "end":
            continue
        following = edges[index + 1] if index + 1 < len(edges) else None
        end_ms = following.until.mono_ms if following else last_ms
        start_ms, seqs = edge.since.mono_ms, (*edge.events, *([following.until.seq] if following else []))
        span = Span(edge.phase, start_ms, max(end_ms, start_ms), following is not None, seqs)
        found[edge.phase] = _cut(span, aborts, edge.planned_s)
    return found | _whole(list(found.values()), stopped=bool(aborts))


class _Edge(Struct, frozen=True):
    phase: str
    planned_s: float
    until: ev.Recorded
    """Where the phase before ends."""
    since: ev.Recorded
    events: tuple[int, ...]


def _edge(plan: Plan, events: Sequence[ev.Recorded], recorded: ev.Recorded, event: ev.PhaseEntered) -> _Edge:
    """The baseline ends with the first inject call, even where the journal entered the fault phase a moment earlier,
    and the fault phase begins when the first fault is in force. What lies between belongs to neither: while pods of
    ours are pulled there is no harm yet, and a baseline may not hear of the first of it."""
    until = since = recorded
    if event.phase == "fault":
        until, since = first_call(plan, events) or recorded, first_inject(plan, events) or recorded
    return _Edge(event.phase, event.planned_s, until, since, tuple(sorted({recorded.seq, since.seq})))


def _cut(span: Span, aborts: list[tuple[float, int]], planned_s: float) -> Span:
    """What was seen after someone asked to stop belongs to no phase."""
    inside = [item for item in aborts if item[0] < span.end_ms]
    if inside:
        at_ms, seq = min(inside)
        end_ms = min(max(at_ms, span.start_ms), span.end_ms)
        # a gate that finds the baseline ill asks to stop when the phase is over
        over = (end_ms - span.start_ms) / 1000 >= planned_s
        return replace(span, end_ms=end_ms, complete=over, events=(*span.events, seq))
    return replace(span, complete=span.complete and span.length_s >= SHORTEST * planned_s)


def _whole(found: list[Span], *, stopped: bool) -> dict[str, Span]:
    judged = [span for span in found if span.name != "warmup"]
    if not judged:
        return {}
    first, last = judged[0], judged[-1]
    complete = all(span.complete for span in judged) and not stopped
    return {WHOLE: Span(WHOLE, first.start_ms, last.end_ms, complete, (first.events[0], last.events[-1]))}


def narrowed(span: Span, by_ms: float) -> Span:
    """Without what lies so near to an edge that a request's clock can't tell on which side of it."""
    if by_ms <= 0:
        return span
    middle_ms = (span.start_ms + span.end_ms) / 2
    return replace(span, start_ms=min(span.start_ms + by_ms, middle_ms), end_ms=max(span.end_ms - by_ms, middle_ms))


def anchor_ms(span: Span, inject: ev.Recorded | None) -> float | None:
    """From when `within` counts: the first fault in force in the fault phase and the whole run, else the phase's
    start."""
    if span.name in ("fault", WHOLE):
        return inject.mono_ms if inject is not None else None
    return span.start_ms


def window_of(objective: Objective, span: Span, inject: ev.Recorded | None) -> Span:
    """The stretch that a comparison is judged over.

    `after 10s` leaves out the beginning; `within 10s` says that it holds from then on at the latest, counted from the
    anchor; `for 10s` that it has held for so long when the window ends.
    """
    start_ms = span.start_ms + objective.window.after_s * 1000
    expression = objective.expression
    if isinstance(expression, Comparison):
        start_ms += (expression.after_s or 0.0) * 1000
        anchor = anchor_ms(span, inject)
        if expression.within_s is not None and anchor is not None:
            start_ms = max(start_ms, anchor + expression.within_s * 1000)
        if expression.for_s is not None:
            start_ms = max(start_ms, span.end_ms - expression.for_s * 1000)
    return replace(span, start_ms=min(start_ms, span.end_ms))
