"""Device plugins: a Pod with the annotation `fake-cluster/advertises: nvidia.com/gpu=4` is one. Its node has the
devices while it runs, and none when it is gone, as a kubelet tells it."""

from __future__ import annotations

from collections.abc import Iterable

from fake_cluster.ground import Ground
from fake_cluster.loop import Change, Key
from fake_cluster.matching import Obj, deleted_at, is_true

ADVERTISES = "fake-cluster/advertises"


class Devices:
    """Its keys are nodes."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._known: dict[str, set[str]] = {}
        """Node → resources that a plugin advertised there."""

    def concerns(self, change: Change) -> Iterable[Key]:
        if change.resource != "pods" or not _said(change.now):
            return ()
        node = change.now["spec"].get("nodeName")
        return [("", node)] if node else ()

    def act(self, namespace: str, name: str) -> float | None:
        offered: dict[str, str] = {}
        for pod in self.ground.on_node(name):
            if _said(pod) and is_true(pod, "Ready") and not deleted_at(pod):
                resource, _, count = _said(pod).partition("=")
                offered[resource] = count
        known = self._known.setdefault(name, set())
        known |= set(offered)

        def put(node: Obj) -> bool:
            allocatable, capacity = (node["status"].setdefault(part, {}) for part in ("allocatable", "capacity"))
            for resource in known:
                allocatable[resource] = offered.get(resource, "0")
                if resource in offered:
                    capacity[resource] = offered[resource]
            return True

        if known:
            self.ground.change("nodes", "", name, put)
        return None


def _said(pod: Obj) -> str:
    return str((pod["metadata"].get("annotations") or {}).get(ADVERTISES, ""))
