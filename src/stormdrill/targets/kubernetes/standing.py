"""Whether what a fault put into a cluster is still as the fault left it, while it is in force."""

from __future__ import annotations

from stormdrill.cluster import naming
from stormdrill.cluster.elements import OURS, shown, states
from stormdrill.model.plan import Injection
from stormdrill.model.undo import KubePatch
from stormdrill.ports import Stood
from stormdrill.targets.kubernetes.mechanism import API_SERVER, Changing, Object, Place, at, texts


def standing(mechanism: Changing | None, injection: Injection) -> Stood | None:
    """One GET for each object that was changed. Where something was patched, that is the cause, and what was created
    beside it serves it. None for what may end by itself: programs, pods of ours. Raises Unreachable."""
    if mechanism is None or not mechanism.stands:
        return None
    patched, created, changed = [], [], []
    for change in mechanism.applied(injection):
        undo = change.undo
        found, named = mechanism.get(undo.cluster, undo.path), str(Place.of(undo.path))
        if isinstance(undo, KubePatch):
            there, said = _of_patch(undo, named, found)
            patched.append(there)
            changed += said
        else:
            there = texts(at(found, "metadata", "labels")).get(naming.LABEL) == undo.run
            created.append(there)
            changed += [] if there else [f"{named} is there no more"]
    if not (patched or created):
        return None
    return Stood(not any(patched or created), "; ".join(changed), API_SERVER)


def _of_patch(undo: KubePatch, named: str, found: Object | None) -> tuple[bool, list[str]]:
    """Whether anything of it stands, and what doesn't. An object that was removed is no less harmed than before; one
    that was made again may be a copy that was taken while the fault was in force."""
    if found is None:
        return True, [f"{named} is there no more"]
    looked = list(zip(undo.elements, states(undo.elements, found), strict=True))
    said = [f"{named}: {shown(element, found)}" for element, now in looked if now != OURS]
    return any(now == OURS for _, now in looked), said
