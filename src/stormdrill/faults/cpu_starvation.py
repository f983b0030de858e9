"""cpu-starvation: instances get only a fraction of a core's time: they live, answer their checks, and fall behind."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, convert

from stormdrill.faults.acting import Asked, Chosen, ThroughMechanisms, chosen, injection, some
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import CpuLimit
from stormdrill.model.plan import Injection
from stormdrill.ports import World
from stormdrill.spec.kinds import Share
from stormdrill.spec.scalars import percent


class Parameters(Chosen, frozen=True, kw_only=True, forbid_unknown_fields=True):
    cpus: Annotated[float, Meta(ge=0.01, le=64)]
    """Cores that each of them may use: 0.1 is a tenth of one."""
    share: Share = "100%"
    """Of the instances chosen; which ones is the same in every run."""


class CpuStarvation(ThroughMechanisms):
    word = "cpu-starvation"
    summary = "instances get only a fraction of a core"
    parameters = Parameters

    def plan(self, use: FaultUse, index: int, world: World, for_s: float) -> tuple[Injection, ...]:
        wanted = convert(use.parameters, Parameters)
        hit = some(chosen(use, wanted, world), percent(wanted.share) / 100, use.word)
        return tuple(
            injection(
                Asked(use, index, for_s),
                one.name,
                "cpu-limit",
                how=CpuLimit(cpus=wanted.cpus),
                switches=(f"CPU of {one.name}",),
            )
            for one in hit
        )
