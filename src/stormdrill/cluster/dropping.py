"""Servers that don't keep what a creation is known by: an admission that drops labels, annotations or owners.

The dry run shows it, and the change is refused. Where only the creation itself does, the object is removed at once,
while the answer still says which one was made: no undo would take it for ours later.
"""

from __future__ import annotations

from collections.abc import Sequence

from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until, read, text, under
from stormdrill.cluster.objects import delete
from stormdrill.errors import Unreachable


def said(dropped: Sequence[str]) -> str:
    return (
        f"the server doesn't keep {', '.join(dropped)}, by which an undo would know the change; let the admission that "
        "drops it pass what begins with stormdrill"
    )


def of_creation(sent: dict[str, object], stored: dict[str, object]) -> list[str]:
    """What isn't there of the labels, annotations and owners of an object that was made."""
    found: list[str] = []
    for where in ("labels", "annotations"):
        kept = under(stored, "metadata", where)
        found += [f"{where[:-1]} {n}" for n, v in under(sent, "metadata", where).items() if kept.get(n) != v]
    kept_owners = under(stored, "metadata").get("ownerReferences")
    uids = {text(owner, "uid") for owner in kept_owners} if isinstance(kept_owners, list) else set[str]()
    owners = under(sent, "metadata").get("ownerReferences")
    for owner in owners if isinstance(owners, list) else []:
        if text(owner, "uid") not in uids:
            found.append("the owner, which ends it when the run is reverted")
    return found


def remove(api: Api, path: str, stored: dict[str, object], until: Until) -> None:
    """What was made; returns when it is seen to be gone. Raises Unreachable with what is left."""
    if not _uid(stored):
        raise Unreachable("it was made, and the answer doesn't tell which object it is")
    try:
        while (there := read(api, path, until)) is not None and _uid(there) == _uid(stored):
            if text(there, "metadata", "deletionTimestamp"):
                until.pause("it is being deleted")
            else:
                delete(api, path, there, until)
    except Unreachable as error:
        raise Unreachable(f"it was made, is not known as ours and could not be removed: {error}") from error


def _uid(thing: dict[str, object]) -> str:
    return text(thing, "metadata", "uid")
