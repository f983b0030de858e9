"""Three members of etcd, whose leader is killed under load."""

from __future__ import annotations

from pathlib import Path

import pytest
from parts import LIMIT_S, drilled, needs, survived


@needs("etcd", packages="etcd-server")
@pytest.mark.timeout(LIMIT_S)
def test_etcd_keeps_every_acknowledged_write_when_its_leader_is_killed(tmp_path: Path) -> None:
    part = drilled(tmp_path, "etcd", "leader-killed")
    survived(part, "etcd-a")
    # It was the leader that died, and somebody else leads now.
    leading = [item for item in part.events("reading") if item.metric == "leader" and item.value]  # type: ignore[attr-defined]
    assert leading[0].instance == "etcd-a"  # type: ignore[attr-defined]
    assert leading[-1].instance in ("etcd-b", "etcd-c")  # type: ignore[attr-defined]
    spawned = [item for item in part.events("process-spawned") if item.instance == "etcd-a"]  # type: ignore[attr-defined]
    assert len(spawned) == 2, "killed once, started again once"
