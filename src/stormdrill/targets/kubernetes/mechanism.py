"""What the mechanisms of a cluster share: from the changes that one describes follow apply, undo, dry run and needs."""

from __future__ import annotations

from typing import Protocol

from stormdrill.cluster.api import Api
from stormdrill.cluster.changes import Change
from stormdrill.model.permission import Need
from stormdrill.model.plan import Injection
from stormdrill.ports import Effect


class Applies(Protocol):
    """Carries changes out; refuses once the run may change nothing any more (`cluster.hold.Hold`)."""

    def apply(self, injection: str, change: Change) -> None:
        """Raises Unreachable when it can't be said to be in force."""
        ...

    def check(self) -> None:
        """Raises Unreachable when nothing may be changed any more: before what is no change of an object (eviction)."""
        ...


class Clusters(Protocol):
    """The clusters of a system, by their names in its file; the empty name is the only one's."""

    run: str

    def api(self, cluster: str) -> Api: ...
    def hold(self, cluster: str) -> Applies:
        """There is one once the run has begun."""
        ...


class KubeMechanism(Protocol):
    """One word, as a cluster does it. Satisfies `ports.Mechanism` by way of `Changing`."""

    permission: str

    def refusal(self, injection: Injection) -> str: ...
    def changes(self, injection: Injection) -> tuple[Change, ...]:
        """What would be done now, bound to what is there; reads only. Raises Unreachable, Refused."""
        ...

    def after(self, injection: Injection) -> None:
        """What follows the changes and has no undo: evictions. Bounded; called once, after they were applied."""
        ...

    def needs(self, injection: Injection) -> tuple[Need, ...]:
        """What it takes beyond its changes and their undo: reads, evictions, exec. Pure but for looking."""
        ...

    def observe(self, injection: Injection) -> Effect:
        """Bit: a witness other than the patch saw it (pods gone, endpoints changed). Gone: no cause of ours is left."""
        ...
