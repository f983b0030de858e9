"""An anchor that somebody's finalizer keeps is not gone, nor one whose labels somebody took off: the cluster ends
nothing that it owns, and what comes late as little. Who removes it says so, and nothing is called reverted, and no
ledger closed, before it is gone."""

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
from stormdrill.cluster import changing, naming, objects, reverting, setting
from stormdrill.cluster.api import MERGE_PATCH, Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.ledger import CLOSED, REVERTING, Armed, Ledger
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


def late(cluster: FakeCluster) -> tuple[Ledger, Delaying]:
    """What a killed run has left: an anchor that is kept, and a request to create something that is still under way."""
    api, ledger = Api(cluster.admin), Ledger(Api(cluster.admin), SUITE, "r1")
    about = {"run": "r1", "system": "platform", "lease": "stormdrill-platform", "lease_s": 1.0}
    ledger.create({**about, "namespaces": [PLATFORM]}, "platform")
    objects.create(api, ANCHOR.rpartition("/")[0], objects.anchor("r1", PLATFORM), Until(5.0))
    keep(cluster, AUDIT)
    change, runner = rig.policy("r1"), Delaying(cluster)
    ledger.arm([Armed("a", (change.undo,), 60.0, 1)])
    with contextlib.suppress(Unreachable):
        changing.apply(runner, change, "r1", "a", lambda: None, Until(0.1))
    return ledger, runner


def arrives(runner: Delaying) -> bool:
    assert runner.arrive is not None
    return runner.arrive().good


def state(ledger: Ledger) -> str:
    book = ledger.read()
    return book.state if book else ""


def test_a_watchdog_goes_on_until_it_is_gone_and_with_it_what_came_late(cluster: FakeCluster) -> None:
    ledger, runner = late(cluster)
    told: list[str] = []
    dog = Watchdog(ledger.api, "r1", SUITE, asked="recovered by hand", tell=told.append)
    assert not dog.step()
    assert AUDIT in told[-1]
    assert arrives(runner), "its owner is there still"
    keep(cluster)
    eventually(dog.step)
    eventually(lambda: cluster.read(POLICY) is None)
    assert cluster.read(ANCHOR) is None
    assert state(ledger) == CLOSED


def test_runs_that_come_after_it_are_kept_out_and_close_nothing_until_it_is_gone(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever came then would find everything closed, and what comes late in force."""
    monkeypatch.setattr(setting, "LIMIT_S", 0.5)
    ledger, runner = late(cluster)
    assert not Watchdog(ledger.api, "r1", SUITE, asked="recovered by hand").step()
    for run in ("r2", "r3"):
        with pytest.raises(Unreachable, match=f"{AUDIT}.*`stormdrill recover r1`"):
            Hold(ledger.api, run, "platform", rig.IMAGE, lease_s=1.0).open()
        assert state(ledger) == REVERTING
    assert not Watchdog(ledger.api, "r1", SUITE).step(), "one that is made anew goes on with it"
    assert arrives(runner), "its owner is there still"
    keep(cluster)
    held_by_the_next = Hold(ledger.api, "r4", "platform", rig.IMAGE, lease_s=1.0)
    held_by_the_next._lease.acquire()
    held_by_the_next._setting().unfinished()
    eventually(lambda: cluster.read(POLICY) is None)
    assert state(ledger) == ""


@pytest.mark.parametrize("value", [None, ""])
def test_one_whose_run_somebody_took_off_it_is_removed_with_what_comes_late(
    cluster: FakeCluster, value: str | None
) -> None:
    runner = Delaying(cluster, nth=0)
    held, change = held_without_watchdog(runner), rig.policy("r1")
    held.arm("a", (change.undo,), 60.0)
    runner.left = 1
    with contextlib.suppress(Unreachable):
        changing.apply(runner, change, "r1", "a", lambda: None, Until(0.1))
    relabel(cluster, {naming.LABEL: value})
    assert held.close() == ()
    assert cluster.read(ANCHOR) is None
    arrives(runner)
    eventually(lambda: cluster.read(POLICY) is None)


@pytest.mark.parametrize("labels", [{naming.LABEL: None, naming.PART: None}, {naming.LABEL: "r0"}])
def test_one_that_nobody_can_know_again_stays_and_is_told_of(
    cluster: FakeCluster, labels: dict[str, str | None]
) -> None:
    held = held_without_watchdog(Api(cluster.admin))
    relabel(cluster, labels)
    (left,) = held.close()
    assert f"{ANCHOR} does not carry the label {naming.LABEL}=r1" in left
    assert cluster.read(ANCHOR) is not None
    ledger = Ledger(Api(cluster.admin), SUITE, "r1")
    assert state(ledger) == REVERTING
    relabel(cluster, {naming.LABEL: "r1"})  # as the message says
    eventually(Watchdog(ledger.api, "r1", SUITE).step)
    assert cluster.read(ANCHOR) is None


def relabel(cluster: FakeCluster, labels: dict[str, str | None]) -> None:
    patch = {"metadata": {"labels": labels}}
    assert Api(cluster.admin).call("PATCH", ANCHOR, patch, content_type=MERGE_PATCH).good


def test_a_runner_leaves_it_to_the_watchdog_and_says_who_keeps_it(cluster: FakeCluster) -> None:
    held = held_without_watchdog(Api(cluster.admin))
    keep(cluster, AUDIT)
    (left,) = held.close()
    assert f"the anchor in namespace {PLATFORM}" in left
    assert f"waiting for ['{AUDIT}']: whoever put them there must take them off" in left
    assert state(Ledger(Api(cluster.admin), SUITE, "r1")) == REVERTING


def test_a_sweep_does_not_tell_that_it_is_removed(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "LIMIT_S", 0.2)
    run = "20260101T000000Z-gone"
    cluster.apply(objects.anchor(run, PLATFORM))
    keep(cluster, AUDIT, run=run)
    (left,), _ = leftovers.sweep(Api(cluster.admin), SUITE)
    assert left.outcome.startswith("left: ")
    assert AUDIT in left.outcome
