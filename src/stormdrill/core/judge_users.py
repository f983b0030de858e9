"""When users felt a fault: apart from when a witness saw it bite, and never part of the verdict.

The run from when a fault is in force to its last verified revert is cut into seconds (longer ones, where it takes
longer to see 20 requests). The first of them is looked for that was surely worse than the baseline: its success, of all
requests by their intended start, lies below the baseline's whole interval with its own whole interval, and below the
baseline's worst second; or its p95 is beyond twice the baseline's and beyond that of any second there. The moment is
the intended start of the first request of that second that failed, or was that slow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stormdrill.core.case import Case
from stormdrill.core.evidence import Requests
from stormdrill.core.intervals import Interval, block_count, block_of, share_interval
from stormdrill.core.sentences import interval_text, quantity
from stormdrill.core.statistics import clopper_pearson
from stormdrill.core.windows import Span
from stormdrill.model import event as ev
from stormdrill.model.plan import Injection
from stormdrill.model.units import show_duration

WINDOW_S = 1.0
FEWEST = 20
"""Requests that a window needs: of fewer a p95 is nothing but the slowest."""
SLOWER = 2.0


class Felt(Struct, frozen=True):
    at_ms: float | None
    """From when the fault is in force; None: not felt, or not known."""
    sentence: str


class Stretch(Struct, frozen=True):
    """Requests in the order of their intended start, a column each."""

    at_ms: NDArray[np.float64]
    good: NDArray[np.bool_]
    admitted: NDArray[np.bool_]
    latency_us: NDArray[np.uint32]

    def windows(self, start_ms: float, end_ms: float, width_ms: float) -> Iterator[Stretch]:
        """Each window's, in order, those without a request left out. The last one takes what is left."""
        count = max(1, math.floor((end_ms - start_ms) / width_ms))
        edges = np.append(start_ms + width_ms * np.arange(count), end_ms)
        for first, last in pairwise(np.searchsorted(self.at_ms, edges).tolist()):
            if last > first:
                part = slice(first, last)
                yield Stretch(self.at_ms[part], self.good[part], self.admitted[part], self.latency_us[part])

    @property
    def success(self) -> float:
        return float(np.count_nonzero(self.good)) / len(self.good)

    @property
    def p95_us(self) -> float | None:
        """Of the admitted ones; None of too few."""
        slow = self.latency_us[self.admitted]
        if len(slow) < FEWEST:
            return None
        rank = math.ceil(0.95 * len(slow)) - 1
        return float(np.partition(slow, rank)[rank])


class Usual(Struct, frozen=True):
    """What the baseline was like."""

    success: Interval
    worst_success: float
    p95_us: float
    worst_p95_us: float
    width_ms: float


def felt(case: Case, group: Sequence[Injection]) -> Felt:
    """By the users of one fault's run. Pure; a point in time to learn from, not an estimate with an interval."""
    spans = case.in_force(group)
    baseline = case.spans.get("baseline")
    if not spans:
        return Felt(None, "")
    if case.plan.experiment.load is None:
        return Felt(None, "not known: no load was driven, so nobody counted requests")
    usual = _usual(case, baseline) if baseline is not None else None
    if usual is None:
        return Felt(None, "not known: too few requests in the baseline to tell what is usual")
    last_ms = max(recorded.mono_ms for recorded in case.events)
    first = min((since for one in group if (since := case.since(one))), key=lambda recorded: recorded.mono_ms)
    start_ms, end_ms = first.mono_ms, min(last_ms, max(end for _, end in spans))
    requests = case.requests.between(start_ms, end_ms)
    if not len(requests):
        return Felt(None, "not known: no request was intended while it lasted")
    found = _first_worse(_stretch(requests), usual, start_ms, end_ms, _after(first))
    taints = case.validity.of(Span("fault", start_ms, end_ms, True, ()), from_records=True)
    doubt = f" (on evidence that can't be believed: {taints[0].reason})" if taints else ""
    return Felt(found.at_ms, found.sentence + doubt)


def _stretch(requests: Requests) -> Stretch:
    ordered = requests.ordered
    return Stretch(ordered.at_ms, ordered.good, ordered.admitted, ordered.judged_us)


def _usual(case: Case, baseline: Span) -> Usual | None:
    requests = case.requests.between(baseline.start_ms, baseline.end_ms)
    if case.called is not None:  # what was in flight when the fault came says nothing of the time before
        requests = requests.decided_by(case.called.mono_ms, requests.deadline_us)
    if len(requests) < FEWEST or baseline.length_s <= 0:
        return None
    width_ms = 1000 * max(WINDOW_S, math.ceil(FEWEST * baseline.length_s / len(requests)))
    blocks = block_count(baseline.length_s)
    block = block_of(requests.at_ms, baseline.start_ms, baseline.end_ms, blocks)
    good, total = np.bincount(block[requests.good], minlength=blocks), np.bincount(block, minlength=blocks)
    whole = _stretch(requests)
    pieces = list(whole.windows(baseline.start_ms, baseline.end_ms, width_ms))
    slowest = [piece.p95_us for piece in pieces]
    return Usual(
        success=share_interval(good, total, case.seed),
        worst_success=min(piece.success for piece in pieces),
        p95_us=whole.p95_us or math.inf,
        worst_p95_us=max((item for item in slowest if item is not None), default=math.inf),
        width_ms=width_ms,
    )


def _after(since: ev.Recorded) -> str:
    return "it was in force" if isinstance(since.event, ev.Injected) else "the first inject"


def _first_worse(requests: Stretch, usual: Usual, start_ms: float, end_ms: float, after: str) -> Felt:
    success = quantity(usual.success.value * 100, "%") + interval_text(
        usual.success.low * 100, usual.success.high * 100
    )
    p95 = quantity(usual.p95_us / 1000, "ms") if math.isfinite(usual.p95_us) else "not known"
    limit_us = max(SLOWER * usual.p95_us, usual.worst_p95_us)
    span = "second" if usual.width_ms == 1000 else f"{usual.width_ms / 1000:g} s"
    for piece in requests.windows(start_ms, end_ms, usual.width_ms):
        n, good, slow_us = len(piece.good), int(np.count_nonzero(piece.good)), piece.p95_us
        if clopper_pearson(good, n)[1] < usual.success.low and piece.success < usual.worst_success:
            bad = ~piece.good
            why = (
                f"{quantity(piece.success * 100, '%')} of the {n:,} requests of that {span} succeeded, {success} before"
            )
        elif slow_us is not None and slow_us > limit_us:
            bad = piece.admitted & (piece.latency_us > SLOWER * usual.p95_us)
            why = f"p95 was {quantity(slow_us / 1000, 'ms')} in that {span}, {p95} before"
        else:
            continue
        after_ms = round(float(piece.at_ms[bad][0]) - start_ms, 3)
        return Felt(after_ms, f"users felt it {show_duration(after_ms / 1000)} after {after}: {why}")
    return Felt(None, f"users felt nothing: no {span} was worse than before ({success} succeeded, p95 {p95})")
