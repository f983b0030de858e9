"""Metrics that probes read: the worst fresh reading of the window, and whether there were fresh ones all along."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from stormdrill.core.case import NOTHING, Case, Measured
from stormdrill.core.intervals import Interval
from stormdrill.core.judge_metrics import holds, limit_of, scale_of
from stormdrill.core.windows import Span, all_of
from stormdrill.model.event import Reading, Recorded
from stormdrill.model.expression import Comparison

STALE_INTERVALS = 2.5
"""Two intervals without a fresh reading, and half a one for the probe's own time."""
USUAL_INTERVAL_MS = 1000.0

Seen = tuple[Recorded, Reading]


def measure_readings(case: Case, expression: Comparison, window: Span) -> Measured:
    """In the metric's own unit as Prometheus has it: seconds, ratios, plain counts."""
    readings = [item for item in all_of(case.events, Reading) if item[1].metric == expression.metric]
    labels = {instance.name: instance.labels for instance in case.plan.system.instances}
    fitting = [item for item in readings if _fits(item[1], expression, labels)]
    inside = [item for item in fitting if window.start_ms <= item[0].mono_ms <= window.end_ms]
    fresh = [item for item in inside if item[1].value is not None]
    if not fresh:
        return replace(NOTHING, doubt=f"there was no reading of {expression.metric}{why_not(inside or fitting)}")
    worst = _worst(fresh, expression)
    value = worst[1].value or 0.0
    doubt = stale(case, fitting, window)
    on = f" on {worst[1].instance}" if worst[1].instance else ""
    text = f"the worst of {{n}} readings of {expression.metric} was {{value}}{on}"
    return Measured(
        Interval(value, value, value, len(fresh)), exact=True, text=text, doubt=doubt, events=(worst[0].seq,)
    )


class Held(Struct, frozen=True):
    """From when on a metric held, which had to hold within a time."""

    after_s: float
    """From the anchor to the last reading that broke it; 0: it always held."""
    worst: float
    """From the anchor on, in the metric's own unit."""
    at_end: bool
    """Whether the last reading held."""
    events: tuple[int, ...]


def held_after(case: Case, expression: Comparison, anchor_ms: float, end_ms: float) -> Held | None:
    """How long a queue took to drain, and what like it. None without a fresh reading."""
    labels = {instance.name: instance.labels for instance in case.plan.system.instances}
    fresh = [
        (recorded, reading)
        for recorded, reading in all_of(case.events, Reading)
        if reading.metric == expression.metric
        and reading.value is not None
        and anchor_ms <= recorded.mono_ms <= end_ms
        and _fits(reading, expression, labels)
    ]
    if not fresh:
        return None
    scale, limit = scale_of(expression), limit_of(expression)
    broken = [item for item in fresh if not holds(expression.op, (item[1].value or 0.0) * scale, limit)]
    last = max(broken, key=lambda item: (item[0].mono_ms, item[0].seq), default=None)
    worst = _worst(fresh, expression)
    newest = max(recorded.mono_ms for recorded, _ in fresh)
    return Held(
        after_s=round((last[0].mono_ms - anchor_ms) / 1000, 3) if last else 0.0,
        worst=worst[1].value or 0.0,
        at_end=last is None or last[0].mono_ms < newest,
        events=(worst[0].seq, *((last[0].seq,) if last else ())),
    )


def last_violation_ms(case: Case, expression: Comparison, start_ms: float, end_ms: float) -> float | None:
    """When the metric was last seen on the wrong side; None when never. For the times, not for the verdict."""
    labels = {instance.name: instance.labels for instance in case.plan.system.instances}
    bad = [
        recorded.mono_ms
        for recorded, reading in all_of(case.events, Reading)
        if reading.metric == expression.metric
        and start_ms <= recorded.mono_ms < end_ms
        and reading.value is not None
        and _fits(reading, expression, labels)
        and not holds(expression.op, reading.value * scale_of(expression), limit_of(expression))
    ]
    return max(bad, default=None)


def _fits(reading: Reading, expression: Comparison, labels: dict[str, dict[str, str]]) -> bool:
    """A reading without a value carries no labels of its own: it counts for its instance."""
    known = {**labels.get(reading.instance, {}), "instance": reading.instance, **reading.labels}
    if reading.value is None:
        return all(known.get(name, value) == value for name, value in expression.labels.items())
    return expression.labels.items() <= known.items()


def _worst(fresh: list[Seen], expression: Comparison) -> Seen:
    def badness(item: Seen) -> tuple[float, int]:
        value = item[1].value or 0.0
        if expression.op == "=":
            return abs(value * scale_of(expression) - limit_of(expression)), -item[0].seq
        return (value if expression.op in ("<", "<=") else -value), -item[0].seq

    return max(fresh, key=badness)


def stale(case: Case, fitting: list[Seen], window: Span) -> str:
    """Why the readings can't vouch for the whole window. A frozen instance may be silent while others answer."""
    silent: list[tuple[float, str, str]] = []
    vouched = False
    rare = {item.name: item.every_s * 1000 for item in case.plan.system.metrics}
    instances = sorted({reading.instance for _, reading in fitting})
    for instance in instances:
        of_it = [item for item in fitting if item[1].instance == instance]
        usual_ms = rare.get(of_it[0][1].metric, USUAL_INTERVAL_MS)
        interval_ms = _interval_ms((recorded.mono_ms for recorded, _ in of_it), usual_ms)
        times = sorted(recorded.mono_ms for recorded, reading in of_it if reading.value is not None)
        gap = _longest_gap_ms(times, window, case.halted(instance))
        if gap > STALE_INTERVALS * interval_ms:
            silent.append((gap, instance, why_not([item for item in of_it if item[0].mono_ms <= window.end_ms])))
        elif gone := _vanished(case, of_it, window, STALE_INTERVALS * interval_ms):
            silent.append(gone)
        elif any(window.start_ms <= at_ms <= window.end_ms for at_ms in times):
            vouched = True
    if silent:
        gap, instance, why = max(silent)
        return f"{instance or 'the probe'} gave no fresh reading for {gap / 1000:.1f} s{why}"
    return "" if vouched else "every instance that could have told was down"


def _vanished(case: Case, of_it: list[Seen], window: Span, most_ms: float) -> tuple[float, str, str] | None:
    """One of several series of an instance that was there and is told no more: what it would have said isn't known.
    One that comes later than the others has not been missed."""
    series: dict[tuple[tuple[str, str], ...], list[float]] = {}
    for recorded, reading in of_it:
        if reading.value is not None and recorded.mono_ms <= window.end_ms:
            series.setdefault(tuple(sorted(reading.labels.items())), []).append(recorded.mono_ms)
    for labels, times in sorted(series.items()) if len(series) > 1 else ():
        since = replace(window, start_ms=max(window.start_ms, min(times)))
        gap = _longest_gap_ms(sorted(times), since, case.halted(of_it[0][1].instance))
        if gap > most_ms:
            named = ", ".join(f"{name}={value}" for name, value in labels)
            return gap, ", ".join(filter(None, (of_it[0][1].instance, named))), ""
    return None


def why_not(seen: Sequence[Seen]) -> str:
    """What the last look without a reading met, to be added to a sentence; empty when it did not say."""
    details = [reading.detail for _, reading in seen if reading.value is None and reading.detail]
    return f": {details[-1]}" if details else ""


def _interval_ms(times: Iterable[float], usual_ms: float) -> float:
    ordered = sorted(set(times))
    gaps = [later - earlier for earlier, later in pairwise(ordered)]
    return statistics.median(gaps) if gaps else usual_ms


def _longest_gap_ms(times: list[float], window: Span, halted: list[tuple[float, float]]) -> float:
    """Between fresh readings, over the window, leaving out when the instance could not answer by design."""
    edges = [window.start_ms, *(t for t in times if window.start_ms < t < window.end_ms), window.end_ms]
    longest = 0.0
    for start_ms, end_ms in pairwise(edges):
        gaps = [(start_ms, end_ms)]
        for from_ms, to_ms in halted:
            gaps = [
                piece for a, b in gaps for piece in ((a, min(b, from_ms)), (max(a, to_ms), b)) if piece[1] > piece[0]
            ]
        longest = max([longest, *(b - a for a, b in gaps)])
    return longest
