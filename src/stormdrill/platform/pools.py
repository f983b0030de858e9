"""A region's pools as its gateway sees them: are there workers, do their devices work, how many slots may they use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from stormdrill.platform.jobs import GPU_BATCH, GPU_DEVICES, Pool

POLL_S = 0.5
"""Workers ask for work at least this often, also when they have no slot to spare."""
CONTACT_LIMIT_S = 1.5
"""Longer silence means that the pool is gone."""
GROW_AGE_S = 0.10
"""Queue age above which the pool grows."""
SHRINK_AFTER_S = 15.0
"""So long under half used before one slot is given back."""
SCALE_EVERY_S = 0.25

BASE_SLOTS: dict[Pool, int] = {"cpu": 6, "gpu": 2}
QUOTA_SLOTS: dict[Pool, int] = {"cpu": 8, "gpu": 4}
DEVICES: dict[Pool, int] = {"cpu": 0, "gpu": GPU_DEVICES}
OK = "ok"
"""The state of a device that works."""


@dataclass(slots=True)
class PoolState:
    pool: Pool
    wanted: int
    """Slots, as far as the quota allows."""
    full_quota: int
    base: int
    """Slots that it has without a reason for more."""
    devices: Mapping[str, int] = field(default_factory=dict)
    """State → how many devices were seen in it by the worker."""
    last_contact_s: float = -math.inf
    loading: bool = False
    """The worker is there, its model isn't loaded yet."""
    taken: int = 0
    """Places that leased jobs hold."""
    pinned: bool = False
    """A person has set the slots: no autoscaling until it is given back."""
    idle_since_s: float | None = None
    next_scale_s: float = 0.0

    @classmethod
    def of(cls, pool: Pool, scale: float = 1.0) -> PoolState:
        """`scale`: how big the region is, of the usual slots; at least one of each."""
        base, quota = (max(1, round(slots[pool] * scale)) for slots in (BASE_SLOTS, QUOTA_SLOTS))
        return cls(pool, base, quota, base, {OK: DEVICES[pool]})

    @property
    def working(self) -> int:
        return self.devices.get(OK, 0)

    @property
    def quota(self) -> int:
        """Shrinks with the devices."""
        return self._share(self.full_quota)

    @property
    def most(self) -> int:
        """As far as the autoscaler may go."""
        return self.quota

    @property
    def slots(self) -> int:
        return min(self.wanted, self.most)

    @property
    def places(self) -> int:
        """Jobs that may be leased at once; training takes several."""
        return self.slots * (GPU_BATCH if self.pool == "gpu" else 1)

    @property
    def room(self) -> int:
        return self.places - self.taken

    def answering(self, now_s: float) -> bool:
        return now_s - self.last_contact_s < CONTACT_LIMIT_S

    def silent(self, now_s: float) -> bool:
        """There were workers here, and there are none any more."""
        return math.isfinite(self.last_contact_s) and not self.answering(now_s)

    def ready(self, now_s: float) -> bool:
        return not self.loading and self.answering(now_s) and (self.pool == "cpu" or self.slots > 0)

    def scale(self, now_s: float, oldest_age_s: float) -> None:
        """Autoscaling: one slot at a time on queue age, up to the quota; down after a long quiet time."""
        if self.pinned or now_s < self.next_scale_s:
            return
        self.next_scale_s = now_s + SCALE_EVERY_S
        if oldest_age_s > GROW_AGE_S:
            self.wanted = max(self.wanted, min(self.most, self.slots + 1))
            self.idle_since_s = None
        elif self.taken * 2 >= self.places:
            self.idle_since_s = None
        elif self.idle_since_s is None:
            self.idle_since_s = now_s
        elif now_s - self.idle_since_s > SHRINK_AFTER_S and self.slots > self._share(self.base):
            self.wanted = self.slots - 1
            self.idle_since_s = now_s

    def pin(self, slots: int | None) -> int:
        """Set by a person, None gives it back to the autoscaler; returns the slots before."""
        before = self.slots
        self.pinned = slots is not None
        if slots is not None:
            self.wanted = min(max(slots, 0), self.quota)
        return before

    def _share(self, slots: int) -> int:
        total = DEVICES[self.pool]
        return slots * self.working // total if total else slots
