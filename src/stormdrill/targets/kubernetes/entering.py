"""Where load enters, as pods of the cluster reach it: by the Services that lead to the entry."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from stormdrill.model.system import System
from stormdrill.targets.kubernetes.inventory import listed
from stormdrill.targets.kubernetes.view import View


class Port(Struct, frozen=True, rename="camel", gc=False):
    port: int = 0
    target_port: int | str = 0
    protocol: str = "TCP"


class ServiceSpec(Struct, frozen=True, gc=False, rename={"cluster_ip": "clusterIP"}):
    selector: dict[str, str] = {}
    cluster_ip: str = ""
    ports: tuple[Port, ...] = ()


class Service(Struct, frozen=True, gc=False):
    spec: ServiceSpec = ServiceSpec()


def entered(view: View, system: System) -> tuple[str, ...]:
    """Base URLs, by address, so that no look-up of names is needed. Raises Refused, Unreachable."""
    return tuple(dict.fromkeys(_found(view, system)))


def _found(view: View, system: System) -> Iterator[str]:
    for name, cluster in view.clusters.items():
        mine = [slot for slot in view.slots.all() if slot.cluster == name and slot.instance.service == system.entry]
        for service in listed(cluster.api, f"/api/v1/namespaces/{view.spec.namespace}/services", Service):
            spec = service.spec
            led = [slot for slot in mine if spec.selector and spec.selector.items() <= slot.pod.metadata.labels.items()]
            if not led or spec.cluster_ip in ("", "None"):
                continue
            ports = [one for one in spec.ports if one.protocol == "TCP"]
            ports.sort(key=lambda one: one.target_port != led[0].instance.port)
            host = f"[{spec.cluster_ip}]" if ":" in spec.cluster_ip else spec.cluster_ip
            yield from (f"http://{host}:{one.port}" for one in ports[:1])
