"""The stretches of level demand that checks compare: from the profile's stages, on the journal's clock.

A stage's first second is left out, or its first tenth where that is longer, and never more than half of it: queues
settle first. What was offered is what was intended, whether or not anybody answered it: the load is open.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from stormdrill.core.case import Case
from stormdrill.core.demand import Demand
from stormdrill.core.evidence import Requests
from stormdrill.core.intervals import Interval, Ints, block_count, block_of, rate_interval, share_interval
from stormdrill.core.windows import WHOLE, Span, all_of, narrowed
from stormdrill.model import event as ev
from stormdrill.model.profile import Profile, Role, Stage

SETTLE_S = 1.0
SETTLE_SHARE = 0.1
MOST_LEFT_OUT = 0.5
"""Of a stage, whatever its length."""
TOLERANCE_MS = 50.0
"""By which a stage may seem to outlast the phases: their edges are journalled a moment after they were due."""


class Stretch(Struct, frozen=True):
    """One stage as it was run."""

    role: Role
    episode: int
    factor: float
    """Of its own demand's rate, as planned."""
    whole: Span
    """From its first moment to its last."""
    settled: Span
    """The same without its beginning: what is judged."""
    asked_per_s: float
    """λ as planned, of all demands together. By this steps are told apart and put in order."""
    offered_per_s: float
    """λ as measured: logical requests that were intended in the settled part, per second."""
    n: int
    """How many those were."""

    @property
    def complete(self) -> bool:
        """False: the run was stopped, or its record ends, before the stage was over."""
        return self.settled.complete


def epoch_ms(case: Case) -> float | None:
    """When the load began, on the journal's clock; None where none was started."""
    started = [event.epoch_mono_ms for _, event in all_of(case.events, ev.LoadStarted)]
    return started[0] if started else None


def planned_stages(profile: Profile | None) -> tuple[Stage, ...]:
    """Of all demands that are added up; as a rule one of them has stages."""
    return tuple(stage for part in profile.parts for stage in part.stages) if profile is not None else ()


def stages_of(case: Case) -> tuple[Stretch, ...]:
    """Every stage that the run came to, in the order of time, `rest` included; none without stages or load."""
    profile, load, epoch = case.plan.profile, case.plan.experiment.load, epoch_ms(case)
    planned = planned_stages(profile)
    if profile is None or epoch is None or not planned:
        return ()
    reached_ms = max((span.end_ms for span in case.spans.values()), default=epoch)
    asked_of = _Asked(profile, load.rate_per_s) if load is not None else None
    found = []
    for stage in planned:
        start_ms, end_ms = epoch + stage.start_s * 1000, epoch + stage.end_s * 1000
        if start_ms >= reached_ms:
            continue
        complete = end_ms <= reached_ms + TOLERANCE_MS
        whole = Span(stage.role, start_ms, min(end_ms, reached_ms), complete, _edges(case))
        # of requests near an edge it isn't known in which stage they were, where a clock isn't known better
        settled = narrowed(settled_part(whole, end_ms - start_ms), case.unsure_ms)
        n = len(case.requests.between(settled.start_ms, settled.end_ms))
        rate = n / settled.length_s if settled.length_s > 0 else 0.0
        asked = asked_of.per_s(stage, settled, epoch) if asked_of is not None else rate
        found.append(Stretch(stage.role, stage.episode, stage.factor, whole, settled, asked, rate, n))
    return tuple(sorted(found, key=lambda one: (one.whole.start_ms, one.whole.end_ms)))


def summed(profile: Profile | None) -> bool:
    """Whether a stage's factor alone doesn't say what is asked in it: demands are added up, or a recording plays."""
    return profile is not None and (bool(profile.also) or profile.trace is not None)


class _Asked:
    """λ as planned, stage by stage."""

    def __init__(self, profile: Profile, rate_per_s: float) -> None:
        self._alone_per_s = profile.weight * rate_per_s
        self._all = Demand(profile, rate_per_s) if summed(profile) else None

    def per_s(self, stage: Stage, settled: Span, epoch_ms: float) -> float:
        from_s, until_s = ((at_ms - epoch_ms) / 1000 for at_ms in (settled.start_ms, settled.end_ms))
        if self._all is None or until_s <= from_s:
            return stage.factor * self._alone_per_s
        return sum(course.between(from_s, until_s) for course in self._all.courses) / (until_s - from_s)


def _edges(case: Case) -> tuple[int, ...]:
    return tuple(recorded.seq for recorded, _ in all_of(case.events, ev.LoadStarted))


def settled_part(whole: Span, planned_ms: float) -> Span:
    """Without what is left out at the beginning; never before it began nor after it ended."""
    left_out_ms = min(max(SETTLE_S * 1000, SETTLE_SHARE * planned_ms), MOST_LEFT_OUT * planned_ms)
    start_ms = min(whole.start_ms + left_out_ms, whole.end_ms)
    return Span(whole.name, start_ms, whole.end_ms, whole.complete, whole.events)


def steps_of(case: Case) -> tuple[Stretch, ...]:
    """The staircase, lowest first; of equal ones the earlier first."""
    steps = [one for one in stages_of(case) if one.role == "step"]
    return tuple(sorted(steps, key=lambda one: (one.asked_per_s, one.whole.start_ms)))


def episodes_of(case: Case) -> dict[int, tuple[Stretch, ...]]:
    """base, trigger, after, down and rest that belong together, by their number, in the order of time."""
    found: dict[int, list[Stretch]] = {}
    for one in stages_of(case):
        if one.role != "step":
            found.setdefault(one.episode, []).append(one)
    return {
        number: tuple(stages)
        for number, stages in sorted(found.items())
        if any(stage.role != "rest" for stage in stages)
    }


def role_of(episode: Sequence[Stretch], role: Role) -> tuple[Stretch, ...]:
    """Those of an episode with one role: there may be several `down`."""
    return tuple(one for one in episode if one.role == role)


def pressed(case: Case) -> tuple[Span, ...]:
    """Where a check looks that needs no steps: all stages but `rest`; without stages the fault phase; else the whole
    run. Empty where the run came to none of them."""
    stages = tuple(one.settled for one in stages_of(case) if one.role != "rest" and one.settled.length_s > 0)
    if stages:
        return stages
    if planned_stages(case.plan.profile):
        return ()
    span = case.spans.get("fault") or case.spans.get(WHOLE)
    return (span,) if span is not None else ()


def counted(requests: Requests, span: Span, good: np.ndarray) -> tuple[Ints, Ints]:
    """The good ones, and all, of each block of the span, by their intended start. `requests` lie within the span."""
    blocks = block_count(span.length_s)
    block = block_of(requests.at_ms, span.start_ms, span.end_ms, blocks)
    return np.bincount(block[good], minlength=blocks), np.bincount(block, minlength=blocks)


def served_share(case: Case, span: Span, labels: dict[str, str] | None = None) -> Interval:
    """G/λ: of the requests that were intended in the span, the share that got 2xx within the deadline."""
    requests = case.requests.between(span.start_ms, span.end_ms).labelled(labels or {})
    good, total = counted(requests, span, requests.good)
    return share_interval(good, total, case.seed)


def goodput(case: Case, span: Span, labels: dict[str, str] | None = None) -> Interval:
    """G: answered with 2xx within the deadline, per second, by when that was: whoever was turned away and came again
    after the span was not served by what went on in it."""
    longest_ms = max((kind.deadline_ms for kind in case.requests.kinds), default=0.0)
    asked = case.requests.between(span.start_ms - longest_ms, span.end_ms).labelled(labels or {})
    done_ms = asked.at_ms + asked.latency_us / 1000
    good = asked.good & (done_ms >= span.start_ms) & (done_ms < span.end_ms)
    blocks = block_count(span.length_s)
    block = block_of(done_ms[good], span.start_ms, span.end_ms, blocks)
    return rate_interval(np.bincount(block, minlength=blocks), span.length_s / blocks, case.seed)
