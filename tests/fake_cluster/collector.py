"""The garbage collector, and what is said of namespaces that end. What has lost all its owners goes, so does what never
had the ones it names."""

from __future__ import annotations

from collections.abc import Iterable

from fake_cluster.ground import Ground, now
from fake_cluster.loop import Change, Key
from fake_cluster.matching import Obj, deleted_at

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


class Collector:
    """Its keys carry the resource in place of the namespace: "pods/platform"."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def concerns(self, change: Change) -> Iterable[Key]:
        keys = []
        if change.after is None:
            dependants = self.ground.places_owned(change.now["metadata"]["uid"])
            keys += [(f"{resource}/{namespace}", name) for resource, namespace, name in dependants]
            keys += [
                (f"{place[0]}/{place[1]}", place[2]) for owner in change.now["metadata"].get("ownerReferences") or []
                if (place := self.ground.uids.get(owner["uid"]))
            ]  # fmt: skip
        elif _watched(change.after):
            keys.append((f"{change.resource}/{change.namespace}", change.name))
        return keys

    def act(self, namespace: str, name: str) -> float | None:
        resource, _, where = namespace.partition("/")
        thing = self.ground.get(resource, where, name)
        if thing is None:
            return None
        held_by = thing["metadata"].get("finalizers") or []
        if deleted_at(thing) and ORPHAN in held_by:
            self._let_go(thing)
            self._unhold(resource, thing, ORPHAN)
        elif deleted_at(thing) and FOREGROUND in held_by:
            self._take_along(resource, thing)
        elif not deleted_at(thing):
            self._collect(resource, thing)
        return None

    def _let_go(self, owner: Obj) -> None:
        uid = owner["metadata"]["uid"]

        def without(thing: Obj) -> bool:
            left = [one for one in thing["metadata"].get("ownerReferences") or [] if one["uid"] != uid]
            thing["metadata"]["ownerReferences"] = left
            if not left:
                del thing["metadata"]["ownerReferences"]
            return True

        for resource, namespace, name in self.ground.places_owned(uid):
            self.ground.change(resource, namespace, name, without)

    def _unhold(self, resource: str, thing: Obj, finalizer: str) -> None:
        def without(current: Obj) -> bool:
            left = [one for one in current["metadata"].get("finalizers") or [] if one != finalizer]
            current["metadata"]["finalizers"] = left
            if not left:
                del current["metadata"]["finalizers"]
            return True

        meta = thing["metadata"]
        self.ground.change(resource, meta.get("namespace", ""), meta["name"], without, uid=meta["uid"])

    def _take_along(self, resource: str, owner: Obj) -> None:
        """Deletes the dependants; the owner goes when none that blocks is left."""
        uid, blocked = owner["metadata"]["uid"], False
        for kind, namespace, name in self.ground.places_owned(uid):
            thing = self.ground.get(kind, namespace, name)
            if thing is None:
                continue
            reference = next(one for one in thing["metadata"]["ownerReferences"] if one["uid"] == uid)
            blocked = blocked or bool(reference.get("blockOwnerDeletion"))
            if not deleted_at(thing):
                deeper = self.ground.places_owned(thing["metadata"]["uid"])
                self.ground.delete(kind, thing, policy="Foreground" if deeper else "Background")
        still = [
            place for place in self.ground.places_owned(uid)
            if any(
                one["uid"] == uid and one.get("blockOwnerDeletion")
                for one in (self.ground.get(*place) or {"metadata": {}})["metadata"].get("ownerReferences") or []
            )
        ]  # fmt: skip
        if not still:
            self._unhold(resource, owner, FOREGROUND)

    def _collect(self, resource: str, thing: Obj) -> None:
        owners = thing["metadata"].get("ownerReferences") or []
        absent = [one["uid"] for one in owners if not self._there(one["uid"], thing)]
        if not absent:
            return
        if len(absent) == len(owners):
            self.ground.delete(resource, thing)
            return

        def without(current: Obj) -> bool:
            held = current["metadata"].get("ownerReferences") or []
            current["metadata"]["ownerReferences"] = [one for one in held if one["uid"] not in absent]
            return True

        meta = thing["metadata"]
        self.ground.change(resource, meta.get("namespace", ""), meta["name"], without, uid=meta["uid"])

    def _there(self, uid: str, dependant: Obj) -> bool:
        """An owner of another namespace counts as absent."""
        place = self.ground.uids.get(uid)
        return place is not None and place[1] in ("", dependant["metadata"].get("namespace", ""))


def _watched(thing: Obj) -> bool:
    meta = thing["metadata"]
    held = meta.get("finalizers") or []
    return bool(meta.get("ownerReferences")) or (bool(deleted_at(thing)) and (FOREGROUND in held or ORPHAN in held))


class Namespaces:
    """Says of a namespace that ends what is left in it. Its end itself comes with the last of its content."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def concerns(self, change: Change) -> Iterable[Key]:
        name = change.name if change.resource == "namespaces" else change.namespace
        home = self.ground.get("namespaces", "", name) if name else None
        return [("", name)] if home is not None and deleted_at(home) else ()

    def act(self, namespace: str, name: str) -> float | None:
        home = self.ground.get("namespaces", "", name)
        if home is None or not deleted_at(home):
            return None
        left = [(kind, thing) for kind in self.ground.resources() for thing in self.ground.all(kind, name)]
        if not left:
            return None
        before = {one["type"]: one for one in (home.get("status") or {}).get("conditions") or []}
        conditions = _remaining(left)
        for one in conditions:
            was = before.get(one["type"])
            if was and one["status"] == was["status"]:
                one["lastTransitionTime"] = was["lastTransitionTime"]
        self.ground.set_status("namespaces", home, {"phase": "Terminating", "conditions": conditions})
        return None


def _remaining(left: list[tuple[str, Obj]]) -> list[Obj]:
    kinds: dict[str, int] = {}
    finalizers: dict[str, int] = {}
    for resource, thing in left:
        kinds[resource] = kinds.get(resource, 0) + 1
        for one in thing["metadata"].get("finalizers") or []:
            finalizers[one] = finalizers.get(one, 0) + 1
    told = ", ".join(f"{kind}. has {count} resource instances" for kind, count in sorted(kinds.items()))
    held = ", ".join(f"{one} in {count} resource instances" for one, count in sorted(finalizers.items()))
    said = (
        ("NamespaceDeletionDiscoveryFailure", False, "ResourcesDiscovered", "All resources successfully discovered"),
        ("NamespaceDeletionGroupVersionParsingFailure", False, "ParsedGroupVersions",
         "All legacy kube types successfully parsed"),
        ("NamespaceDeletionContentFailure", False, "ContentDeleted",
         "All content successfully deleted, may be waiting on finalization"),
        ("NamespaceContentRemaining", True, "SomeResourcesRemain", f"Some resources are remaining: {told}"),
        ("NamespaceFinalizersRemaining", bool(held), "SomeFinalizersRemain",
         f"Some content in the namespace has finalizers remaining: {held}")
        if held else
        ("NamespaceFinalizersRemaining", False, "ContentHasNoFinalizers",
         "All content-preserving finalizers finished"),
    )  # fmt: skip
    return [
        {"type": kind, "status": str(on), "lastTransitionTime": now(), "reason": reason, "message": message}
        for kind, on, reason, message in said
    ]
