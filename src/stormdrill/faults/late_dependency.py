"""late-dependency: what a service depends on answers late, not at all, or with old data.

One use is one kind of lateness: `delay` (with `jitter` and `distribution`), `stall`, `trickle`, `reset`, `refuse` on
the proxied hops to it, established connections included; or `data_lag`: answers in time, data from long ago.
"""

from __future__ import annotations

import json
from typing import Literal

from msgspec import Struct, convert

from stormdrill.errors import Refused
from stormdrill.faults.acting import Asked, ThroughMechanisms, exactly_one, hops_to, injection, nothing_touched
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import Tell, Toxic, ToxicKind
from stormdrill.model.plan import Injection
from stormdrill.ports import World
from stormdrill.spec.kinds import Duration, Speed
from stormdrill.spec.scalars import bytes_per_s, seconds

KINDS: tuple[ToxicKind, ...] = ("delay", "stall", "trickle", "reset", "refuse")


class Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    """Of a dependency in the system file."""
    delay: Duration | None = None
    """Each answer comes so much later."""
    jitter: Duration | None = None
    """Of the delay: more or less by so much."""
    distribution: Literal["uniform", "normal", "pareto"] | None = None
    """Of the jitter; uniform when left out."""
    stall: bool = False
    """Nothing passes, connections stay open."""
    trickle: Speed | None = None
    """Each connection gets so little."""
    reset: bool = False
    """Connections break."""
    refuse: bool = False
    """Nobody listens."""
    data_lag: Duration | None = None
    """Its data are from so long ago."""
    callers: str = ""
    """Services, separated by commas: only their calls are late."""


class LateDependency(ThroughMechanisms):
    word = "late-dependency"
    summary = "a dependency is slow, stalled, trickling, reset or refused, or its data are old"
    parameters = Parameters

    def plan(self, use: FaultUse, index: int, world: World, for_s: float) -> tuple[Injection, ...]:
        wanted = convert(use.parameters, Parameters)
        kinds = [name for name in (*KINDS, "data_lag") if getattr(wanted, name)]
        exactly_one(use, "delay, stall, trickle, reset, refuse, data_lag", kinds)
        if (wanted.jitter or wanted.distribution) and not wanted.delay:
            raise Refused(f"{use.word}: jitter and distribution go with delay; add delay, or leave them out")
        if wanted.distribution and not wanted.jitter:
            raise Refused(f"{use.word}: distribution says how the jitter is spread; add jitter, or leave it out")
        asked = Asked(use, index, for_s)
        return _old_data(asked, wanted, world) if wanted.data_lag else _late_answers(asked, wanted, world)


def _late_answers(asked: Asked, wanted: Parameters, world: World) -> tuple[Injection, ...]:
    """One injection for each instance of the dependency, on all hops that lead to it."""
    kind = next(kind for kind in KINDS if getattr(wanted, kind))
    if kind in ("delay", "trickle") and not float(str(getattr(wanted, kind)).rstrip("smhdGMKB/")):
        raise nothing_touched(asked.use, f"{kind} {getattr(wanted, kind)} is nothing")
    hops = hops_to(asked.use, world, wanted.name, wanted.callers)
    made = []
    for callee in dict.fromkeys(hop.callee for hop in hops):
        how = Toxic(
            hops=tuple(hop.name for hop in hops if hop.callee == callee),
            kind=kind,
            delay_ms=seconds(wanted.delay) * 1000 if wanted.delay else 0.0,
            jitter_ms=seconds(wanted.jitter) * 1000 if wanted.jitter else 0.0,
            distribution=wanted.distribution or "uniform",
            bytes_per_s=bytes_per_s(wanted.trickle) if wanted.trickle else 0.0,
            direction="down" if kind == "delay" else "both",
        )
        made.append(injection(asked, callee, kind, how=how))
    return tuple(made)


def _old_data(asked: Asked, wanted: Parameters, world: World) -> tuple[Injection, ...]:
    use = asked.use
    if wanted.callers:
        raise Refused(f"{use.word}: data_lag ages the data for everybody; leave callers out")
    found = {item.name: item for item in world.system.dependencies}.get(wanted.name)
    if found is None:
        hops_to(use, world, wanted.name)  # says what is declared
    if found is None or not found.lag:
        what = f"{wanted.name} declares no way to age its data"
        raise nothing_touched(use, f"{what}; add `lag: /lag` to the dependency, a path that takes PUT {{seconds: N}}")
    lag_s = seconds(wanted.data_lag)
    if not lag_s:
        raise nothing_touched(use, "data_lag 0s is nothing")
    how = Tell(
        service=found.to,
        method="PUT",
        path=found.lag,
        body=json.dumps({"seconds": lag_s}),
        undo_method="PUT",
        undo_path=found.lag,
        undo_body=json.dumps({"seconds": 0}),
        look_path=found.lag,
        look=f".seconds == {lag_s:.15g}",
        means="with old data",
    )
    return tuple(
        injection(asked, one.name, "tell", how=how, switches=(f"age of the data of {one.name}",))
        for one in world.chosen(service=found.to)
    )
