"""How deep the queues got, and how long they took to drain once the cause was gone."""

from __future__ import annotations

from stormdrill.model import event as ev
from stormdrill.model.units import show_duration
from stormdrill.review.clock import Clock
from stormdrill.review.source import Source
from stormdrill.review.view import Fact, Figure
from stormdrill.review.words import measured

DEPTH = "queue_depth"
DEFINITION = "From the last verified revert to the last reading above the deepest of the baseline, over all queues."


def queue(source: Source, clock: Clock) -> tuple[Fact, ...]:
    """Nothing where nobody read a depth, or where none went above what the baseline had seen."""
    spans = {span.name: span for span in source.spans}
    baseline, zero = spans.get("baseline"), source.inject
    readings = [(row, event) for row, event in source.all(ev.Reading) if event.metric == DEPTH]
    told = [(row, event.value, event.instance) for row, event in readings if event.value is not None]
    if baseline is None or zero is None:
        return ()
    before = [value for row, value, _ in told if baseline.start_ms <= row.mono_ms < zero.mono_ms]
    after = [item for item in told if item[0].mono_ms >= zero.mono_ms]
    usual = max(before, default=0.0)
    if not after or not before:
        return ()
    peak, depth, where = max(after, key=lambda item: (item[1], -item[0].seq))
    if depth <= usual:
        return ()
    on = f" on {where}" if where else ""
    text = f"{measured(depth, '')}{on} at {clock.time(peak.mono_ms)}"
    found = [Fact("Deepest queue", Figure(text, (peak.seq,)), f"{measured(usual, '')} at most in the baseline.")]
    return (*found, *_drained(source, after, usual))


def _drained(source: Source, after: list[tuple[ev.Recorded, float, str]], usual: float) -> tuple[Fact, ...]:
    recovery = next((span for span in source.spans if span.name == "recovery"), None)
    if recovery is None:
        return ()
    since = [item for item in after if item[0].mono_ms >= recovery.start_ms]
    if not since:
        return (
            Fact("Queues drained", Figure("not known", recovery.events[:1]), "Nobody read a depth after the revert."),
        )
    above = [item for item in since if item[1] > usual]
    newest = {where: row.seq for row, _, where in since}
    if not above:
        last = since[0][0]
        return (Fact("Queues drained", Figure("before the revert", (recovery.events[0], last.seq)), DEFINITION),)
    last = above[-1][0]
    if any(newest[where] == row.seq for row, _, where in above):
        return (Fact("Queues drained", Figure("not by the end", (recovery.events[0], last.seq)), DEFINITION),)
    took = show_duration((last.mono_ms - recovery.start_ms) / 1000)
    return (Fact("Queues drained", Figure(f"{took} after the revert", (recovery.events[0], last.seq)), DEFINITION),)
