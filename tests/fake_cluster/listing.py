"""Lists, in pages, and deletions of collections."""

from __future__ import annotations

from bisect import bisect_right

from fake_cluster.calls import Call, Reply
from fake_cluster.kinds import Kind
from fake_cluster.options import continued, exact, list_options, token, wait_for
from fake_cluster.registry import Deletion
from fake_cluster.selectors import field_selector, fields_match, label_selector, matches
from fake_cluster.store import Key, Stored, dump
from fake_cluster.watching import watch


def list_or_watch(call: Call) -> Reply:
    if call.query.get("watch", "").lower() in ("1", "true"):
        return watch(call)
    return listed(call)


def listed(call: Call) -> Reply:
    kind, store = call.served(), call.registry.store
    options = list_options(call)
    limit = options.limit
    if options.version not in ("", "0") and options.match != "Exact":
        wait_for(store, int(options.version), call.registry.patience_s)
    with store.lock:
        version, start = store.version, None
        if options.token:
            version, start = continued(store, options.token)
        elif options.match == "Exact":
            version = exact(store, int(options.version))
        elif options.version == "0":
            limit = 0  # answered from what is at hand: whole
        keys, rows = store.list_at(kind, call.namespace if kind.namespaced else "", version)
    if start is not None:
        place = bisect_right(keys, (start[0], start[1]))
        rows = rows[place:]
    found = select(call, kind, rows)
    meta: dict[str, object] = {"resourceVersion": str(version)}
    if limit and len(found) > limit:
        meta["continue"] = token(version, key_of(found[limit - 1]))
        if not call.query.get("labelSelector") and not call.query.get("fieldSelector"):
            meta["remainingItemCount"] = len(found) - limit
        found = found[:limit]
    return Reply(200, whole_list(kind, meta, found))


def whole_list(kind: Kind, meta: dict[str, object], items: list[Stored]) -> bytes:
    head = f'{{"kind":"{kind.kind}List","apiVersion":"{kind.api_version}","metadata":'.encode()
    return b"".join((head, dump(meta), b',"items":[', b",".join([stored.item for stored in items]), b"]}"))


def key_of(stored: Stored) -> Key:
    meta = stored.obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def select(call: Call, kind: Kind, found: list[Stored]) -> list[Stored]:
    labels = label_selector(call.query.get("labelSelector", ""))
    fields = field_selector(call.query.get("fieldSelector", ""), kind.plural, kind.namespaced)
    if call.name:
        fields = (*fields, ("metadata.name", True, call.name))
    if labels:
        found = [one for one in found if matches(labels, one.obj["metadata"].get("labels") or {})]
    if fields:
        found = [one for one in found if fields_match(fields, one.obj)]
    return found


def delete_many(call: Call) -> Reply:
    from fake_cluster.handling import deletion

    kind = call.served()
    asked = deletion(call)
    registry = call.registry
    with registry.store.lock:
        version = registry.store.version
        _, rows = registry.store.list_at(kind, call.namespace if kind.namespaced else "", version)
        found = select(call, kind, rows)
        options = Deletion(asked.grace, propagation=asked.propagation, dry_run=asked.dry_run)
        for stored in found:
            meta = stored.obj["metadata"]
            registry.delete(kind, meta.get("namespace", ""), meta["name"], options, user=call.user)
    return Reply(200, whole_list(kind, {"resourceVersion": str(version)}, found))
