"""What a revert found before it changed anything is known afterwards, however often it was tried, and never blamed on
somebody where it was the revert itself, or the watchdog."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

import cluster_rig as rig
from cluster_late import held_without_watchdog
from cluster_rig import SUITE, WORKER, patch_of, scaled
from fake_cluster import FakeCluster
from stormdrill.cluster import naming
from stormdrill.cluster.api import MERGE_PATCH, Answer, Api, Lost
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.ledger import REVERTING, Ledger
from stormdrill.cluster.standing import Found
from waiting import eventually

LEDGER = f"/api/v1/namespaces/{SUITE}/configmaps/stormdrill-r1"


@pytest.fixture
def held(cluster: FakeCluster) -> Iterator[Hold]:
    """With one change in force, whose undo gives up soon."""
    made = Hold(Api(cluster.admin), "r1", "platform", rig.IMAGE, lease_s=2.0, namespaces=(rig.PLATFORM,), ready_s=20.0)
    made.open()
    change = patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", scaled(0, 3))
    change = replace(change, undo=replace(change.undo, timeout_s=0.5))
    made.arm("a", (change.undo,), 60.0)
    made.apply("a", change)
    yield made
    assert made.close() == ()


def patch(cluster: FakeCluster, path: str, body: object) -> None:
    assert Api(cluster.admin).call("PATCH", path, body, content_type=MERGE_PATCH).good


def test_before_its_revert_nothing_is_said_and_what_was_as_it_was_left_is_said_after_it(held: Hold) -> None:
    assert held.met("a") is None
    assert held.revert("a").word == "done"
    assert held.met("a") == Found(True)
    assert held.revert("a").word == "superseded"
    assert held.met("a") == Found(True), "by then it is the revert's own doing"


def test_what_somebody_put_back_before_is_said(cluster: FakeCluster, held: Hold) -> None:
    patch(cluster, WORKER, {"spec": {"replicas": 3}})
    assert held.revert("a").word == "superseded"
    found = held.met("a")
    assert found is not None
    assert not found.stood
    assert "spec.replicas is 3" in found.changed[0]


def test_what_the_watchdog_has_reverted_nobody_took_away(cluster: FakeCluster, held: Hold) -> None:
    patch(cluster, LEDGER, {"metadata": {"annotations": {naming.STOP: "enough"}}})
    eventually(lambda: (cluster.read(WORKER) or {})["spec"]["replicas"] == 3, what="the watchdog has reverted it")
    assert held.revert("a").word in ("done", "superseded")
    assert held.met("a") is None


@pytest.mark.parametrize(("replicas", "found"), [(3, None), (0, Found(True))])
def test_what_may_be_the_watchdogs_and_is_not_written_down_yet_is_nobodys(
    cluster: FakeCluster, replicas: int, found: Found | None
) -> None:
    """It reverts everything once it has turned the ledger; what still stands was taken away by nobody."""
    held = held_without_watchdog(Api(cluster.admin))
    change = patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", scaled(0, 3))
    held.arm("a", (change.undo,), 60.0)
    held.apply("a", change)
    Ledger(held.api, SUITE, "r1").turn(REVERTING, "the Lease was not renewed")
    patch(cluster, WORKER, {"spec": {"replicas": replicas}})
    assert held.revert("a").word in ("done", "superseded")
    assert held.met("a") == found
    assert held.close() == ()


def test_an_outage_before_the_first_look_leaves_it_to_the_next(cluster: FakeCluster, held: Hold) -> None:
    with cluster.outage():
        assert held.revert("a").word == "failed"
        assert held.met("a") is None
    assert held.revert("a").word == "done"
    assert held.met("a") == Found(True)


class Deaf(Api):
    """Its patches arrive, and no answer to them comes back."""

    def call(self, method: str, path: str, *args: object, **more: object) -> Answer:
        answer = super().call(method, path, *args, **more)  # type: ignore[arg-type]  # handed on as they come
        if method == "PATCH" and path == WORKER:
            raise Lost("the answer never came", sent=True)
        return answer


def test_what_a_revert_did_without_hearing_of_it_is_not_somebody_elses(cluster: FakeCluster, held: Hold) -> None:
    api, held.api = held.api, Deaf(cluster.admin)
    held.revert("a")
    assert (cluster.read(WORKER) or {})["spec"]["replicas"] == 3
    held.api = api
    assert held.revert("a").word == "superseded"
    assert held.met("a") == Found(True)
