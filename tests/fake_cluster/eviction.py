"""Disruption budgets: what their controller says of them, and the eviction that asks them."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterable
from datetime import datetime

from fake_cluster.calls import Call, Reply
from fake_cluster.ground import Ground, now
from fake_cluster.loop import Change, Key
from fake_cluster.matching import Obj, controller_of, deleted_at, is_true, labels_of, put_condition, selects
from fake_cluster.problems import Problem, bad_request, not_found, problem, status
from fake_cluster.registry import Deletion, Registry

FORGOTTEN_S = 120.0
"""After so long an eviction that was charged but never carried out is given back."""
SCALED = {"ReplicaSet": "replicasets", "StatefulSet": "statefulsets", "Deployment": "deployments"}


class NoScale(Exception):
    """The controller of a Pod has no scale."""


class Budgets:
    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def concerns(self, change: Change) -> Iterable[Key]:
        if change.resource == "poddisruptionbudgets":
            return [(change.namespace, change.name)]
        if change.resource in ("replicasets", "deployments", "statefulsets"):
            return [_key(one) for one in self.ground.all("poddisruptionbudgets", change.namespace)]
        if change.resource != "pods":
            return ()
        things = [one for one in (change.before, change.after) if one is not None]
        return [
            _key(one) for one in self.ground.all("poddisruptionbudgets", change.namespace)
            if any(selects(one["spec"].get("selector"), labels_of(thing)) for thing in things)
        ]  # fmt: skip

    def act(self, namespace: str, name: str) -> float | None:
        budget = self.ground.get("poddisruptionbudgets", namespace, name)
        if budget is None or deleted_at(budget):
            return None
        pods = [
            one for one in self.ground.all("pods", namespace)
            if selects(budget["spec"].get("selector"), labels_of(one))
        ]  # fmt: skip
        try:
            expected, desired = self._wanted(budget["spec"], pods)
        except NoScale as why:
            said = copy.deepcopy(budget["status"])
            put_condition(said, {
                "type": "DisruptionAllowed", "status": "False", "lastTransitionTime": now(), "reason": "SyncFailed",
                "message": str(why),
            })  # fmt: skip
            self.ground.set_status("poddisruptionbudgets", budget, said)
            return None
        disrupted, again_s = _still_disrupted(budget, pods)
        healthy = sum(
            is_true(one, "Ready") and not deleted_at(one) and one["metadata"]["name"] not in disrupted for one in pods
        )
        allowed = max(0, healthy - desired) if expected > 0 else 0
        self.ground.set_status(
            "poddisruptionbudgets", budget, told(budget, allowed, healthy, desired, expected, disrupted)
        )
        return again_s

    def _wanted(self, spec: Obj, pods: list[Obj]) -> tuple[int, int]:
        """Expected, and how many of them must be healthy."""
        if "maxUnavailable" in spec:
            expected = self._scales(pods)
            limit = spec["maxUnavailable"]
            lost = math.ceil(int(limit[:-1]) * expected / 100) if isinstance(limit, str) else int(limit)
            return expected, max(0, expected - lost)
        least = spec.get("minAvailable", 1)
        if isinstance(least, str):
            expected = self._scales(pods)
            return expected, math.ceil(int(least[:-1]) * expected / 100)
        return len(pods), int(least)

    def _scales(self, pods: list[Obj]) -> int:
        """How many Pods their controllers want, together."""
        sizes: dict[str, int] = {}
        for pod in pods:
            owner = controller_of(pod)
            while owner is not None:
                resource = SCALED.get(owner["kind"])
                if resource is None:
                    raise NoScale(f"{owner['kind'].lower()}s does not implement the scale subresource")
                held = self.ground.get(resource, pod["metadata"]["namespace"], owner["name"])
                above = controller_of(held) if held is not None else None
                if held is not None and above is None:
                    sizes[held["metadata"]["uid"]] = int(held["spec"].get("replicas", 1))
                owner = above
        return sum(sizes.values())


def _key(thing: Obj) -> Key:
    return thing["metadata"]["namespace"], thing["metadata"]["name"]


def _still_disrupted(budget: Obj, pods: list[Obj]) -> tuple[dict[str, str], float | None]:
    """Evictions that were charged and are not carried out yet; the seconds until the next is given back."""
    there = {one["metadata"]["name"] for one in pods if not deleted_at(one)}
    left: dict[str, str] = {}
    waits = []
    for name, at in (budget["status"].get("disruptedPods") or {}).items():
        left_s = datetime.fromisoformat(at).timestamp() + FORGOTTEN_S - time.time()
        if name in there and left_s > 0:
            left[name] = at
            waits.append(left_s)
    return left, min(waits) if waits else None


def told(budget: Obj, allowed: int, healthy: int, desired: int, expected: int, disrupted: dict[str, str]) -> Obj:
    generation = budget["metadata"]["generation"]
    said: Obj = {"observedGeneration": generation}
    if disrupted:
        said["disruptedPods"] = disrupted
    said |= {
        "disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": desired, "expectedPods": expected,
        "conditions": copy.deepcopy(budget["status"].get("conditions") or []),
    }  # fmt: skip
    put_condition(said, {
        "type": "DisruptionAllowed", "status": str(allowed > 0), "observedGeneration": generation,
        "lastTransitionTime": now(), "reason": "SufficientPods" if allowed else "InsufficientPods", "message": "",
    })  # fmt: skip
    said["conditions"][-1]["observedGeneration"] = generation
    return said


def install(registry: Registry) -> None:
    registry.handler("pods", "eviction", "POST")(evict)


def evict(call: Call) -> Reply:
    body = json.loads(call.body) if call.body else {}
    meta = body.get("metadata") or {}
    if meta.get("namespace", call.namespace) != call.namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if meta.get("name") != call.name:
        raise bad_request("name in URL does not match name in Eviction object")
    options = body.get("deleteOptions") or {}
    wanted = options.get("preconditions") or {}
    dry = "All" in (call.values.get("dryRun") or []) or "All" in (options.get("dryRun") or [])
    deletion = Deletion(
        options.get("gracePeriodSeconds"), wanted.get("uid") or "", wanted.get("resourceVersion") or "",
        options.get("propagationPolicy") or "", dry,
    )  # fmt: skip
    registry = call.registry
    with registry.store.lock:
        pod = registry.read("pods", call.namespace, call.name)
        if pod is None:
            raise not_found(call.served(), call.name)
        disrupts = pod["status"].get("phase") not in ("Succeeded", "Failed", "Pending") and not deleted_at(pod)
        if disrupts:
            _ask_budgets(registry, pod, dry)
        _end(call, deletion, mark=disrupts)
    return Reply(201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})


def _end(call: Call, deletion: Deletion, *, mark: bool) -> None:
    registry, kind = call.registry, call.served()
    # preconditions first: what is refused is not marked
    tried = Deletion(deletion.grace, deletion.uid, deletion.version, deletion.propagation, dry_run=True)
    registry.delete(kind, call.namespace, call.name, tried, user=call.user)
    if deletion.dry_run:
        return
    if mark:
        registry.change("pods", call.namespace, call.name, _marked)
    final = Deletion(deletion.grace, deletion.uid, "", deletion.propagation)
    registry.delete(kind, call.namespace, call.name, final, user=call.user)


def _marked(pod: Obj) -> None:
    put_condition(pod.setdefault("status", {}), {
        "type": "DisruptionTarget", "status": "True", "lastProbeTime": None, "lastTransitionTime": now(),
        "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
    })  # fmt: skip


def _ask_budgets(registry: Registry, pod: Obj, dry: bool) -> None:
    """Charges the budget of the Pod; raises Problem where it allows nothing."""
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    budgets = [
        one for one in registry.list("poddisruptionbudgets", namespace)
        if selects(one["spec"].get("selector"), labels_of(pod))
    ]  # fmt: skip
    if len(budgets) > 1:
        raise problem(
            500, "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    if not budgets:
        return
    budget, said = budgets[0], budgets[0]["status"]
    if not is_true(pod, "Ready"):
        enough = said["currentHealthy"] >= said["desiredHealthy"] > 0
        if enough or budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
            return
    called = budget["metadata"]["name"]
    if said.get("observedGeneration", 0) < budget["metadata"]["generation"]:
        raise _too_many(f"The disruption budget {called} is still being processed by the server.", after_s=10)
    if said["disruptionsAllowed"] <= 0:
        needs = f"needs {said['desiredHealthy']} healthy pods and has {said['currentHealthy']} currently"
        raise _too_many(f"The disruption budget {called} {needs}")
    if dry:
        return

    def charge(thing: Obj) -> None:
        thing["status"]["disruptionsAllowed"] -= 1
        thing["status"].setdefault("disruptedPods", {})[name] = now()

    registry.change("poddisruptionbudgets", namespace, called, charge)


def _too_many(cause: str, after_s: int = 0) -> Problem:
    details: Obj = {"causes": [{"reason": "DisruptionBudget", "message": cause}]}
    if after_s:
        details["retryAfterSeconds"] = after_s
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    headers = {"Retry-After": str(after_s)} if after_s else {}
    return Problem(429, status(429, message, "TooManyRequests", details), headers)
