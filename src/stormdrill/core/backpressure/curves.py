"""What the checks judge by, as points: for pictures, drawn elsewhere. Empty where the run has nothing of the kind.

Every point comes from the function that a check judges by. Rates are per second, shares in percent, times in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from stormdrill.core.backpressure.capacity import capacity_of
from stormdrill.core.backpressure.carried import Carried, carried
from stormdrill.core.backpressure.drain import allowed_s, asked_of, backlog_of, drained
from stormdrill.core.backpressure.priority import admission, tiers_of
from stormdrill.core.backpressure.retry_amplification import Tries, hottest, together
from stormdrill.core.backpressure.series import Series, series_of
from stormdrill.core.backpressure.stages import Stretch, episodes_of, epoch_ms, goodput, steps_of
from stormdrill.core.backpressure.surges import surges
from stormdrill.core.case import Case
from stormdrill.core.intervals import Interval
from stormdrill.model.profile import Role

MOST_POINTS = 400
"""Of one line over time: more are thinned, the highest of each stretch kept."""
MARGIN_S = 5.0
"""Shown of the time before a trigger's end."""


class Point(Struct, frozen=True):
    """Up over across, with a 95% interval where it was estimated."""

    across: float
    up: float
    low: float | None = None
    high: float | None = None
    n: int = 0


class Goodput(Struct, frozen=True):
    """Goodput over what was offered: `goodput-plateau`, `capacity`."""

    points: tuple[Point, ...]
    """A step each, lowest first."""
    carried_per_s: float | None
    """The highest rate that is surely carried …"""
    broke_per_s: float | None
    """… and the lowest that surely isn't: the capacity lies between the two."""


class Tier(Struct, frozen=True):
    """Percent admitted over what all tiers offered together: `priority`."""

    tier: str
    points: tuple[Point, ...]


class Queue(Struct, frozen=True):
    """Depth over the time since the load began: `bounded-queue`."""

    name: str
    points: tuple[Point, ...]
    limit: tuple[Point, ...]


class Hop(Struct, frozen=True):
    """Attempts per request, in the stretch in which all hops together made most: `retry-amplification`."""

    place: str
    """`the client`, then services from the entry inwards."""
    attempts: float
    low: float
    high: float
    product: float
    """Of this and all before it: what arrives here for one request of a client."""


class Drain(Struct, frozen=True):
    """What waited, over the time since a trigger's end: `drain`."""

    name: str
    points: tuple[Point, ...]
    usual: float
    """The most that waited before the trigger."""
    bound: tuple[Point, Point] | None
    """From the backlog to nothing, as slowly as is allowed; None: nothing was left behind, or there is no room."""
    gone_s: float | None


class Loop(Struct, frozen=True):
    """Goodput over what was offered, in the order of time: base, trigger, after, then down. `recovery`."""

    name: str
    points: tuple[Point, ...]
    roles: tuple[Role, ...]
    """Of each point."""


def goodput_curve(case: Case) -> Goodput:
    found = capacity_of(case)
    points = tuple(_estimated(one.offered_per_s, goodput(case, one.settled)) for one in steps_of(case) if one.n)
    held = found.held.stretch.asked_per_s if found.held else None
    return Goodput(points, held, found.broke.stretch.asked_per_s if found.broke else None)


def admission_curves(case: Case) -> tuple[Tier, ...]:
    """Over the steps; without a staircase over base, trigger and after of the surges."""
    stretches: Sequence[Stretch] = steps_of(case)
    if not stretches:
        stretches = sorted((one for part in episodes_of(case).values() for one in part), key=lambda one: one.factor)
    shown = [one for one in stretches if one.n and one.role != "rest"]
    found = []
    for tier in tiers_of(case):
        points = []
        for one in shown:
            admitted = admission(case, tier, (one.settled,)).admitted
            if admitted.n:
                points.append(_estimated(one.offered_per_s, admitted, 100.0))
        found.append(Tier(tier, tuple(points)))
    return tuple(one for one in found if one.points)


def queue_curves(case: Case) -> tuple[Queue, ...]:
    began_ms, pressure = epoch_ms(case), case.plan.system.pressure
    if began_ms is None:
        began_ms = min((recorded.mono_ms for recorded in case.events), default=0.0)
    limits = {(one.instance, tuple(one.labels.items())): one for one in series_of(case, pressure.limit)}
    found = []
    for depth in series_of(case, pressure.depth):
        limit = limits.get((depth.instance, tuple(depth.labels.items())))
        points = _over_time(depth.at_ms, depth.values, began_ms)
        found.append(Queue(depth.name, points, _limit(limit, began_ms) if limit is not None else ()))
    return tuple(found)


def retry_curve(case: Case) -> tuple[Hop, ...]:
    found: list[Hop] = []
    seen: list[Tries] = []
    for tries in hottest(case):
        ratio = tries.ratio
        if not ratio.n:
            continue
        product = together([*seen, tries])
        seen.append(tries)
        high = ratio.high if np.isfinite(ratio.high) else ratio.value
        found.append(Hop(tries.place, ratio.value, ratio.low, high, product))
    return tuple(found)


def drain_curves(case: Case) -> tuple[Drain, ...]:
    backlog, asked = backlog_of(case), asked_of(case)
    capacity: Carried | None = carried(case, asked.capacity)
    found = []
    for surge in surges(case) if backlog is not None else ():
        seen = drained(backlog, surge) if backlog is not None else None
        if backlog is None or seen is None:
            continue
        end_ms = surge.after.start_ms
        shown = (backlog.total.at_ms >= end_ms - MARGIN_S * 1000) & (backlog.total.at_ms <= surge.after.end_ms)
        points = _over_time(backlog.total.at_ms[shown], backlog.total.values[shown], end_ms)
        room = capacity.per_s - surge.after_per_s if capacity is not None else 0.0
        bound = None
        if seen.built > 0 and room > 0:
            by_s = allowed_s(seen.built, room, asked)
            bound = (Point(0.0, seen.usual + seen.built), Point(by_s, seen.usual))
        gone_s = seen.after_s.value if seen.after_s is not None else None
        found.append(Drain(surge.name, points, seen.usual, bound, gone_s))
    return tuple(found)


def hysteresis_curves(case: Case) -> tuple[Loop, ...]:
    found = []
    for number, stages in episodes_of(case).items():
        shown = [one for one in stages if one.role != "rest" and one.n and one.settled.length_s > 0]
        points = tuple(_estimated(one.offered_per_s, goodput(case, one.settled)) for one in shown)
        found.append(Loop(f"surge {number}", points, tuple(one.role for one in shown)))
    return tuple(one for one in found if one.points)


def _estimated(across: float, found: Interval, scale: float = 1.0) -> Point:
    high = found.high * scale if np.isfinite(found.high) else None
    return Point(across, found.value * scale, found.low * scale, high, found.n)


def _over_time(at_ms: np.ndarray, values: np.ndarray, since_ms: float) -> tuple[Point, ...]:
    if len(at_ms) > MOST_POINTS:
        edges = np.arange(MOST_POINTS) * len(at_ms) // MOST_POINTS
        ends = [*edges[1:].tolist(), len(at_ms)]
        kept = [start + int(np.argmax(values[start:end])) for start, end in zip(edges.tolist(), ends, strict=True)]
        at_ms, values = at_ms[kept], values[kept]
    pairs = zip(at_ms.tolist(), values.tolist(), strict=True)
    return tuple(Point((at - since_ms) / 1000, value) for at, value in pairs)


def _limit(limit: Series, since_ms: float) -> tuple[Point, ...]:
    """Where it changed, and both ends."""
    changed = np.flatnonzero(np.diff(limit.values)) + 1
    kept = sorted({0, *changed.tolist(), *(changed - 1).tolist(), len(limit) - 1})
    return _over_time(limit.at_ms[kept], limit.values[kept], since_ms)
