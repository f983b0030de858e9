"""Lists, in pages, and deletions of collections."""

from __future__ import annotations

import base64
import json

from fake_cluster.calls import Call, Reply
from fake_cluster.kinds import Kind
from fake_cluster.problems import bad_request, gone
from fake_cluster.registry import Deletion
from fake_cluster.selectors import field_selector, fields_match, label_selector, matches
from fake_cluster.store import Key, Stored, dump
from fake_cluster.watching import watch

TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


def list_or_watch(call: Call) -> Reply:
    if call.query.get("watch", "").lower() in ("1", "true"):
        return watch(call)
    return listed(call)


def listed(call: Call) -> Reply:
    kind = call.served()
    registry = call.registry
    limit = int(call.query.get("limit") or 0)
    with registry.store.lock:
        version, start = registry.store.version, None
        if call.query.get("continue"):
            version, start = _continued(call, call.query["continue"])
        elif call.query.get("resourceVersion") == "0":
            limit = 0
        found = select(call, kind, registry.store.list_at(kind, call.namespace if kind.namespaced else "", version))
    if start is not None:
        found = [(key, stored) for key, stored in found if list(key) > start]
    meta: dict[str, object] = {"resourceVersion": str(version)}
    if limit and len(found) > limit:
        meta["continue"] = _token(version, found[limit - 1][0])
        if not call.query.get("labelSelector") and not call.query.get("fieldSelector"):
            meta["remainingItemCount"] = len(found) - limit
        found = found[:limit]
    return Reply(200, whole_list(kind, meta, [stored for _, stored in found]))


def whole_list(kind: Kind, meta: dict[str, object], items: list[Stored]) -> bytes:
    head = f'{{"kind":"{kind.kind}List","apiVersion":"{kind.api_version}","metadata":'.encode()
    return b"".join((head, dump(meta), b',"items":[', b",".join([stored.item for stored in items]), b"]}"))


def select(call: Call, kind: Kind, found: list[tuple[Key, Stored]]) -> list[tuple[Key, Stored]]:
    labels = label_selector(call.query.get("labelSelector", ""))
    fields = field_selector(call.query.get("fieldSelector", ""), kind.plural, kind.namespaced)
    if call.name:
        fields = (*fields, ("metadata.name", True, call.name))
    if labels:
        found = [one for one in found if matches(labels, one[1].obj["metadata"].get("labels") or {})]
    if fields:
        found = [one for one in found if fields_match(fields, one[1].obj)]
    return found


def _token(version: int, last: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps([version, *last]).encode()).decode().rstrip("=")


def _continued(call: Call, token: str) -> tuple[int, list[str]]:
    try:
        version, *last = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except ValueError:
        raise bad_request("continue key is not valid: illegal base64 data at input byte 0") from None
    store = call.registry.store
    if version == -1:
        return store.version, last
    if version < store.compacted:
        refused = gone(TOO_OLD)
        assert isinstance(refused.body, dict)
        refused.body["metadata"] = {"continue": _token(-1, (last[0], last[1]))}
        raise refused
    return version, last


def delete_many(call: Call) -> Reply:
    from fake_cluster.handling import deletion

    kind = call.served()
    asked = deletion(call)
    registry = call.registry
    with registry.store.lock:
        version = registry.store.version
        found = select(call, kind, registry.store.list_at(kind, call.namespace if kind.namespaced else "", version))
        options = Deletion(asked.grace, propagation=asked.propagation, dry_run=asked.dry_run)
        for _, stored in found:
            meta = stored.obj["metadata"]
            registry.delete(kind, meta.get("namespace", ""), meta["name"], options, user=call.user)
    return Reply(200, whole_list(kind, {"resourceVersion": str(version)}, [stored for _, stored in found]))
