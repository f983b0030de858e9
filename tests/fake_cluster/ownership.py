"""Who owns which field (managedFields): sets of fields as the API writes them, what a change adds to them.

Kept for objects that somebody wrote to by name of a field manager; others have none, as if they were written before.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

from fake_cluster.kinds import Kind
from fake_cluster.store import Object, clone, now
from fake_cluster.typed import types

Fields = dict[str, Any]
"""fieldsV1: names to sets of fields, `.` for the thing itself."""
KEYS = {
    "containers": ("name",), "initContainers": ("name",), "ephemeralContainers": ("name",), "volumes": ("name",),
    "env": ("name",), "volumeMounts": ("mountPath",), "conditions": ("type",), "ownerReferences": ("uid",),
    "imagePullSecrets": ("name",), "addresses": ("type",), "ports:Container": ("containerPort", "protocol"),
    "ports:ServiceSpec": ("port", "protocol"),
}  # fmt: skip
"""Lists whose elements are owned one by one; others are owned whole."""
ATOMIC = {"LabelSelector", "NodeSelectorTerm", "Quantity", "PodAffinityTerm", "ObjectReference"}
ATOMIC_FIELDS = {"nodeSelector", "selector:ServiceSpec"}
DEFAULTS = {"protocol": "TCP"}
NOBODYS = ("name", "namespace", "generateName", "uid", "resourceVersion", "creationTimestamp", "generation",
           "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manager:
    name: str
    sub: str = ""
    told: bool = False
    """By fieldManager, and not only by a User-Agent."""


class Writing(threading.local):
    """Who writes in this thread now; nobody in those of controllers."""

    manager: Manager | None = None


def bare(obj: Object) -> Object:
    """What can be owned of an object."""
    meta = {key: value for key, value in (obj.get("metadata") or {}).items() if key not in NOBODYS}
    kept = {key: value for key, value in obj.items() if key not in ("kind", "apiVersion", "metadata")}
    return {**kept, "metadata": meta} if meta else kept


def applied(value: Any, kind: str, owner: str = "", field: str = "") -> Fields:
    """The fields that a configuration names."""
    return whole(value, kind, owner, field, described=False)


def whole(value: Any, kind: str, owner: str, field: str, *, described: bool) -> Fields:
    """All fields of a value; `described`: maps and lists are there themselves too."""
    if not value or is_atomic(kind, owner, field):
        return {}
    found: Fields = {}
    if isinstance(value, dict):
        if kind[:1] == "{" and described:
            found["."] = {}
        for name, item in value.items():
            found[f"f:{name}"] = whole(item, inner_type(kind, name), next_owner(kind, owner), name, described=described)
    elif isinstance(value, list):
        keys = keys_of(owner, field)
        if not keys:
            return {}
        if described:
            found["."] = {}
        for item in value:
            inner = whole(item, kind[1:-1], owner, field, described=described)
            found[key_of(item, keys)] = {".": {}, **inner}
    return found


def changed(old: Any, new: Any, kind: str, owner: str = "", field: str = "") -> Fields:
    """The fields that a new state added or altered."""
    if old == new:
        return {}
    keys = keys_of(owner, field) if isinstance(new, list) else ()
    if is_atomic(kind, owner, field) or not (isinstance(new, dict) or keys) or type(old) is not type(new):
        return whole(new, kind, owner, field, described=True)
    found: Fields = {}
    if isinstance(new, dict):
        for name, item in new.items():
            if name not in old or old[name] != item:
                found[f"f:{name}"] = changed(old.get(name), item, inner_type(kind, name), next_owner(kind, owner), name)
        return found
    known = {key_of(item, keys): item for item in old}
    for item in new:
        key = key_of(item, keys)
        if key not in known:
            found[key] = {".": {}, **whole(item, kind[1:-1], owner, field, described=True)}
        elif known[key] != item:
            found[key] = changed(known[key], item, kind[1:-1], owner, field)
    return found


def is_atomic(kind: str, owner: str, field: str) -> bool:
    return kind in ATOMIC or field in ATOMIC_FIELDS or f"{field}:{owner}" in ATOMIC_FIELDS


def next_owner(kind: str, owner: str) -> str:
    """The struct whose fields come next."""
    return kind if kind in types() else owner


def inner_type(kind: str, name: str) -> str:
    if kind[:1] == "{":
        return kind[1:-1]
    return types().get(kind, {}).get(name, "any")


def keys_of(owner: str, field: str) -> tuple[str, ...]:
    return KEYS.get(f"{field}:{owner}") or KEYS.get(field, ())


def key_of(item: Any, keys: tuple[str, ...]) -> str:
    named = {key: item.get(key, DEFAULTS.get(key)) for key in keys}
    return "k:" + json.dumps(named, separators=(",", ":"), sort_keys=True)


def find(value: Any, element: str) -> Any:
    """What an element of a set of fields stands for; None where it is not there."""
    if element.startswith("f:"):
        return value.get(element[2:]) if isinstance(value, dict) else None
    if element.startswith("k:") and isinstance(value, list):
        keys = json.loads(element[2:])
        return next((one for one in value if all(one.get(k, DEFAULTS.get(k)) == v for k, v in keys.items())), None)
    return None


def joined(one: Fields, other: Fields) -> Fields:
    return {key: joined(one.get(key, {}), other.get(key, {})) for key in {**one, **other}}


def without(one: Fields, other: Fields) -> Fields:
    """The fields of one set that are not in another."""
    left: Fields = {}
    for key, inner in one.items():
        if key not in other:
            left[key] = inner
        elif inner and (rest := without(inner, other[key])):
            left[key] = rest
    return left


def there(fields: Fields, value: Any) -> Fields:
    """The fields that an object still has."""
    left: Fields = {}
    for key, inner in fields.items():
        if key == ".":
            left[key] = inner
            continue
        held = find(value, key)
        if held is None:
            continue
        rest = there(inner, held)
        if rest.keys() - {"."} or not (inner.keys() - {"."}):
            left[key] = rest
    return left


def leaves(fields: Fields, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for key, inner in fields.items():
        if key == ".":
            continue
        found += leaves(inner, (*path, key)) if inner.keys() - {"."} else [(*path, key)]
    return found


def at(value: Any, path: tuple[str, ...]) -> Any:
    for element in path:
        value = find(value, element)
    return value


def shown(path: tuple[str, ...]) -> str:
    """A path as conflicts tell it."""
    parts = []
    for element in path:
        if element.startswith("f:"):
            parts.append(f".{element[2:]}")
        else:
            keys = json.loads(element[2:])
            parts.append("[" + ",".join(f"{key}={json.dumps(value)}" for key, value in keys.items()) + "]")
    return "".join(parts)


def updated(kind: Kind, old: Object | None, new: Object, manager: Manager | None) -> None:
    """Writes into a new state who owns what after a plain write (operation Update)."""
    held: list[Object] = clone((old or {}).get("metadata", {}).get("managedFields") or [])
    if held:
        new["metadata"]["managedFields"] = held
    else:
        new["metadata"].pop("managedFields", None)
    if manager is None or not (held or (manager.told and old is None)):
        return
    now_there = bare(new)
    more = changed(bare(old), now_there, kind.kind) if old else whole(now_there, kind.kind, "", "", described=True)
    if old is not None and bare(old) == now_there:
        return
    entries: list[Object] = []
    mine: Object | None = None
    for entry in held:
        own = entry["operation"] == "Update" and (entry["manager"], entry.get("subresource", "")) == (
            manager.name, manager.sub,
        )  # fmt: skip
        fields = there(entry["fieldsV1"] if own else without(entry["fieldsV1"], more), now_there)
        if own:
            mine = entry
            fields = joined(fields, more)
        if fields:
            entry["fieldsV1"] = fields
            entries.append(entry)
    if mine is None and more:
        mine = {"manager": manager.name, "operation": "Update", "apiVersion": kind.api_version}
        if manager.sub != "scale":
            mine["time"] = now()
        mine |= {"fieldsType": "FieldsV1", "fieldsV1": more}
        if manager.sub:
            mine["subresource"] = manager.sub
        entries.append(mine)
    elif mine is not None and more and "time" in mine:
        mine["time"] = now()
    new["metadata"]["managedFields"] = in_order(entries)


def in_order(entries: list[Object]) -> list[Object]:
    return sorted(entries, key=lambda entry: (entry["operation"], entry.get("time", ""), entry["manager"]))
