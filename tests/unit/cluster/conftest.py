"""The cluster of tests in which watchdogs come to life; whoever needs none has a plainer one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cluster_rig as rig
from fake_cluster import FakeCluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """Watchdogs run as processes of this machine."""
    with FakeCluster(run_images={rig.IMAGE: []}) as made:
        rig.small_world(made)
        made.settle()
        yield made
