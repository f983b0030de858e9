"""λ(t) of a profile at a rate, and its integral both ways: what is asked of a system, known before the run. Pure.

λ(t) = rate × weight × factor(t), summed over the profile's parts. The factor is 1 before a part's first piece; from a
piece's moment on it is the piece's and moves in a straight line to the next one's; two pieces at one moment make a
step, and the last one stays. Of a trace the recording's course is taken, in the steps that the plan holds.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from stormdrill.model.profile import Piece, Profile, Trace

_STEP_S = 1e-6
"""Pieces closer than this make a step: a line between them would be too steep to compute with."""
_BEFORE_S = 1e-9
_LEAST = 1e-9
"""A smaller factor is none: floating point can't divide by it."""


@dataclass(frozen=True, slots=True)
class Segment:
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
        """How many are expected in its first `into_s`."""
        if not self.rate and not self.slope:
            return 0.0
        return self.rate * into_s + 0.5 * self.slope * into_s * into_s

    @property
    def after(self) -> float:
        """Λ at its end."""
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


class Course:
    """λ(t) of one part. Raises ValueError for what can't be a demand."""

    def __init__(self, part: Profile, rate_per_s: float) -> None:
        if not (rate_per_s > 0 and math.isfinite(rate_per_s)):
            raise ValueError(f"a rate of {rate_per_s:g}/s is no demand; write more than 0/s")
        if not (part.weight > 0 and math.isfinite(part.weight)):
            raise ValueError(f"profile {part.name}: a weight of {part.weight:g} is no part of a demand; write 0.5 or 2")
        self.part = part
        self.scale = rate_per_s * part.weight
        pieces = checked(part)
        found = (
            _of_pieces(pieces, self.scale) if part.trace is None else _of_trace(part, part.trace, pieces, rate_per_s)
        )
        self.segments = tuple(found)

    def expected(self, until_s: float) -> float:
        """Λ: how many arrivals are expected before `until_s`."""
        segment = self.segment_at(until_s)
        return segment.before + segment.count(max(until_s, 0.0) - segment.start_s)

    def between(self, from_s: float, until_s: float) -> float:
        """How many arrivals are expected from one moment to a later one."""
        return max(0.0, self.expected(until_s) - self.expected(from_s))

    def rate_at(self, at_s: float) -> float:
        segment = self.segment_at(at_s)
        return max(0.0, segment.rate + (segment.slope * (at_s - segment.start_s) if segment.slope else 0.0))

    def peak_between(self, from_s: float, until_s: float) -> float:
        """The highest λ from one moment to a later one."""
        found = 0.0
        at_s = from_s
        while True:
            segment = self.segment_at(at_s)
            ends_s = min(segment.start_s + segment.length_s, until_s)
            last = segment.rate + segment.slope * (ends_s - segment.start_s) if segment.slope else segment.rate
            found = max(found, self.rate_at(at_s), last)
            if ends_s >= until_s or ends_s <= at_s:
                return found
            at_s = ends_s

    def times(self, targets: Iterable[float]) -> Iterator[float]:
        """Where Λ meets each of the rising `targets`; ends when the demand ends."""
        remaining = iter(self.segments)
        segment = next(remaining)
        after, level = segment.after, not segment.slope
        for target in targets:
            while target >= after:
                following = next(remaining, None)
                if following is None:
                    return
                segment = following
                after, level = segment.after, not segment.slope
            if level and target > segment.before:  # as nearly all are: one division
                into_s = (target - segment.before) / segment.rate
                yield segment.start_s + (into_s if into_s < segment.length_s else segment.length_s)
            else:
                yield segment.when(target)

    def segment_at(self, at_s: float) -> Segment:
        index = bisect_right(self.segments, max(at_s, 0.0), key=lambda item: item.start_s)
        return self.segments[max(index - 1, 0)]


class Demand:
    """λ(t) of a whole profile, all its parts, at a rate. Raises ValueError for what can't be a demand."""

    def __init__(self, profile: Profile, rate_per_s: float) -> None:
        self.courses = tuple(Course(part, rate_per_s) for part in profile.parts)

    def expected(self, until_s: float) -> float:
        """Λ: how many arrivals are expected before `until_s`."""
        return sum(course.expected(until_s) for course in self.courses)

    def between(self, from_s: float, until_s: float) -> float:
        """How many arrivals are expected from one moment to a later one."""
        return sum(course.between(from_s, until_s) for course in self.courses)

    def rate_at(self, at_s: float) -> float:
        """λ: arrivals a second at this moment; at a step what comes after it."""
        return sum(course.rate_at(at_s) for course in self.courses)

    def edges(self) -> tuple[float, ...]:
        """Every moment at which λ changes its course."""
        return tuple(sorted({segment.start_s for course in self.courses for segment in course.segments}))

    def peak_rate(self, until_s: float = math.inf) -> float:
        """The largest λ that is ever reached, or reached before `until_s`."""
        edges = [at_s for at_s in self.edges() if at_s < until_s] or [0.0]
        ends = [*edges[1:], *([until_s] if math.isfinite(until_s) else [])]
        after = (self.rate_at(at_s) for at_s in edges)
        return max(*after, *(self._just_before(at_s) for at_s in ends), 0.0)

    def _just_before(self, at_s: float) -> float:
        """The limit of λ from below, where a line that rises to a step has its highest point."""
        found = 0.0
        for course in self.courses:
            segment = course.segment_at(at_s - _BEFORE_S * max(1.0, at_s))
            found += max(0.0, segment.rate + (segment.slope * (at_s - segment.start_s) if segment.slope else 0.0))
        return found


def checked(part: Profile) -> tuple[Piece, ...]:
    """Its pieces. Raises ValueError for such as can't be a shape."""
    if any(later.at_s < earlier.at_s for earlier, later in pairwise(part.shape)):
        raise ValueError(f"profile {part.name}: the pieces of its shape must be in the order of their times")
    if any(not (piece.factor >= 0 and math.isfinite(piece.factor) and piece.at_s >= 0) for piece in part.shape):
        raise ValueError(f"profile {part.name}: times and factors of its shape must be 0 or more")
    return tuple(piece if piece.factor >= _LEAST else Piece(piece.at_s, 0.0) for piece in part.shape)


def trace_scale(part: Profile, trace: Trace, rate_per_s: float) -> float:
    """How many arrivals come for each recorded one, where the shape's factor is 1.

    The asked rate is the replay's mean; at the recording's own mean, times its rate scale, this is the rate scale.
    """
    if not (trace.count > 0 and trace.length_s > 0 and trace.time_scale > 0 and trace.rate_scale > 0):
        raise ValueError(f"profile {part.name}: its recording holds no demand")
    return trace.rate_scale * (rate_per_s * part.weight / trace.mean_per_s)


def factor_at(pieces: tuple[Piece, ...], at_s: float) -> float:
    """The shape's factor at a moment; at a step what comes after it."""
    index = bisect_right(pieces, at_s, key=lambda piece: piece.at_s)
    if index == 0:
        return 1.0
    start = pieces[index - 1]
    if index == len(pieces):
        return start.factor
    end = pieces[index]
    return start.factor + (end.factor - start.factor) * (at_s - start.at_s) / (end.at_s - start.at_s)


def _of_pieces(pieces: tuple[Piece, ...], scale: float) -> Iterator[Segment]:
    expected = 0.0
    if not pieces or pieces[0].at_s > 0:
        first = Segment(0.0, pieces[0].at_s if pieces else math.inf, scale, 0.0, expected)
        yield first
        expected = first.after
    for piece, following in pairwise(pieces):
        length_s = following.at_s - piece.at_s
        if length_s > _STEP_S:
            slope = (following.factor - piece.factor) * scale / length_s
            segment = Segment(piece.at_s, length_s, piece.factor * scale, slope, expected)
            yield segment
            expected = segment.after
    if pieces:
        yield Segment(pieces[-1].at_s, math.inf, pieces[-1].factor * scale, 0.0, expected)


def _of_trace(part: Profile, trace: Trace, pieces: tuple[Piece, ...], rate_per_s: float) -> Iterator[Segment]:
    """A level step for each part of the recording's course; nothing before and after it."""
    one = trace_scale(part, trace, rate_per_s)
    course = trace.course or (trace.count,)
    step_s = trace.length_s * trace.time_scale / len(course)
    expected = 0.0
    if trace.start_s > 0:
        yield Segment(0.0, trace.start_s, 0.0, 0.0, 0.0)
    for index, count in enumerate(course):
        start_s = trace.start_s + index * step_s
        rate = count * one * factor_at(pieces, start_s + step_s / 2) / step_s
        segment = Segment(start_s, step_s, rate, 0.0, expected)
        yield segment
        expected = segment.after
    yield Segment(trace.start_s + len(course) * step_s, math.inf, 0.0, 0.0, expected)
