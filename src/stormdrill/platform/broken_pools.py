"""Pools with a named bug in their autoscaling."""

from __future__ import annotations

from stormdrill.platform import bugs
from stormdrill.platform.pools import GROW_AGE_S, PoolState

SLOW_S = 12.0
"""With the bug slow-autoscaler the queue must have been old for so long before a slot is added."""


class SlowScaler(PoolState):
    """Looks at what has lasted: when it adds a slot, the surge has done its harm."""

    __slots__ = ("_old_since_s",)
    _old_since_s: float | None

    def scale(self, now_s: float, oldest_age_s: float) -> None:
        since_s: float | None = getattr(self, "_old_since_s", None)
        self._old_since_s = now_s if oldest_age_s > GROW_AGE_S and since_s is None else since_s
        if oldest_age_s <= GROW_AGE_S:
            self._old_since_s = None
        elif since_s is None or now_s - since_s < SLOW_S:
            return
        super().scale(now_s, oldest_age_s)


class QuotaIgnored(PoolState):
    """Grows as long as the queue is old, whatever it was granted."""

    __slots__ = ()

    @property
    def most(self) -> int:
        return 2 * self.quota


def pool_with(bug: str) -> type[PoolState]:
    return {bugs.SLOW_AUTOSCALER: SlowScaler, bugs.QUOTA_IGNORED: QuotaIgnored}.get(bug, PoolState)
