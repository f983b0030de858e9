"""Server-side apply: a manager's configuration becomes part of an object, conflicts are told, what is given up goes."""

from __future__ import annotations

from typing import Any

import yaml

from fake_cluster import ownership
from fake_cluster.calls import Call, Reply
from fake_cluster.decoding import dry_run
from fake_cluster.kinds import Kind
from fake_cluster.ownership import Fields
from fake_cluster.problems import bad_request, invalid, modified, problem
from fake_cluster.store import Object, Stored, clone, now
from fake_cluster.typed import Decoding, WrongType

BEFORE = "before-first-apply"
Conflicts = list[tuple[Object, tuple[str, ...]]]


def apply(call: Call) -> Reply:
    """Raises Problem."""
    kind, registry = call.served(), call.registry
    manager = call.query.get("fieldManager", "")
    if not manager:
        cause = ("fieldManager", "FieldValueRequired", "Required value: is required for apply patch")
        raise invalid("PatchOptions", "meta.k8s.io", "", [cause])
    dry = dry_run(call)
    wanted = _wanted(call, kind)
    fields = ownership.applied(ownership.bare(wanted), kind.kind)
    with registry.store.lock:
        before = registry.store.get(kind, call.namespace if kind.namespaced else "", call.name)
        if before is None:
            wanted["metadata"]["managedFields"] = [_entry(kind, manager, fields, now())] if fields else []
            made = registry.create(kind, call.namespace, wanted, user=call.user, dry_run=dry)
            return Reply(201, made)
        version = wanted["metadata"].pop("resourceVersion", None)
        if version not in (None, before.obj["metadata"]["resourceVersion"]):
            raise modified(kind, call.name)
        obj = _merged(kind, before, wanted, manager, fields, force=call.query.get("force") == "true")
        registry.writing.manager = None  # the owners are told already
        return Reply(200, registry.commit(kind, before, obj, user=call.user, sub=call.sub, dry_run=dry))


def _wanted(call: Call, kind: Kind) -> Object:
    try:
        raw = yaml.safe_load(call.body)
    except yaml.YAMLError as wrong:
        raise bad_request(f"error decoding YAML: {wrong}") from None
    if not isinstance(raw, dict) or not raw.get("kind") or not raw.get("apiVersion"):
        raise bad_request("invalid object type: /, Kind=")
    meta = raw.setdefault("metadata", {})
    if meta.get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    if meta.setdefault("name", call.name) != call.name:
        raise bad_request(f"the name of the object ({meta['name']}) does not match the name on the URL ({call.name})")
    decoding = Decoding()
    try:
        wanted = decoding.read(kind, raw)
    except WrongType as wrong:
        raise _untyped(kind, call, str(wrong)) from None
    if decoding.unknown:
        raise _untyped(kind, call, f".{decoding.unknown[0]}: field not declared in schema")
    return wanted


def _untyped(kind: Kind, call: Call, why: str) -> Exception:
    what = f"/{call.name}; {kind.group}/{kind.version}, Kind={kind.kind}"
    return problem(500, f"failed to create typed patch object ({what}): {why}")


def _merged(kind: Kind, before: Stored, wanted: Object, manager: str, fields: Fields, *, force: bool) -> Object:
    live = before.obj
    entries: list[Object] = clone(live["metadata"].get("managedFields") or [])
    if not entries:
        rest = ownership.whole(ownership.bare(live), kind.kind, "", "", described=True)
        entries = [{**_entry(kind, BEFORE, rest, now()), "operation": "Update"}]
    mine = next((one for one in entries if (one["manager"], one["operation"]) == (manager, "Apply")), None)
    others = [one for one in entries if one is not mine]
    conflicts = _conflicts(others, live, wanted, fields)
    if conflicts and not force:
        raise _conflict(conflicts)
    for entry, path in conflicts:
        entry["fieldsV1"] = ownership.without(entry["fieldsV1"], _single(path))
    obj = _join(clone(live), wanted, kind.kind)
    given_up = ownership.without(mine["fieldsV1"], fields) if mine else {}
    for path in ownership.leaves(given_up):
        if not any(_owns(entry["fieldsV1"], path) for entry in others):
            _drop(obj, path)
    same = ownership.bare(obj) == ownership.bare(live)
    stamp = (mine or {}).get("time") if same else now()
    kept = [entry for entry in others if entry["fieldsV1"]]
    if fields:
        kept.append(_entry(kind, manager, fields, stamp))
    obj["metadata"]["managedFields"] = ownership.in_order(kept)
    return obj


def _entry(kind: Kind, manager: str, fields: Fields, stamp: str | None) -> Object:
    entry: Object = {"manager": manager, "operation": "Apply", "apiVersion": kind.api_version}
    if stamp:
        entry["time"] = stamp
    return {**entry, "fieldsType": "FieldsV1", "fieldsV1": fields}


def _conflicts(others: list[Object], live: Object, wanted: Object, fields: Fields) -> Conflicts:
    return [
        (entry, path)
        for path in ownership.leaves(fields)
        for entry in others
        if _owns(entry["fieldsV1"], path) and ownership.at(live, path) != ownership.at(wanted, path)
    ]


def _conflict(conflicts: Conflicts) -> Exception:
    causes = []
    for entry, path in conflicts:
        who = f'conflict with "{entry["manager"]}"'
        if entry.get("subresource"):
            who += f' with subresource "{entry["subresource"]}"'
        if entry["operation"] == "Update":
            who += f" using {entry['apiVersion']}"
        causes.append({"reason": "FieldManagerConflict", "message": who, "field": ownership.shown(path)})
    count = f"{len(causes)} conflict" + ("s" if len(causes) > 1 else "")
    if len(causes) == 1:
        told = f"{causes[0]['message']}: {causes[0]['field']}"
    else:
        told = "conflicts " + "; ".join(f"{one['message']}: {one['field']}" for one in causes)
    return problem(409, f"Apply failed with {count}: {told}", "Conflict", {"causes": causes})


def _owns(fields: Fields, path: tuple[str, ...]) -> bool:
    for element in path:
        if element not in fields:
            return False
        fields = fields[element]
    return True


def _single(path: tuple[str, ...]) -> Fields:
    fields: Fields = {}
    for element in reversed(path):
        fields = {element: fields}
    return fields


def _join(live: Any, wanted: Any, kind: str, owner: str = "", field: str = "") -> Any:
    """A configuration put over a state: maps and keyed lists are joined, what is owned whole is replaced."""
    if ownership.is_atomic(kind, owner, field) or type(live) is not type(wanted):
        return clone(wanted)
    if isinstance(wanted, dict):
        for name, item in wanted.items():
            inner, under = ownership.inner_type(kind, name), ownership.next_owner(kind, owner)
            live[name] = _join(live[name], item, inner, under, name) if name in live else clone(item)
        return live
    keys = ownership.keys_of(owner, field) if isinstance(wanted, list) else ()
    if not keys:
        return clone(wanted)
    for item in wanted:
        key = ownership.key_of(item, keys)
        place = next((i for i, held in enumerate(live) if ownership.key_of(held, keys) == key), -1)
        if place < 0:
            live.append(clone(item))
        else:
            live[place] = _join(live[place], item, kind[1:-1], owner, field)
    return live


def _drop(obj: Any, path: tuple[str, ...]) -> None:
    """Takes a field out, and the maps that are empty without it."""
    parent = ownership.at(obj, path[:-1])
    last = path[-1]
    if isinstance(parent, dict):
        parent.pop(last.removeprefix("f:"), None)
    elif isinstance(parent, list):
        held = ownership.find(parent, last)
        parent[:] = [one for one in parent if one is not held]
    if not parent and len(path) > 1 and path[:-1] != ("f:spec",):
        _drop(obj, path[:-1])
