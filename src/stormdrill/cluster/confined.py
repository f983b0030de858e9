"""How containers of ours run in a cluster: as nobody, with nothing that they don't need."""

from __future__ import annotations

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
