"""Changes to objects of a cluster: one value says what is applied, what is undone, and how either is seen."""

from __future__ import annotations

from dataclasses import dataclass, field

from stormdrill.cluster.standing import Found
from stormdrill.errors import Unreachable
from stormdrill.model.undo import KubeDelete, KubePatch


@dataclass(frozen=True, slots=True)
class Change:
    """What a mechanism does to one object. The undo says all of a patch; of a creation it says the name alone."""

    undo: KubePatch | KubeDelete
    body: str = ""
    """JSON of the object that is created; empty for a patch."""
    why: str = ""
    """In people's words, for permissions and refusals: to keep new pods off the node."""


@dataclass(frozen=True, slots=True)
class Undone:
    """What became of an undo."""

    word: str
    """done, superseded (nothing is left to undo, or it is somebody else's by now), failed."""
    detail: str
    witness: str = ""
    """Who has seen that it is gone: `the API server`; empty when nobody has."""
    found: Found | None = field(default=None, compare=False)
    """How it stood when the undo first looked; None where it didn't, or where that tells nothing."""
    by: str = field(default="", compare=False)
    """Who else had done it before."""
    at: str = field(default="", compare=False)
    """When they had, as the ledger says; UTC."""


class NotApplied(Unreachable):
    """It is certain that the change was not made, and that no request for it is under way."""
