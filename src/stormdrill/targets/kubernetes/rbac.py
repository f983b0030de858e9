"""From what a drill needs, the rules that allow exactly this: ServiceAccount, Roles and ClusterRole as manifests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from stormdrill.model.permission import Need

Manifest = dict[str, object]
NAMELESS = frozenset({"create", "list", "watch", "deletecollection"})
"""Verbs whose requests carry no name, so that no rule can be limited to one."""
RBAC = "rbac.authorization.k8s.io"
EXPERIMENT = "stormdrill.dev/experiment"
"""Label of what is printed for one experiment alone, by which it is taken back: namespace and account are shared."""
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
"""In the order in which a rule tells them."""


def manifests(needs: Iterable[Need], *, name: str, suite: str, account: str, namespace: bool = True) -> list[Manifest]:
    """The account with all that these needs take, and nothing else. `name`: of the roles. `namespace`: with the suite's
    own namespace, which whoever applies this may create or has already."""
    scoped: dict[str, list[Need]] = {}
    for need in least(needs):
        scoped.setdefault(need.namespace, []).append(need)
    name = role_name(name)
    labels = labels_of(name.removeprefix("stormdrill-"))
    made: list[Manifest] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": suite}}] if namespace else []
    made.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": suite}})
    subject = {"kind": "ServiceAccount", "name": account, "namespace": suite}
    for where, asked in sorted(scoped.items()):
        kind = "Role" if where else "ClusterRole"
        meta: Manifest = {"name": name, **({"namespace": where} if where else {}), "labels": labels}
        version = f"{RBAC}/v1"
        made.append({"apiVersion": version, "kind": kind, "metadata": meta, "rules": rules(asked)})
        made.append(
            {
                "apiVersion": version,
                "kind": f"{kind}Binding",
                "metadata": dict(meta),
                "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
                "subjects": [subject],
            }
        )
    return made


def labels_of(experiment: str) -> dict[str, str]:
    return {"app.kubernetes.io/part-of": "stormdrill", EXPERIMENT: role_name(experiment)}


def least(needs: Iterable[Need]) -> list[Need]:
    """Without what is allowed in a namespace already because it is in all of them."""
    found = list(map(normal, needs))
    everywhere = {(need.verb, need.group, kind_of(need), need.name) for need in found if not need.namespace}

    def covered(need: Need) -> bool:
        alike = (need.verb, need.group, kind_of(need))
        return bool(need.namespace) and bool({(*alike, ""), (*alike, need.name)} & everywhere)

    return [need for need in found if not covered(need)]


def rules(needs: Iterable[Need]) -> list[Manifest]:
    """The rules of one role: verbs united by group, resource and name; what is allowed for any name stands alone."""
    found: dict[tuple[str, str], dict[str, set[str]]] = {}
    for need in map(normal, needs):
        found.setdefault((need.group, kind_of(need)), {}).setdefault(need.name, set()).add(need.verb)
    made = []
    for (group, resource), named in sorted(found.items()):
        anybody = named.pop("", set())
        if anybody:
            made.append(_rule(group, resource, anybody, ()))
        alike: dict[frozenset[str], list[str]] = {}
        for name, verbs in sorted(named.items()):
            if rest := verbs - anybody:
                alike.setdefault(frozenset(rest), []).append(name)
        made += [_rule(group, resource, verbs, names) for verbs, names in alike.items()]
    return made


def normal(need: Need) -> Need:
    """Without a name where its request carries none. A subresource is asked of an object that has one."""
    if not need.name or need.verb not in NAMELESS or (need.verb == "create" and need.subresource):
        return need
    return replace(need, name="")


def kind_of(need: Need) -> str:
    """pods/eviction, as rules have it."""
    return f"{need.resource}/{need.subresource}" if need.subresource else need.resource


def said(need: Need) -> str:
    """As a person reads it: `patch nodes/n1 (cluster-wide)`, `create pods/eviction in shop`."""
    named = f"/{need.name}" if need.name else ""
    group = f".{need.group}" if need.group else ""
    where = f"in {need.namespace}" if need.namespace else "(cluster-wide)"
    sub = f" ({need.subresource})" if need.subresource else ""
    return f"{need.verb} {need.resource}{group}{named}{sub} {where}"


def role_name(name: str) -> str:
    """What is left of a name that may stand in an object's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-") or "stormdrill"


def _rule(group: str, resource: str, verbs: Iterable[str], names: Sequence[str]) -> Manifest:
    rule: Manifest = {"apiGroups": [group], "resources": [resource]}
    if names:
        rule["resourceNames"] = list(names)
    known = {verb: place for place, verb in enumerate(VERBS)}
    rule["verbs"] = sorted(verbs, key=lambda verb: (known.get(verb, len(VERBS)), verb))
    return rule
