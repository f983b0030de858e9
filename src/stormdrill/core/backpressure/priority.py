"""priority: when not everything can be let in, what matters less is turned away first.

Admitted is what was sent and not answered with 429 or 503, by the last attempt. Over the stretches in which more was
asked than the system carries: no tier is surely admitted less than one that matters less, the first tier surely more
than the last, and the first tier (nearly) always, while what it asks for itself could be carried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from msgspec import Struct

from stormdrill.core.backpressure.asked import Priority
from stormdrill.core.backpressure.capacity import climbed
from stormdrill.core.backpressure.carried import Carried, carried, overloaded
from stormdrill.core.backpressure.checking import check
from stormdrill.core.backpressure.figures import at_least, figure, percent, share_of, told
from stormdrill.core.backpressure.finding import Answer, conclude, unknown
from stormdrill.core.backpressure.pools import pooled, together
from stormdrill.core.case import Case
from stormdrill.core.evidence import DROPPED
from stormdrill.core.intervals import DRAWS, FEWEST_WIDE, WIDTHS, Floats, Interval, Ints, draws, share_interval
from stormdrill.core.sentences import number, quantity
from stormdrill.core.statistics import TAIL, clopper_pearson, minimum_samples
from stormdrill.core.windows import Span
from stormdrill.model.verdict import CheckVerdict, Figure, Word

WORD = "priority"
TIER = "tier"
FEWEST = 20
"""Requests of a tier: with fewer nothing is said of it."""


class Admission(Struct, frozen=True):
    tier: str
    offered_per_s: float
    admitted: Interval
    """As a share of 1."""
    good: Ints
    total: Ints
    """Of each block of time; the same blocks for every tier."""

    @property
    def text(self) -> str:
        return f"{told(percent(self.admitted), '%')} of tier {self.tier}"


def tiers_of(case: Case) -> list[str]:
    """The one that matters most first: by number where they are numbers."""
    tiers = {kind.labels[TIER] for kind in case.requests.kinds if TIER in kind.labels}
    return sorted(tiers, key=lambda tier: (0, float(tier), tier) if tier.isdecimal() else (1, 0.0, tier))


def admission(case: Case, tier: str, spans: Sequence[Span]) -> Admission:
    """All stretches together, each cut into its own blocks."""
    length_s = sum(span.length_s for span in spans)
    pools = pooled(case.requests.labelled({TIER: tier}), spans)
    sent = [pool.requests.outcome != DROPPED for pool in pools]
    admitted = [mask & ~pool.requests.rejected for mask, pool in zip(sent, pools, strict=True)]
    total, good = together(pools, sent), together(pools, admitted)
    offered = float(total.sum()) / length_s if length_s > 0 else 0.0
    return Admission(tier, offered, share_interval(good, total, case.seed), good, total)


def judge(case: Case, asked: Priority) -> CheckVerdict:
    capacity = carried(case, asked.capacity)
    spans = overloaded(case, capacity)
    if not spans:
        more = f" than {capacity.text}" if capacity is not None else ""
        return conclude(case, WORD, [unknown(f"nothing in the run asked for more{more}")], spans)
    tiers = [admission(case, tier, spans) for tier in tiers_of(case)]
    if len(tiers) < 2:
        why = "the requests have fewer than two tiers: give the profile's streams tier: 1, tier: 2"
        return conclude(case, WORD, [unknown(why)], spans)
    answers = [_ordered(tiers, share_of(asked.margin), case.seed), _first(case, tiers[0].tier, capacity, spans, asked)]
    return conclude(case, WORD, answers, [*climbed(case), *spans])


def _ordered(tiers: Sequence[Admission], margin: float, seed: int) -> Answer:
    figures = tuple(figure(f"tier {one.tier} admitted", percent(one.admitted), "%") for one in tiers)
    word, text = _order(tiers, margin, seed)
    return Answer(word, text, figures)


def difference(above: Admission, below: Admission, seed: int) -> tuple[float, float]:
    """By how much more of the one tier is admitted than of the other: both ends of a 95% interval.

    What keeps both out at times (more load, a slower second) is common to them: blocks of time are drawn for both
    together. As in `intervals`, one more block could have been, as bad as the worst or as good as the best that was
    seen. Never narrower than the counts alone allow (their Clopper-Pearson intervals, put together by squares).
    """
    apart = above.admitted.value - below.admitted.value
    (low_a, high_a), (low_b, high_b) = (
        clopper_pearson(float(one.good.sum()), float(one.total.sum())) for one in (above, below)
    )
    down = math.hypot(above.admitted.value - low_a, high_b - below.admitted.value)
    up = math.hypot(high_a - above.admitted.value, below.admitted.value - low_b)
    lows, highs = [apart - down], [apart + up]
    for width in WIDTHS:
        starts = np.arange(0, len(above.total), width)
        if len(starts) < (2 if width == 1 else FEWEST_WIDE):
            break
        cut, (worst, best) = math.floor(TAIL * DRAWS), _apart(above, below, starts, draws(len(starts), seed))
        lows.append(float(np.partition(worst, cut)[cut]))
        highs.append(float(np.partition(best, DRAWS - 1 - cut)[DRAWS - 1 - cut]))
    return max(-1.0, min(lows)), min(1.0, max(highs))


def _apart(above: Admission, below: Admission, starts: Ints, drawn: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """The difference of every draw, with one more block that makes it least, and with one that makes it most."""
    times, again = drawn
    blocks = [_blocks(one, starts, times, again) for one in (above, below)]
    both = (blocks[0].total > 0) & (blocks[1].total > 0)
    if not both.any():
        return np.full(len(again), -1.0), np.full(len(again), 1.0)
    first, second = blocks
    base = first.share - second.share
    more = np.multiply.outer(first.weight, first.shares[both]) - np.multiply.outer(second.weight, second.shares[both])
    return base + more.min(axis=1), base + more.max(axis=1)


class _Drawn(Struct, frozen=True):
    """One tier in every draw: what it has without the block more, and how much that one weighs."""

    total: Floats
    shares: Floats
    """Of each block that was seen."""
    share: Floats
    weight: Floats


def _blocks(one: Admission, starts: Ints, times: Floats, again: Floats) -> _Drawn:
    good = np.add.reduceat(one.good, starts).astype(np.float64)
    total = np.add.reduceat(one.total, starts).astype(np.float64)
    more = again * float(total.sum()) / len(starts)
    of_good, of_all = np.einsum("ij,j->i", times, good), np.einsum("ij,j->i", times, total) + more
    sure = np.where(of_all > 0, of_all, 1.0)
    return _Drawn(total, good / np.where(total > 0, total, 1.0), of_good / sure, more / sure)


def _order(tiers: Sequence[Admission], margin: float, seed: int) -> tuple[Word, str]:
    few = [one for one in tiers if one.admitted.n < FEWEST]
    if few:
        why = f"only {few[0].admitted.n} requests of tier {few[0].tier} in the overload: {FEWEST} are the fewest"
        return "INCONCLUSIVE", why
    for above, below in combinations(tiers, 2):
        if difference(above, below, seed)[1] < 0:
            return "FAIL", f"priorities are upside down: {above.text} were let in, and {below.text}"
    said = ", ".join(one.text for one in tiers)
    if all(one.admitted.value == 1 for one in tiers):
        return "INCONCLUSIVE", "nothing was turned away: the load never made the system choose"
    low, high = difference(tiers[0], tiers[-1], seed)
    if low > 0:
        return "PASS", f"of what was asked in the overload were let in: {said}"
    if high < margin:
        text = f"tiers are treated alike: {said} were let in; a difference of {number(margin * 100)} points was asked"
        return "FAIL", text
    return "INCONCLUSIVE", f"whether tiers are told apart isn't certain: {said} were let in"


def _first(case: Case, tier: str, capacity: Carried | None, spans: Sequence[Span], asked: Priority) -> Answer:
    """The tier that matters most, in the stretches in which it could be carried if nobody else asked."""
    if capacity is None:
        return unknown("nothing was served: how much the system carries isn't known")
    alone = [span for span in spans if admission(case, tier, (span,)).offered_per_s <= capacity.per_s]
    if not alone:
        return unknown(f"tier {tier} alone asked for more than {capacity.text}: give it a smaller share of the load")
    found, least = admission(case, tier, alone), share_of(asked.first)
    own = found.admitted
    name = f"tier {tier} admitted, of {quantity(found.offered_per_s, '/s')}"
    shown: tuple[Figure, ...] = (figure(name, percent(own), "%", least * 100),)
    word = at_least(own, least)
    text = f"of the {quantity(found.offered_per_s, '/s')} of tier {tier} alone, of {capacity.text}, were let in"
    text += f" {told(percent(own), '%')}; {quantity(least * 100, '%')} was asked"
    needed = minimum_samples(least) if least < 1 else 0
    if word == "INCONCLUSIVE" and own.n < needed:
        text += f"; {needed} requests are the fewest that can show it, and there were {own.n}"
    return Answer(word, text, shown)


CHECK = check(WORD, judge)
