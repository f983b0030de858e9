"""The three kinds of patch, as the recorded server carries them out (which is not always as their standards say)."""

from __future__ import annotations

from typing import Any

from fake_cluster.problems import problem, rejected
from fake_cluster.store import clone

MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "imagePullSecrets": "name",
    "secrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "conditions": "type",
    "addresses": "type",
    "ownerReferences": "uid",
    "schedulingGates": "name",
    "resourceClaims": "name",
}
"""Lists that a strategic merge joins, by their field; ports differ between containers and Services."""
SETS = {"finalizers"}


class Failed(Exception):
    """An operation of a JSON patch failed."""


def merge(target: Any, patch: Any) -> Any:
    """JSON merge patch."""
    if not isinstance(patch, dict):
        return clone(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def json_patch(target: Any, operations: list[dict[str, Any]]) -> Any:
    """Raises Problem 422 when an operation fails, whichever."""
    target = clone(target)
    for operation in operations:
        try:
            target = _operate(target, operation)
        except (Failed, KeyError, TypeError, AttributeError, ValueError):
            raise rejected() from None
    return target


def _parts(path: str) -> list[str]:
    # what stands before the first slash is dropped, whatever it is
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _operate(target: Any, operation: dict[str, Any]) -> Any:
    op, path = operation["op"], _parts(operation["path"])
    if op == "test":
        _test(target, path, operation.get("value"))
        return target
    if op in ("copy", "move"):
        origin = _parts(operation["from"])
        value = clone(_look(target, origin))
        if op == "move":
            target = _remove(target, origin)
        return _add(target, path, value)
    if op == "add":
        return _add(target, path, clone(operation.get("value")))
    if op == "replace":
        return _replace(target, path, clone(operation.get("value")))
    if op == "remove":
        return _remove(target, path)
    raise Failed(op)


def _look(target: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(target, list):
            target = target[_index(part, len(target) - 1)]
        elif isinstance(target, dict) and part in target:
            target = target[part]
        else:
            raise Failed(part)
    return target


def _parent(target: Any, path: list[str]) -> Any:
    parent = _look(target, path[:-1])
    if not isinstance(parent, dict | list):
        raise Failed(path[-1])
    return parent


def _index(part: str, last: int) -> int:
    place = int(part)
    if not 0 <= place <= last:
        raise Failed(part)
    return place


def _test(target: Any, path: list[str], wanted: Any) -> None:
    parent = _parent(target, path) if path else None
    absent = isinstance(parent, dict) and path[-1] not in parent
    found = None if absent else _look(target, path)  # an absent path equals null
    if not same(found, wanted):
        raise Failed("test")


def same(one: Any, other: Any) -> bool:
    """JSON's equality: true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _add(target: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _parent(target, path)
    if isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        place = len(parent) if path[-1] == "-" else _index(path[-1], len(parent))
        parent.insert(place, value)
    return target


def _replace(target: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _parent(target, path)
    if isinstance(parent, dict):
        # an absent key is added: against the standard
        parent[path[-1]] = value
    else:
        parent[_index(path[-1], len(parent) - 1)] = value
    return target


def _remove(target: Any, path: list[str]) -> Any:
    if not path:
        raise Failed("the whole")
    parent = _parent(target, path)
    if isinstance(parent, dict):
        if path[-1] not in parent:
            raise Failed(path[-1])
        del parent[path[-1]]
    else:
        del parent[_index(path[-1], len(parent) - 1)]
    return target


def strategic(target: Any, patch: Any, kind: str = "") -> Any:
    """Strategic merge: lists with a merge key are joined, `$patch` and `$setElementOrder` are obeyed."""
    return _strategic_map(target if isinstance(target, dict) else {}, patch, kind, "")


def _strategic_map(target: dict[str, Any], patch: dict[str, Any], kind: str, parent: str) -> dict[str, Any]:
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: clone(value) for key, value in patch.items() if key != "$patch"}
    if directive == "delete":
        return {}
    merged = _directed(target, patch)
    orders = {key.removeprefix("$setElementOrder/"): value for key, value in patch.items() if key.startswith("$setE")}
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            held = merged.get(key)
            merged[key] = _strategic_map(held if isinstance(held, dict) else {}, value, kind, key)
        elif isinstance(value, list):
            merged[key] = _strategic_list(merged.get(key) or [], value, kind, parent, key)
        else:
            merged[key] = value
    for key, order in orders.items():
        if isinstance(merged.get(key), list):
            merged[key] = _ordered(merged[key], order, target.get(key) or [], _merge_key(key, kind, parent))
    return merged


def _directed(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A copy, after what the patch says about keys and primitive lists as a whole."""
    merged = dict(target)
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            merged[field] = [item for item in merged.get(field) or [] if item not in value]
        elif key == "$retainKeys":
            merged = {name: item for name, item in merged.items() if name in value}
    return merged


def _merge_key(field: str, kind: str, parent: str) -> str:
    if field == "ports":
        return "port" if kind == "Service" else "containerPort"
    if field == "conditions" and parent != "status":
        return ""
    return MERGE_KEYS.get(field, "")


def _strategic_list(target: list[Any], patch: list[Any], kind: str, parent: str, field: str) -> list[Any]:
    key = _merge_key(field, kind, parent)
    if field in SETS:
        return [*target, *(item for item in patch if item not in target)]
    if not key:
        return clone(patch)
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [clone(item) for item in patch if item.get("$patch") != "replace"]
    merged = list(target)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise problem(500, f"map: {_go_map(item)} does not contain declared merge key: {key}")
        place = next((i for i, held in enumerate(merged) if held.get(key) == item[key]), -1)
        if item.get("$patch") == "delete":
            merged = [held for held in merged if held.get(key) != item[key]]
        elif place >= 0:
            merged[place] = _strategic_map(merged[place], item, kind, field)
        else:
            merged.append(clone({k: v for k, v in item.items() if not k.startswith("$")}))
    return _ordered(merged, patch, target, key)


def _ordered(items: list[Any], order: list[Any], before: list[Any], key: str) -> list[Any]:
    """What the patch names keeps the patch's order; the others go in before the first of it that stood behind them."""

    def name(item: Any) -> Any:
        return item.get(key) if key and isinstance(item, dict) else item

    wanted, places = [name(item) for item in order], [name(item) for item in before]
    right = sorted((item for item in items if name(item) in wanted), key=lambda item: wanted.index(name(item)))
    left = [item for item in items if name(item) not in wanted]
    made: list[Any] = []
    while left and right:
        ahead = name(left[0]) in places and name(right[0]) in places
        first = ahead and places.index(name(left[0])) < places.index(name(right[0]))
        made.append(left.pop(0) if first else right.pop(0))
    return [*made, *left, *right]


def _go_map(item: Any) -> str:
    if isinstance(item, dict):
        return "map[" + " ".join(f"{key}:{_go_map(item[key])}" for key in sorted(item)) + "]"
    if isinstance(item, list):
        return "[" + " ".join(map(_go_map, item)) + "]"
    if isinstance(item, bool):
        return str(item).lower()
    return "<nil>" if item is None else str(item)
