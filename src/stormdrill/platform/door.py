"""A region's door: what a newcomer would meet inside, whether it may enter, and when to come again when it may not."""

from __future__ import annotations

import random

from msgspec import Struct

from stormdrill.platform import bugs
from stormdrill.platform.admission import QUEUE_LIMIT, Outlook, Policy, retry_after_s, shed_reason
from stormdrill.platform.control import Control
from stormdrill.platform.flow import Rate
from stormdrill.platform.jobs import TIERS, work_of
from stormdrill.platform.lanes import Lanes
from stormdrill.platform.queue import LANES, PROMOTED_SHARE, Entry

POLICIES: dict[str, Policy] = {bugs.NO_SHEDDING: "full-queue", bugs.UNBOUNDED_QUEUE: "everything"}
LOOKS_BACK_S = (2.0, 0.5)
"""A surge is seen at once, and not forgotten at once."""
LEAST_LEFT = 0.05
"""Share of the slots that is always reckoned to be left by higher tiers."""
PARTITION_SHARE = 0.25
"""Part of the queue that the jobs of one partition may fill: a hot one is shed before it crowds out the others."""
KEY_SHARE = 0.125
"""Part of that which one key may fill: its own tier in the same partition is served as well."""


class Turned(Struct, frozen=True):
    """Away, with 429."""

    reason: str
    retry_after_s: int


class Door:
    def __init__(self, lanes: Lanes, control: Control, *, bug: str, seed: int, scale: float = 1.0) -> None:
        self.limit = max(1, round(QUEUE_LIMIT * scale))
        """Of the jobs that wait in this region."""
        self.policy: Policy = POLICIES.get(bug, "tiers")
        self._bug = bug
        self._lanes = lanes
        self._control = control
        self._random = random.Random(seed)  # noqa: S311
        self._taken = {lane: {tier: tuple(map(Rate, LOOKS_BACK_S)) for tier in TIERS} for lane in LANES}
        """Slot time that admitted work asks for, a second: over a while, and lately."""

    def turned_away(self, entry: Entry, now_s: float) -> Turned | None:
        """None: it may enter."""
        job = entry.job
        remaining_s = job.deadline_ms / 1000.0 if entry.expires_s is None else entry.expires_s - now_s
        wait_s = self._wait_s(entry, now_s)
        service_s = work_of(job.kind, self._lanes.gpu(now_s)).total_s
        outlook = Outlook(self._depth(entry), wait_s, service_s, self._shed_level(now_s), self.limit)
        reason = self._partition_full(entry) or shed_reason(
            job.tier, remaining_s, job.wait, outlook, self._random.random(), self.policy
        )
        return None if reason is None else Turned(reason, self.retry_after_s(wait_s))

    def entered(self, entry: Entry, now_s: float) -> None:
        for rate in self._taken[entry.lane][entry.job.tier]:
            rate.add(entry.cost_s, now_s)

    def retry_after_s(self, wait_s: float) -> int:
        return retry_after_s(wait_s, self._random.random())

    def _wait_s(self, entry: Entry, now_s: float) -> float:
        """Behind what is there, and behind what higher tiers will bring meanwhile."""
        tier, lane = entry.job.tier, entry.lane
        behind_s = self._lanes.wait_s(lane, tier, now_s)
        rates = [rates for other, rates in self._taken[lane].items() if other < tier]
        above = sum(max(rate.per_s(now_s) for rate in both) for both in rates)
        if entry.job.wait:
            above += self._lanes.promoted(lane, now_s)
        left = 1.0 - above / max(1, self._lanes.pools[entry.pool].slots)
        least = LEAST_LEFT if entry.job.wait else PROMOTED_SHARE
        return max(behind_s / max(left, least), self._partition_wait_s(entry))

    def _partition_full(self, entry: Entry) -> str | None:
        if not entry.job.key or self.policy != "tiers":
            return None
        most = max(1, int(self.limit * PARTITION_SHARE))
        if self._lanes.waiting_of(entry.job.key) >= max(1, int(most * KEY_SHARE)):
            return "key over its share"
        return "partition full" if self._lanes.waiting_in(entry.partition) >= most else None

    # what bugs get wrong

    def _partition_wait_s(self, entry: Entry) -> float:
        return self._lanes.partition_wait_s(entry)

    def _depth(self, entry: Entry) -> int:
        return self._lanes.depth

    def _shed_level(self, now_s: float) -> int:
        return self._control.shed_level
