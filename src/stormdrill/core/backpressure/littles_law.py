"""littles-law: nothing waits where the system doesn't see it.

By Little's law the work inside of a system is what arrives times how long it stays, L = λW. Clients know it from when
they sent and were answered; the system tells its own. What clients wait for and the system doesn't count is a hidden
queue: an accept backlog, a balancer. Where the two disagree, no figure of the system's about its queues can be
believed: INVALID, never FAIL.

Both are compared at the moments of the readings, so that what comes and goes is the same in both; the difference is
judged, as a share of what clients see.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stormdrill.core.backpressure.asked import LittlesLaw
from stormdrill.core.backpressure.checking import check
from stormdrill.core.backpressure.figures import figure, percent, plain, told
from stormdrill.core.backpressure.finding import Answer, conclude, unknown, worst
from stormdrill.core.backpressure.series import mute
from stormdrill.core.backpressure.stages import Stretch, pressed, stages_of
from stormdrill.core.case import Case
from stormdrill.core.evidence import DROPPED, REFUSED
from stormdrill.core.intervals import Interval
from stormdrill.core.judge_readings import STALE_INTERVALS
from stormdrill.core.sentences import number, quantity
from stormdrill.core.statistics import student_t
from stormdrill.core.windows import Span, all_of
from stormdrill.model.event import Reading
from stormdrill.model.verdict import CheckVerdict, Figure

WORD = "littles-law"
FEWEST = 8
"""Readings of a window."""
LEAST_INSIDE = 2.0
"""With less in flight, a request on its way is a large share of it and means nothing."""
Floats = NDArray[np.float64]


class Tick(Struct, frozen=True):
    """One moment at which every instance told what it holds."""

    at_ms: float
    inside: float


class Compared(Struct, frozen=True):
    """One window."""

    name: str
    span: Span
    clients: float
    """L, as clients see it: sent and not answered, without what was turned away. Mean over the readings."""
    system: float
    """L, as the system tells it."""
    little: float
    """λW, from the same records."""
    hidden: Interval
    """clients − system, in requests."""

    @property
    def share(self) -> Interval:
        """Of what clients see."""
        base = max(self.clients, 1e-9)
        return Interval(self.hidden.value / base, self.hidden.low / base, self.hidden.high / base, self.hidden.n)


def judge(case: Case, asked: LittlesLaw) -> CheckVerdict:
    metric = case.plan.system.pressure.in_flight
    spans = pressed(case)
    if not spans:
        return conclude(case, WORD, [unknown("the run never came to any load that is judged")], ())
    ticks = ticks_of(case, metric)
    found = [one for one in (_compare(case, name, span, ticks) for name, span in _named(case, spans)) if one]
    if not found:
        why = (
            f"there were not {FEWEST} readings of {metric} in any stage"
            if metric
            else "the system tells no such figure"
        )
        return conclude(case, WORD, [unknown(why)], spans)
    busy = [one for one in found if one.clients >= LEAST_INSIDE or one.system >= LEAST_INSIDE]
    most = float(asked.most.rstrip("%"))
    figures = [figure("unseen by the system", percent(_all(busy)), "%", most)] if busy else []
    telling = {
        one.name: one for one in (*sorted(busy, key=_apart)[-1:], *sorted(busy, key=lambda one: one.clients)[-1:])
    }
    figures += [each for one in telling.values() for each in _figures(one)]
    looked = [one.span for one in found]
    if not busy:
        top = max(max(one.clients, one.system) for one in found)
        why = f"there was too little in flight to compare: {number(top)} at most"
        return conclude(case, WORD, [unknown(why)], looked)
    unseen = [*_untold(_named(case, spans), found, ticks), *(unknown(why) for why in mute(case, metric))]
    return conclude(case, WORD, [*_parts(busy, most, metric), *unseen], looked, figures=figures)


def _untold(named: Sequence[tuple[str, Span]], found: Sequence[Compared], ticks: Sequence[Tick]) -> tuple[Answer, ...]:
    """Windows long enough for readings that were not told by all: what waited there, nobody knows."""
    every_s = _pace_ms(ticks) / 1000
    compared = {(one.span.start_ms, one.span.end_ms) for one in found}
    missing = [
        name
        for name, span in named
        if (span.start_ms, span.end_ms) not in compared and span.length_s >= (FEWEST + 2) * every_s
    ]
    return tuple(Answer("INCONCLUSIVE", f"not all instances told what was inside in the {name}") for name in missing)


def _pace_ms(ticks: Sequence[Tick]) -> float:
    gaps = np.diff([tick.at_ms for tick in ticks])
    return float(np.median(gaps)) if len(gaps) else 1000.0


def _longest_gap_ms(inside: Sequence[Tick], span: Span) -> float:
    """For so long not all told what they held."""
    return float(np.max(np.diff([span.start_ms, *(tick.at_ms for tick in inside), span.end_ms])))


def _apart(one: Compared) -> float:
    return abs(one.share.value)


def _named(case: Case, spans: Sequence[Span]) -> list[tuple[str, Span]]:
    stages: dict[tuple[float, float], Stretch] = {
        (one.settled.start_ms, one.settled.end_ms): one for one in stages_of(case)
    }
    named = []
    for span in spans:
        stage = stages.get((span.start_ms, span.end_ms))
        rate = quantity(stage.asked_per_s, "/s") if stage else ""
        named.append((f"{span.name} of {rate}" if stage else span.name, span))
    return named


def _in(tick: Tick, span: Span) -> bool:
    return span.start_ms <= tick.at_ms < span.end_ms


def ticks_of(case: Case, metric: str) -> list[Tick]:
    """Sums over the instances that were ever read; a moment at which one of them gave no answer is left out."""
    readings = sorted(
        ((r, e) for r, e in all_of(case.events, Reading) if e.metric == metric),
        key=lambda item: (item[0].mono_ms, item[0].seq),
    )
    series = {(event.instance, tuple(sorted(event.labels.items()))) for _, event in readings if _known(event)}
    ticks, told_now, times = [], dict[object, float](), list[float]()
    for recorded, event in readings:
        key = (event.instance, tuple(sorted(event.labels.items())))
        if key in told_now:  # a new round has begun, and the last one was not complete
            told_now, times = {}, []
        if event.value is None or not _known(event):
            continue
        told_now[key] = event.value
        times.append(recorded.mono_ms)
        if len(told_now) == len(series):
            ticks.append(Tick(sum(times) / len(times), sum(told_now.values())))
            told_now, times = {}, []
    return ticks


def _known(event: Reading) -> bool:
    return event.value is not None and math.isfinite(event.value)


def _compare(case: Case, name: str, span: Span, ticks: Sequence[Tick]) -> Compared | None:
    inside = [tick for tick in ticks if _in(tick, span)]
    if len(inside) < FEWEST or _longest_gap_ms(inside, span) > STALE_INTERVALS * _pace_ms(ticks):
        return None
    moments = np.array([tick.at_ms for tick in inside])
    system = np.array([tick.inside for tick in inside])
    clients = seen_inside(case, moments)
    return Compared(
        name,
        span,
        float(clients.mean()),
        float(system.mean()),
        _little(case, span),
        mean_interval(clients - system),
    )


def seen_inside(case: Case, moments_ms: Floats) -> Floats:
    """How many attempts clients had sent and not got back at each moment, in order; without what was turned away."""
    if not len(moments_ms):
        return moments_ms
    sent_ms, done_ms, kept = _stays(case, float(moments_ms[0]), float(moments_ms[-1]))
    edges = np.arange(len(moments_ms) + 1)

    def by_then(times_ms: Floats) -> Floats:
        first = np.searchsorted(moments_ms, times_ms[kept], side="left")
        found: Floats = np.cumsum(np.bincount(first, minlength=len(edges)))[: len(moments_ms)].astype(np.float64)
        return found

    return by_then(sent_ms) - by_then(done_ms)


def _stays(case: Case, start_ms: float, end_ms: float) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """When each attempt was sent and answered, and whether it was inside: of all that may have been then."""
    longest_us = int(case.attempts.latency_us.max()) if len(case.attempts) else 0
    patience_us = max((kind.deadline_ms * 1000 for kind in case.attempts.kinds), default=0.0)
    attempts = case.attempts.between(start_ms - max(longest_us, patience_us) / 1000 - 1, end_ms + 1)
    at_ms = attempts.at_ms
    kept = ~attempts.rejected & (attempts.outcome != REFUSED) & (attempts.outcome != DROPPED)
    return at_ms + attempts.sent_us / 1000.0, at_ms + attempts.judged_latency_us / 1000, kept


def _little(case: Case, span: Span) -> float:
    """λW of what was sent in the window."""
    sent_ms, done_ms, kept = _stays(case, span.start_ms, span.end_ms)
    mask = kept & (sent_ms >= span.start_ms) & (sent_ms < span.end_ms)
    stayed_ms = float((done_ms[mask] - sent_ms[mask]).sum())
    return stayed_ms / max(span.length_s * 1000, 1e-9)


def mean_interval(values: Floats) -> Interval:
    """Of readings that remember one another: as many are counted as are worth independent ones (from the correlation
    of neighbours), and Student's t does the rest."""
    n, mean = len(values), float(values.mean())
    apart = values - mean
    power = float((apart**2).sum())
    if power == 0:
        return Interval(mean, mean, mean, n)
    memory = min(0.9, max(0.0, float((apart[1:] * apart[:-1]).sum()) / power))
    worth = max(2.0, n * (1 - memory) / (1 + memory))
    half = student_t(max(1, math.floor(worth) - 1)) * math.sqrt(power / (n - 1) / worth)
    return Interval(mean, mean - half, mean + half, n)


def _parts(busy: Sequence[Compared], most: float, metric: str) -> list[Answer]:
    """A window in which they surely differ decides; else the windows together must surely agree."""
    hiding = [one for one in busy if percent(one.share).low > most]
    ahead = [one for one in busy if percent(one.share).high < -most]
    parts = []
    for one in sorted(hiding, key=lambda item: -item.share.low)[:1]:
        text = (
            f"a queue that the system doesn't see: in the {one.name} clients waited for {number(one.clients)} requests"
        )
        text += f" and {metric} was {number(one.system)}, {told(percent(one.share), '%')} less"
        text += (
            f"; {quantity(most, '%')} is the most. {number(one.hidden.value)} waited elsewhere: in an accept backlog"
        )
        parts.append(Answer("INVALID", f"{text}, or at a balancer"))
    for one in sorted(ahead, key=lambda item: item.share.high)[:1]:
        text = f"in the {one.name} {metric} was {number(one.system)} and clients waited for {number(one.clients)} only"
        text += f"; {quantity(most, '%')} is the most that they may differ: the system works for others than these"
        parts.append(Answer("INVALID", f"{text} clients, or for who has given up"))
    if parts:
        return parts
    share = percent(_all(busy))
    text = f"what clients waited for and {metric} differed by {told(share, '%')}"
    text += f" over {share.n:,} readings; {quantity(most, '%')} is the most"
    agreed = share.low >= -most and share.high <= most
    return [Answer(worst(["PASS" if agreed else "INCONCLUSIVE"]), text)]


def _all(busy: Sequence[Compared]) -> Interval:
    """Differences add up, and so do the squares of their half-intervals."""
    n = sum(one.hidden.n for one in busy)
    base = max(sum(one.clients for one in busy), 1e-9)
    middle = sum(one.hidden.value for one in busy)
    half = math.sqrt(sum((one.hidden.high - one.hidden.value) ** 2 for one in busy))
    return Interval(middle / base, (middle - half) / base, (middle + half) / base, n)


def _figures(one: Compared) -> tuple[Figure, ...]:
    return (
        plain(f"in flight by clients, {one.name}", one.clients, n=one.hidden.n),
        plain(f"in flight by the system, {one.name}", one.system, n=one.hidden.n),
        plain(f"arrivals x time inside, {one.name}", one.little),
        figure(f"unseen by the system, {one.name}", percent(one.share), "%"),
    )


CHECK = check(WORD, judge)
