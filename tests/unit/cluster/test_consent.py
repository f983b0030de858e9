"""Whoever owns a namespace may take its consent back at any time: nothing is begun there from then on, and what is in
force is ended. Who can't see whether a namespace consents doesn't go on as if it did."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cluster_rig as rig
from cluster_rig import SUITE, WORKER
from fake_cluster import FakeCluster, scenes
from stormdrill.cluster import vigil
from stormdrill.cluster.api import Api
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.naming import OPTED_IN
from stormdrill.errors import Unreachable
from waiting import eventually

BANK = "bank"
"""Of another system, with pods beside those that are drilled."""
JOB = f"/apis/batch/v1/namespaces/{SUITE}/jobs/stormdrill-r1-watchdog"


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """Watchdogs run as processes of this machine."""
    with FakeCluster(run_images={rig.IMAGE: []}) as made:
        rig.small_world(made)
        made.apply(scenes.namespace(BANK))
        made.settle()
        yield made


@pytest.fixture
def held(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hold]:
    monkeypatch.setattr(vigil, "BACK_S", 4.0)
    monkeypatch.setattr(vigil, "ARM_S", 1.0)
    given = {"lease_s": 2.0, "namespaces": (rig.PLATFORM,), "drills": (rig.PLATFORM,), "ready_s": 20.0}
    made = Hold(Api(cluster.admin), "r1", "platform", rig.IMAGE, beside=(BANK,), **given)  # type: ignore[arg-type]  # by name
    made.open()
    yield made
    assert made.close() == ()


def take_back(cluster: FakeCluster, namespace: str) -> None:
    cluster.registry.change("namespaces", "", namespace, lambda it: it["metadata"]["labels"].pop(OPTED_IN[0]))


def unwatched(held: Hold) -> Hold:
    """As if the next look of its vigil were still to come."""
    assert held._vigil is not None
    held._vigil.stop()
    return held


def replicas(cluster: FakeCluster) -> int:
    return int((cluster.read(WORKER) or {})["spec"]["replicas"])


def arm(cluster: FakeCluster, held: Hold) -> None:
    change = rig.patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", rig.scaled(0, 3))
    held.arm("a", (change.undo,), 60.0)
    held.apply("a", change)


@pytest.mark.parametrize("whose", [rig.PLATFORM, BANK])
def test_consent_that_is_taken_back_ends_the_run(cluster: FakeCluster, held: Hold, whose: str) -> None:
    arm(cluster, held)
    take_back(cluster, whose)
    eventually(held.trouble, what="it is seen")
    assert held.trouble().startswith(f"the namespace {whose} lets itself be drilled no longer: ")
    assert held.well_s is None, "what was measured is still of the system"


@pytest.mark.parametrize("whose", [rig.PLATFORM, BANK])
def test_nothing_is_begun_where_consent_was_taken_back_a_moment_ago(
    cluster: FakeCluster, held: Hold, whose: str
) -> None:
    unwatched(held)
    take_back(cluster, whose)
    with pytest.raises(Unreachable, match=f"the namespace {whose} lets itself be drilled no longer"):
        arm(cluster, held)
    assert replicas(cluster) == 3
    assert held.trouble(), "and the run ends for it"


def test_nothing_is_begun_while_consent_cant_be_seen(cluster: FakeCluster, held: Hold) -> None:
    unwatched(held)
    cluster.trouble(("GET", f"/api/v1/namespaces/{rig.PLATFORM}$"), "403", times=1000)
    with pytest.raises(Unreachable, match="whether it may be drilled can't be seen"):
        arm(cluster, held)
    assert replicas(cluster) == 3


def test_a_right_to_look_that_is_taken_away_for_good_ends_the_run(cluster: FakeCluster, held: Hold) -> None:
    cluster.trouble(("GET", f"/api/v1/namespaces/{rig.PLATFORM}$"), "403", times=1000)
    eventually(held.trouble, what="it is told")
    assert held.trouble().startswith("whether what is drilled is still there, and may be drilled, can't be seen: ")


def test_who_may_not_look_at_a_namespace_still_misses_the_watchdog(cluster: FakeCluster, held: Hold) -> None:
    first = (cluster.read(JOB) or {})["metadata"]["uid"]
    cluster.trouble(("GET", f"/api/v1/namespaces/{rig.PLATFORM}$"), "403", times=1000)
    assert cluster.registry.end("jobs", SUITE, "stormdrill-r1-watchdog")
    eventually(lambda: (cluster.read(JOB) or {"metadata": {"uid": first}})["metadata"]["uid"] != first, what="another")


def test_a_namespace_beside_the_system_that_is_deleted_is_harmed_no_more(cluster: FakeCluster, held: Hold) -> None:
    unwatched(held)
    assert cluster.registry.end("namespaces", "", BANK)
    arm(cluster, held)
    assert replicas(cluster) == 0
    assert not held.trouble()
