"""Watches: the history of a kind from a version on, a line an event."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator

from fake_cluster.calls import Call, Reply
from fake_cluster.kinds import Kind
from fake_cluster.options import list_options
from fake_cluster.problems import gone
from fake_cluster.selectors import field_selector, fields_match, label_selector, matches
from fake_cluster.store import Event, Object, Store, Stored, dump

LONGEST_S = 1800.0
LOOK_S = 0.5
"""How often a waiting watch looks whether its server has ended."""
BOOKMARK_AT = 0.75
"""When the last bookmark comes, as a part of the watch's time."""
BOOKMARK_S = 60.0
BARE: dict[str, Object] = {
    "pods": {"spec": {"containers": None}, "status": {}},
    "deployments": {
        "spec": {"selector": None, "template": {"metadata": {"creationTimestamp": None}, "spec": {"containers": None}},
                 "strategy": {}},
        "status": {},
    },
    "configmaps": {},
    "secrets": {},
}  # fmt: skip
"""What an object without content shows beside its metadata; others have spec and, where there is one, status."""

Chosen = Callable[[Stored | None], bool]


def line(kind: str, payload: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + payload + b"}\n"


def watch(call: Call) -> Reply:
    kind = call.served()
    list_options(call)
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

    return Reply(200, b"", {"Content-Type": "application/json"}, stream=Watch(call, kind, chosen).lines())


def too_old(store: Store) -> Iterator[bytes]:
    """All that a watch hears which begins before the history does."""
    yield line("ERROR", dump(gone(f"too old resource version: 1 ({store.forgotten + 1})").body))


class Watch:
    def __init__(self, call: Call, kind: Kind, chosen: Chosen) -> None:
        self._call, self._kind, self._chosen = call, kind, chosen
        self._store = call.registry.store
        self._namespace = call.namespace if kind.namespaced else ""
        lasts_s = float(call.query.get("timeoutSeconds") or LONGEST_S)
        self._until = time.monotonic() + lasts_s
        self._bookmarks = call.query.get("allowWatchBookmarks", "").lower() in ("1", "true")
        self._bookmark_at = time.monotonic() + min(BOOKMARK_S, lasts_s * BOOKMARK_AT)
        # taken now, not when the first line is asked for: what is written from here on is seen
        asked = call.query.get("resourceVersion") or "0"
        self._first: list[Stored] = []
        with self._store.lock:
            self._version = int(asked) or self._store.version
            if asked == "0":
                self._first = [stored for stored in self._store.all(kind, self._namespace) if chosen(stored)]

    def lines(self) -> Iterator[bytes]:
        for stored in self._first:
            yield line("ADDED", stored.whole)
        if self._call.query.get("sendInitialEvents", "").lower() in ("1", "true"):
            yield self._bookmark(self._version, initial=True)
        while True:
            with self._store.changed:
                events = self._wait()
                lost = self._version < self._store.forgotten
                current = self._store.version
            if lost:
                message = f"too old resource version: {self._version} ({self._store.forgotten + 1})"
                yield line("ERROR", dump(gone(message).body))
                return
            for event in events:
                self._version = event.version
                if told := self._told(event):
                    yield told
            if self._bookmarks and time.monotonic() >= self._bookmark_at:
                self._bookmark_at += BOOKMARK_S
                yield self._bookmark(current)
            if not events and (time.monotonic() >= self._until or self._call.registry.closed):
                return

    def _wait(self) -> list[Event]:
        """Something to tell, or a look at the clock. The lock is held."""
        if self._version < self._store.forgotten:
            return []
        events = self._store.since(self._version)
        if not events:
            due = min(self._until, self._bookmark_at) if self._bookmarks else self._until
            left = due - time.monotonic()
            if left > 0 and not self._call.registry.closed:
                self._store.changed.wait(min(left, LOOK_S))
            events = self._store.since(self._version)
        return events

    def _told(self, event: Event) -> bytes:
        if (event.kind.group, event.kind.plural) != (self._kind.group, self._kind.plural):
            return b""
        if self._namespace and event.key[0] != self._namespace:
            return b""
        before, after = self._chosen(event.before), event.type != "DELETED" and self._chosen(event.after)
        if after:
            return line("MODIFIED" if before else "ADDED", event.after.whole)
        if not before or event.before is None:
            return b""
        # what left the selection is shown as it was, with the version of the change
        meta = {**event.before.obj["metadata"], "resourceVersion": str(event.version)}
        return line("DELETED", Stored(event.kind, {**event.before.obj, "metadata": meta}, event.version).whole)

    def _bookmark(self, version: int, initial: bool = False) -> bytes:
        kind = self._kind
        meta: Object = {"resourceVersion": str(version), "creationTimestamp": None}
        if initial:
            head = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": {}, "items": None}
            meta["annotations"] = {
                "k8s.io/initial-events-end": "true",
                "kubernetes.io/initial-events-list-blueprint": base64.b64encode(dump(head) + b"\n").decode(),
            }
        shown = BARE.get(kind.plural, {"spec": {}, **({"status": {}} if kind.sub("status") else {})})
        return line("BOOKMARK", dump({"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta, **shown}))
