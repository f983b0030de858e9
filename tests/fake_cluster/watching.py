"""Watches: the history of a kind from a version on, a line an event."""

from __future__ import annotations

import time
from collections.abc import Iterator

from fake_cluster.calls import Call, Reply
from fake_cluster.problems import gone
from fake_cluster.selectors import field_selector, fields_match, label_selector, matches
from fake_cluster.store import Event, Stored, dump

LONGEST_S = 1800.0
LOOK_S = 0.5
"""How often a waiting watch looks whether its server has ended."""


def line(kind: str, payload: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + payload + b"}\n"


def watch(call: Call) -> Reply:
    kind = call.served()
    labels = label_selector(call.query.get("labelSelector", ""))
    fields = field_selector(call.query.get("fieldSelector", ""), kind.plural, kind.namespaced)
    if call.name:
        fields = (*fields, ("metadata.name", True, call.name))

    def chosen(stored: Stored | None) -> bool:
        return (
            stored is not None
            and matches(labels, stored.obj["metadata"].get("labels") or {})
            and fields_match(fields, stored.obj)
        )

    return Reply(200, b"", {"Content-Type": "application/json"}, stream=_lines(call, chosen))


def _lines(call: Call, chosen: object) -> Iterator[bytes]:
    assert callable(chosen)
    kind, store = call.served(), call.registry.store
    namespace = call.namespace if kind.namespaced else ""
    until = time.monotonic() + float(call.query.get("timeoutSeconds") or LONGEST_S)
    asked = call.query.get("resourceVersion") or "0"
    with store.lock:
        if asked == "0":
            version = store.version
            first = [stored for stored in store.all(kind, namespace) if chosen(stored)]
        else:
            version, first = int(asked), []
            if version < store.forgotten:
                message = f"too old resource version: {version} ({store.forgotten + 1})"
                yield line("ERROR", dump(gone(message).body))
                return
    for stored in first:
        yield line("ADDED", stored.whole)
    while True:
        with store.changed:
            events = store.since(version)
            while not events:
                left = until - time.monotonic()
                if left <= 0 or call.registry.closed:
                    return
                store.changed.wait(min(left, LOOK_S))
                events = store.since(version)
            lost = version < store.forgotten
        if lost:
            yield line("ERROR", dump(gone(f"too old resource version: {version} ({store.forgotten + 1})").body))
            return
        for event in events:
            version = event.version
            if (event.kind.group, event.kind.plural) != (kind.group, kind.plural):
                continue
            if namespace and event.key[0] != namespace:
                continue
            told = _told(event, chosen)
            if told:
                yield told


def _told(event: Event, chosen: object) -> bytes:
    assert callable(chosen)
    before, after = chosen(event.before), event.type != "DELETED" and chosen(event.after)
    if after:
        return line("MODIFIED" if before else "ADDED", event.after.whole)
    if not before:
        return b""
    assert event.before is not None
    # what left the selection is shown as it was, with the version of the change
    meta = {**event.before.obj["metadata"], "resourceVersion": str(event.version)}
    return line("DELETED", Stored(event.kind, {**event.before.obj, "metadata": meta}, event.version).whole)
