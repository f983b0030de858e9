"""How much a system can carry, as far as a check has to know it: said, found by the staircase, or seen."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from stormdrill.core.backpressure.capacity import capacity_of
from stormdrill.core.backpressure.stages import Stretch, episodes_of, goodput, role_of, steps_of
from stormdrill.core.case import Case
from stormdrill.core.sentences import quantity
from stormdrill.core.windows import WHOLE, Span
from stormdrill.model.units import parse_rate

LOOK_S = 5.0
"""The stretch over which the highest served rate is looked for: shorter ones find luck."""


class Carried(Struct, frozen=True):
    per_s: float
    how: str
    """`as the experiment says`, `by the staircase`, …"""
    sure: bool
    """False: nothing has shown that it can't carry more."""

    @property
    def text(self) -> str:
        return f"{quantity(self.per_s, '/s')} {self.how}"


def carried(case: Case, asked: str = "0/s") -> Carried | None:
    """`asked` of the experiment counts most, then the staircase, then the highest rate that was served for a while.
    None where nothing was served."""
    said = parse_rate(asked)
    if said > 0:
        return Carried(said, "as the experiment says", sure=True)
    found = by_staircase(case)
    if found is not None:
        return Carried(found, "by the staircase", sure=True)
    seen = highest_served(case)
    return Carried(seen, f"the most that was served for {LOOK_S:g} s", sure=False) if seen > 0 else None


def by_staircase(case: Case) -> float | None:
    """What the highest carried step asked for, or more where more was done in time in another step: the staircase may
    be coarse. Never more than the step that was not carried. None where the check `capacity` doesn't know it either."""
    found = capacity_of(case)
    if found.held is None or found.broke is None:
        return None
    done = max(goodput(case, step.stretch.settled).value for step in found.steps)
    return max(found.held.stretch.asked_per_s, min(done, found.broke.stretch.asked_per_s))


def highest_served(case: Case) -> float:
    """By when work was done: jobs where the system tells of them, else answers with 2xx."""
    jobs, whole = case.jobs, case.spans.get(WHOLE)
    if whole is None:
        return 0.0
    if jobs is not None and np.isfinite(jobs.took_ms).any():
        done_ms = jobs.accepted_ms + jobs.took_ms
        done_ms = done_ms[np.isfinite(done_ms)]
    else:
        served = case.requests.where(case.requests.acknowledged)
        done_ms = served.at_ms + served.latency_us / 1000
    looks = int(whole.length_s // LOOK_S)
    if not looks:
        return 0.0
    place = np.floor((done_ms - whole.start_ms) / 1000 / LOOK_S).astype(np.int64)
    inside = place[(place >= 0) & (place < looks)]
    return float(np.bincount(inside, minlength=looks).max()) / LOOK_S


def overloaded(case: Case, capacity: Carried | None) -> tuple[Span, ...]:
    """Where more was asked than can be carried, as it was planned: steps and triggers beyond the capacity. Where it
    isn't surely known, the highest step and every trigger; without stages the fault phase."""
    found: list[Stretch] = list(steps_of(case))
    triggers = [one for episode in episodes_of(case).values() for one in role_of(episode, "trigger")]
    if capacity is not None and capacity.sure:
        chosen = [one for one in (*found, *triggers) if one.offered_per_s > capacity.per_s]
    else:
        chosen = [*found[-1:], *triggers]
    if found or triggers:
        return tuple(one.settled for one in chosen if one.settled.length_s > 0)
    fault = case.spans.get("fault")
    return (fault,) if fault is not None else ()
