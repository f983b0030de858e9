"""node-loss: one machine is gone, with everything that runs on it, whatever service it belongs to.

A node is what carries one value of the label `node`; `instance` names a single one instead.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, convert

from stormdrill.faults.acting import Asked, ThroughMechanisms, carried, exactly_one, halt, nothing_touched
from stormdrill.model.experiment import FaultUse
from stormdrill.model.plan import Injection
from stormdrill.ports import World


class Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    node: str = ""
    """Value of the label `node`."""
    instance: str = ""
    mode: Literal["crash", "freeze"] = "crash"


class NodeLoss(ThroughMechanisms):
    word = "node-loss"
    summary = "a node with all that runs on it, or one instance, is gone: crash, freeze"
    parameters = Parameters

    def plan(self, use: FaultUse, index: int, world: World, for_s: float) -> tuple[Injection, ...]:
        wanted = convert(use.parameters, Parameters)
        exactly_one(use, "node, instance", [name for name in ("node", "instance") if getattr(wanted, name)])
        hit = world.chosen(node=wanted.node, instance=wanted.instance)
        if not hit:
            names = ", ".join(one.name for one in world.instances)
            if wanted.node:
                raise nothing_touched(use, f"nothing of the system is on {wanted.node}; {carried(world, 'node')}")
            raise nothing_touched(use, f"there is no {wanted.instance}; instances here: {names}")
        return tuple(halt(Asked(use, index, for_s), one, wanted.mode) for one in hit)
