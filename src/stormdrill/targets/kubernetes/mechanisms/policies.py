"""What NetworkPolicies say, as far as it is needed here: whom they select, and whom they let in or out.

They are additive: what one allows, none forbids. Where it can't be shown that a rule allows no more than asked, it is
taken to allow more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from stormdrill.targets.kubernetes.mechanism import Object, at, objects, texts

Labels = Mapping[str, str]
DNS = 53


def matches(selector: object, labels: Labels) -> bool:
    """As a label selector does; an empty one selects everything."""
    if not texts(at(selector, "matchLabels")).items() <= labels.items():
        return False
    return all(_holds(one, labels) for one in objects(at(selector, "matchExpressions")))


def _holds(one: Object, labels: Labels) -> bool:
    key, values = str(one.get("key")), one.get("values") or ()
    listed = key in labels and labels[key] in values if isinstance(values, Sequence) else False
    match one.get("operator"):
        case "In":
            return listed
        case "NotIn":
            return not listed
        case "Exists":
            return key in labels
    return key not in labels


def directions(policy: Object) -> tuple[str, ...]:
    """Ingress, Egress: of which of them it speaks."""
    said = at(policy, "spec", "policyTypes")
    if isinstance(said, list):
        return tuple(str(one) for one in said)
    return ("Ingress", "Egress") if at(policy, "spec", "egress") else ("Ingress",)


def selecting(policies: Iterable[Object], labels: Labels, direction: str) -> list[Object]:
    return [one for one in policies if direction in directions(one) and matches(at(one, "spec", "podSelector"), labels)]


def named(policies: Iterable[Object]) -> list[str]:
    return sorted({str(at(one, "metadata", "name")) for one in policies})


def closed_to(policies: Sequence[Object], pods: Iterable[Labels], peer: Labels) -> list[str]:
    """The policies that keep a pod of the same namespace with these labels out of one of those."""
    found: list[Object] = []
    for labels in pods:
        mine = selecting(policies, labels, "Ingress")
        if mine and not any(_lets_in(policy, peer) for policy in mine):
            found += mine
    return named(found)


def _lets_in(policy: Object, peer: Labels) -> bool:
    for rule in objects(at(policy, "spec", "ingress")):
        if not rule.get("from"):
            return True
        for one in objects(rule["from"]):
            if "ipBlock" not in one and "namespaceSelector" not in one and matches(one.get("podSelector"), peer):
                return True
    return False


def confining(policies: Sequence[Object], labels: Labels) -> list[str]:
    """The policies that select a pod with these labels and don't let everything pass."""
    found = []
    for direction, side in (("Ingress", "from"), ("Egress", "to")):
        mine = selecting(policies, labels, direction)
        open_ = any(not rule.get(side) for one in mine for rule in objects(at(one, "spec", direction.lower())))
        found += [] if open_ else mine
    return named(found)


def allowing_more(policies: Sequence[Object], pods: Iterable[Labels], among: Sequence[Labels]) -> list[str]:
    """The policies by which one of those pods may talk to others than `among`, names looked up aside."""
    found: list[Object] = []
    for labels in pods:
        for direction, side in (("Ingress", "from"), ("Egress", "to")):
            found += [
                one
                for one in selecting(policies, labels, direction)
                if any(_more(rule, side, among) for rule in objects(at(one, "spec", direction.lower())))
            ]
    return named(found)


def _more(rule: Object, side: str, among: Sequence[Labels]) -> bool:
    ports = objects(rule.get("ports"))
    if side == "to" and ports and all(one.get("port") == DNS and "endPort" not in one for one in ports):
        return False
    peers = objects(rule.get(side))
    return not peers or not all(_within(one, among) for one in peers)


def _within(peer: Object, among: Sequence[Labels]) -> bool:
    if "ipBlock" in peer or "namespaceSelector" in peer:
        return False
    wanted = texts(at(peer, "podSelector", "matchLabels")).items()
    return any(labels.items() <= wanted for labels in among)
