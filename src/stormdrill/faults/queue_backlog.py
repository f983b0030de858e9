"""queue-backlog: work keeps arriving while those who do it are slowed or paused; the drain afterwards is the question.

`slow` delays what passes between the workers and whom they work for; without it the workers are frozen.
"""

from __future__ import annotations

from msgspec import convert

from stormdrill.faults.acting import Asked, Chosen, ThroughMechanisms, chosen, halt, injection, nothing_touched, some
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import Toxic
from stormdrill.model.plan import Injection
from stormdrill.ports import Instance, World
from stormdrill.spec.kinds import Duration, Share
from stormdrill.spec.scalars import percent, seconds


class Parameters(Chosen, frozen=True, kw_only=True, forbid_unknown_fields=True):
    slow: Duration | None = None
    """Everything between the workers and whom they work for comes so much later, each way; frozen when left out."""
    share: Share = "100%"
    """Of the workers; which ones is the same in every run."""


class QueueBacklog(ThroughMechanisms):
    word = "queue-backlog"
    summary = "workers are slowed or paused while work goes on arriving"
    parameters = Parameters

    def plan(self, use: FaultUse, index: int, world: World, for_s: float) -> tuple[Injection, ...]:
        wanted = convert(use.parameters, Parameters)
        hit = some(chosen(use, wanted, world), percent(wanted.share) / 100, use.word)
        asked = Asked(use, index, for_s)
        if wanted.slow is None:
            return tuple(halt(asked, one, "freeze") for one in hit)
        delay_ms = seconds(wanted.slow) * 1000
        if not delay_ms:
            raise nothing_touched(use, "slow 0s is nothing; leave it out to pause the workers")
        return tuple(_slowed(asked, one, world, delay_ms) for one in hit)


def _slowed(asked: Asked, worker: Instance, world: World, delay_ms: float) -> Injection:
    hops = tuple(hop.name for hop in world.hops if hop.caller == worker.name)
    if not hops:
        why = f"no proxied hop leads from {worker.name} to whom it works for"
        raise nothing_touched(asked.use, f"{why}; declare it under `dependencies`, or leave slow out to pause it")
    how = Toxic(hops=hops, kind="delay", delay_ms=delay_ms, direction="both")
    return injection(asked, worker.name, "delay", how=how)
