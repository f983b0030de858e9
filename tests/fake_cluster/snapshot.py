"""The state of a cluster as a value: two are compared before and after."""

from __future__ import annotations

from typing import Any

from fake_cluster.store import Store

CHANGING = ("resourceVersion", "managedFields", "uid", "creationTimestamp", "generation", "observedGeneration")


def snapshot(store: Store, ignore: tuple[str, ...]) -> dict[str, Any]:
    """Path-like name of each object → what it says, without the fields that change by themselves."""
    taken: dict[str, Any] = {}
    with store.lock:
        for (group, plural), shelf in store.shelves.items():
            for (namespace, name), stored in shelf.objects.items():
                where = "/".join(part for part in (f"{plural}.{group}" if group else plural, namespace, name) if part)
                taken[where] = without(stored.obj, ignore)
    return dict(sorted(taken.items()))


def without(value: Any, ignore: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: without(item, ignore) for key, item in value.items() if key not in ignore}
    if isinstance(value, list):
        return [without(item, ignore) for item in value]
    return value
