"""When requests are meant to be sent, and which: pure, seeded, endless.

λ(t) is the profile's (`core.demand`). Arrivals come from inverting its integral Λ: the k-th constant arrival is where
Λ(t) = k + ½, so exactly round(Λ(T)) fall before T; Poisson arrivals are where Λ(t) meets a unit-rate Poisson process.
Each part of a profile is a stranger to the others: it has an integral, a clock and dice of its own, and stays as it is
whatever is added to it. Only `random.Random.random()` is drawn from: the standard library promises the same sequence
for a seed in every version, and numpy doesn't promise that.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice, repeat
from pathlib import Path
from typing import NamedTuple

from stormdrill.core.demand import Course, Demand
from stormdrill.load.recording import Recording, recorded
from stormdrill.model.profile import Profile

__all__ = ["MAX_JOBS", "Arrival", "Demand", "arrivals"]

MAX_JOBS = 1 << 32
"""A record holds the number of a request in 32 bits."""


class Arrival(NamedTuple):
    """One intended request."""

    job: int
    """Its number, from 0, unique in the run."""
    at_s: float
    """Since the load's epoch."""
    stream: int
    """Index into the profile's `every_stream`."""


def arrivals(
    profile: Profile, rate_per_s: float, seed: int, *, folder: Path = Path(), worker: int = 0, workers: int = 1
) -> Iterator[Arrival]:
    """The arrivals of a load in the order of their times, without end as long as there is demand.

    The same profile, rate and seed give the same arrivals, and a change of the streams doesn't move their times.
    `folder` holds the recordings that are replayed: the run directory. Of several workers each takes the arrivals
    whose number is `worker` modulo `workers`; together they are the same load as one alone.
    Raises ValueError for what can't be a demand.
    """
    if not 0 <= worker < workers:
        raise ValueError(f"worker {worker} of {workers}: count them from 0")
    offset, same = 0, dict[str, int]()
    parts: list[Iterator[tuple[float, int]]] = []
    for index, part in enumerate(profile.parts):
        nth = same[part.name] = same.get(part.name, -1) + 1
        own = f"stormdrill/{seed}" if index == 0 else f"stormdrill/{seed}/{part.name}/{nth}"
        parts.append(_of_part(part, rate_per_s, own, offset, folder))
        offset += len(part.streams)
    planned = parts[0] if len(parts) == 1 else heapq.merge(*parts)
    mine = islice(planned, worker, MAX_JOBS, workers)
    return map(Arrival._make, _numbered(mine, worker, workers))


def _numbered(mine: Iterator[tuple[float, int]], worker: int, workers: int) -> Iterator[tuple[int, float, int]]:
    for job, (at_s, stream) in zip(range(worker, MAX_JOBS, workers), mine, strict=False):
        yield job, at_s, stream


def _of_part(part: Profile, rate_per_s: float, own: str, offset: int, folder: Path) -> Iterator[tuple[float, int]]:
    """Time and stream of each arrival of one part. Checked here, so that what is wrong is said before the first one."""
    course: Course | Recording = Course(part, rate_per_s)
    if part.trace is not None:
        course = Recording(part, part.trace, recorded(part.trace, folder), rate_per_s)
    clock = random.Random(f"{own}/times")  # noqa: S311  (a schedule, not a secret)
    targets: Iterable[float] = _poisson(clock) if part.arrivals == "poisson" else (k + 0.5 for k in range(MAX_JOBS))
    return zip(course.times(targets), _streams(part, own, offset), strict=False)


def _streams(part: Profile, own: str, offset: int) -> Iterator[int]:
    edges = list(accumulate(stream.share for stream in part.streams))
    if not edges or edges[-1] <= 0:
        raise ValueError(f"profile {part.name}: it has no stream with a share above 0")
    if len(edges) == 1:
        return repeat(offset)
    return _thrown(random.Random(f"{own}/streams"), edges, offset)  # noqa: S311


def _thrown(dice: random.Random, edges: list[float], offset: int) -> Iterator[int]:
    draw, whole, last = dice.random, edges[-1], len(edges) - 1
    while True:
        found = bisect_right(edges, draw() * whole)
        yield offset + (found if found < last else last)


def _poisson(clock: random.Random) -> Iterator[float]:
    draw, log, reached = clock.random, math.log, 0.0
    while True:
        reached -= log(1.0 - draw())
        yield reached
