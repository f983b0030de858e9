"""StatefulSets and DaemonSets. Simple: one Pod more, or one less, a step."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from fake_cluster.ground import Ground, Refused
from fake_cluster.loop import Change, Key
from fake_cluster.matching import Obj, deleted_at, is_true, node_fits, tolerates
from fake_cluster.replicas import digest, owners_key, place_of, pod_from

REVISION = "controller-revision-hash"
DAEMONS_TOLERATE = (
    ("not-ready", "NoExecute"), ("unreachable", "NoExecute"), ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"), ("pid-pressure", "NoSchedule"), ("unschedulable", "NoSchedule"),
)  # fmt: skip


def _revision(owner: Obj) -> str:
    return f"{owner['metadata']['name']}-{digest(owner['spec']['template'])}"


class StatefulSets:
    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def concerns(self, change: Change) -> Iterable[Key]:
        if change.resource == "statefulsets":
            return [(change.namespace, change.name)]
        return owners_key(change, "StatefulSet") if change.resource == "pods" else ()

    def act(self, namespace: str, name: str) -> float | None:
        sts = self.ground.get("statefulsets", namespace, name)
        if sts is None:
            return None
        refused = False
        if not deleted_at(sts):
            try:
                self._step(sts)
            except Refused:
                refused = True
        self._tell(sts)
        return 0.5 if refused else None

    def _step(self, sts: Obj) -> None:
        pods = {one["metadata"]["name"]: one for one in self.ground.controlled(sts, "pods")}
        first = (sts["spec"].get("ordinals") or {}).get("start", 0)
        wanted = [f"{sts['metadata']['name']}-{first + at}" for at in range(sts["spec"].get("replicas", 1))]
        together = sts["spec"].get("podManagementPolicy") == "Parallel"
        for name in wanted:
            pod = pods.get(name)
            if pod is None:
                self._create(sts, name)
            elif (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded") and not deleted_at(pod):
                self.ground.delete("pods", pod)
            if (pod is None or deleted_at(pod) or not is_true(pod, "Ready")) and not together:
                return
        for name in sorted(set(pods) - set(wanted), reverse=True):
            if not deleted_at(pods[name]):
                self.ground.delete("pods", pods[name])
            if not together:
                return
        if (sts["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate") != "RollingUpdate":
            return
        for name in reversed(wanted):
            if pods[name]["metadata"]["labels"].get(REVISION) != _revision(sts):
                self.ground.delete("pods", pods[name])
                return

    def _create(self, sts: Obj, name: str) -> None:
        pod = pod_from(sts["spec"]["template"], sts, "StatefulSet")
        pod["metadata"]["name"] = name
        pod["metadata"].setdefault("labels", {}).update({
            REVISION: _revision(sts), "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": name.rpartition("-")[2],
        })  # fmt: skip
        pod["spec"].setdefault("hostname", name)
        self.ground.create("pods", sts["metadata"]["namespace"], pod)

    def _tell(self, sts: Obj) -> None:
        pods = self.ground.pods_that_live(self.ground.controlled(sts, "pods"))
        ready = sum(is_true(one, "Ready") for one in pods)
        updated = sum(one["metadata"]["labels"].get(REVISION) == _revision(sts) for one in pods)
        status: Obj = {
            "observedGeneration": sts["metadata"].get("generation", 1), "replicas": len(pods),
            "availableReplicas": ready, "currentRevision": _revision(sts), "updateRevision": _revision(sts),
            "collisionCount": 0,
        }  # fmt: skip
        counts = {"readyReplicas": ready, "currentReplicas": updated, "updatedReplicas": updated}
        self.ground.set_status("statefulsets", sts, status | {key: count for key, count in counts.items() if count})


class DaemonSets:
    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def concerns(self, change: Change) -> Iterable[Key]:
        if change.resource == "daemonsets":
            return [(change.namespace, change.name)]
        if change.resource == "nodes" and _node_moved(change):
            return [place_of(one) for one in self.ground.all("daemonsets")]
        return owners_key(change, "DaemonSet") if change.resource == "pods" else ()

    def act(self, namespace: str, name: str) -> float | None:
        ds = self.ground.get("daemonsets", namespace, name)
        if ds is None:
            return None
        wanted = [one["metadata"]["name"] for one in self.ground.all("nodes") if self._belongs(ds, one)]
        refused = False
        if not deleted_at(ds):
            try:
                self._step(ds, wanted)
            except Refused:
                refused = True
        self._tell(ds, wanted)
        return 0.5 if refused else None

    def _belongs(self, ds: Obj, node: Obj, effects: tuple[str, ...] = ("NoSchedule", "NoExecute")) -> bool:
        spec = ds["spec"]["template"]["spec"]
        tolerations = [*(spec.get("tolerations") or []), *_daemon_tolerations()]
        hard = [one for one in node["spec"].get("taints") or [] if one["effect"] in effects]
        return node_fits(spec, node) and all(tolerates(tolerations, one) for one in hard)

    def _by_node(self, ds: Obj) -> dict[str, list[Obj]]:
        found: dict[str, list[Obj]] = {}
        for pod in self.ground.controlled(ds, "pods"):
            found.setdefault(pod["spec"].get("nodeName") or _meant_for(pod), []).append(pod)
        return found

    def _step(self, ds: Obj, wanted: list[str]) -> None:
        there = self._by_node(ds)
        # NoSchedule keeps new ones away; who runs already goes on
        nodes = self.ground.all("nodes")
        may_stay = {one["metadata"]["name"] for one in nodes if self._belongs(ds, one, ("NoExecute",))}
        for node in sorted(set(there) - set(wanted) - may_stay):
            for pod in there[node]:
                if not deleted_at(pod):
                    self.ground.delete("pods", pod)
        replace = (ds["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"
        for node in wanted:
            pods = there.get(node, [])
            if not pods:
                self.ground.create("pods", ds["metadata"]["namespace"], self._pod(ds, node))
            for pod in pods:
                old = replace and pod["metadata"]["labels"].get(REVISION) != digest(ds["spec"]["template"])
                failed = (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")
                if (old or failed) and not deleted_at(pod):
                    self.ground.delete("pods", pod)

    def _pod(self, ds: Obj, node: str) -> Obj:
        pod = pod_from(ds["spec"]["template"], ds, "DaemonSet")
        pod["metadata"].setdefault("labels", {})[REVISION] = digest(ds["spec"]["template"])
        affinity = pod["spec"].setdefault("affinity", {}).setdefault("nodeAffinity", {})
        here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [here]}
        pod["spec"]["tolerations"] = [*(pod["spec"].get("tolerations") or []), *_daemon_tolerations()]
        return pod

    def _tell(self, ds: Obj, wanted: list[str]) -> None:
        there = {node: self.ground.pods_that_live(pods) for node, pods in self._by_node(ds).items()}
        placed = [there[node] for node in wanted if there.get(node)]
        ready = sum(any(is_true(pod, "Ready") for pod in pods) for pods in placed)
        updated = sum(
            any(pod["metadata"]["labels"].get(REVISION) == digest(ds["spec"]["template"]) for pod in pods)
            for pods in placed
        )
        status: Obj = {
            "currentNumberScheduled": len(placed), "numberMisscheduled": sum(
                bool(pods) for node, pods in there.items() if node not in wanted
            ),
            "desiredNumberScheduled": len(wanted), "numberReady": ready,
            "observedGeneration": ds["metadata"].get("generation", 1),
        }  # fmt: skip
        missing = len(wanted) - ready
        counts = {"updatedNumberScheduled": updated, "numberAvailable": ready, "numberUnavailable": missing}
        self.ground.set_status("daemonsets", ds, status | {key: count for key, count in counts.items() if count})


def _daemon_tolerations() -> list[Obj]:
    return [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": effect} for key, effect in DAEMONS_TOLERATE
    ]


def _meant_for(pod: Obj) -> str:
    required = copy.copy(pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"])
    return str(required["nodeSelectorTerms"][0]["matchFields"][0]["values"][0])


def _node_moved(change: Change) -> bool:
    """Labels, taints or the node itself."""
    if change.before is None or change.after is None:
        return True
    return (
        change.before["spec"] != change.after["spec"]
        or change.before["metadata"].get("labels") != change.after["metadata"].get("labels")
    )  # fmt: skip
