"""A system of two regions for tests of planning: declared, never started."""

from __future__ import annotations

from stormdrill.core.plan import make_plan
from stormdrill.faults.builtin import BUILTIN
from stormdrill.model.experiment import Experiment, FaultUse, Phases
from stormdrill.model.plan import Plan
from stormdrill.model.policy import Policy
from stormdrill.model.system import Dependency, Release, ServiceInstance, System
from stormdrill.ports import Hop, Instance, World
from stormdrill.targets.process.target import ProcessTarget


def instance(name: str, **labels: str) -> ServiceInstance:
    service = name.partition("-")[0]
    devices = ("gpu0", "gpu1") if service == "gpu" else ()
    return ServiceInstance(name=name, service=service, command=("serve",), labels=labels, devices=devices)


SYSTEM = System(
    name="two-regions",
    entry="edge",
    instances=(
        instance("edge-1"),
        *(instance(f"gateway-{region}", region=region, node=f"{region}-front") for region in ("eu", "us")),
        *(instance(f"cpu-{region}", region=region, pool="cpu", node=f"{region}-back") for region in ("eu", "us")),
        *(instance(f"gpu-{region}", region=region, pool="gpu", node=f"{region}-back") for region in ("eu", "us")),
        instance("feed"),
    ),
    labels=("region", "pool", "node"),
    dependencies=(
        Dependency("gateway", ("edge", "gateway", "cpu", "gpu"), "gateway"),
        Dependency("feed", ("gateway", "cpu"), "feed", lag="/lag"),
    ),
    releases={"cpu": Release("gateway", "/releases/cpu", "leaky", "stable")},
)


def hops_of(system: System) -> tuple[Hop, ...]:
    return tuple(
        Hop(f"{caller.name}>{callee.name}", item.name, caller.name, callee.name)
        for item in system.dependencies
        for caller in system.instances
        for callee in system.instances
        if caller.service in item.callers and callee.service == item.to and caller is not callee
    )


def world_of(system: System = SYSTEM) -> World:
    there = tuple(Instance(item.name, item.service, item.labels) for item in system.instances)
    return World(system, there, hops_of(system))


def planned(*uses: FaultUse, fault_s: float = 30.0, offers: object = None, world: World | None = None) -> Plan:
    experiment = Experiment("x", "t", "h", "o", SYSTEM.name, Phases(0, 1, fault_s, 1), uses, ())
    offers = offers or ProcessTarget(SYSTEM, run_dir=None)  # type: ignore[arg-type]  # nothing is started
    return make_plan(
        experiment,
        SYSTEM,
        Policy(),
        None,
        target="process",
        offers=offers,
        world=world or world_of(),
        faults=BUILTIN,
        seed=1,
    )
