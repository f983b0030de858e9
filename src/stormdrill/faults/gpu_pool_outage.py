"""gpu-pool-outage: the GPU pool loses workers or devices, or turns grey, at once or little by little.

`gone`: workers stop (`how`: crash or freeze). `devices`: devices are lost, the workers go on with what is left.
`slow`, `hang`, `cold`: grey failures of devices, which a look at liveness does not find.
`over` withdraws the share one after the other; all of it comes back at the end.
"""

from __future__ import annotations

from typing import Literal

from msgspec import convert

from stormdrill.errors import Refused
from stormdrill.faults.acting import Asked, Chosen, ThroughMechanisms, chosen, halt, injection, nothing_touched, some
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import Device, DeviceState
from stormdrill.model.plan import Injection
from stormdrill.ports import Instance, World
from stormdrill.spec.kinds import Duration, Share
from stormdrill.spec.scalars import percent, seconds

POOL = "gpu"
STATES: dict[str, DeviceState] = {"devices": "lost", "slow": "slow", "hang": "hang", "cold": "cold"}


class Parameters(Chosen, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pool: str = POOL
    mode: Literal["gone", "devices", "slow", "hang", "cold"] = "gone"
    how: Literal["freeze", "crash"] | None = None
    """Of `gone`; freeze when left out."""
    share: Share = "100%"
    """Of the workers (`gone`), or of their devices taken together; which ones is the same in every run."""
    over: Duration | None = None
    """One after the other within this time; at once when left out."""


class GpuPoolOutage(ThroughMechanisms):
    word = "gpu-pool-outage"
    summary = "GPU workers or devices are lost, or turn grey (slow, hang, cold), at once or little by little"
    parameters = Parameters

    def plan(self, use: FaultUse, index: int, world: World, for_s: float) -> tuple[Injection, ...]:
        wanted = convert(use.parameters, Parameters)
        share, over_s = percent(wanted.share) / 100, seconds(wanted.over) if wanted.over else 0.0
        if over_s >= for_s:
            raise Refused(f"{use.word}: over {wanted.over} is not shorter than the fault ({for_s:g}s); make it shorter")
        workers = chosen(use, wanted, world)
        asked = Asked(use, index, for_s)
        if wanted.mode == "gone":
            hit = some(workers, share, use.word)
            every_s = over_s / len(hit)
            return tuple(halt(asked, one, wanted.how or "freeze", n * every_s) for n, one in enumerate(hit))
        if wanted.how:
            raise Refused(f"{use.word}: how goes with mode gone, and the mode is {wanted.mode}; leave it out")
        devices = _devices(use, workers, world, share)
        every_s = over_s / len(devices)
        return tuple(
            _withdrawn(asked, worker, name, STATES[wanted.mode], n * every_s)
            for n, (worker, name) in enumerate(devices)
        )


def _devices(
    use: FaultUse, workers: tuple[Instance, ...], world: World, share: float
) -> tuple[tuple[Instance, str], ...]:
    """The share of all devices of these workers, each with whose it is."""
    declared = {item.name: item.devices for item in world.system.instances}
    owners = {f"{one.name}.{name}": (one, name) for one in workers for name in declared[one.name]}
    if not owners:
        names = ", ".join(one.name for one in workers)
        raise nothing_touched(use, f"{names} declare no devices; add `devices: [gpu0, …]` to their service")
    places = [Instance(name=place, service="", labels={}) for place in owners]
    return tuple(owners[place.name] for place in some(places, share, use.word))


def _withdrawn(asked: Asked, worker: Instance, name: str, state: DeviceState, after_s: float) -> Injection:
    return injection(
        asked,
        f"{worker.name}.{name}",
        "device",
        instance=worker.name,
        how=Device(device=name, state=state),
        switches=(f"device {name} of {worker.name}",),
        loses="what ran on its devices since the last checkpoint",
        after_s=after_s,
    )
