"""When requests are meant to be sent, and which: pure, seeded, endless.

λ(t) = rate × factor(t). The factor is 1 before the profile's first piece; from a piece's moment on it is the piece's
and moves in a straight line to the next one's; two pieces at one moment make a step, and the last one stays. Arrivals
come from inverting the integral Λ: the k-th constant arrival is where Λ(t) = k + ½, so exactly round(Λ(T)) fall before
T; Poisson arrivals are where Λ(t) meets a unit-rate Poisson process. Only `random.Random.random()` is drawn from: the
standard library promises the same sequence for a seed in every version, and numpy doesn't promise that.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from stormdrill.model.profile import Profile

MAX_JOBS = 1 << 32
"""A record holds the number of a request in 32 bits."""

_STEP_S = 1e-6
"""Pieces closer than this make a step: a line between them would be too steep to compute with."""


class Arrival(NamedTuple):
    """One intended request."""

    job: int
    """Its number, from 0, unique in the run."""
    at_s: float
    """Since the load's epoch."""
    stream: int
    """Index into the profile's streams."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """A stretch in which the rate is a straight line."""

    start_s: float
    length_s: float
    """Infinite for the last one, which is level."""
    rate: float
    """Arrivals a second at its start."""
    slope: float
    before: float
    """Λ at its start."""

    def count(self, into_s: float) -> float:
        return self.rate * into_s + 0.5 * self.slope * into_s * into_s

    @property
    def after(self) -> float:
        if math.isinf(self.length_s):
            return math.inf if self.rate > 0 else self.before
        return self.before + self.count(self.length_s)

    def when(self, target: float) -> float:
        """The moment at which Λ reaches `target`, which lies in this segment."""
        wanted = target - self.before
        if wanted <= 0:
            return self.start_s
        root = math.sqrt(max(self.rate * self.rate + 2.0 * self.slope * wanted, 0.0))
        return self.start_s + min(2.0 * wanted / (self.rate + root), self.length_s)


class Demand:
    """λ(t) of a profile at a rate, with its integral both ways. Raises ValueError for what can't be a demand."""

    def __init__(self, profile: Profile, rate_per_s: float) -> None:
        if not (rate_per_s > 0 and math.isfinite(rate_per_s)):
            raise ValueError(f"a rate of {rate_per_s:g}/s is no demand; write more than 0/s")
        self._segments = tuple(_segments(profile, rate_per_s))

    def expected(self, until_s: float) -> float:
        """Λ: how many arrivals are expected before `until_s`."""
        segment = self._segment_at(until_s)
        return segment.before + segment.count(until_s - segment.start_s)

    def peak_rate(self) -> float:
        """The largest λ that is ever reached."""
        return max(
            max(item.rate, item.rate + item.slope * item.length_s) if item.slope else item.rate
            for item in self._segments
        )

    def times(self, targets: Iterator[float]) -> Iterator[float]:
        """Where Λ meets each of the rising `targets`; ends when the demand ends."""
        remaining = iter(self._segments)
        segment = next(remaining)
        for target in targets:
            while target >= segment.after:
                following = next(remaining, None)
                if following is None:
                    return
                segment = following
            at_s = segment.when(target)
            if math.isinf(at_s):
                return
            yield at_s

    def _segment_at(self, at_s: float) -> _Segment:
        index = bisect_right(self._segments, max(at_s, 0.0), key=lambda item: item.start_s)
        return self._segments[max(index - 1, 0)]


def _segments(profile: Profile, rate_per_s: float) -> Iterator[_Segment]:
    knots = list(profile.shape)
    if any(later.at_s < earlier.at_s for earlier, later in pairwise(knots)):
        raise ValueError(f"profile {profile.name}: the pieces of its shape must be in the order of their times")
    if any(not (piece.factor >= 0 and math.isfinite(piece.factor) and piece.at_s >= 0) for piece in knots):
        raise ValueError(f"profile {profile.name}: times and factors of its shape must be 0 or more")
    expected = 0.0
    if not knots or knots[0].at_s > 0:
        first = _Segment(0.0, knots[0].at_s if knots else math.inf, rate_per_s, 0.0, expected)
        yield first
        expected = first.after
    for piece, following in pairwise(knots):
        length_s = following.at_s - piece.at_s
        if length_s > _STEP_S:
            slope = (following.factor - piece.factor) * rate_per_s / length_s
            segment = _Segment(piece.at_s, length_s, piece.factor * rate_per_s, slope, expected)
            yield segment
            expected = segment.after
    if knots:
        yield _Segment(knots[-1].at_s, math.inf, knots[-1].factor * rate_per_s, 0.0, expected)


def arrivals(profile: Profile, rate_per_s: float, seed: int) -> Iterator[Arrival]:
    """All arrivals of a load in the order of their times, without end as long as there is demand.

    The same profile, rate and seed give the same arrivals, and a change of the streams doesn't move their times.
    """
    demand = Demand(profile, rate_per_s)
    clock = random.Random(f"stormdrill/{seed}/times")  # noqa: S311  (a schedule, not a secret)
    dice = random.Random(f"stormdrill/{seed}/streams")  # noqa: S311
    targets = _poisson(clock) if profile.arrivals == "poisson" else (k + 0.5 for k in range(MAX_JOBS))
    edges = list(accumulate(stream.share for stream in profile.streams))
    if not edges or edges[-1] <= 0:
        raise ValueError(f"profile {profile.name}: it has no stream with a share above 0")
    last = len(edges) - 1
    for job, at_s in enumerate(demand.times(targets)):
        yield Arrival(job, at_s, min(bisect_right(edges, dice.random() * edges[-1]), last))


def _poisson(clock: random.Random) -> Iterator[float]:
    reached = 0.0
    for _ in range(MAX_JOBS):
        reached -= math.log(1.0 - clock.random())
        yield reached
