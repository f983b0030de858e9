"""What an edge sees of the regions: answered health checks, breakers, settings, and the alerts that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from stormdrill.platform.breaker import Breaker
from stormdrill.platform.control import Control
from stormdrill.platform.messages import Health
from stormdrill.platform.metrics import sample

MISSES_TO_LOSE = 2
"""Health checks in a row without an answer."""
ANSWERS_TO_REGAIN = 2
DOWN_ALERT_S = 1.0
"""A region must have been lost for this long before a person is told."""
QUEUE_AGE_LIMIT_S = 2.0
QUEUE_ALERT_S = 2.0


@dataclass(slots=True)
class Sight:
    """One region, seen from one edge."""

    region: str
    healthy: bool = False
    health: Health | None = None
    misses: int = 0
    answers: int = 0
    lost_since_s: float | None = None
    queue_old_since_s: float | None = None
    ever_healthy: bool = False
    breaker: Breaker = field(default_factory=Breaker)

    def answered(self, health: Health, now_s: float) -> None:
        self.health = health
        if health.queue_oldest_age_s <= QUEUE_AGE_LIMIT_S:
            self.queue_old_since_s = None
        elif self.queue_old_since_s is None:
            self.queue_old_since_s = now_s
        if not health.ready:
            self.missed(now_s)
            return
        self.misses = 0
        self.answers += 1
        if self.healthy or self.answers >= ANSWERS_TO_REGAIN or not self.ever_healthy:
            self.healthy = self.ever_healthy = True
            self.lost_since_s = None

    def missed(self, now_s: float) -> None:
        self.answers = 0
        self.misses += 1
        if self.misses >= MISSES_TO_LOSE:
            self.healthy = False
            self.queue_old_since_s = None
            if self.lost_since_s is None:
                self.lost_since_s = now_s

    def usable(self, now_s: float, control: Control) -> bool:
        return self.healthy and not control.drained(self.region) and self.breaker.would_pass(now_s)


def alerts(sights: Sequence[Sight], now_s: float) -> str:
    """Firing alerts in the Prometheus text format, as Prometheus itself shows them."""
    lines = ["# TYPE ALERTS gauge"]
    for sight in sights:
        if sight.lost_since_s is not None and now_s - sight.lost_since_s >= DOWN_ALERT_S:
            lines.append(_alert("RegionDown", sight.region, "SEV-2", "region-loss"))
        if sight.queue_old_since_s is not None and now_s - sight.queue_old_since_s >= QUEUE_ALERT_S:
            lines.append(_alert("QueueAgeHigh", sight.region, "SEV-3", "overload"))
    return "\n".join(lines) + "\n"


def _alert(name: str, region: str, severity: str, runbook: str) -> str:
    labels = {
        "alertname": name,
        "alertstate": "firing",
        "region": region,
        "severity": severity,
        "owner": "serving",
        "runbook": runbook,
    }
    return sample("ALERTS", labels, 1)
