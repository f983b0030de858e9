"""How pods of ours run in a cluster: as nobody, with nothing that they don't need, and where something runs at all."""

from __future__ import annotations

from collections.abc import Iterable

NOBODY = 65532
CONFINED: dict[str, object] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""Of each container."""
HARDENED: dict[str, object] = {"seccompProfile": {"type": "RuntimeDefault"}}


def hardened() -> dict[str, object]:
    """A pod's security context that the restricted level allows."""
    return {**HARDENED, "runAsNonRoot": True, "runAsUser": NOBODY, "runAsGroup": NOBODY, "fsGroup": NOBODY}


def away_from(nodes: Iterable[str]) -> dict[str, object]:
    """An affinity that keeps a pod off these nodes, by name: one requirement each, for a field takes a single value."""
    fields = [{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in sorted(set(nodes))]
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
