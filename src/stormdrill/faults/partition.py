"""partition: two parts of the system can't see each other, while both go on serving everybody else.

The parts are two values of one label (`region` unless `label` names another). `one_way` drops only what `from` sends:
what `to` sends still arrives, which is how a failing link or a wrong firewall rule looks.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, convert, field

from stormdrill.errors import Refused
from stormdrill.faults.acting import Asked, ThroughMechanisms, carried, hops_between, injection, nothing_touched
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import Sever, Toxic
from stormdrill.model.plan import Injection
from stormdrill.ports import Instance, World

Direction = Literal["both", "up", "down"]


class Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    from_: str = field(name="from")
    """One value of the label,"""
    to: str
    """and the other."""
    label: str = "region"
    one_way: bool = False


class Partition(ThroughMechanisms):
    word = "partition"
    summary = "two parts of the system can't see each other while both serve; both ways, or one"
    parameters = Parameters

    def plan(self, use: FaultUse, index: int, world: World, for_s: float) -> tuple[Injection, ...]:
        wanted = convert(use.parameters, Parameters)
        if wanted.from_ == wanted.to:
            raise Refused(f"{use.word}: from and to are both {wanted.to}; write two different values of {wanted.label}")
        here, there = (_side(use, world, wanted.label, value) for value in (wanted.from_, wanted.to))
        asked = Asked(use, index, for_s)
        if not world.hops:
            return _severed(asked, here, there, wanted.one_way)
        forth = tuple(hop.name for hop in hops_between(world, here, there))
        back = tuple(hop.name for hop in hops_between(world, there, here))
        if not forth and not back:
            what = f"no proxied hop leads between {wanted.from_} and {wanted.to}"
            raise nothing_touched(use, f"{what}; declare `dependencies` in the system file")
        # what the caller of a hop sends goes up, and what it is answered comes down
        ways: tuple[tuple[str, tuple[str, ...], Direction], ...] = (("", forth + back, "both"),)
        if wanted.one_way:
            ways = (("-up", forth, "up"), ("-down", back, "down"))
        subject = f"{wanted.from_}-{wanted.to}"
        return tuple(
            injection(
                asked, subject + part, "cut", instance=hops[0].partition(">")[0], how=Toxic(hops, "cut", direction=way)
            )
            for part, hops, way in ways
            if hops
        )


def _side(use: FaultUse, world: World, label: str, value: str) -> tuple[Instance, ...]:
    found = world.chosen(**{label: value})
    if not found:
        raise nothing_touched(use, f"no instance has {label}={value}; {carried(world, label)}")
    return found


def _severed(
    asked: Asked, here: tuple[Instance, ...], there: tuple[Instance, ...], one_way: bool
) -> tuple[Injection, ...]:
    """Below any proxy, on one side only: that is enough for both."""
    peers = tuple(one.name for one in there)
    how = Sever(peers=peers, direction="up" if one_way else "both")
    return tuple(injection(asked, one.name, "sever", how=how, switches=(f"net of {one.name}",)) for one in here)
