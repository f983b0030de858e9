"""bandwidth-squeeze: a line carries only so much, shared by everybody who uses it.

The line is the way to one dependency (`name`), or all ways between two parts of the system (`from`, `to`).
"""

from __future__ import annotations

from msgspec import Struct, convert, field

from stormdrill.errors import Refused
from stormdrill.faults.acting import Asked, ThroughMechanisms, hops_between, hops_to, injection, nothing_touched
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import Toxic
from stormdrill.model.plan import Injection
from stormdrill.ports import Hop, World
from stormdrill.spec.kinds import Speed
from stormdrill.spec.scalars import bytes_per_s


class Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    rate: Speed
    """Of the whole line, each way."""
    name: str = ""
    """Of a dependency in the system file,"""
    from_: str = field(name="from", default="")
    """or one value of the label,"""
    to: str = ""
    """and the other."""
    label: str = "region"


class BandwidthSqueeze(ThroughMechanisms):
    word = "bandwidth-squeeze"
    summary = "the line to a dependency, or between two parts of the system, carries only so much"
    parameters = Parameters

    def plan(self, use: FaultUse, index: int, world: World, for_s: float) -> tuple[Injection, ...]:
        wanted = convert(use.parameters, Parameters)
        rate = bytes_per_s(wanted.rate)
        if rate < 1:
            raise nothing_touched(use, f"{wanted.rate} would let nothing through; late-dependency has stall for that")
        if bool(wanted.name) == bool(wanted.from_ or wanted.to) or bool(wanted.from_) != bool(wanted.to):
            raise Refused(f"{use.word} takes name, or from and to together; write one of the two")
        hops = hops_to(use, world, wanted.name) if wanted.name else _between(use, wanted, world)
        how = Toxic(hops=tuple(hop.name for hop in hops), kind="squeeze", bytes_per_s=rate)
        line = wanted.name or f"{wanted.from_}-{wanted.to}"
        # one injection, because the line is one: every hop of it draws from the same
        return (injection(Asked(use, index, for_s), line, "squeeze", instance=hops[0].callee, how=how),)


def _between(use: FaultUse, wanted: Parameters, world: World) -> tuple[Hop, ...]:
    one, two = (world.chosen(**{wanted.label: value}) for value in (wanted.from_, wanted.to))
    hops = (*hops_between(world, one, two), *hops_between(world, two, one))
    if not hops:
        what = f"no proxied hop leads between {wanted.label}={wanted.from_} and {wanted.label}={wanted.to}"
        raise nothing_touched(use, f"{what}; declare `dependencies` in the system file")
    return hops
