"""How pods of ours run in a cluster: as nobody, with nothing that they don't need, and where something runs at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

NOBODY = 65532
CONFINED: dict[str, object] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""Of each container."""
HARDENED: dict[str, object] = {"seccompProfile": {"type": "RuntimeDefault"}}

NOWHERE = {
    "kubernetes.io/os": "windows",
    "eks.amazonaws.com/compute-type": "fargate",
    "type": "virtual-kubelet",
}
"""Labels of nodes on which no pod of ours ever begins: those of another system, and those that take only pods that
were made for them. Whoever tolerates every taint is sent there all the same."""


def hardened() -> dict[str, object]:
    """A pod's security context that the restricted level allows."""
    return {**HARDENED, "runAsNonRoot": True, "runAsUser": NOBODY, "runAsGroup": NOBODY, "fsGroup": NOBODY}


def placed(
    *, nodes: Mapping[str, str], off: Iterable[str] = (), rather_not: Iterable[str] = (), pull_secret: str = ""
) -> dict[str, object]:
    """What the specification of each pod of ours says alike. `nodes`: labels of those that it may stand on. `off`:
    names of those that it never stands on, `rather_not`: of those that are left where there are others. `pull_secret`:
    the Secret in the pod's own namespace with which its image is pulled."""
    return {
        "securityContext": hardened(),
        "affinity": away_from(off, rather_not),
        **({"nodeSelector": dict(nodes)} if nodes else {}),
        **({"imagePullSecrets": [{"name": pull_secret}]} if pull_secret else {}),
    }


def away_from(off: Iterable[str], rather_not: Iterable[str] = ()) -> dict[str, object]:
    """An affinity that keeps a pod off these nodes, by name, and off those where it would never begin."""
    labels = [{"key": key, "operator": "NotIn", "values": [value]} for key, value in NOWHERE.items()]
    term = {"matchExpressions": labels, **_none_of(off)}
    found: dict[str, object] = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    if others := _none_of(rather_not):
        found["preferredDuringSchedulingIgnoredDuringExecution"] = [{"weight": 100, "preference": others}]
    return {"nodeAffinity": found}


def _none_of(names: Iterable[str]) -> dict[str, object]:
    """One requirement each, for a field takes a single value."""
    fields = [{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in sorted(set(names))]
    return {"matchFields": fields} if fields else {}
