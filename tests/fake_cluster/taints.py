"""What controllers do to nodes and because of them: the taint of a cordon, taints of a node that is not ready, and the
end of Pods that do not tolerate a NoExecute taint (no budget is asked)."""

from __future__ import annotations

import time
from collections.abc import Iterable

from fake_cluster.ground import Ground, now
from fake_cluster.loop import Change, Key
from fake_cluster.matching import Obj, condition, deleted_at, ended, put_condition, tolerates
from fake_cluster.replicas import place_of

UNSCHEDULABLE = "node.kubernetes.io/unschedulable"


class NodeTaints:
    """Appends its taints behind the others and takes them out again, each in a change of its own."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def concerns(self, change: Change) -> Iterable[Key]:
        return [("", change.name)] if change.resource == "nodes" and change.after is not None else ()

    def act(self, namespace: str, name: str) -> float | None:
        self.ground.change("nodes", "", name, _taint_as_it_stands)
        return None


def _taint_as_it_stands(node: Obj) -> bool:
    ready = (condition(node, "Ready") or {"status": "True"})["status"]
    wanted = {
        (UNSCHEDULABLE, "NoSchedule"): bool(node["spec"].get("unschedulable")),
        ("node.kubernetes.io/not-ready", "NoSchedule"): ready == "False",
        ("node.kubernetes.io/not-ready", "NoExecute"): ready == "False",
        ("node.kubernetes.io/unreachable", "NoSchedule"): ready == "Unknown",
        ("node.kubernetes.io/unreachable", "NoExecute"): ready == "Unknown",
    }
    before = node["spec"].get("taints") or []
    taints = [one for one in before if wanted.get((one["key"], one["effect"]), True)]
    there = {(one["key"], one["effect"]) for one in taints}
    for (key, effect), on in wanted.items():
        if on and (key, effect) not in there:
            taints.append({"key": key, "effect": effect, "timeAdded": now()})
    if taints == before:
        return False
    if taints:
        node["spec"]["taints"] = taints
    else:
        node["spec"].pop("taints", None)
    return True


class TaintManager:
    """Deletes the Pods that do not tolerate a NoExecute taint of their node, those with tolerationSeconds later."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._since: dict[str, float] = {}
        """uid of a Pod → when its node was first seen to be tainted."""

    def concerns(self, change: Change) -> Iterable[Key]:
        if change.resource == "pods" and change.after is None:
            self._since.pop(change.now["metadata"]["uid"], None)
            return ()
        if change.resource == "pods":
            on = change.now["spec"].get("nodeName")
            was = (change.before or {"spec": {}})["spec"].get("nodeName")
            node = self.ground.get("nodes", "", on) if on and on != was else None
            return [(change.namespace, change.name)] if node is not None and _hard(node) else ()
        if change.resource != "nodes" or change.after is None:
            return ()
        if change.before is not None and _hard(change.before) == _hard(change.after):
            return ()
        return [place_of(one) for one in self.ground.on_node(change.name)]

    def act(self, namespace: str, name: str) -> float | None:
        pod = self.ground.get("pods", namespace, name)
        if pod is None or deleted_at(pod) or ended(pod):
            return None
        node = self.ground.get("nodes", "", pod["spec"].get("nodeName", ""))
        taints = _hard(node) if node is not None else []
        uid = pod["metadata"]["uid"]
        if not taints:
            self._since.pop(uid, None)
            return None
        used = [tolerates(pod["spec"].get("tolerations") or [], one) for one in taints]
        limits = [one["tolerationSeconds"] for one in used if one is not None and "tolerationSeconds" in one]
        if None not in used and not limits:
            return None
        left_s = 0.0
        if None not in used:
            left_s = self._since.setdefault(uid, time.monotonic()) + max(0, min(limits)) - time.monotonic()
        if left_s > 0:
            return left_s
        self.ground.change("pods", namespace, name, _doomed, uid=uid)
        self.ground.delete("pods", pod)
        return None


def _hard(node: Obj) -> list[Obj]:
    return [one for one in node["spec"].get("taints") or [] if one["effect"] == "NoExecute"]


def _doomed(pod: Obj) -> bool:
    put_condition(pod.setdefault("status", {}), {
        "type": "DisruptionTarget", "status": "True", "lastProbeTime": None, "lastTransitionTime": now(),
        "reason": "DeletionByTaintManager", "message": "Taint manager: deleting due to NoExecute taint",
    })  # fmt: skip
    return True
