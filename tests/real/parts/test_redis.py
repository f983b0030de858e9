"""A Redis primary with two replicas and three sentinels; the primary is frozen under load."""

from __future__ import annotations

from pathlib import Path

import pytest
from parts import LIMIT_S, drilled, needs, survived


@needs("redis-server", "redis-sentinel", packages="redis-server and redis-sentinel")
@pytest.mark.timeout(LIMIT_S)
def test_redis_keeps_every_write_that_a_replica_had_when_its_primary_freezes(tmp_path: Path) -> None:
    part = drilled(tmp_path, "redis", "primary-frozen")
    survived(part, "redis-a", "jobs_lost{client=careful}")
    # Real losses are seen: what careless clients went on writing to the thawed primary, until it was told to follow.
    assert part.missing("careless") > 0
    leading = [item.labels["instance"] for item in part.events("reading") if item.metric == "primary" and item.value]  # type: ignore[attr-defined]
    assert leading[0] == "redis-a"
    assert leading[-1] in ("redis-b", "redis-c"), "a replica was promoted, and the thawed primary follows it"
