"""Whether what a fault put into a cluster is still as the fault left it, while it is in force and when it is undone."""

from __future__ import annotations

from collections.abc import Callable

from stormdrill.cluster.standing import Found, of, together
from stormdrill.model.plan import Injection
from stormdrill.ports import Mechanism, Stood
from stormdrill.targets.kubernetes.mechanism import API_SERVER, Changing

Met = Callable[[str, str], Found | None]
"""Cluster and injection → how its undo found it there."""


def standing(mechanism: Mechanism | None, injection: Injection) -> Stood | None:
    """One GET for each object that was changed. None for what may end by itself: programs, pods of ours. Raises
    Unreachable."""
    if not isinstance(mechanism, Changing) or not mechanism.stands:
        return None
    undos = [change.undo for change in mechanism.applied(injection)]
    return _told(together([of(undo, mechanism.get(undo.cluster, undo.path)) for undo in undos]))


def undone(mechanism: Mechanism | None, injection: Injection, met: Met) -> Stood | None:
    """The same as the undo saw it, before it changed anything. Asks nobody."""
    if not isinstance(mechanism, Changing) or not mechanism.stands:
        return None
    clusters = dict.fromkeys(change.undo.cluster for change in mechanism.applied(injection))
    looks = [met(cluster, injection.id) for cluster in clusters]
    found = [one for one in looks if one is not None]
    return _told(together(found)) if len(found) == len(looks) else None


def _told(found: Found | None) -> Stood | None:
    if found is None:
        return None
    return Stood(not found.stood, "; ".join(found.changed), API_SERVER, found.edited)
