"""Where load enters, as pods of the cluster reach it: by the Services that lead to the entry."""

from __future__ import annotations

from collections.abc import Iterator

from stormdrill.cluster.naming import LABEL
from stormdrill.model.system import System
from stormdrill.targets.kubernetes.inventory import listed
from stormdrill.targets.kubernetes.objects import Service
from stormdrill.targets.kubernetes.slots import Slot
from stormdrill.targets.kubernetes.view import View


def entered(view: View, system: System) -> tuple[str, ...]:
    """Base URLs, by address, so that no look-up of names is needed. Raises Refused, Unreachable."""
    return tuple(dict.fromkeys(_found(view, system)))


def _found(view: View, system: System) -> Iterator[str]:
    """Of each cluster the Services that lead to the most instances of the entry: one that leads to a part of them only
    sends its users nowhere when that part is lost."""
    for name, cluster in view.clusters.items():
        mine = [slot for slot in view.slots.all() if slot.cluster == name and slot.instance.service == system.entry]
        led: list[tuple[int, str]] = []
        for service in listed(cluster.api, f"/api/v1/namespaces/{view.spec.namespace}/services", Service):
            count = sum(_leads_to(service, slot) for slot in mine)
            if count and (port := _port(service, next(slot for slot in mine if _leads_to(service, slot)))):
                host = service.spec.cluster_ip
                led.append((count, f"http://{f'[{host}]' if ':' in host else host}:{port}"))
        most = max((count for count, _ in led), default=0)
        yield from (url for count, url in led if count == most)


def _leads_to(service: Service, slot: Slot) -> bool:
    """By an address of its own, and for users: what a drill puts there is none of them."""
    spec = service.spec
    if spec.cluster_ip in ("", "None") or not spec.selector or LABEL in service.metadata.labels:
        return False
    return spec.selector.items() <= slot.pod.metadata.labels.items()


def _port(service: Service, slot: Slot) -> int:
    """The one that leads to where the instance listens, else the first."""
    ports = [one for one in service.spec.ports if one.protocol == "TCP"]
    ports.sort(key=lambda one: one.target_port != slot.instance.port)
    return ports[0].port if ports else 0
