"""What a check can't do without, and what would help: asked before anything is touched. Loads no numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from stormdrill.core.backpressure.asked import ASKED, Need
from stormdrill.model.experiment import Experiment
from stormdrill.model.profile import Profile
from stormdrill.model.system import System


class Missing(NamedTuple):
    """As in "needs `what`"."""

    what: str
    fix: str


def missing(
    word: str, load: bool, profile: Profile | None, system: System | None, *, faults: bool = True, closed: bool = False
) -> tuple[Missing, ...]:
    """All that the check of a known word needs and would not have. `load`: whether requests are sent and recorded;
    `faults`: whether anything is injected; `closed`: whether users wait for answers. A profile or system of None could
    not be read, so nothing is said of it."""
    found = []
    for need in ASKED[word].needs:
        if need == "load":
            lacks = not load
        elif need == "fault":
            lacks = not faults
        elif need == "open":
            lacks = closed
        elif need == "tries":
            lacks = system is not None and not system.pressure.hops and (closed or not _tries(profile))
        elif need in _OF_PROFILE:
            lacks = not load or (profile is not None and not _OF_PROFILE[need](profile))
        else:
            lacks = system is not None and not _OF_SYSTEM[need](system)
        if lacks:
            found.append(_SAID[need])
    return tuple(found)


def needless(experiment: Experiment, profile: Profile | None) -> bool:
    """Whether nothing can be learned: nothing is injected, no check is asked for, and the load has no stages."""
    stages = profile is not None and any(part.stages for part in profile.parts)
    return not (experiment.faults or experiment.backpressure or stages)


def _steps(profile: Profile) -> bool:
    return any(stage.role == "step" for part in profile.parts for stage in part.stages)


def _tiers(profile: Profile) -> bool:
    return len({stream.labels["tier"] for stream in profile.every_stream if "tier" in stream.labels}) > 1


def _tries(profile: Profile | None) -> bool:
    """Also where it isn't known."""
    return profile is None or any(part.retry is not None and part.retry.attempts > 1 for part in profile.parts)


_OF_PROFILE: Mapping[Need, Callable[[Profile], bool]] = {
    "steps": _steps,
    "tiers": _tiers,
}
_OF_SYSTEM: Mapping[Need, Callable[[System], bool]] = {
    "depth": lambda system: bool(system.pressure.depth),
    "limit": lambda system: bool(system.pressure.limit),
    "in_flight": lambda system: bool(system.pressure.in_flight),
    "breaker": lambda system: bool(system.pressure.breaker),
}
_SAID: Mapping[Need, Missing] = {
    "load": Missing("requests of a generator, whose records it judges", "add load: {profile: steady, rate: 20/s}"),
    "steps": Missing("a staircase in the load", "take a profile with steps: {each: 10s, factors: [0.5, 1, 2, 3]}"),
    "fault": Missing(
        "a fault: without one no breaker has a reason to open",
        "add one on a dependency, for instance faults: [late-dependency: {name: SERVICE, delay: 3s}]",
    ),
    "tiers": Missing("requests of several tiers", "give the profile's streams labels: {tier: 1}, {tier: 2}"),
    "tries": Missing(
        "counters of a hop, or a client that tries again",
        "name them in the system file, under backpressure: {hops: {SERVICE: {received: METRIC, sent: METRIC}}},"
        " or add retry: {attempts: 3, wait: 200ms} to the profile",
    ),
    "open": Missing(
        "an open load: users who wait for their answers ask for less when the system is slow",
        "take a profile of arrivals, for instance load: {profile: steady, rate: 20/s}",
    ),
    "depth": Missing(
        "the depth of a queue", "name it in the system file, under backpressure: {queue: {depth: METRIC}}"
    ),
    "limit": Missing(
        "the limit of a queue",
        "name it in the system file, under backpressure: {queue: {depth: METRIC, limit: METRIC}}",
    ),
    "in_flight": Missing(
        "what the system says is inside of it", "name it in the system file, under backpressure: {in_flight: METRIC}"
    ),
    "breaker": Missing(
        "a circuit breaker's state", "name it in the system file, under backpressure: {breaker: {open: METRIC}}"
    ),
}
