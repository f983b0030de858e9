"""What a write does to an object: names, versions, generations, finalizers, grace; and hooks.

Controllers write through it too: `create`, `change`, `delete` by plural name, without HTTP and without rights.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fake_cluster.calls import ADMIN, Handler, Upgrade, User
from fake_cluster.kinds import Kind, Kinds
from fake_cluster.ownership import Writing, updated
from fake_cluster.problems import (
    Cause,
    Problem,
    already_exists,
    bad_request,
    forbidden,
    invalid,
    not_found,
    problem,
)
from fake_cluster.store import Object, Store, Stored, at, clone, new_uid, now

SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
KEPT = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
"""What a client can't change in metadata."""


@dataclass(slots=True)
class Admitted:
    """What an admission hook sees. It may change `obj`, or raise Problem."""

    operation: str
    """CREATE, UPDATE, DELETE."""
    kind: Kind
    namespace: str
    name: str
    before: Object | None
    obj: Object | None
    user: User
    sub: str = ""
    dry_run: bool = False


Admission = Callable[[Admitted], None]
Default = Callable[[Object], None]
Validate = Callable[[Object, Object | None], list[Cause]]
"""(new, before or None) → what is wrong."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """DeleteOptions."""

    grace: int | None = None
    uid: str = ""
    version: str = ""
    propagation: str = ""
    dry_run: bool = False


class Registry:
    def __init__(self) -> None:
        self.kinds = Kinds()
        self.store = Store()
        self.handlers: dict[tuple[str, str, str], Handler] = {}
        self.upgrades: dict[tuple[str, str], Upgrade] = {}
        self.admissions: list[Admission] = []
        self.defaults: dict[str, list[Default]] = {}
        self.validations: dict[str, list[Validate]] = {}
        self.writing = Writing()
        """Who writes in this thread, for managedFields."""
        self.patience_s = 3.0
        """How long a list waits for a version that is not there yet."""
        self.closed = False
        """The server has ended: watches end too."""

    # -- hooks

    def handler(self, resource: str, sub: str, method: str) -> Callable[[Handler], Handler]:
        """Decorator: this answers METHOD on a subresource, ("pods", "eviction", "POST"). It comes after RBAC."""

        def register(handler: Handler) -> Handler:
            self.handlers[resource, sub, method] = handler
            return handler

        return register

    def upgrade(self, resource: str, sub: str) -> Callable[[Upgrade], Upgrade]:
        """Decorator: this takes over connections that ask for a websocket on a subresource, ("pods", "exec")."""

        def register(upgrade: Upgrade) -> Upgrade:
            self.upgrades[resource, sub] = upgrade
            return upgrade

        return register

    def admission(self, admission: Admission) -> Admission:
        """Decorator: it is asked before each write, after defaults."""
        self.admissions.append(admission)
        return admission

    def default(self, resource: str) -> Callable[[Default], Default]:
        """Decorator: sets what a client left out of a new or changed object of this resource ("deployments.apps")."""

        def register(default: Default) -> Default:
            self.defaults.setdefault(resource, []).append(default)
            return default

        return register

    def validation(self, resource: str) -> Callable[[Validate], Validate]:
        def register(validate: Validate) -> Validate:
            self.validations.setdefault(resource, []).append(validate)
            return validate

        return register

    # -- for controllers

    def read(self, plural: str, namespace: str, name: str) -> Object | None:
        """A copy."""
        stored = self.store.get(self.kinds.named(plural), namespace, name)
        return clone(stored.obj) if stored else None

    def list(self, plural: str, namespace: str = "") -> list[Object]:
        """The stored objects themselves: to be read, never changed."""
        return [stored.obj for stored in self.store.all(self.kinds.named(plural), namespace)]

    def add(self, obj: Object, user: User = ADMIN) -> Object:
        """Creates as a manifest says, its status included."""
        obj = clone(obj)
        kind = self.kinds.of_object(obj)
        return self.create(kind, obj["metadata"].get("namespace", ""), obj, user=user, keep_status=True)

    def change(self, plural: str, namespace: str, name: str, alter: Callable[[Object], None]) -> Object | None:
        """Reads, alters a copy, stores it: nobody writes between. None when it isn't there. Nothing is validated."""
        kind = self.kinds.named(plural)
        with self.store.lock:
            before = self.store.get(kind, namespace, name)
            if before is None:
                return None
            obj = clone(before.obj)
            alter(obj)
            return self.save(kind, before, obj)

    def end(self, plural: str, namespace: str, name: str, **options: Any) -> bool:
        """Deletes; False when it wasn't there."""
        try:
            self.delete(self.kinds.named(plural), namespace, name, Deletion(**options))
        except Problem as refused:
            if refused.status == 404:
                return False
            raise
        return True

    # -- writes

    def create(
        self,
        kind: Kind,
        namespace: str,
        obj: Object,
        *,
        user: User = ADMIN,
        dry_run: bool = False,
        keep_status: bool = False,
    ) -> Object:
        """Raises Problem. The caller gives `obj` away; what is answered must not be changed."""
        meta = obj.setdefault("metadata", {})
        if kind.namespaced:
            self._check_namespace(kind, namespace, meta)
        if meta.get("resourceVersion"):
            raise problem(500, "resourceVersion should not be set on objects to be created")
        for name in KEPT:
            meta.pop(name, None)
        meta["uid"] = new_uid()
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + "".join(secrets.choice(SUFFIX) for _ in range(5))
        obj["kind"], obj["apiVersion"] = kind.kind, kind.api_version
        if kind.generation:
            meta["generation"] = 1
        if not keep_status and kind.sub("status"):
            obj.pop("status", None)
        self._fill(kind, obj)
        admitted = Admitted("CREATE", kind, namespace, meta.get("name", ""), None, obj, user, dry_run=dry_run)
        with self.store.lock:
            there = self.store.get(kind, namespace if kind.namespaced else "", meta.get("name", ""))
            if there is not None:
                self._validate(kind, obj, None)
                raise already_exists(kind, meta["name"], ending="deletionTimestamp" in there.obj["metadata"])
            for admission in self.admissions:
                admission(admitted)
            self._validate(kind, obj, None)
            if not meta.get("managedFields"):
                updated(kind, None, obj, self.writing.manager)
            if dry_run:
                meta["creationTimestamp"] = now()
                return obj
            return self.store.put(kind, obj).obj

    def _check_namespace(self, kind: Kind, namespace: str, meta: Object) -> None:
        if meta.get("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        meta["namespace"] = namespace
        held = self.store.get(self.kinds.named("namespaces"), "", namespace)
        if held is None:
            raise not_found(self.kinds.named("namespaces"), namespace)
        if held.obj["metadata"].get("deletionTimestamp"):
            name = meta.get("name", "")
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            refused = forbidden(kind.resource, kind.group, kind.plural, name, why)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            assert isinstance(refused.body, dict)
            details = refused.body["details"]
            assert isinstance(details, dict)
            details["causes"] = [cause]
            raise refused

    def commit(
        self, kind: Kind, before: Stored, obj: Object, *, user: User = ADMIN, sub: str = "", dry_run: bool = False
    ) -> Object:
        """A client's new state of an object takes the old one's place. The lock is held by the caller."""
        old, meta, was = before.obj, obj.setdefault("metadata", {}), before.obj["metadata"]
        for name in KEPT:
            meta.pop(name, None)
            if name in was:
                meta[name] = was[name]
        obj["kind"], obj["apiVersion"] = kind.kind, kind.api_version
        if sub == "status":
            kept = {key: value for key, value in old.items() if key not in ("status", "metadata")}
            obj = {**kept, "metadata": meta, "status": obj.get("status", {})}
            if kind.group == "apps":  # a status brings no labels
                meta.pop("labels", None)
                meta.update({"labels": was["labels"]} if "labels" in was else {})
        elif kind.sub("status") and not sub:
            obj.pop("status", None)
            if "status" in old:
                obj["status"] = old["status"]
        self._fill(kind, obj)
        self._generation(kind, old, obj)
        name = meta.get("name", "")
        admitted = Admitted("UPDATE", kind, meta.get("namespace", ""), name, old, obj, user, sub, dry_run)
        for admission in self.admissions:
            admission(admitted)
        self._validate(kind, obj, old)
        if self.writing.manager is not None:
            updated(kind, old, obj, self.writing.manager)
        return self.save(kind, before, obj, dry_run=dry_run)

    def save(self, kind: Kind, before: Stored, obj: Object, *, dry_run: bool = False) -> Object:
        """Stores a state that needs no more checking: nothing when it is the same, the end when nothing holds it."""
        meta = obj["metadata"]
        meta["resourceVersion"] = before.obj["metadata"]["resourceVersion"]
        self._generation(kind, before.obj, obj)
        if obj == before.obj:
            return before.obj
        freed = not meta.get("finalizers") and before.obj["metadata"].get("finalizers")
        if meta.get("deletionTimestamp") and freed and not meta.get("deletionGracePeriodSeconds"):
            if not dry_run:
                self.store.remove(kind, meta.get("namespace", ""), meta["name"])
            return obj
        return obj if dry_run else self.store.put(kind, obj).obj

    def _generation(self, kind: Kind, old: Object, obj: Object) -> None:
        meta, was = obj["metadata"], old["metadata"]
        if not kind.generation and not kind.custom:
            return
        changed = any(old.get(key) != obj.get(key) for key in {*old, *obj} if key not in ("metadata", "status", "kind"))
        if "generation" in was:
            meta["generation"] = was["generation"] + (1 if changed else 0)

    def _fill(self, kind: Kind, obj: Object) -> None:
        for default in self.defaults.get(kind.resource, ()):
            default(obj)

    def _validate(self, kind: Kind, obj: Object, before: Object | None) -> None:
        causes: list[Cause] = []
        for validate in (*self.validations.get("*", ()), *self.validations.get(kind.resource, ())):
            causes += validate(obj, before)
        if causes:
            raise invalid(kind.kind, kind.group, obj["metadata"].get("name", ""), causes)

    # -- ends

    def delete(
        self, kind: Kind, namespace: str, name: str, options: Deletion, *, user: User = ADMIN
    ) -> tuple[Object, bool]:
        """The object as it was last, and whether it is gone. Raises Problem."""
        with self.store.lock:
            before = self.store.get(kind, namespace, name)
            if before is None:
                raise not_found(kind, name)
            meta = before.obj["metadata"]
            _preconditions(kind, meta, options)
            for admission in self.admissions:
                admission(Admitted("DELETE", kind, namespace, name, before.obj, None, user, "", options.dry_run))
            grace = self._grace(kind, before.obj, options.grace)
            holds = _holding(meta, options.propagation)
            if grace == 0 and not holds and kind.plural != "namespaces":
                return self._remove(kind, before, options.dry_run), True
            ending = _marked(kind, before.obj, grace, holds)
            if ending == before.obj:
                return before.obj, False
            self._generation(kind, before.obj, ending)
            if kind.generation or kind.custom:
                ending["metadata"]["generation"] = meta.get("generation", 1) + (not meta.get("deletionTimestamp"))
            return (ending if options.dry_run else self.store.put(kind, ending).obj), False

    def _remove(self, kind: Kind, before: Stored, dry_run: bool) -> Object:
        meta = before.obj["metadata"]
        if dry_run:
            return _marked(kind, before.obj, 0, []) if kind.plural == "pods" else before.obj
        last = before.obj
        if kind.plural == "pods" and meta.get("deletionGracePeriodSeconds") != 0:
            # also what goes at once is seen terminating before
            last = self.store.put(kind, _marked(kind, before.obj, 0, [])).obj
        over = self.store.remove(kind, meta.get("namespace", ""), meta["name"])
        return over.obj if over is not None and kind.tells else last

    @staticmethod
    def _grace(kind: Kind, obj: Object, asked: int | None) -> int:
        if kind.plural != "pods":
            return 0
        spec = obj.get("spec") or {}
        if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return 0
        grace = asked if asked is not None else spec.get("terminationGracePeriodSeconds", 30)
        running = obj["metadata"].get("deletionGracePeriodSeconds")
        return min(grace, running) if running is not None and obj["metadata"].get("deletionTimestamp") else grace


def _preconditions(kind: Kind, meta: Object, options: Deletion) -> None:
    for wanted, field, what, then in (
        (options.uid, "uid", "UID", "deleted and then recreated"),
        (options.version, "resourceVersion", "ResourceVersion", "modified"),
    ):
        if wanted and wanted != meta[field]:
            full, name = kind.full, meta["name"]
            why = (
                f"the {what} in the precondition ({wanted}) does not match the {what} in record ({meta[field]}). "
                f"The object might have been {then}"
            )
            details = {"name": name, "group": kind.group, "kind": kind.kind}
            raise problem(
                409,
                f'Operation cannot be fulfilled on {full} "{name}": {why}',
                "Conflict",
                {key: value for key, value in details.items() if value},
            )


def _holding(meta: Object, propagation: str) -> list[str]:
    """The finalizers that keep it after this deletion."""
    held = list(meta.get("finalizers") or [])
    for word, name in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
        if propagation == word and name not in held:
            held.append(name)
        if propagation and propagation != word and name in held:
            held.remove(name)
    return held


def _marked(kind: Kind, obj: Object, grace: int, holds: list[str]) -> Object:
    ending = clone(obj)
    meta = ending["metadata"]
    if not meta.get("deletionTimestamp") or grace < meta.get("deletionGracePeriodSeconds", 0):
        meta["deletionTimestamp"] = at(grace)
        if kind.plural != "namespaces":
            meta["deletionGracePeriodSeconds"] = grace
    if holds:
        meta["finalizers"] = holds
    else:
        meta.pop("finalizers", None)
    if kind.plural == "namespaces":
        ending.setdefault("status", {})["phase"] = "Terminating"
    return ending


def valid_name(name: str) -> bool:
    return re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name) is not None
