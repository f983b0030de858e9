"""region-loss: everything that carries one region label stops (crash, freeze) or can't be reached (isolate).

`freeze`: connections are still accepted, nothing is answered, memory and leases are kept: a grey failure.
`crash`: nothing is left but what was durable; nothing restarts it until the fault is reverted.
`isolate`: it runs on, and neither hears nor is heard by anybody outside the region.
A `failback` phase after it shows that the region, back again, does no job twice.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, convert

from stormdrill.faults.acting import Asked, ThroughMechanisms, carried, halt, injection, nothing_touched, some
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import Sever, Toxic
from stormdrill.model.plan import Injection
from stormdrill.ports import Instance, World
from stormdrill.spec.kinds import Share
from stormdrill.spec.scalars import percent


class Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    region: str
    """Value of the label `region` that is lost."""
    mode: Literal["freeze", "crash", "isolate"] = "freeze"
    share: Share = "100%"
    """Of the region's instances; which ones is the same in every run."""


class RegionLoss(ThroughMechanisms):
    word = "region-loss"
    summary = "a region, or a share of it, stops or can't be reached: crash, freeze (grey failure), isolate"
    parameters = Parameters

    def plan(self, use: FaultUse, index: int, world: World, for_s: float) -> tuple[Injection, ...]:
        wanted = convert(use.parameters, Parameters)
        there = world.chosen(region=wanted.region)
        if not there:
            raise nothing_touched(use, f"no instance has region={wanted.region}; {carried(world, 'region')}")
        hit = some(there, percent(wanted.share) / 100, use.word)
        asked = Asked(use, index, for_s)
        if wanted.mode == "isolate":
            return isolate(asked, hit, world)
        return tuple(halt(asked, one, wanted.mode) for one in hit)


def isolate(asked: Asked, hit: tuple[Instance, ...], world: World) -> tuple[Injection, ...]:
    """Cut what is hit from everybody else: on the hops that pass our proxies, and below them where that leaves a way.

    Load enters past the proxies, and nobody knows whom an instance without any hop talks to: cutting the hops alone
    would leave such an instance half in the world. So would cutting it off its peers alone: its hops lead to a proxy,
    whose address hops within the region need. Alone it is cut from everybody, the proxy included.
    """
    names = {one.name for one in hit}
    peers = tuple(item.name for item in world.instances if item.name not in names) if len(hit) > 1 else ()
    made = []
    for one in hit:
        mine = [hop for hop in world.hops if one.name in (hop.caller, hop.callee)]
        crossing = tuple(hop.name for hop in mine if len(names & {hop.caller, hop.callee}) == 1)
        bare = not mine or one.service == world.system.entry
        if crossing and (peers or not bare):
            made.append(injection(asked, one.name, "cut", how=Toxic(hops=crossing, kind="cut")))
        if bare:
            subject = f"{one.name}-net" if crossing and peers else one.name
            how, switches = Sever(peers=peers, users=bool(peers)), (f"net of {one.name}",)
            made.append(injection(asked, subject, "sever", instance=one.name, how=how, switches=switches))
    if not made:
        raise nothing_touched(asked.use, "no hop leads across its border; declare `dependencies` in the system file")
    return tuple(made)
