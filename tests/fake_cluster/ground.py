"""What the controllers stand on: every object of the store, indexed as they need it, and the few ways they write."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime

from fake_cluster.loop import Change, Key
from fake_cluster.matching import Obj, controller_of, deleted_at
from fake_cluster.problems import Problem
from fake_cluster.registry import Registry


class Refused(Exception):
    """The server said no."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class Writer:
    """The server from inside, as its own controllers write: no authorization, but defaults and admission."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def create(self, resource: str, namespace: str, thing: Obj) -> Obj:
        try:
            return self.registry.create(self.registry.kinds.named(resource), namespace, copy.deepcopy(thing))
        except Problem as problem:
            raise _refused(problem) from None

    def change(self, resource: str, namespace: str, name: str, how: Callable[[Obj], bool | None]) -> Obj | None:
        """Read, change in place, write, as one step. None: it isn't there."""
        return self.registry.change(resource, namespace, name, lambda thing: (how(thing), None)[1])

    def delete(self, resource: str, namespace: str, name: str, *, uid: str, grace: int | None, policy: str) -> None:
        """Nothing happens where it is gone, or is another one by now."""
        try:
            self.registry.end(resource, namespace, name, uid=uid, grace=grace, propagation=policy)
        except Problem as problem:
            if problem.status != 409:
                raise _refused(problem) from None


def _refused(problem: Problem) -> Refused:
    body = problem.body if isinstance(problem.body, dict) else {}
    return Refused(problem.status, str(body.get("reason", "")), str(body.get("message", problem.body)))


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Ground:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._things: dict[str, dict[str, dict[str, Obj]]] = {}
        """Resource → namespace → name."""
        self._owned: dict[str, dict[tuple[str, str, str], None]] = {}
        """uid of an owner → (resource, namespace, name) of what it owns."""
        self._on_node: dict[str, dict[Key, None]] = {}
        self.uids: dict[str, tuple[str, str, str]] = {}
        self._latest: dict[tuple[str, str, str], int] = {}

    def take(self, change: Change) -> None:
        """After each write, under the store's lock, so that what is read here is never older than the store."""
        place = (change.resource, change.namespace, change.name)
        if change.version < self._latest.get(place, 0):
            return  # another subscriber wrote while it was told: this is told after what came later
        self._latest[place] = change.version
        if change.before is not None:
            self._forget(change.before, place)
        if change.after is None:
            return
        self._things.setdefault(place[0], {}).setdefault(place[1], {})[place[2]] = change.after
        self.uids[change.after["metadata"]["uid"]] = place
        for owner in change.after["metadata"].get("ownerReferences") or []:
            self._owned.setdefault(owner["uid"], {})[place] = None
        if change.resource == "pods" and (node := change.after["spec"].get("nodeName")):
            self._on_node.setdefault(node, {})[place[1:]] = None

    def _forget(self, thing: Obj, place: tuple[str, str, str]) -> None:
        self._things.get(place[0], {}).get(place[1], {}).pop(place[2], None)
        self.uids.pop(thing["metadata"]["uid"], None)
        for owner in thing["metadata"].get("ownerReferences") or []:
            self._owned.get(owner["uid"], {}).pop(place, None)
        if place[0] == "pods" and (node := thing["spec"].get("nodeName")):
            self._on_node.get(node, {}).pop(place[1:], None)

    def get(self, resource: str, namespace: str, name: str) -> Obj | None:
        return self._things.get(resource, {}).get(namespace, {}).get(name)

    def all(self, resource: str, namespace: str | None = None) -> list[Obj]:
        """By namespace and name. None: of all namespaces."""
        held = self._things.get(resource, {})
        places = [namespace] if namespace is not None else sorted(list(held))
        found = (held.get(one, {}).get(name) for one in places for name in sorted(list(held.get(one, {}))))
        return [thing for thing in found if thing is not None]

    def resources(self) -> list[str]:
        return list(self._things)

    def owned(self, uid: str, resource: str = "") -> list[Obj]:
        found = []
        for kind, namespace, name in list(self._owned.get(uid, {})):
            if resource in ("", kind) and (thing := self.get(kind, namespace, name)) is not None:
                found.append(thing)
        return found

    def places_owned(self, uid: str) -> list[tuple[str, str, str]]:
        return list(self._owned.get(uid, {}))

    def controlled(self, owner: Obj, resource: str) -> list[Obj]:
        """What the owner controls, oldest first."""
        uid = owner["metadata"]["uid"]
        held = [one for one in self.owned(uid, resource) if (controller_of(one) or {}).get("uid") == uid]
        return sorted(held, key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]))

    def on_node(self, node: str) -> list[Obj]:
        places = list(self._on_node.get(node, {}))
        return [thing for place in places if (thing := self.get("pods", *place)) is not None]

    def create(self, resource: str, namespace: str, thing: Obj) -> Obj:
        return self._writer.create(resource, namespace, thing)

    def change(
        self, resource: str, namespace: str, name: str, how: Callable[[Obj], bool | None], *, uid: str = ""
    ) -> Obj | None:
        def same(thing: Obj) -> bool | None:
            if uid and thing["metadata"]["uid"] != uid:
                return False
            return how(thing)

        return self._writer.change(resource, namespace, name, same)

    def set_status(self, resource: str, thing: Obj, status: Obj) -> None:
        """Nothing is written when it is so already."""

        def put(current: Obj) -> bool:
            if current.get("status") == status:
                return False
            current["status"] = copy.deepcopy(status)
            return True

        if thing.get("status") != status:
            place = thing["metadata"].get("namespace", ""), thing["metadata"]["name"]
            self.change(resource, *place, put, uid=thing["metadata"]["uid"])

    def delete(self, resource: str, thing: Obj, *, grace: int | None = None, policy: str = "Background") -> None:
        meta = thing["metadata"]
        place = meta.get("namespace", ""), meta["name"]
        self._writer.delete(resource, *place, uid=meta["uid"], grace=grace, policy=policy)

    def pods_that_live(self, pods: list[Obj]) -> list[Obj]:
        return [
            one for one in pods
            if not deleted_at(one) and (one.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        ]  # fmt: skip
