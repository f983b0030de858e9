"""A region's pools as its gateway sees them: are there workers, how many slots may they use."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stormdrill.platform.jobs import GPU_BATCH, Pool

CONTACT_LIMIT_S = 2.5
"""Workers ask for work at least once a second; longer silence means that the pool is gone."""
GROW_AGE_S = 0.10
"""Queue age above which the pool grows."""
SHRINK_AFTER_S = 15.0
"""So long under half used before one slot is given back."""
SCALE_EVERY_S = 0.25

BASE_SLOTS: dict[Pool, int] = {"cpu": 6, "gpu": 2}
QUOTA_SLOTS: dict[Pool, int] = {"cpu": 8, "gpu": 4}


@dataclass(slots=True)
class PoolState:
    pool: Pool
    slots: int
    quota: int
    last_contact_s: float = -math.inf
    loading: bool = False
    """The worker is there, its model isn't loaded yet."""
    leased: int = 0
    pinned: bool = False
    """A person has set the slots: no autoscaling until it is given back."""
    idle_since_s: float | None = None
    next_scale_s: float = 0.0

    @classmethod
    def of(cls, pool: Pool) -> PoolState:
        return cls(pool, BASE_SLOTS[pool], QUOTA_SLOTS[pool])

    @property
    def places(self) -> int:
        """Jobs that may be leased at once."""
        return self.slots * (GPU_BATCH if self.pool == "gpu" else 1)

    def ready(self, now_s: float) -> bool:
        return not self.loading and now_s - self.last_contact_s < CONTACT_LIMIT_S

    def scale(self, now_s: float, oldest_age_s: float) -> None:
        """Autoscaling: one slot at a time on queue age, up to the quota; down after a long quiet time."""
        if self.pinned or now_s < self.next_scale_s:
            return
        self.next_scale_s = now_s + SCALE_EVERY_S
        if oldest_age_s > GROW_AGE_S:
            self.slots = min(self.quota, self.slots + 1)
            self.idle_since_s = None
        elif self.leased * 2 >= self.places:
            self.idle_since_s = None
        elif self.idle_since_s is None:
            self.idle_since_s = now_s
        elif now_s - self.idle_since_s > SHRINK_AFTER_S and self.slots > BASE_SLOTS[self.pool]:
            self.slots -= 1
            self.idle_since_s = now_s

    def pin(self, slots: int | None) -> int:
        """Set by a person, None gives it back to the autoscaler; returns the slots before."""
        before = self.slots
        self.pinned = slots is not None
        if slots is not None:
            self.slots = min(max(slots, 0), self.quota)
        return before
