"""An anchor that somebody's finalizer keeps is not gone: the cluster ends nothing that it owns, and what comes late as
little. Who removes it says so, and nothing is called reverted before it is gone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cluster_rig as rig
from cluster_late import Delaying, held_without_watchdog
from cluster_rig import PLATFORM, POLICY, SUITE
from fake_cluster import FakeCluster
from stormdrill.cluster import changing, naming, objects, reverting
from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.ledger import CLOSED, Armed, Ledger
from stormdrill.cluster.watchdog import Watchdog
from stormdrill.errors import Unreachable
from stormdrill.targets.kubernetes import leftovers

AUDIT = "example.com/audit"
ANCHOR = objects.anchor_path("r1", PLATFORM)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    """One whose garbage is collected."""
    monkeypatch.setattr(reverting, "LIMIT_S", 0.2)
    with FakeCluster() as made:
        rig.small_world(made)
        made.settle()
        yield made


def keep(cluster: FakeCluster, *finalizers: str, run: str = "r1") -> None:
    def put(there: dict[str, Any]) -> None:
        there["metadata"]["finalizers"] = list(finalizers)

    cluster.registry.change("configmaps", PLATFORM, naming.ledger(run), put)


def eventually(holds_true: Callable[[], object], limit_s: float = 20.0) -> None:
    end_s = time.monotonic() + limit_s
    while not holds_true():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_a_watchdog_goes_on_until_it_is_gone_and_with_it_what_came_late(cluster: FakeCluster) -> None:
    api, ledger = Api(cluster.admin), Ledger(Api(cluster.admin), SUITE, "r1")
    about = {"run": "r1", "system": "platform", "lease": "stormdrill-platform", "lease_s": 1.0}
    ledger.create({**about, "namespaces": [PLATFORM]}, "platform")
    objects.create(api, ANCHOR.rpartition("/")[0], objects.anchor("r1", PLATFORM), Until(5.0))
    keep(cluster, AUDIT)
    change, runner = rig.policy("r1"), Delaying(cluster)
    ledger.arm([Armed("a", (change.undo,), 60.0, 1)])
    with contextlib.suppress(Unreachable):
        changing.apply(runner, change, "r1", "a", lambda: None, Until(0.1))
    told: list[str] = []
    dog = Watchdog(api, "r1", SUITE, asked="recovered by hand", tell=told.append)
    assert not dog.step()
    assert AUDIT in told[-1]
    assert runner.arrive is not None
    assert runner.arrive().good, "its owner is there still"
    keep(cluster)
    eventually(dog.step)
    eventually(lambda: cluster.read(POLICY) is None)
    assert cluster.read(ANCHOR) is None
    book = ledger.read()
    assert book is not None
    assert book.state == CLOSED


def test_a_runner_leaves_it_to_the_watchdog_and_says_who_keeps_it(cluster: FakeCluster) -> None:
    held = held_without_watchdog(Api(cluster.admin))
    keep(cluster, AUDIT)
    (left,) = held.close()
    assert f"the anchor in namespace {PLATFORM}" in left
    assert f"waiting for ['{AUDIT}']: whoever put them there must take them off" in left
    book = Ledger(Api(cluster.admin), SUITE, "r1").read()
    assert book is not None
    assert book.state == "reverting"


def test_a_sweep_does_not_tell_that_it_is_removed(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "LIMIT_S", 0.2)
    run = "20260101T000000Z-gone"
    cluster.apply(objects.anchor(run, PLATFORM))
    keep(cluster, AUDIT, run=run)
    (left,), _ = leftovers.sweep(Api(cluster.admin), SUITE)
    assert left.outcome.startswith("left: ")
    assert AUDIT in left.outcome
