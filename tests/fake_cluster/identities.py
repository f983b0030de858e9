"""What admission does about the ServiceAccount of a Pod: it must exist, and its token is mounted."""

from __future__ import annotations

import secrets

from fake_cluster.problems import forbidden
from fake_cluster.registry import SUFFIX, Admitted, Registry
from fake_cluster.store import Object

MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
LASTS_S = 3607


def install(registry: Registry) -> None:
    registry.admission(lambda asked: _pod(registry, asked))


def _pod(registry: Registry, asked: Admitted) -> None:
    if asked.kind.resource != "pods" or asked.operation != "CREATE" or asked.obj is None:
        return
    spec = asked.obj.get("spec") or {}
    name = spec.get("serviceAccountName") or "default"
    account = registry.store.get(registry.kinds.named("serviceaccounts"), asked.namespace, name)
    if account is None:
        missing = f'error looking up service account {asked.namespace}/{name}: serviceaccount "{name}" not found'
        raise forbidden("pods", "", "pods", asked.name, missing)
    wanted = spec.get("automountServiceAccountToken", account.obj.get("automountServiceAccountToken", True))
    if wanted and spec.get("containers"):
        _mount(spec)


def _mount(spec: Object) -> None:
    containers = [*(spec.get("initContainers") or []), *spec["containers"]]
    bare = [one for one in containers if not any(held["mountPath"] == MOUNT for held in one.get("volumeMounts") or [])]
    if not bare:
        return
    name = "kube-api-access-" + "".join(secrets.choice(SUFFIX) for _ in range(5))
    spec.setdefault("volumes", []).append({"name": name, "projected": {"sources": _sources(), "defaultMode": 420}})
    for one in bare:
        one.setdefault("volumeMounts", []).append({"name": name, "readOnly": True, "mountPath": MOUNT})


def _sources() -> list[Object]:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return [
        {"serviceAccountToken": {"expirationSeconds": LASTS_S, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
