"""Who is there: what faults choose from, before or while it runs."""

from __future__ import annotations

from msgspec import Struct

from stormdrill.model.system import System


class Instance(Struct, frozen=True):
    """One instance as the inventory knows it, before or while it runs."""

    name: str
    service: str
    labels: dict[str, str]
    address: str = ""
    """host:port where it listens, or empty."""
    pid: int = 0
    start_ticks: int = 0


class Hop(Struct, frozen=True):
    """One caller's way to one instance of a dependency, through a proxy of ours."""

    name: str
    """`edge-1>gateway-eu`"""
    dependency: str
    caller: str
    callee: str


class Workload(Struct, frozen=True):
    """What keeps instances running in a cluster, and makes them again."""

    name: str
    """deployments/cpu-eu, statefulsets/queue"""
    namespace: str
    instances: tuple[str, ...]
    """Those that are pods of it."""
    replicas: int
    containers: tuple[str, ...]
    """Names of its pods' containers, the first one first."""
    labels: dict[str, str]
    """By which it selects its pods."""
    cluster: str = ""


class World(Struct, frozen=True):
    """What a fault may choose from: what there is, or what there will be once the system is started."""

    system: System
    instances: tuple[Instance, ...]
    hops: tuple[Hop, ...] = ()
    workloads: tuple[Workload, ...] = ()
    """In a cluster only."""

    def chosen(self, /, **labels: str) -> tuple[Instance, ...]:
        """The instances that carry all these labels, `service` and `instance` among them; empty ones are ignored."""
        wanted = {name: value for name, value in labels.items() if value}
        return tuple(
            item
            for item in self.instances
            if wanted.items() <= {"service": item.service, "instance": item.name, **item.labels}.items()
        )
