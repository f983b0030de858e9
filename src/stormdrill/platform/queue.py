"""The ready queue of one pool: tier 1 first, in order of arrival within a tier, nobody starved for ever."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from stormdrill.platform.jobs import TIERS, Pool, partition_of
from stormdrill.platform.store import StoredJob

PATIENCE_SHARE = 0.25
"""An acknowledged job that has waited this share of its deadline may go before tier 1: it was promised."""
PROMOTED_SHARE = 0.25
"""Part of a pool's slots that promoted jobs may hold, so that they never push tier 1 aside."""

End = Literal["done", "refused", "superseded"]
Lane = Literal["cpu", "gpu", "training"]
LANES: tuple[Lane, ...] = ("cpu", "gpu", "training")


@dataclass(slots=True)
class Entry:
    """One accepted job while it is neither done nor given up."""

    job: StoredJob
    pool: Pool
    cost_s: float
    """Slot time it is expected to take."""
    queued_s: float
    """When it was accepted: what it is ranked by."""
    expires_s: float | None
    """Monotonic time after which nobody waits for it; None: it was acknowledged and has no such time."""
    token: str = ""
    """The lease's; empty while queued."""
    worker: str = ""
    lease_until_s: float = 0.0
    reported: int = 0
    """Steps that its worker has told of, saved or not."""
    waits_since_s: float = 0.0
    """When it last came to the queue."""
    leased_again: bool = False
    """It has had a lease, and didn't just give way to more urgent work at a checkpoint."""
    due: int = 0
    """Steps that had to be saved."""
    watchers: list[Callable[[End, str, bytes], None]] = field(default_factory=list)
    """Called once with its end, the reason and the result."""

    @property
    def lane(self) -> Lane:
        return "training" if self.job.kind == "training" else self.pool

    @property
    def partition(self) -> int:
        return partition_of(self.job.key)

    def expired(self, now_s: float) -> bool:
        return self.expires_s is not None and now_s >= self.expires_s

    def impatient(self, now_s: float) -> bool:
        return self.expires_s is None and now_s - self.queued_s > PATIENCE_SHARE * self.job.deadline_ms / 1000.0


class WorkQueue:
    def __init__(
        self,
        in_arrival_order: bool = False,
        blocked: Callable[[Entry], bool] = lambda entry: False,
        blocks_others: bool = False,
    ) -> None:
        self._in_arrival_order = in_arrival_order
        """Set by the bugs that forget about tiers."""
        self._blocked = blocked
        """Its partition can't take it now: what is behind it goes first."""
        self._blocks_others = blocks_others
        """Set by the bug head-of-line."""
        self._tiers: dict[int, OrderedDict[str, Entry]] = {tier: OrderedDict() for tier in TIERS}

    def __len__(self) -> int:
        return sum(len(entries) for entries in self._tiers.values())

    def __iter__(self) -> Iterator[Entry]:
        for entries in self._tiers.values():
            yield from entries.values()

    def push(self, entry: Entry, first: bool = False) -> None:
        entries = self._tiers[self._rank(entry.job.tier)]
        entries[entry.job.id] = entry
        if first:
            entries.move_to_end(entry.job.id, last=False)

    def remove(self, entry: Entry) -> None:
        self._tiers[self._rank(entry.job.tier)].pop(entry.job.id, None)

    def head(self, now_s: float, promote: bool = False) -> Entry | None:
        """What is to run next, still in the queue; `promote`: impatient jobs may go before tier 1 now."""
        heads = [head for entries in self._tiers.values() if (head := self._first(entries.values())) is not None]
        most = min(heads, key=lambda entry: self.urgency(entry, now_s, promote)) if heads else None
        return None if self._blocks_others and most is not None and self._blocked(most) else most

    def urgency(self, entry: Entry, now_s: float, promote: bool = False) -> tuple[int, float]:
        """Smaller runs first."""
        if self._in_arrival_order:
            return (0, entry.queued_s)
        return (0 if promote and entry.impatient(now_s) else entry.job.tier, entry.queued_s)

    def work_ahead_s(self, tier: int) -> float:
        """Slot time of everything that runs before a newcomer of this tier."""
        last = self._rank(tier)
        return sum(entry.cost_s for rank in TIERS if rank <= last for entry in self._tiers[rank].values())

    def oldest_age_s(self, now_s: float) -> float:
        return max((now_s - entry.waits_since_s for entry in self), default=0.0)

    def _first(self, entries: Iterable[Entry]) -> Entry | None:
        return next((entry for entry in entries if self._blocks_others or not self._blocked(entry)), None)

    def _rank(self, tier: int) -> int:
        return TIERS[0] if self._in_arrival_order else tier
