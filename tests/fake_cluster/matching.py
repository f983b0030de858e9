"""What matches what: labels and selectors, tolerations and taints, node affinity, quantities. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

Obj = dict[str, Any]
"""An object of the API, as in its JSON."""

_SUFFIXES = {
    "n": Decimal(10) ** -9, "u": Decimal(10) ** -6, "m": Decimal(10) ** -3, "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6, "G": Decimal(10) ** 9, "T": Decimal(10) ** 12, "P": Decimal(10) ** 15,
    "Ki": Decimal(2) ** 10, "Mi": Decimal(2) ** 20, "Gi": Decimal(2) ** 30, "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
}  # fmt: skip


def quantity(written: object) -> Decimal:
    """The number that "100m" or "64Gi" stands for; 0 for what is none."""
    text = str(written)
    for suffix in (text[-2:], text[-1:]):
        if suffix in _SUFFIXES:
            return Decimal(text[: -len(suffix)]) * _SUFFIXES[suffix]
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal(0)


def written(number: Decimal, like: str) -> str:
    """A quantity in words, as the server prints sums: whole numbers plainly, CPU in thousandths."""
    if number == number.to_integral_value():
        whole = int(number)
        if like.endswith(("memory", "storage")):
            for suffix in ("Gi", "Mi", "Ki"):
                if whole and whole % int(_SUFFIXES[suffix]) == 0:
                    return f"{whole // int(_SUFFIXES[suffix])}{suffix}"
        return str(whole)
    return f"{int(number * 1000)}m"


def labels_of(thing: Obj) -> dict[str, str]:
    return dict(thing.get("metadata", {}).get("labels") or {})


def holds(requirement: Obj, labels: Mapping[str, str]) -> bool:
    """One expression {key, operator, values} of a selector or an affinity."""
    key, operator, values = requirement["key"], requirement["operator"], requirement.get("values") or []
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case "Gt":
            return key in labels and int(labels[key]) > int(values[0])
        case "Lt":
            return key in labels and int(labels[key]) < int(values[0])
    return False


def selects(selector: Obj | None, labels: Mapping[str, str]) -> bool:
    """A LabelSelector. None selects nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(holds(one, labels) for one in selector.get("matchExpressions") or [])


def has_all(wanted: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """A plain map, as in a Service's selector. An empty one selects nothing."""
    return bool(wanted) and all(labels.get(key) == value for key, value in (wanted or {}).items())


def tolerates(tolerations: Iterable[Obj], taint: Obj) -> Obj | None:
    """The first toleration that covers the taint."""
    for one in tolerations:
        if one.get("effect") and one["effect"] != taint["effect"]:
            continue
        if one.get("key") and one["key"] != taint["key"]:
            continue
        if not one.get("key") and one.get("operator") != "Exists":
            continue
        if one.get("operator", "Equal") != "Exists" and one.get("value", "") != taint.get("value", ""):
            continue
        return one
    return None


def term_holds(term: Obj, node: Obj) -> bool:
    """One nodeSelectorTerm. An empty one holds nowhere."""
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    names = {"metadata.name": node["metadata"]["name"]}
    return all(holds(one, labels_of(node)) for one in expressions) and all(holds(one, names) for one in fields)


def node_fits(pod_spec: Obj, node: Obj) -> bool:
    """nodeSelector and required node affinity."""
    wanted = pod_spec.get("nodeSelector") or {}
    if any(labels_of(node).get(key) != value for key, value in wanted.items()):
        return False
    required = ((pod_spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not required:
        return True
    return any(term_holds(term, node) for term in required.get("nodeSelectorTerms") or [])


def requests_of(pod_spec: Obj) -> dict[str, Decimal]:
    """What the Pod takes of its node, by resource, `pods` included."""
    taken: dict[str, Decimal] = {"pods": Decimal(1)}
    for container in pod_spec.get("containers") or []:
        resources = container.get("resources") or {}
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for name, amount in asked.items():
            taken[name] = taken.get(name, Decimal(0)) + quantity(amount)
    for container in pod_spec.get("initContainers") or []:
        for name, amount in ((container.get("resources") or {}).get("requests") or {}).items():
            taken[name] = max(taken.get(name, Decimal(0)), quantity(amount))
    return taken


def condition(thing: Obj, kind: str) -> Obj | None:
    for one in (thing.get("status") or {}).get("conditions") or []:
        if one["type"] == kind:
            return dict(one)
    return None


def is_true(thing: Obj, kind: str) -> bool:
    found = condition(thing, kind)
    return found is not None and found["status"] == "True"


def ended(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def deleted_at(thing: Obj) -> str | None:
    return thing["metadata"].get("deletionTimestamp")


def controller_of(thing: Obj) -> Obj | None:
    for one in thing["metadata"].get("ownerReferences") or []:
        if one.get("controller"):
            return dict(one)
    return None


def put_condition(status: Obj, new: Obj, *, moved: str = "lastTransitionTime") -> None:
    """Set a condition: the time of its last move stays where its status does. A condition that moved goes last, as
    the controllers of apps/v1 do it."""
    conditions = status.setdefault("conditions", [])
    for at, one in enumerate(conditions):
        if one["type"] == new["type"]:
            if one["status"] == new["status"]:
                new = {**new, moved: one.get(moved)}
                if one.get("reason") == new.get("reason") and one.get("message") == new.get("message"):
                    return
            del conditions[at]
            break
    conditions.append(new)
