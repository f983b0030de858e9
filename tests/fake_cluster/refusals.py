"""What a server refuses of Services, network policies, priorities and the numbers of nodes."""

from __future__ import annotations

import ipaddress
from decimal import Decimal, InvalidOperation

from fake_cluster.matching import Obj
from fake_cluster.problems import Cause
from fake_cluster.registry import Registry

HIGHEST = 1_000_000_000
"""Of a priority that a user defines."""


def install(registry: Registry) -> None:
    registry.validation("services")(_service)
    registry.validation("networkpolicies.networking.k8s.io")(_network_policy)
    registry.validation("priorityclasses.scheduling.k8s.io")(_priority_class)
    registry.validation("nodes")(_node)


def _service(new: Obj, before: Obj | None) -> list[Cause]:
    causes: list[Cause] = []
    spec, ports = new["spec"], new["spec"].get("ports") or []
    if before is not None and spec.get("clusterIP") != before["spec"].get("clusterIP"):
        told = f'Invalid value: []string{{"{spec.get("clusterIP")}"}}: may not change once set'
        causes.append(("spec.clusterIPs[0]", "FieldValueInvalid", told))
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        causes.append(("spec.ports", "FieldValueRequired", "Required value"))
    if len(ports) > 1:
        causes += [
            (f"spec.ports[{at}].name", "FieldValueRequired", "Required value")
            for at, port in enumerate(ports)
            if not port.get("name")
        ]
    for at, port in enumerate(ports):
        same = [(one["port"], one["protocol"]) for one in ports[:at]]
        if (port["port"], port["protocol"]) in same:
            causes.append((f"spec.ports[{at}]", "FieldValueDuplicate", f"Duplicate value: {_go_port(port)}"))
    return causes


def _go_port(port: Obj) -> str:
    return (
        f'core.ServicePort{{Name:"", Protocol:"{port["protocol"]}", AppProtocol:(*string)(nil), Port:{port["port"]}, '
        'TargetPort:intstr.IntOrString{Type:0, IntVal:0, StrVal:""}, NodePort:0}'
    )


def _network_policy(new: Obj, before: Obj | None) -> list[Cause]:
    causes: list[Cause] = []
    for part, word in (("ingress", "from"), ("egress", "to")):
        for at, rule in enumerate(new["spec"].get(part) or []):
            for number, peer in enumerate(rule.get(word) or []):
                block = peer.get("ipBlock")
                if block is not None and not _is_network(block.get("cidr", "")):
                    why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
                    field = f"spec.{part}[{at}].{word}[{number}].ipBlock.cidr"
                    causes.append((field, "FieldValueInvalid", f'Invalid value: "{block.get("cidr", "")}": {why}'))
    return causes


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text


def _priority_class(new: Obj, before: Obj | None) -> list[Cause]:
    name, value = new["metadata"].get("name", ""), new.get("value", 0)
    if before is not None:
        if value != before.get("value", 0):
            return [("value", "FieldValueForbidden", "Forbidden: may not be changed in an update.")]
        return []
    if name.startswith("system-"):
        told = "priority class names with 'system-' prefix are reserved for system use only. error: "
        told = f"Forbidden: {told}{name} is not a known system priority class"
        return [("metadata.name", "FieldValueForbidden", told)]
    if value > HIGHEST:
        told = f"Forbidden: maximum allowed value of a user defined priority is {HIGHEST}"
        return [("value", "FieldValueForbidden", told)]
    return []


def _node(new: Obj, before: Obj | None) -> list[Cause]:
    causes: list[Cause] = []
    had = before["spec"].get("podCIDR") if before is not None else None
    if had and new["spec"].get("podCIDR") != had:
        told = 'Forbidden: node updates may not change podCIDR except from "" to valid'
        causes.append(("spec.podCIDRs", "FieldValueForbidden", told))
    for part in ("capacity", "allocatable"):
        for name, amount in ((new.get("status") or {}).get(part) or {}).items():
            if "/" in name:  # an extended resource: whole devices
                causes += _devices(f"status.{part}.{name}", str(amount))
    return causes


def _devices(field: str, amount: str) -> list[Cause]:
    try:
        number = Decimal(amount)
    except InvalidOperation:
        return []
    if number < 0:
        return [(field, "FieldValueInvalid", f'Invalid value: "{amount}": must be greater than or equal to 0')]
    if number == number.to_integral_value():
        return []
    scale = int(number.as_tuple().exponent)
    digits = int(number.scaleb(-scale))
    shown = f"resource.int64Amount{{value:{digits}, scale:{scale}}}, d:resource.infDecAmount{{Dec:(*inf.Dec)(nil)}}"
    told = f'Invalid value: resource.Quantity{{i:{shown}, s:"", Format:"DecimalSI"}}: must be an integer'
    return [(field, "FieldValueInvalid", told)]
