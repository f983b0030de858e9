"""Places in an object: what stands there now, and the JSON patch that puts something else there. Pure.

A piece of a path is a field's name, the index of a list, or `[name=web]`: the item of a list whose field is that.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence

from stormdrill.cluster import naming
from stormdrill.cluster.asking import text, under
from stormdrill.model.undo import Element

OURS, BEFORE, OTHER = "ours", "before", "other"
ABSENT = object()
_LEFT_OUT_WHEN_EMPTY = frozenset(
    {"annotations", "labels", "limits", "matchLabels", "nodeSelector", "requests", "selector"}
)
"""Maps of text that an API server doesn't keep empty. An empty map may mean something elsewhere (emptyDir)."""
_SHOWN = 120
_UNTOLD = frozenset({"env", "command", "args"})
"""Of containers: what they are started with may hold secrets, and messages are recorded."""


def value_of(written: str) -> object:
    """Of the JSON text of an element."""
    return ABSENT if written == "" else json.loads(written)


def state(element: Element, there: object) -> str:
    """What the element is in an object: as the fault left it, as it was before, or somebody else's. Of one that the
    fault takes away the others have to be known too: `states`."""
    ours, before = value_of(element.ours), value_of(element.before)
    now = current(element, there)
    if element.key:
        if now is ABSENT:
            return BEFORE
        return OURS if _holds(now, ours) else OTHER
    same = _same_text if _in_texts(element) else _same
    if same(now, before):
        return BEFORE
    return OURS if same(now, ours) else OTHER


def states(elements: Sequence[Element], there: object) -> list[str]:
    """Of each. What is missing from a map in which the fault put something else is the fault's doing only while the map
    holds nothing but that: whoever puts anything else there says what it should hold."""
    found = []
    for one in elements:
        now = state(one, there)
        theirs = now == OURS and _taken(one, elements) and not _alone(one, elements, there)
        found.append(OTHER if theirs else now)
    return found


def evident(element: Element, elements: Sequence[Element]) -> bool:
    """Whether it shows by itself, without the marker, that the fault put it there: it bears a name of ours."""
    if element.key or _bears(element):
        return True
    return _taken(element, elements) and any(map(_bears, _beside(element, elements)))


def current(element: Element, there: object) -> object:
    """What stands there; of a list: the item with the same key."""
    found = _get(there, element.path)
    if not element.key:
        return found
    ours = value_of(element.ours)
    items = found if isinstance(found, list) else []
    for item in items:
        if _key(item, element.key) == _key(ours, element.key):
            return item
    return ABSENT


def shown(element: Element, there: object) -> str:
    """In messages: spec.replicas is 5. What people have put into a container's environment is never told."""
    place = ".".join(element.path)
    if element.key:
        place += " " + "/".join(str(part) for part in _key(value_of(element.ours), element.key))
    now = current(element, there)
    if now is not ABSENT and "containers" in element.path and not _UNTOLD.isdisjoint(element.path):
        return f"{place} is set, to what isn't told here"
    written = "absent" if now is ABSENT else json.dumps(now)
    return f"{place} is {written if len(written) <= _SHOWN else written[:_SHOWN] + '…'}"


class Draft:
    """A JSON patch for one version of one object, as it grows: each operation sees what those before it left."""

    def __init__(self, there: dict[str, object]) -> None:
        self.there = copy.deepcopy(there)
        self.ops: list[dict[str, object]] = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": text(there, "metadata", "resourceVersion")},
            {"op": "test", "path": "/metadata/uid", "value": text(there, "metadata", "uid")},
        ]
        self._tests = len(self.ops)

    @property
    def empty(self) -> bool:
        return len(self.ops) == self._tests

    def annotate(self, name: str, value: str) -> None:
        self.put(("metadata", "annotations", name), value)

    def bare(self, name: str) -> None:
        """Without that annotation."""
        if name in under(self.there, "metadata", "annotations"):
            self.take(("metadata", "annotations", name))

    def apply(self, element: Element) -> None:
        """Put what the fault leaves there."""
        ours = value_of(element.ours)
        if element.key:
            self._append(element.path, ours)
        elif ours is ABSENT:
            self.take(element.path)
        else:
            self.put(element.path, ours)

    def restore(self, element: Element) -> None:
        """Put back what was there, given that it is as the fault left it."""
        if element.key:
            items = _get(self.there, element.path)
            wanted = _key(value_of(element.ours), element.key)
            at = next(
                i
                for i, item in enumerate(items if isinstance(items, list) else [])
                if _key(item, element.key) == wanted
            )
            place = (*element.path, str(at))
            self.ops.append({"op": "test", "path": pointer(self._found(place)), "value": _get(self.there, place)})
            self.take(place)
        elif (before := value_of(element.before)) is ABSENT:
            self.take(element.path)
        else:
            self.put(element.path, before)

    def put(self, path: Sequence[str], value: object) -> None:
        """Set a field, with the maps above it where they are missing."""
        found = self._found(path)
        here: object = self.there
        for depth, name in enumerate(found[:-1]):
            below = _step(here, name)
            if below is ABSENT or below is None:
                below = {}
                _set(here, name, below)
                self.ops.append({"op": "add", "path": pointer(found[: depth + 1]), "value": {}})
            here = below
        replaces = _step(here, found[-1]) is not ABSENT
        self.ops.append({"op": "replace" if replaces else "add", "path": pointer(found), "value": copy.deepcopy(value)})
        _set(here, found[-1], copy.deepcopy(value))

    def take(self, path: Sequence[str]) -> None:
        """Remove a field or an item; a list or a map of text that is empty then goes with it."""
        found = self._found(path)
        if (holder := _get(self.there, found[:-1])) is ABSENT or _step(holder, found[-1]) is ABSENT:
            return
        vanishes = isinstance(holder, list) or (len(found) > 1 and found[-2] in _LEFT_OUT_WHEN_EMPTY)
        if isinstance(holder, (list, dict)) and len(holder) == 1 and vanishes:
            found = found[:-1]
            holder = _get(self.there, found[:-1])
        self.ops.append({"op": "remove", "path": pointer(found)})
        if isinstance(holder, list):
            del holder[int(found[-1])]
        elif isinstance(holder, dict):
            del holder[found[-1]]

    def _append(self, path: Sequence[str], item: object) -> None:
        found = self._found(path)
        items = _get(self.there, found)
        if isinstance(items, list):
            self.ops.append({"op": "add", "path": pointer((*found, "-")), "value": copy.deepcopy(item)})
            items.append(copy.deepcopy(item))
        else:
            self.put(found, [item])

    def _found(self, path: Sequence[str]) -> tuple[str, ...]:
        """With indices for items that are named by a field. Raises LookupError when there is no such item."""
        found: list[str] = []
        here: object = self.there
        for piece in path:
            name = piece
            if piece.startswith("[") and isinstance(here, list):
                name = str(_index(here, piece))
            found.append(name)
            here = _step(here, name)
        return tuple(found)


def pointer(path: Sequence[str]) -> str:
    return "".join("/" + piece.replace("~", "~0").replace("/", "~1") for piece in path)


def _get(there: object, path: Sequence[str]) -> object:
    for piece in path:
        if piece.startswith("[") and isinstance(there, list):
            try:
                piece = str(_index(there, piece))
            except LookupError:
                return ABSENT
        there = _step(there, piece)
        if there is ABSENT:
            return ABSENT
    return there


def _index(items: list[object], piece: str) -> int:
    name, _, wanted = piece[1:-1].partition("=")
    for index, item in enumerate(items):
        if isinstance(item, dict) and item.get(name) == wanted:
            return index
    raise LookupError(f"no item {piece}")


def _step(here: object, name: str) -> object:
    if isinstance(here, dict):
        return here.get(name, ABSENT)
    if isinstance(here, list) and name.isdigit() and int(name) < len(here):
        return here[int(name)]
    return ABSENT


def _set(here: object, name: str, value: object) -> None:
    if isinstance(here, dict):
        here[name] = value
    elif isinstance(here, list) and name.isdigit() and int(name) < len(here):
        here[int(name)] = value
    else:
        raise LookupError(f"nothing can be put at {name}")


def _key(item: object, names: Sequence[str]) -> tuple[object, ...]:
    return tuple(item.get(name) for name in names) if isinstance(item, dict) else (item,)


def _in_texts(element: Element) -> bool:
    return len(element.path) > 1 and element.path[-2] in _LEFT_OUT_WHEN_EMPTY


def _bears(element: Element) -> bool:
    name = element.path[-1]
    return _in_texts(element) and bool(element.ours) and (name == naming.LABEL or name.startswith(naming.PREFIX))


def _beside(element: Element, elements: Sequence[Element]) -> list[Element]:
    """What the fault puts into the same map."""
    return [one for one in elements if one.ours and not one.key and one.path[:-1] == element.path[:-1]]


def _taken(element: Element, elements: Sequence[Element]) -> bool:
    """Whether the fault takes it out of a map of text, and puts something else there."""
    return not element.ours and not element.key and _in_texts(element) and bool(_beside(element, elements))


def _alone(element: Element, elements: Sequence[Element], there: object) -> bool:
    """Whether the map holds what the fault put there, and nothing else."""
    held = _get(there, element.path[:-1])
    put = _beside(element, elements)
    names = {one.path[-1] for one in put}
    return isinstance(held, dict) and bool(held) and held.keys() <= names and all(state(o, there) != OTHER for o in put)


def _same_text(one: object, other: object) -> bool:
    """A map of text keeps a text that is empty."""
    return one is other if one is ABSENT or other is ABSENT else one == other


def _same(one: object, other: object) -> bool:
    """An API server leaves out what is empty, so that absent, false, 0 and {} are the same to it."""
    if one is ABSENT or other is ABSENT:
        return _nothing(one) and _nothing(other)
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _nothing(value: object) -> bool:
    return value is ABSENT or value is None or value is False or value in (0, "") or value == {} or value == []


def _holds(now: object, ours: object) -> bool:
    """Everything that was written is there as it was written; what the server has added doesn't count."""
    if isinstance(now, dict) and isinstance(ours, dict):
        return all(_holds(now.get(name, ABSENT), value) for name, value in ours.items())
    if isinstance(now, list) and isinstance(ours, list):
        return len(now) == len(ours) and all(_holds(*pair) for pair in zip(now, ours, strict=True))
    return _same(now, ours)
