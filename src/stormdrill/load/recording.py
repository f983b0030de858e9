"""A recorded trace as the generator replays it: its counting function, inverted.

N(t) passes through i + ½ at the i-th recorded moment and is a straight line between two: at scale 1 the constant
arrivals, which come where N = k + ½, are exactly the recorded moments, and at other scales bursts keep their shape.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from stormdrill.core.demand import checked, factor_at, trace_scale
from stormdrill.model.profile import Piece, Profile, Trace


def recorded(trace: Trace, folder: Path) -> array[float]:
    """The recorded moments, in seconds since the first one, from the copy in `folder`, which is the run directory.

    Raises ValueError, with what is wrong, where the file isn't there or isn't what was planned.
    """
    place = folder / trace.file
    try:
        data = place.read_bytes()
    except OSError as error:
        raise ValueError(f"{place}: the recording can't be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != trace.sha256:
        raise ValueError(f"{place}: this is not the recording that was planned; plan the run again")
    return array("d", map(float, data.split()))


class Recording:
    """The demand of one part that replays a trace."""

    def __init__(self, part: Profile, trace: Trace, moments: Sequence[float], rate_per_s: float) -> None:
        pieces = checked(part)
        self._scale = trace_scale(part, trace, rate_per_s)
        self._trace = trace
        self._moments = moments
        self._reached = self._weighed(pieces) if pieces else None
        """Where N is at each recorded moment, where a shape multiplies it; without one that is i + ½."""

    def times(self, targets: Iterable[float]) -> Iterator[float]:
        """Where N meets each of the rising `targets`; ends with the recording."""
        knots = self._knots()
        at_s, reached = next(knots)
        before_s, before = at_s, 0.0
        for target in targets:
            while target > reached:
                before_s, before = at_s, reached
                following = next(knots, None)
                if following is None:
                    return
                at_s, reached = following
            yield at_s if target == reached else before_s + (at_s - before_s) * (target - before) / (reached - before)

    def _knots(self) -> Iterator[tuple[float, float]]:
        """Times since the load's epoch, and N there; the last one is where N ends."""
        start_s, stretch, scale = self._trace.start_s, self._trace.time_scale, self._scale
        if self._reached is not None:
            for moment, reached in zip(self._moments, self._reached, strict=False):
                yield start_s + moment * stretch, reached
            yield start_s + self._moments[-1] * stretch, self._reached[-1]
            return
        for index, moment in enumerate(self._moments):
            yield start_s + moment * stretch, (index + 0.5) * scale
        yield start_s + self._moments[-1] * stretch, len(self._moments) * scale

    def _weighed(self, pieces: tuple[Piece, ...]) -> array[float]:
        start_s, stretch, scale = self._trace.start_s, self._trace.time_scale, self._scale
        factors = array("d", (factor_at(pieces, start_s + moment * stretch) for moment in self._moments))
        found = array("d")
        reached = factors[0] / 2
        found.append(reached * scale)
        for one, two in zip(factors, islice(factors, 1, None), strict=False):
            reached += (one + two) / 2
            found.append(reached * scale)
        found.append((reached + factors[-1] / 2) * scale)
        return found
