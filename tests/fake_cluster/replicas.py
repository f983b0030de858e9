"""ReplicaSet → Pods, and what all that make Pods from templates share."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable

from fake_cluster.ground import Ground, Refused, now
from fake_cluster.loop import Change, Key
from fake_cluster.matching import Obj, condition, controller_of, deleted_at, is_true, put_condition, selects

HASH = "pod-template-hash"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


def digest(value: object, length: int = 10) -> str:
    """A name's hash in the letters that Kubernetes uses."""
    number = int.from_bytes(hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest(), "big")
    letters = ""
    for _ in range(length):
        number, at = divmod(number, len(_LETTERS))
        letters += _LETTERS[at]
    return letters


def owner_reference(owner: Obj, kind: str, version: str = "apps/v1") -> Obj:
    meta = owner["metadata"]
    return {
        "apiVersion": version, "kind": kind, "name": meta["name"], "uid": meta["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip


def pod_from(template: Obj, owner: Obj, kind: str, version: str = "apps/v1") -> Obj:
    """A Pod of a template, not yet named beyond generateName."""
    meta = template.get("metadata") or {}
    kept = {key: copy.deepcopy(meta[key]) for key in ("labels", "annotations") if meta.get(key)}
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": owner["metadata"]["name"] + "-", "namespace": owner["metadata"]["namespace"], **kept,
            "ownerReferences": [owner_reference(owner, kind, version)],
        },
        "spec": copy.deepcopy(template["spec"]),
    }  # fmt: skip


def to_go_first(pod: Obj) -> tuple[object, ...]:
    """The order in which a ReplicaSet lets go of Pods: without node, not ready, the youngest."""
    phase = (pod.get("status") or {}).get("phase", "Pending")
    return (
        bool(pod["spec"].get("nodeName")), phase == "Running", is_true(pod, "Ready"),
        tuple(-ord(letter) for letter in pod["metadata"]["creationTimestamp"]), pod["metadata"]["name"],
    )  # fmt: skip


class Backoff:
    """How long to wait after refusals, longer each time."""

    def __init__(self) -> None:
        self._counts: dict[Key, int] = {}

    def after(self, key: Key) -> float:
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return min(0.02 * 2.0 ** min(count, 10), 2.0)

    def good(self, key: Key) -> None:
        self._counts.pop(key, None)


def owners_key(change: Change, kind: str) -> Iterable[Key]:
    """The keys of the controllers that a thing had and has."""
    for thing in (change.before, change.after):
        if thing is not None and (owner := controller_of(thing)) and owner["kind"] == kind:
            yield change.namespace, owner["name"]


def only_status(change: Change) -> bool:
    """Nothing but the status moved."""
    before, after = change.before, change.after
    if before is None or after is None:
        return False
    same = {key for key in {*before, *after} - {"status", "metadata"} if before.get(key) == after.get(key)}
    meta = [{**one["metadata"], "resourceVersion": ""} for one in (before, after)]
    return same == {*before, *after} - {"status", "metadata"} and meta[0] == meta[1]


class ReplicaSets:
    """Keeps the number of Pods."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._backoff = Backoff()

    def concerns(self, change: Change) -> Iterable[Key]:
        if change.resource == "replicasets":
            # what it says of itself is no reason to try again
            return [] if only_status(change) else [(change.namespace, change.name)]
        if change.resource == "pods":
            keys = list(owners_key(change, "ReplicaSet"))
            if not keys and change.after is not None and change.now["metadata"].get("labels"):
                keys = self._adopters(change.now)
            return keys
        if change.resource == "resourcequotas":
            sets = self.ground.all("replicasets", change.namespace)
            return [(change.namespace, one["metadata"]["name"]) for one in sets if condition(one, "ReplicaFailure")]
        return []

    def _adopters(self, pod: Obj) -> list[Key]:
        namespace, labels = pod["metadata"]["namespace"], pod["metadata"]["labels"]
        return [
            (namespace, one["metadata"]["name"]) for one in self.ground.all("replicasets", namespace)
            if selects(one["spec"].get("selector"), labels) and not controller_of(pod)
        ]  # fmt: skip

    def act(self, namespace: str, name: str) -> float | None:
        rs = self.ground.get("replicasets", namespace, name)
        if rs is None:
            return None
        failure: Refused | None = None
        if not deleted_at(rs):
            self._claim(rs)
            try:
                self._scale(rs)
                self._backoff.good((namespace, name))
            except Refused as refused:
                failure = refused
        self._tell(rs, failure)
        return self._backoff.after((namespace, name)) if failure else None

    def _claim(self, rs: Obj) -> None:
        """Take in orphans with the right labels, let go of those whose labels somebody changed."""
        for pod in self.ground.controlled(rs, "pods"):
            if not selects(rs["spec"]["selector"], pod["metadata"].get("labels") or {}):
                self.ground.change("pods", *place_of(pod), _without_owner(rs["metadata"]["uid"]))
        wanted = (rs["spec"].get("selector") or {}).get("matchLabels") or {}
        if HASH not in wanted and not wanted:
            return
        for pod in self.ground.all("pods", rs["metadata"]["namespace"]):
            if controller_of(pod) or deleted_at(pod):
                continue
            if selects(rs["spec"]["selector"], pod["metadata"].get("labels") or {}):
                self.ground.change("pods", *place_of(pod), _with_owner(owner_reference(rs, "ReplicaSet")))

    def _scale(self, rs: Obj) -> None:
        pods = self.ground.pods_that_live(self.ground.controlled(rs, "pods"))
        missing = rs["spec"].get("replicas", 1) - len(pods)
        for _ in range(missing):
            pod = pod_from(rs["spec"]["template"], rs, "ReplicaSet")
            self.ground.create("pods", rs["metadata"]["namespace"], pod)
        for pod in sorted(pods, key=to_go_first)[: max(0, -missing)]:
            self.ground.delete("pods", pod)

    def _tell(self, rs: Obj, failure: Refused | None) -> None:
        pods = self.ground.pods_that_live(self.ground.controlled(rs, "pods"))
        ready = sum(is_true(one, "Ready") for one in pods)
        template = rs["spec"]["template"].get("metadata", {}).get("labels") or {}
        labelled = sum(template.items() <= (one["metadata"].get("labels") or {}).items() for one in pods)
        status: Obj = {"replicas": len(pods)}
        counts = {"fullyLabeledReplicas": labelled, "readyReplicas": ready, "availableReplicas": ready}
        status |= {key: count for key, count in counts.items() if count}
        status["observedGeneration"] = rs["metadata"].get("generation", 1)
        if failure:
            status["conditions"] = copy.deepcopy((rs.get("status") or {}).get("conditions") or [])
            put_condition(status, {
                "type": "ReplicaFailure", "status": "True", "lastTransitionTime": now(),
                "reason": "FailedCreate", "message": failure.message,
            })  # fmt: skip
        self.ground.set_status("replicasets", rs, status)


def place_of(thing: Obj) -> tuple[str, str]:
    return thing["metadata"].get("namespace", ""), thing["metadata"]["name"]


def _without_owner(uid: str) -> Callable[[Obj], bool]:
    def change(thing: Obj) -> bool:
        left = [one for one in thing["metadata"].get("ownerReferences") or [] if one["uid"] != uid]
        if left:
            thing["metadata"]["ownerReferences"] = left
        else:
            thing["metadata"].pop("ownerReferences", None)
        return True

    return change


def _with_owner(reference: Obj) -> Callable[[Obj], bool]:
    def change(thing: Obj) -> bool:
        if controller_of(thing):
            return False
        thing["metadata"].setdefault("ownerReferences", []).append(reference)
        return True

    return change
