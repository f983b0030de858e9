"""What the cluster holds: objects, the counter of versions, the history that watches and pages read."""

from __future__ import annotations

import json
import threading
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fake_cluster.kinds import Kind

Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace (empty for kinds of the whole cluster), name."""
HISTORY = 20_000
"""Events kept for watches and for later pages of a list."""
FIRST_VERSION = 1000


def clone(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clone(item) for item in value]
    return value


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def at(seconds: float) -> str:
    """The time of day that many seconds from now."""
    return datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def new_uid() -> str:
    return str(uuid.uuid4())


class Stored:
    """One state of an object. Never changed once stored; its JSON is made when first asked for."""

    __slots__ = ("_item", "_whole", "kind", "obj", "version")

    def __init__(self, kind: Kind, obj: Object, version: int) -> None:
        self.kind = kind
        self.obj = obj
        self.version = version
        self._item: bytes | None = None
        self._whole: bytes | None = None

    @property
    def item(self) -> bytes:
        """As an element of a list: built-in kinds leave kind and apiVersion out."""
        if self._item is None:
            if self.kind.custom:
                self._item = dump(self.obj)
            else:
                self._item = dump({k: v for k, v in self.obj.items() if k not in ("kind", "apiVersion")})
        return self._item

    @property
    def whole(self) -> bytes:
        if self._whole is None:
            if self.kind.custom:
                self._whole = self.item
            else:
                head = f'{{"kind":"{self.kind.kind}","apiVersion":"{self.kind.api_version}"'.encode()
                self._whole = head + (b"," if len(self.item) > 2 else b"") + self.item[1:]
        return self._whole


def dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Event:
    """A write. `before` is None for ADDED; `after` of DELETED is the last state with the version of its end."""

    version: int
    type: str
    kind: Kind
    key: Key
    before: Stored | None
    after: Stored


@dataclass(slots=True)
class Shelf:
    """The objects of one kind, and the same in the order of their keys."""

    objects: dict[Key, Stored] = field(default_factory=dict)
    keys: list[Key] = field(default_factory=list)
    rows: list[Stored] = field(default_factory=list)

    def set(self, key: Key, stored: Stored) -> None:
        place = bisect_left(self.keys, key)
        if key in self.objects:
            self.rows[place] = stored
        else:
            self.keys.insert(place, key)
            self.rows.insert(place, stored)
        self.objects[key] = stored

    def pop(self, key: Key) -> Stored | None:
        stored = self.objects.pop(key, None)
        if stored is not None:
            place = bisect_left(self.keys, key)
            del self.keys[place], self.rows[place]
        return stored

    def part(self, namespace: str) -> slice:
        if not namespace:
            return slice(0, len(self.keys))
        return slice(bisect_left(self.keys, (namespace, "")), bisect_left(self.keys, (namespace + "\0", "")))


Subscriber = Callable[[Event], None]


class Store:
    """Thread-safe. `lock` is held through a whole read-modify-write by whoever makes one (it may be taken again)."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.version = FIRST_VERSION
        self.shelves: dict[tuple[str, str], Shelf] = {}
        self.history: list[Event] = []
        self.forgotten = FIRST_VERSION
        """Up to this version the history is gone: lists and watches from before it answer 410."""
        self.compacted = FIRST_VERSION
        """Up to this version later pages of a list are refused, while watches still replay."""
        self._subscribers: list[Subscriber] = []
        self._untold: list[Event] = []
        self._telling = False

    def subscribe(self, subscriber: Subscriber) -> None:
        """It is called after each write, in the order of versions, in the writer's thread and under the lock: it may
        read and write the store, but not wait."""
        self._subscribers.append(subscriber)

    def shelf(self, kind: Kind) -> Shelf:
        return self.shelves.setdefault((kind.group, kind.plural), Shelf())

    def get(self, kind: Kind, namespace: str, name: str) -> Stored | None:
        return self.shelf(kind).objects.get((namespace, name))

    def put(self, kind: Kind, obj: Object) -> Stored:
        """Stores a state as the next version. The caller gives the object away; uid and creationTimestamp are set
        where they are missing."""
        meta = obj["metadata"]
        with self.lock:
            self.version += 1
            meta["resourceVersion"] = str(self.version)
            meta.setdefault("uid", new_uid())
            meta.setdefault("creationTimestamp", now())
            obj.setdefault("kind", kind.kind)
            obj.setdefault("apiVersion", kind.api_version)
            key = (meta.get("namespace", ""), meta["name"])
            shelf = self.shelf(kind)
            stored = Stored(kind, obj, self.version)
            before = shelf.objects.get(key)
            shelf.set(key, stored)
            self._tell(Event(self.version, "ADDED" if before is None else "MODIFIED", kind, key, before, stored))
            return stored

    def remove(self, kind: Kind, namespace: str, name: str) -> Stored | None:
        """Takes it away for good; the state at its end, None when it was not there."""
        with self.lock:
            shelf = self.shelf(kind)
            before = shelf.pop((namespace, name))
            if before is None:
                return None
            self.version += 1
            last = {**before.obj, "metadata": {**before.obj["metadata"], "resourceVersion": str(self.version)}}
            stored = Stored(kind, last, self.version)
            self._tell(Event(self.version, "DELETED", kind, (namespace, name), before, stored))
            return stored

    def bump(self) -> int:
        """A version that nobody sees: what another kind's write would have taken."""
        with self.lock:
            self.version += 1
            return self.version

    def forget(self, upto: int | None = None) -> None:
        """Watches and lists from before `upto` (now) are answered with 410 from here on."""
        with self.lock:
            self.forgotten = self.version if upto is None else upto
            self.compacted = max(self.compacted, self.forgotten)
            self.history = [event for event in self.history if event.version > self.forgotten]

    def compact(self) -> None:
        """Later pages of lists begun before are refused; watches still replay."""
        with self.lock:
            self.compacted = self.version

    def all(self, kind: Kind, namespace: str = "") -> Iterator[Stored]:
        """In the order of their names, as they are now."""
        with self.lock:
            shelf = self.shelf(kind)
            return iter(shelf.rows[shelf.part(namespace)])

    def list_at(self, kind: Kind, namespace: str, version: int) -> tuple[list[Key], list[Stored]]:
        """All of a kind, keys and states in their order, as they were at a version that the history still reaches."""
        with self.lock:
            shelf = self.shelf(kind)
            was: dict[Key, Stored | None] = {}
            for event in reversed(self.history):
                if event.version <= version:
                    break
                if (event.kind.group, event.kind.plural) == (kind.group, kind.plural):
                    was[event.key] = event.before
            if was:
                shelf = _as_it_was(shelf, was)
            part = shelf.part(namespace)
            return shelf.keys[part], shelf.rows[part]

    def since(self, version: int) -> list[Event]:
        """The history after a version, oldest first."""
        start = bisect_left(self.history, version + 1, key=lambda event: event.version)
        return self.history[start:]

    def _tell(self, event: Event) -> None:
        self.history.append(event)
        if len(self.history) > HISTORY * 2:
            self.forgotten = self.history[-HISTORY - 1].version
            self.compacted = max(self.compacted, self.forgotten)
            del self.history[:-HISTORY]
        self.changed.notify_all()
        self._untold.append(event)
        if self._telling:
            return  # a subscriber wrote: everybody hears of it after what they are hearing now
        self._telling = True
        try:
            while self._untold:
                told = self._untold.pop(0)
                for subscriber in self._subscribers:
                    subscriber(told)
        finally:
            self._telling = False
            self._untold.clear()


def _as_it_was(shelf: Shelf, was: dict[Key, Stored | None]) -> Shelf:
    states: dict[Key, Stored | None] = {**shelf.objects, **was}
    held = {key: stored for key, stored in states.items() if stored is not None}
    keys = sorted(held)
    return Shelf(held, keys, [held[key] for key in keys])
