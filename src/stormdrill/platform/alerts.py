"""The alerts that an edge fires, from what it sees of the regions, in the form in which Prometheus shows them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from stormdrill.platform.metrics import sample
from stormdrill.platform.sight import (
    FEED_LATE,
    GPU_DEGRADED,
    GPU_DOWN,
    NODE_DOWN,
    QUEUE_OLD,
    REGION_DOWN,
    Sight,
)

APART_S = 1.0
"""Two gateways must have been apart for this long, while we see both."""


class Kind(Struct, frozen=True):
    name: str
    severity: str
    runbook: str
    """Empty: there is none for it, somebody has to be called."""
    for_s: float
    """What is wrong must have been so for this long before a person is told."""


REGION_ALERTS: Mapping[str, Kind] = {
    REGION_DOWN: Kind("RegionDown", "SEV-2", "region-loss", 1.0),
    NODE_DOWN: Kind("NodeDown", "SEV-2", "region-loss", 0.5),
    GPU_DOWN: Kind("GpuPoolDown", "SEV-2", "gpu-pool-outage", 1.0),
    GPU_DEGRADED: Kind("GpuPoolDegraded", "SEV-3", "gpu-pool-outage", 0.5),
    QUEUE_OLD: Kind("QueueAgeHigh", "SEV-3", "queue-backlog", 2.0),
}
PARTITIONED = Kind("RegionPartitioned", "SEV-2", "", APART_S)
LEAK = Kind("MemoryLeak", "SEV-3", "memory-leak", 0.0)
LATE = Kind("FeedLate", "SEV-3", "late-dependency", 0.5)


def alerts(sights: Sequence[Sight], now_s: float) -> str:
    """Firing alerts in the Prometheus text format."""
    lines = ["# TYPE ALERTS gauge"]
    for sight in sights:
        lines.extend(_of_region(sight, now_s))
        if _apart(sight, sights, now_s):
            lines.append(_alert(PARTITIONED, {"region": sight.region}))
    if any(sight.lasts(FEED_LATE, now_s, LATE.for_s) for sight in sights):
        lines.append(_alert(LATE, {}))
    return "\n".join(lines) + "\n"


def _of_region(sight: Sight, now_s: float) -> Iterator[str]:
    for condition, kind in REGION_ALERTS.items():
        if sight.lasts(condition, now_s, kind.for_s):
            yield _alert(kind, {"region": sight.region})
    for leak in sight.health.leaks if sight.health is not None and sight.answering else ():
        where = {"region": sight.region, "instance": leak.instance, "pool": leak.pool, "version": leak.version}
        yield _alert(LEAK, where)


def _apart(sight: Sight, sights: Sequence[Sight], now_s: float) -> bool:
    """This region and another, both well in our eyes, don't see each other."""
    return sight.healthy and any(
        other.healthy and sight.lasts(f"unseen.{other.region}", now_s, PARTITIONED.for_s) for other in sights
    )


def _alert(kind: Kind, where: Mapping[str, str]) -> str:
    labels = {
        "alertname": kind.name,
        "alertstate": "firing",
        **where,
        "severity": kind.severity,
        "owner": "serving",
        "runbook": kind.runbook,
    }
    return sample("ALERTS", labels, 1)
