"""Doors and lanes with a named bug in them: each does one thing wrong under load."""

from __future__ import annotations

from stormdrill.platform import bugs
from stormdrill.platform.control import Control
from stormdrill.platform.door import Door, Turned
from stormdrill.platform.flow import Rate
from stormdrill.platform.lanes import Lanes
from stormdrill.platform.queue import Entry

OLD_S = 2.0
"""With the bug slow-drain an acknowledged job that has waited so long is taken for bulk."""
BRAKE_PER_S = 4.0
"""With the bug metastable tier 3 is shed while more than this is refused, by a region of the usual size."""


class UnboundedBacklog(Door):
    """What is only to be acknowledged is always taken, and isn't counted among those that wait."""

    def turned_away(self, entry: Entry, now_s: float) -> Turned | None:
        return None if not entry.job.wait else super().turned_away(entry, now_s)

    def _depth(self, entry: Entry) -> int:
        return self._lanes.depth - self._lanes.promised


class Metastable(Door):
    """Sheds tier 3 while much is refused, and counts what it refuses for that reason: the overload keeps itself up."""

    def __init__(self, lanes: Lanes, control: Control, *, bug: str, seed: int, scale: float = 1.0) -> None:
        super().__init__(lanes, control, bug=bug, seed=seed, scale=scale)
        self._brake_per_s = BRAKE_PER_S * scale
        self._refused = Rate()

    def turned_away(self, entry: Entry, now_s: float) -> Turned | None:
        turned = super().turned_away(entry, now_s)
        if turned is not None:
            self._refused.add(1.0, now_s)
        return turned

    def _shed_level(self, now_s: float) -> int:
        return max(super()._shed_level(now_s), int(self._refused.per_s(now_s) > self._brake_per_s))


class PartitionsForgotten(Door):
    """Nobody is shed for the sake of a partition, and what waits for one holds up all behind it (see `WorkQueue`)."""

    def _partition_full(self, entry: Entry) -> str | None:
        return None

    def _partition_wait_s(self, entry: Entry) -> float:
        return 0.0


class SlowDrain(Lanes):
    """A backlog is worked off by one slot, however many are free."""

    def _blocked(self, entry: Entry) -> bool:
        return super()._blocked(entry) or (
            self._bulk(entry) and any(self._bulk(busy) for busy in self._leased.values())
        )

    def _bulk(self, entry: Entry) -> bool:
        return entry.expires_s is None and self.now_s - entry.queued_s > OLD_S


def door_with(bug: str) -> type[Door]:
    return {
        bugs.UNBOUNDED_BACKLOG: UnboundedBacklog,
        bugs.METASTABLE: Metastable,
        bugs.HEAD_OF_LINE: PartitionsForgotten,
    }.get(bug, Door)


def lanes_with(bug: str) -> type[Lanes]:
    return {bugs.SLOW_DRAIN: SlowDrain}.get(bug, Lanes)
