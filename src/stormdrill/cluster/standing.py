"""How a change stands on its object: as it was left, changed by somebody meanwhile, or gone. Pure.

What it says is seen on the object itself: on the values, and on the server's account of who wrote them. Who puts a
value back and then puts ours there again leaves their own name on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stormdrill.cluster import naming
from stormdrill.cluster.asking import text
from stormdrill.cluster.elements import OURS, shown, states
from stormdrill.cluster.owning import beside, is_ours, kept, owners
from stormdrill.model.undo import InCluster, KubeDelete, KubePatch

Object = Mapping[str, object]
NOTES = ("metadata", "annotations")
"""What a fault writes there asks others to leave its object be; it is no part of the harm."""
NAMED = 4
"""So many edits of one object are told each."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one look found of one change, or of several."""

    stood: bool
    """Something of it is as it was left."""
    changed: tuple[str, ...] = ()
    """What isn't, in people's words."""
    edited: bool = False
    """It is there, but what it says was written by somebody else, so that nobody knows what it does."""
    cause: bool = True
    """It was patched; what is created beside a patch only serves it."""


def of(word: KubePatch | KubeDelete, there: Object | None) -> Found:
    return _of_patch(word, there) if isinstance(word, KubePatch) else _of_creation(word, there)


def together(founds: Sequence[Found]) -> Found | None:
    """Of all changes of one injection; None of nothing."""
    deciding = [one for one in founds if one.cause] or founds
    if not deciding:
        return None
    changed = tuple(said for one in founds for said in one.changed)
    edited = any(one.edited for one in deciding)
    return Found(any(one.stood for one in deciding), changed, edited, any(one.cause for one in founds))


@dataclass(slots=True)
class Met:
    """What the first look of each undo found, before it changed anything itself."""

    _first: dict[tuple[str, InCluster], Found] = field(default_factory=dict)
    _unknown: set[str] = field(default_factory=set)

    def note(self, injection: str, word: InCluster, found: Found | None) -> None:
        if found is not None:
            self._first.setdefault((injection, word), found)

    def forget(self, injection: str) -> None:
        """Somebody else has reverted it: what is found then is their doing."""
        self._unknown.add(injection)

    def of(self, injection: str, words: Sequence[InCluster]) -> Found | None:
        """None while one of them was not looked at, and where that says nothing."""
        looks = [self._first.get((injection, word)) for word in words if isinstance(word, KubePatch | KubeDelete)]
        found = [one for one in looks if one is not None]
        return together(found) if len(found) == len(looks) and injection not in self._unknown else None


def _of_patch(word: KubePatch, there: Object | None) -> Found:
    """An object that was removed is no less harmed than before; one that was made again may be a copy that was taken
    while the fault was in force."""
    named = _named(word.path)
    if there is None:
        return Found(True, (f"{named} is there no more",))
    every = zip(word.elements, states(word.elements, there), strict=True)
    looked = [(element, now) for element, now in every if element.path[:2] != NOTES]
    said = [f"{named} was made anew"] if text(there, "metadata", "uid") != word.uid else []
    manager = naming.manager(word.marker)
    for element, now in looked:
        if element.ours == element.before:
            continue
        if now != OURS:
            said.append(f"{named}: {shown(element, there)}")
        # lists are owned whole, and a status is written again and again by whoever reports it
        elif not element.key and element.ours and not word.subresource:
            writers = owners(there, element.path)
            if writers and manager not in writers:
                who = ", ".join(sorted(writers))
                said.append(f"{named}: {shown(element, there)}, as it was left, but written anew ({who})")
    return Found(any(now == OURS for _, now in looked), tuple(said))


def _of_creation(word: KubeDelete, there: Object | None) -> Found:
    named = _named(word.path)
    if there is None:
        return Found(False, (f"{named} is there no more",), cause=False)
    if not is_ours(there, word.run):
        return Found(False, (f"{named} carries neither the run's label nor its owner",), cause=False)
    said = edits(word, there)
    return Found(not said, tuple(f"{named}: {one}" for one in said), edited=bool(said), cause=False)


def edits(word: KubeDelete, there: Object) -> list[str]:
    """What somebody else has written into an object of ours, or taken out of it. Nothing where the server keeps no
    account, and of what nobody looks at."""
    if not word.wrote or not kept(there):
        return []
    manager, said = naming.maker(word.run), []
    for path in word.wrote:
        writers = owners(there, path)
        if manager not in writers:
            who = f"written anew ({', '.join(sorted(writers))})" if writers else "taken out"
            said.append(f"{'.'.join(path)} was {who}")
    said += [f"{'.'.join(path)} was put there ({who})" for path, who in beside(there, manager, "spec")]
    told = list(dict.fromkeys(said))
    return told if len(told) <= NAMED else [*told[:NAMED], f"and {len(told) - NAMED} more"]


def _named(path: str) -> str:
    """namespace/resource/name"""
    parts = path.split("/")
    where = [parts[parts.index("namespaces") + 1]] if "namespaces" in parts[:-2] else []
    return "/".join([*where, *parts[-2:]])
