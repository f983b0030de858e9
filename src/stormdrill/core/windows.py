"""Which stretch of the run an objective speaks of. All edges come from the journal, none from what was planned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from stormdrill.model import event as ev
from stormdrill.model.experiment import Objective
from stormdrill.model.expression import Comparison
from stormdrill.model.plan import Plan

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


def first_inject(plan: Plan, events: Sequence[ev.Recorded]) -> ev.Recorded | None:
    """The first inject call of the plan's faults; what a runbook did is not one. Where a plan injects nothing its load
    is the trigger, and comes when the fault phase begins."""
    if not plan.injections:
        begun = [recorded for recorded, event in all_of(events, ev.PhaseEntered) if event.phase == "fault"]
        return min(begun, key=lambda recorded: (recorded.mono_ms, recorded.seq), default=None)
    planned = {item.id for item in plan.injections}
    calls = [recorded for recorded, event in all_of(events, ev.InjectStarted) if event.injection in planned]
    return min(calls, key=lambda recorded: (recorded.mono_ms, recorded.seq), default=None)


def phases(plan: Plan, events: Sequence[ev.Recorded]) -> dict[str, Span]:
    """Each phase that was entered, and `whole run` from the baseline's start on (warming up is not judged)."""
    entered = sorted(all_of(events, ev.PhaseEntered), key=lambda item: (item[0].mono_ms, item[0].seq))
    edges = [_edge(plan, events, recorded, event) for recorded, event in entered]
    aborts = [(recorded.mono_ms, recorded.seq) for recorded, _ in all_of(events, ev.AbortRequested)]
    last_ms = max((recorded.mono_ms for recorded in events), default=0.0)
    found: dict[str, Span] = {}
    for index, (event, start_ms, seqs) in enumerate(edges):
        if event.phase == "end":
            continue
        following = edges[index + 1] if index + 1 < len(edges) else None
        end_ms = following[1] if following else last_ms
        if following:
            seqs = (*seqs, following[2][-1])
        span = Span(event.phase, start_ms, max(end_ms, start_ms), following is not None, seqs)
        found[event.phase] = _cut(span, aborts, event.planned_s)
    return found | _whole(list(found.values()), stopped=bool(aborts))


def _edge(
    plan: Plan, events: Sequence[ev.Recorded], recorded: ev.Recorded, event: ev.PhaseEntered
) -> tuple[ev.PhaseEntered, float, tuple[int, ...]]:
    """The fault phase begins with the first inject call, even where the journal entered it a moment earlier."""
    first = first_inject(plan, events) if event.phase == "fault" else None
    if first is None or first is recorded:
        return event, recorded.mono_ms, (recorded.seq,)
    return event, first.mono_ms, (recorded.seq, first.seq)


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
    """From when `within` counts: the first inject call in the fault phase and the whole run, else the phase's start."""
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
