"""What somebody else did to a fault while it was in force: what was seen from then on is no answer to the fault."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from stormdrill.core.sentences import number
from stormdrill.core.windows import Span, all_of
from stormdrill.model import event as ev
from stormdrill.model.plan import Injection, Plan

STOPPED_WITHIN_MS = 5000.0
"""Of a cluster or a person that stops the run from there: the watchdog may be ahead of the run in reverting."""
STOPPED_THERE = ("cluster", "person", "deleted")
"""With a system that is deleted go the faults on it."""
ROLLED_OUT = "rollout"
"""What an action of a runbook may take back. It asks the system, which has no hand in nodes, scale or policies."""


class Hand(Struct, frozen=True):
    """One fault that was not as it was left."""

    injection: Injection
    at_ms: float
    """From then on it isn't known that it was as it was left."""
    gone: bool
    others: bool
    """Nobody in the drill is known to have done it."""
    sentence: str
    detail: str
    seq: int


def hands_of(plan: Plan, events: Sequence[ev.Recorded]) -> tuple[Hand, ...]:
    """In the order of time. Left out: what a look saw only once its revert had begun, and what a run met that was being
    stopped in the cluster."""
    known = {item.id: item for item in plan.injections}
    starts = {event.injection: recorded.mono_ms for recorded, event in all_of(events, ev.InjectStarted)}
    stops = [r.mono_ms for r, event in all_of(events, ev.AbortRequested) if event.by in STOPPED_THERE]
    found = []
    for recorded, event in all_of(events, ev.CauseChanged):
        at_ms, injection = recorded.mono_ms, known.get(event.injection)
        if injection is None:
            continue
        reverted_ms = _reverted_ms(events, event.injection, starts.get(event.injection, 0.0))
        if at_ms >= reverted_ms and not event.at_revert:
            continue
        if any(stop_ms <= at_ms + STOPPED_WITHIN_MS for stop_ms in stops):
            continue
        step = _could_have(events, injection, at_ms)
        by = f"after the runbook had begun its step {step}" if step else "by somebody else"
        unknown_ms = 0.0 if event.well_ms is None else max(0.0, event.after_ms - event.well_ms)
        what = "edited" if event.edited else "taken away" if event.gone else "changed"
        when = f"{number(event.after_ms / 1000)} s after it began"
        if event.at_revert:
            when = f"in the last {number(unknown_ms / 1000)} s before its revert"
        sentence = f"{injection.fault} on {injection.instance} was {what} {when}, {by}"
        found.append(Hand(injection, at_ms - unknown_ms, event.gone, not step, sentence, event.detail, recorded.seq))
    return tuple(sorted(found, key=lambda hand: (hand.at_ms, hand.seq)))


def _could_have(events: Sequence[ev.Recorded], injection: Injection, at_ms: float) -> str:
    """The runbook's last step by then that may have done it, which is what the drill asks for: people who were asked to
    do something, or an action where a release is at fault, which it may have rolled back."""
    skipped = {event.step for _, event in all_of(events, ev.StepFinished) if event.outcome == "skipped"}
    kinds = ("manual", "action") if injection.mechanism == ROLLED_OUT else ("manual",)
    begun = [(r.mono_ms, event) for r, event in all_of(events, ev.StepStarted) if r.mono_ms <= at_ms]
    return next((e.step for _, e in reversed(begun) if e.kind in kinds and e.step not in skipped), "")


def _reverted_ms(events: Sequence[ev.Recorded], injection: str, since_ms: float) -> float:
    begun = [r.mono_ms for r, event in all_of(events, ev.RevertStarted) if event.injection == injection]
    return min((at_ms for at_ms in begun if at_ms >= since_ms), default=math.inf)


def deletion(events: Sequence[ev.Recorded]) -> tuple[float, ev.Recorded, str] | None:
    """Since when it isn't known that the system was all there, where somebody deleted it and the run ended for that."""
    first = next(iter(all_of(events, ev.AbortRequested)), None)
    if first is None or first[1].well_mono_ms is None:
        return None
    return first[1].well_mono_ms, first[0], first[1].reason


def taking(hands: Sequence[Hand], span: Span) -> tuple[Hand, ...]:
    """Those that leave nothing to believe in a window: somebody took a fault away before it ended."""
    return tuple(hand for hand in hands if hand.gone and hand.others and hand.at_ms < span.end_ms)
