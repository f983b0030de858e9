"""segmentation: traffic that policy forbids is tried, and has to be blocked. Nothing is changed, and nobody is harmed.

Whoever got through is a FAIL. A try that shows nothing (nobody listens there, or nothing at all can be reached from
there) never counts as blocked. Only a live cluster has policies that could forbid anything.
"""

from __future__ import annotations

import re

from msgspec import Struct, convert, field

from stormdrill.errors import Refused
from stormdrill.faults.acting import Asked, ThroughMechanisms, injection, nothing_touched
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import Segment
from stormdrill.model.plan import Injection
from stormdrill.ports import World

PLACE = re.compile(r"[A-Za-z0-9][-A-Za-z0-9.]*:[1-9][0-9]{0,4}")


class Parameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    from_: str = field(name="from")
    """The service from whose pods it is tried."""
    to: str
    """HOST:PORT of the Service that they must not reach."""
    allowed: str = ""
    """HOST:PORT that they may reach, to show that they can at all; the API server when left out."""


class Segmentation(ThroughMechanisms):
    word = "segmentation"
    summary = "connections that policy forbids are tried, and have to be blocked; nothing is harmed"
    parameters = Parameters

    def plan(self, use: FaultUse, index: int, world: World, for_s: float) -> tuple[Injection, ...]:
        """One for each kind of pods of the service: those with the same labels."""
        wanted = convert(use.parameters, Parameters)
        for name, said in (("to", wanted.to), ("allowed", wanted.allowed)):
            if said and not PLACE.fullmatch(said):
                raise Refused(f"{use.word}: {name} is {said!r}, which says not where; write HOST:PORT, feed:8080")
        hit = world.chosen(service=wanted.from_)
        if not hit:
            known = ", ".join(dict.fromkeys(one.service for one in world.instances))
            raise nothing_touched(use, f"there is no service {wanted.from_}; services here: {known}")
        spec = world.system.kubernetes
        selects = {one.name: one.select for one in world.system.instances}
        places = {name: one.cluster for one in world.workloads for name in one.instances}
        kinds: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
        for one in hit:
            labels = tuple(sorted(selects.get(one.name, {}).items()))
            kinds.setdefault((places.get(one.name, ""), labels), []).append(one.name)
        asked = Asked(use, index, for_s)
        made = []
        for (cluster, labels), names in kinds.items():
            how = Segment(
                spec.namespace if spec else "", dict(labels), wanted.to, wanted.allowed, tuple(names), cluster
            )
            subject = f"{names[0]}-{wanted.to.replace(':', '-')}"
            made.append(injection(asked, subject, "segment", instance=names[0], how=how))
        return tuple(made)
