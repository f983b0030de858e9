"""The scheduler: which node a Pod may go to, why none fits, who must give way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal

from fake_cluster.ground import Ground, Refused, now
from fake_cluster.loop import Change, Key
from fake_cluster.matching import (
    Obj,
    deleted_at,
    ended,
    labels_of,
    node_fits,
    put_condition,
    quantity,
    requests_of,
    term_holds,
    tolerates,
)
from fake_cluster.replicas import digest, place_of
from fake_cluster.spreading import Spread

NAME = "default-scheduler"
NO_MATCH = "node(s) didn't match Pod's node affinity/selector"
UNHELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"


def waits(pod: Obj) -> bool:
    spec = pod["spec"]
    mine = spec.get("schedulerName", NAME) == NAME and not spec.get("schedulingGates")
    return mine and not spec.get("nodeName") and not deleted_at(pod) and not ended(pod)


class Scheduler:
    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._waiting: dict[Key, None] = {}
        """Pods that fitted nowhere when last looked at."""
        self._asked: dict[str, dict[str, Decimal]] = {}
        """uid → what a Pod takes of its node."""

    def concerns(self, change: Change) -> Iterable[Key]:
        if change.resource == "pods":
            key = change.namespace, change.name
            if change.after is None:
                self._asked.pop(change.now["metadata"]["uid"], None)
            if change.after is None or not waits(change.after):
                self._waiting.pop(key, None)
                freed = change.after is None or ended(change.now)
                return list(self._waiting) if freed and change.now["spec"].get("nodeName") else ()
            if change.before is not None and change.before["spec"] == change.after["spec"]:
                return ()  # only what was said of it
            return [key]
        if change.resource == "nodes" and _room_changed(change):
            return list(self._waiting)
        return ()

    def act(self, namespace: str, name: str) -> float | None:
        pod = self.ground.get("pods", namespace, name)
        if pod is None or not waits(pod):
            return None
        nodes = self.ground.all("nodes")
        spread = Spread(self.ground, pod, nodes)
        why = {one["metadata"]["name"]: self._why_not(pod, one, spread) for one in nodes}
        fitting = [one for one in nodes if not why[one["metadata"]["name"]]]
        if fitting:
            self._waiting.pop((namespace, name), None)
            self._bind(pod, min(fitting, key=lambda one: self._worth(pod, one, spread)))
            return None
        self._waiting[(namespace, name)] = None
        self._give_up(pod, {name: reason for name, reason in why.items() if reason})
        return None

    def _why_not(self, pod: Obj, node: Obj, spread: Spread) -> str:
        spec, taints = pod["spec"], node["spec"].get("taints") or []
        tolerations = spec.get("tolerations") or []
        cordoned = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        if node["spec"].get("unschedulable") and not tolerates(tolerations, cordoned):
            return "node(s) were unschedulable"
        for taint in taints:
            if taint["effect"] in ("NoSchedule", "NoExecute") and not tolerates(tolerations, taint):
                return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
        if not node_fits(spec, node):
            return NO_MATCH
        if lacking := self._lacking(self._takes(pod), node, self.ground.on_node(node["metadata"]["name"])):
            return lacking
        if spread.apart_from(node):
            return "node(s) didn't match pod anti-affinity rules"
        if spread.uneven(node):
            return "node(s) didn't match pod topology spread constraints"
        return ""

    def _takes(self, pod: Obj) -> dict[str, Decimal]:
        uid = pod["metadata"]["uid"]
        if uid not in self._asked:
            self._asked[uid] = requests_of(pod["spec"])
        return self._asked[uid]

    def _lacking(self, asked: dict[str, Decimal], node: Obj, pods: list[Obj]) -> str:
        has = (node.get("status") or {}).get("allocatable") or {}
        used: Counter[str] = Counter()
        for pod in pods:
            if not ended(pod):
                used.update(self._takes(pod))  # type: ignore[arg-type]  # Counter adds Decimals as well
        for name, amount in sorted(asked.items()):
            room = quantity(has.get(name, 110 if name == "pods" else 0)) - used[name]
            if amount > room and amount > 0:
                return "Too many pods" if name == "pods" else f"Insufficient {name}"
        return ""

    def _worth(self, pod: Obj, node: Obj, spread: Spread) -> tuple[object, ...]:
        """The least wins: what it prefers, few of its own kind in the zone and on the node, few Pods, the first by
        name."""
        soft = sum(
            one["effect"] == "PreferNoSchedule" and not tolerates(pod["spec"].get("tolerations") or [], one)
            for one in node["spec"].get("taints") or []
        )
        affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
        wished = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or []
        granted = sum(one["weight"] for one in wished if term_holds(one["preference"], node))
        return soft, -granted, *spread.crowd(node), node["metadata"]["name"]

    def _bind(self, pod: Obj, node: Obj) -> None:
        self.ground.change("pods", *place_of(pod), _bound(node["metadata"]["name"]), uid=pod["metadata"]["uid"])

    def _give_up(self, pod: Obj, why: dict[str, str]) -> None:
        total = len(why)
        told = f"0/{total} nodes are available: {_counted(why.values())}."
        victims = self._victims(pod, why)
        if victims is None:
            if pod["spec"].get("preemptionPolicy") == "Never":
                told += " preemption: not eligible due to preemptionPolicy=Never."
            else:
                helpless = [NO_VICTIMS if _for_room(one) else UNHELPFUL for one in why.values()]
                told += f" preemption: 0/{total} nodes are available: {_counted(helpless)}."
        if total == 0:
            told = "no nodes available to schedule pods"
        if victims is not None:
            self._preempt(pod, *victims)
        known = (pod.get("status") or {}).get("conditions") or []
        if any(one.get("message") == told for one in known):
            return

        def put(thing: Obj) -> bool:
            status = thing.setdefault("status", {})
            put_condition(status, {
                "type": "PodScheduled", "status": "False", "lastProbeTime": None, "lastTransitionTime": now(),
                "reason": "Unschedulable", "message": told,
            })  # fmt: skip
            if victims is not None:
                status["nominatedNodeName"] = victims[0]
            return True

        self.ground.change("pods", *place_of(pod), put, uid=pod["metadata"]["uid"])
        self._event(pod, "Warning", "FailedScheduling", "Scheduling", told)

    def _victims(self, pod: Obj, why: dict[str, str]) -> tuple[str, list[Obj]] | None:
        """The node where the fewest of lower priority would have to go."""
        if pod["spec"].get("preemptionPolicy") == "Never":
            return None
        own, best = pod["spec"].get("priority", 0), None
        for name in sorted(node for node, reason in why.items() if _for_room(reason)):
            here, node = self.ground.on_node(name), self.ground.get("nodes", "", name)
            lower = [one for one in here if one["spec"].get("priority", 0) < own and not ended(one)]
            gone: list[Obj] = []
            for one in sorted(lower, key=lambda pod: (pod["spec"].get("priority", 0), pod["metadata"]["name"])):
                gone.append(one)
                left = [other for other in here if other not in gone]
                if node is not None and not self._lacking(requests_of(pod["spec"]), node, left):
                    if best is None or len(gone) < len(best[1]):
                        best = name, gone
                    break
        return best

    def _preempt(self, pod: Obj, node: str, victims: list[Obj]) -> None:
        for victim in victims:
            if deleted_at(victim):
                continue

            def put(thing: Obj) -> bool:
                told = f"{NAME}: preempting to accommodate a higher priority pod"
                put_condition(thing.setdefault("status", {}), {
                    "type": "DisruptionTarget", "status": "True", "lastProbeTime": None, "lastTransitionTime": now(),
                    "reason": "PreemptionByScheduler", "message": told,
                })  # fmt: skip
                return True

            self.ground.change("pods", *place_of(victim), put, uid=victim["metadata"]["uid"])
            told = f"Preempted by pod {pod['metadata']['uid']} on node {node}"
            self._event(victim, "Normal", "Preempted", "Preempting", told, related=pod)
            self.ground.delete("pods", victim)

    def _event(self, pod: Obj, kind: str, reason: str, action: str, message: str, related: Obj | None = None) -> None:
        meta = pod["metadata"]
        event: Obj = {
            "apiVersion": "v1", "kind": "Event",
            "metadata": {
                "name": f"{meta['name']}.{digest([meta['uid'], message, now()], 16)}", "namespace": meta["namespace"],
            },
            "involvedObject": _pointed_at(pod), "reason": reason, "message": message, "source": {},
            "firstTimestamp": None, "lastTimestamp": None, "type": kind, "eventTime": now()[:-1] + ".000000Z",
            "action": action, "reportingComponent": NAME, "reportingInstance": f"{NAME}-control-plane",
        }  # fmt: skip
        if related is not None:
            event["related"] = _pointed_at(related)
        try:
            self.ground.create("events", meta["namespace"], event)
        except Refused:
            return  # the namespace ends, or the same was said within this second


def _pointed_at(pod: Obj) -> Obj:
    meta = pod["metadata"]
    return {
        "kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"], "apiVersion": "v1",
        "resourceVersion": meta["resourceVersion"],
    }  # fmt: skip


def _bound(node: str):  # type: ignore[no-untyped-def]  # a closure for Ground.change
    def put(thing: Obj) -> bool:
        if thing["spec"].get("nodeName") or deleted_at(thing):
            return False
        thing["spec"]["nodeName"] = node
        status = thing.setdefault("status", {})
        put_condition(status, {
            "type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now(),
        })  # fmt: skip
        return True

    return put


def _counted(reasons: Iterable[str]) -> str:
    return ", ".join(sorted(f"{count} {reason}" for reason, count in Counter(reasons).items()))


def _for_room(reason: str) -> bool:
    """Who goes could make room."""
    return reason.startswith(("Insufficient", "Too many", "node(s) didn't match pod anti"))


def _room_changed(change: Change) -> bool:
    if change.before is None or change.after is None:
        return True
    before, after = change.before, change.after
    return (
        before["spec"] != after["spec"] or labels_of(before) != labels_of(after)
        or (before.get("status") or {}).get("allocatable") != (after.get("status") or {}).get("allocatable")
    )  # fmt: skip
