"""What a namespace brings with it, and how it ends: its content first."""

from __future__ import annotations

from fake_cluster.kinds import Kind
from fake_cluster.registry import Deletion, Registry
from fake_cluster.store import Event, Object

FIRST = ("default", "kube-system", "kube-public", "kube-node-lease")


def install(registry: Registry) -> None:
    registry.default("namespaces")(_default)
    registry.store.subscribe(lambda event: _follow(registry, event))


def _default(obj: Object) -> None:
    meta = obj["metadata"]
    if meta.get("name"):
        meta["labels"] = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta["name"]}
    obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    obj.setdefault("status", {}).setdefault("phase", "Active")


def _follow(registry: Registry, event: Event) -> None:
    if event.kind.plural == "namespaces" and not event.kind.group:
        name = event.key[1]
        if event.type == "ADDED":
            for obj in (
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}},
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": "kube-root-ca.crt"},
                    "data": {"ca.crt": ""},
                },
            ):
                registry.create(registry.kinds.of_object(obj), name, obj)
        elif event.type == "MODIFIED" and event.after.obj["metadata"].get("deletionTimestamp"):
            _empty(registry, name)
    elif event.type == "DELETED" and event.key[0]:
        _perhaps_over(registry, event.key[0])


def _content(registry: Registry, name: str) -> list[tuple[Kind, str]]:
    return [
        (kind, stored.obj["metadata"]["name"])
        for kind in registry.kinds.known.values()
        if kind.namespaced
        for stored in registry.store.all(kind, name)
    ]


def _empty(registry: Registry, name: str) -> None:
    for kind, one in _content(registry, name):
        if registry.store.get(kind, name, one) is not None:
            registry.delete(kind, name, one, Deletion(propagation="Background"))
    _perhaps_over(registry, name)


def _perhaps_over(registry: Registry, name: str) -> None:
    kind = registry.kinds.named("namespaces")
    held = registry.store.get(kind, "", name)
    if held is None or not held.obj["metadata"].get("deletionTimestamp") or _content(registry, name):
        return
    if held.obj["metadata"].get("finalizers"):
        return
    registry.store.remove(kind, "", name)
