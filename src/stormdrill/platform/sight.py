"""What an edge sees of a region: answered health checks, its breaker, and since when what is wrong was so. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from stormdrill.platform.breaker import Breaker
from stormdrill.platform.control import Control
from stormdrill.platform.messages import Health
from stormdrill.platform.pools import OK

MISSES_TO_LOSE = 2
"""Health checks in a row without an answer."""
ANSWERS_TO_REGAIN = 2
QUEUE_AGE_LIMIT_S = 2.0
REGION_DOWN, NODE_DOWN, GPU_DOWN, GPU_DEGRADED, QUEUE_OLD, FEED_LATE = (
    "region-down", "node-down", "gpu-down", "gpu-degraded", "queue-old", "feed-late",
)  # fmt: skip


@dataclass(slots=True)
class Sight:
    """One region, seen from one edge."""

    region: str
    healthy: bool = False
    health: Health | None = None
    """Its last answer."""
    breaker: Breaker = field(default_factory=Breaker)
    misses: int = 0
    answers: int = 0
    ever_healthy: bool = False
    since_s: dict[str, float] = field(default_factory=dict)
    """What is wrong, and since when."""
    answering: bool = False

    def answered(self, health: Health, now_s: float) -> None:
        self.health = health
        self.answering = True
        wrong = set(_wrong(health))
        for gone in self.since_s.keys() - wrong - {REGION_DOWN}:
            del self.since_s[gone]
        for condition in wrong:
            self.since_s.setdefault(condition, now_s)
        if not health.ready:
            self._count_miss(now_s)
            return
        self.misses = 0
        self.answers += 1
        if self.healthy or self.answers >= ANSWERS_TO_REGAIN or not self.ever_healthy:
            self.healthy = self.ever_healthy = True
            self.since_s.pop(REGION_DOWN, None)

    def missed(self, now_s: float) -> None:
        """No answer; one that is missing now and then says nothing of what was told before."""
        self._count_miss(now_s)
        if self.misses >= MISSES_TO_LOSE:
            self.answering = False
            self.since_s = {REGION_DOWN: self.since_s[REGION_DOWN]}

    def _count_miss(self, now_s: float) -> None:
        self.answers = 0
        self.misses += 1
        if self.misses >= MISSES_TO_LOSE:
            self.healthy = False
            self.since_s.setdefault(REGION_DOWN, now_s)

    def lasts(self, condition: str, now_s: float, for_s: float) -> bool:
        return condition in self.since_s and now_s - self.since_s[condition] >= for_s

    def usable(self, now_s: float, control: Control) -> bool:
        return self.healthy and not control.drained(self.region) and self.breaker.would_pass(now_s)


def _wrong(health: Health) -> Iterator[str]:
    """What a region's own answer says is wrong with it."""
    if health.silent_pools:
        yield NODE_DOWN
    if "gpu" in health.silent_pools or (health.gpu_devices and not health.gpu_devices.get(OK)):
        yield GPU_DOWN
    if any(count for state, count in health.gpu_devices.items() if state != OK):
        yield GPU_DEGRADED
    if health.queue_oldest_age_s > QUEUE_AGE_LIMIT_S:
        yield QUEUE_OLD
    if health.feed_late:
        yield FEED_LATE
    for region in health.unseen:
        yield f"unseen.{region}"
