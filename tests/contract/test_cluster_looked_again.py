"""The last look at what came late keeps to the order of the reverts: the last armed first, where injections meet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cluster_rig as rig
from cluster_late import held_without_watchdog
from cluster_rig import PLATFORM, WORKER, patch_of, scaled
from fake_cluster import FakeCluster
from stormdrill.cluster.api import Api
from stormdrill.cluster.changes import Change
from stormdrill.cluster.changing import apply

STEPS = 4
"""One replica less by each injection."""


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """Nothing acts in it but who is asked."""
    with FakeCluster(world=False) as made:
        rig.small_world(made)
        yield made


def replicas(cluster: FakeCluster) -> int:
    return int((cluster.read(WORKER) or {})["spec"]["replicas"])


def late(cluster: FakeCluster, name: str, change: Change) -> None:
    apply(Api(cluster.admin), change, "r1", name, lambda: None)


def test_what_came_late_on_one_object_is_put_back_one_after_another(cluster: FakeCluster) -> None:
    cluster.registry.change("deployments", PLATFORM, "worker-eu", lambda it: it["spec"].update(replicas=STEPS))
    held = held_without_watchdog(Api(cluster.admin))
    there = cluster.read(WORKER) or {}
    names = [f"queue-backlog/{number}" for number in range(STEPS)]
    changes = [
        patch_of(there, WORKER, "r1", name, scaled(STEPS - 1 - done, STEPS - done)) for done, name in enumerate(names)
    ]
    for name, change in zip(names, changes, strict=True):
        held.arm(name, (change.undo,), 60.0)
    for name in reversed(names):
        assert held.revert(name).word == "superseded"
    for name, change in zip(names, changes, strict=True):
        late(cluster, name, change)
    assert replicas(cluster) == 0
    assert held.close() == ()
    assert replicas(cluster) == STEPS
