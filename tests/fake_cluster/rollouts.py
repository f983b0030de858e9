"""Deployment → ReplicaSets: a rollout, step by step, as the controller of apps/v1 does it."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable

from fake_cluster.ground import Ground, Refused, now
from fake_cluster.loop import Change, Key
from fake_cluster.matching import Obj, condition, controller_of, deleted_at, put_condition
from fake_cluster.replicas import HASH, digest, owner_reference, owners_key, place_of

REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"


def _share(written: object, of: int, *, up: bool) -> int:
    if isinstance(written, str) and written.endswith("%"):
        exact = int(written[:-1]) * of / 100
        return math.ceil(exact) if up else math.floor(exact)
    return int(str(written))


def _template(thing: Obj) -> Obj:
    """The template without the hash that the Deployment put into it."""
    template: Obj = copy.deepcopy(thing["spec"]["template"])
    (template.get("metadata", {}).get("labels") or {}).pop(HASH, None)
    return template


class Deployments:
    """Rolls from one ReplicaSet to the next."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._moved: dict[str, tuple[object, float]] = {}
        """uid → what its progress was, and when it last moved."""

    def concerns(self, change: Change) -> Iterable[Key]:
        if change.resource == "deployments":
            if change.after is None and change.before is not None:
                self._moved.pop(change.before["metadata"]["uid"], None)
            return [(change.namespace, change.name)]
        if change.resource == "pods":
            return self._whose_last_went(change)
        return owners_key(change, "Deployment") if change.resource == "replicasets" else ()

    def _whose_last_went(self, change: Change) -> Iterable[Key]:
        """With Recreate the new Pods wait until the old ones are over, and a ReplicaSet doesn't say when its ending
        Pods are: it counts them no longer from the first."""
        if change.after is not None and not _over(change.after):
            return
        for namespace, name in owners_key(change, "ReplicaSet"):
            owner = controller_of(self.ground.get("replicasets", namespace, name) or {"metadata": {}})
            if owner and owner["kind"] == "Deployment":
                yield namespace, owner["name"]

    def act(self, namespace: str, name: str) -> float | None:
        d = self.ground.get("deployments", namespace, name)
        if d is None:
            return None
        sets = self.ground.controlled(d, "replicasets")
        new = next((one for one in sets if _template(one) == _template(d)), None)
        failure: Refused | None = None
        if not deleted_at(d):
            try:
                new = self._roll(d, sets, new)
            except Refused as refused:
                failure = refused
        d = self.ground.get("deployments", namespace, name) or d
        sets = self.ground.controlled(d, "replicasets")
        new = next((one for one in sets if new and one["metadata"]["uid"] == new["metadata"]["uid"]), None)
        return 0.5 if failure else self._tell(d, sets, new)

    def _roll(self, d: Obj, sets: list[Obj], new: Obj | None) -> Obj | None:
        desired = d["spec"].get("replicas", 1)
        if d["spec"].get("paused"):
            self._resize(d, sets, desired)
            return new
        recreate = (d["spec"].get("strategy") or {}).get("type") == "Recreate"
        surge, unavailable = (0, desired) if recreate else self._allowed(d, desired)
        old = [one for one in sets if new is None or one["metadata"]["uid"] != new["metadata"]["uid"]]
        if recreate and any(self._size(one) for one in old):
            for one in old:
                self._set_size(d, one, 0)
            old = [self.ground.get("replicasets", *place_of(one)) or one for one in old]
        if recreate and any(not _over(pod) for one in old for pod in self.ground.controlled(one, "pods")):
            return new
        if new is None:
            room = max(0, desired + surge - sum(map(self._size, old)))
            new = self._create(d, old, min(desired, room))
            return new
        self._revise(d, old, new)
        self._step(d, old, new, desired, surge, unavailable)
        self._trim(d, old)
        return new

    @staticmethod
    def _allowed(d: Obj, desired: int) -> tuple[int, int]:
        rolling = (d["spec"].get("strategy") or {}).get("rollingUpdate") or {}
        surge = _share(rolling.get("maxSurge", "25%"), desired, up=True)
        unavailable = _share(rolling.get("maxUnavailable", "25%"), desired, up=False)
        return (surge, unavailable) if surge or unavailable else (0, 1)

    @staticmethod
    def _size(rs: Obj) -> int:
        return int(rs["spec"].get("replicas", 1))

    def _notes(self, d: Obj) -> dict[str, str]:
        desired = d["spec"].get("replicas", 1)
        surge = self._allowed(d, desired)[0] if desired else 0
        if (d["spec"].get("strategy") or {}).get("type") == "Recreate":
            surge = 0
        return {
            "deployment.kubernetes.io/desired-replicas": str(desired),
            "deployment.kubernetes.io/max-replicas": str(desired + surge),
        }

    def _create(self, d: Obj, old: list[Obj], size: int) -> Obj:
        template = copy.deepcopy(d["spec"]["template"])
        key = digest(_template(d))
        labels = {**(template.get("metadata", {}).get("labels") or {}), HASH: key}
        template.setdefault("metadata", {})["labels"] = labels
        revision = str(1 + max((int(_note(one, REVISION) or 0) for one in old), default=0))
        selector = copy.deepcopy(d["spec"]["selector"])
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH: key}
        kept = {
            name: value for name, value in (d["metadata"].get("annotations") or {}).items()
            if name not in (REVISION, "kubectl.kubernetes.io/last-applied-configuration")
        }  # fmt: skip
        made = self.ground.create("replicasets", d["metadata"]["namespace"], {
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": f"{d['metadata']['name']}-{key}", "namespace": d["metadata"]["namespace"], "labels": labels,
                "annotations": {**kept, **self._notes(d), REVISION: revision},
                "ownerReferences": [owner_reference(d, "Deployment")],
            },
            "spec": {"replicas": size, "selector": selector, "template": template},
        })  # fmt: skip
        self._note_revision(d, revision)
        return made

    def _note_revision(self, d: Obj, revision: str) -> None:
        def put(thing: Obj) -> bool:
            if _note(thing, REVISION) == revision:
                return False
            thing["metadata"].setdefault("annotations", {})[REVISION] = revision
            return True

        self.ground.change("deployments", *place_of(d), put, uid=d["metadata"]["uid"])

    def _revise(self, d: Obj, old: list[Obj], new: Obj) -> None:
        """The set in use has the highest revision; those it had before are its history."""
        highest = max((int(_note(one, REVISION) or 0) for one in old), default=0)
        own = int(_note(new, REVISION) or 0)
        wanted = str(own if own > highest else highest + 1)

        def put(thing: Obj) -> bool:
            notes = thing["metadata"].setdefault("annotations", {})
            before = dict(notes)
            if notes.get(REVISION) != wanted:
                if notes.get(REVISION):
                    history = [one for one in notes.get(HISTORY, "").split(",") if one]
                    notes[HISTORY] = ",".join([*history, notes[REVISION]])
                notes[REVISION] = wanted
            notes.update(self._notes(d))
            return notes != before

        self.ground.change("replicasets", *place_of(new), put)
        self._note_revision(d, wanted)

    def _set_size(self, d: Obj, rs: Obj, size: int) -> None:
        def put(thing: Obj) -> bool:
            notes = self._notes(d)
            if thing["spec"].get("replicas", 1) == size:
                return False
            thing["spec"]["replicas"] = size
            thing["metadata"].setdefault("annotations", {}).update(notes)
            return True

        self.ground.change("replicasets", *place_of(rs), put)

    def _resize(self, d: Obj, sets: list[Obj], desired: int) -> None:
        active = [one for one in sets if self._size(one)] or sets[-1:]
        if len(active) == 1:
            self._set_size(d, active[0], desired)

    def _step(self, d: Obj, old: list[Obj], new: Obj, desired: int, surge: int, unavailable: int) -> None:
        total = self._size(new) + sum(map(self._size, old))
        if self._size(new) > desired:
            self._set_size(d, new, desired)
        elif self._size(new) < desired:
            room = desired + surge - total
            self._set_size(d, new, min(desired, self._size(new) + max(0, room)))
        if not sum(map(self._size, old)):
            return
        new = self.ground.get("replicasets", *place_of(new)) or new
        total = self._size(new) + sum(map(self._size, old))
        least = desired - unavailable
        unready_new = self._size(new) - _available(new)
        spare = total - least - unready_new
        if spare <= 0:
            return
        sizes = {one["metadata"]["name"]: self._size(one) for one in old}
        for one in old:  # what is not healthy anyway goes first
            gone = min(spare, sizes[one["metadata"]["name"]] - min(_available(one), self._size(one)))
            sizes[one["metadata"]["name"]] -= gone
            spare -= gone
        healthy = sum(map(_available, [*old, new])) - least
        for one in old:
            gone = max(0, min(healthy, sizes[one["metadata"]["name"]]))
            sizes[one["metadata"]["name"]] -= gone
            healthy -= gone
        for one in old:
            self._set_size(d, one, sizes[one["metadata"]["name"]])

    def _trim(self, d: Obj, old: list[Obj]) -> None:
        empty = [one for one in old if not self._size(one) and not (one.get("status") or {}).get("replicas")]
        for one in sorted(empty, key=lambda rs: int(_note(rs, REVISION) or 0))[
            : max(0, len(empty) - d["spec"].get("revisionHistoryLimit", 10))
        ]:
            self.ground.delete("replicasets", one)

    def _tell(self, d: Obj, sets: list[Obj], new: Obj | None) -> float | None:
        counted = {
            "replicas": sum((one.get("status") or {}).get("replicas", 0) for one in sets),
            "updatedReplicas": ((new or {}).get("status") or {}).get("replicas", 0),
            "readyReplicas": sum((one.get("status") or {}).get("readyReplicas", 0) for one in sets),
            "availableReplicas": sum(map(_available, sets)),
        }
        counted["unavailableReplicas"] = max(0, sum(map(self._size, sets)) - counted["availableReplicas"])
        status: Obj = {"observedGeneration": d["metadata"].get("generation", 1)}
        status |= {key: count for key, count in counted.items() if count}
        status["conditions"] = copy.deepcopy((d.get("status") or {}).get("conditions") or [])
        desired = d["spec"].get("replicas", 1)
        enough = counted["availableReplicas"] >= desired - self._allowed(d, desired)[1]
        put_condition(status, _said(
            "Available", enough, "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
            f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        ))  # fmt: skip
        again_s = self._progress(d, status, counted, new)
        failures = [found for one in sets if (found := condition(one, "ReplicaFailure"))]
        kept = [one for one in status["conditions"] if one["type"] != "ReplicaFailure"]
        status["conditions"] = kept + failures[:1]
        self.ground.set_status("deployments", d, status)
        return again_s

    def _progress(self, d: Obj, status: Obj, counted: dict[str, int], new: Obj | None) -> float | None:
        """The condition Progressing; the seconds until it may be said that nothing moves any more."""
        uid, desired = d["metadata"]["uid"], d["spec"].get("replicas", 1)
        if d["spec"].get("paused"):
            put_condition(status, _said("Progressing", None, "DeploymentPaused", "Deployment is paused"))
            return None
        if new is None:
            return None
        name = new["metadata"]["name"]
        done = counted["updatedReplicas"] == desired == counted["replicas"] == counted["availableReplicas"]
        if done:
            self._moved.pop(uid, None)
            told = f'ReplicaSet "{name}" has successfully progressed.'
            put_condition(status, _said("Progressing", True, "NewReplicaSetAvailable", told))
            return None
        before = condition({"status": status}, "Progressing") or {}
        old_rollout = before.get("reason") == "NewReplicaSetAvailable" and f'"{name}"' in before.get("message", "")
        if old_rollout:
            return None  # a Pod is being replaced: no rollout, no deadline
        seen = tuple(counted.values()), name
        last, since = self._moved.get(uid, (None, 0.0))
        if last != seen:
            self._moved[uid] = seen, (since := time.monotonic())
        limit_s = d["spec"].get("progressDeadlineSeconds", 600)
        left_s = since + limit_s - time.monotonic()
        if left_s <= 0:
            told = f'ReplicaSet "{name}" has timed out progressing.'
            put_condition(status, _said("Progressing", False, "ProgressDeadlineExceeded", told))
            return None
        put_condition(status, _said("Progressing", True, "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.'))
        return left_s


def _over(pod: Obj) -> bool:
    """Nothing of it runs any more, though it may still be there."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _available(rs: Obj) -> int:
    return int((rs.get("status") or {}).get("availableReplicas", 0))


def _note(thing: Obj, name: str) -> str:
    return str((thing["metadata"].get("annotations") or {}).get(name, ""))


def _said(kind: str, status: bool | None, reason: str, message: str) -> Obj:
    at = now()
    return {
        "type": kind, "status": "Unknown" if status is None else str(status),
        "lastUpdateTime": at, "lastTransitionTime": at, "reason": reason, "message": message,
    }  # fmt: skip
