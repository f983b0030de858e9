"""An object that is made again from a dump while the fault is in force carries the fault with it: nobody's wish. And
one of ours that lost what it is known by is ours as long as anything tells so."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cluster_rig as rig
from cluster_late import held_without_watchdog, made_again
from cluster_rig import NODE, PLATFORM, POLICY, SERVICE, WORKER, patch_of, scaled
from fake_cluster import FakeCluster
from stormdrill.cluster import naming, objects
from stormdrill.cluster.api import MERGE_PATCH, Api
from stormdrill.cluster.changes import Change, Undone
from stormdrill.cluster.changing import apply
from stormdrill.cluster.owning import is_ours
from stormdrill.cluster.undoing import undo
from stormdrill.model.undo import KubePatch

PATCHED = {"queue-backlog/worker": WORKER, "region-loss/eu-cpu-1": NODE, "bad-release/gateway": rig.GATEWAY}


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """Nothing acts in it but who is asked."""
    with FakeCluster(world=False) as made:
        rig.small_world(made)
        made.apply(objects.anchor("r1", PLATFORM))
        yield made


def do(cluster: FakeCluster, injection: str, change: Change) -> None:
    apply(Api(cluster.admin), change, "r1", injection, lambda: None)


def back(cluster: FakeCluster, change: Change) -> Undone:
    return undo(Api(cluster.admin), change.undo)


# made again


@pytest.mark.parametrize("injection", PATCHED)
def test_what_is_made_again_as_the_fault_had_left_it_is_put_back(cluster: FakeCluster, injection: str) -> None:
    before = spec(cluster, PATCHED[injection])
    [change] = rig.plan(cluster, "r1")[injection]
    do(cluster, injection, change)
    assert spec(cluster, PATCHED[injection]) != before
    made_again(cluster, PATCHED[injection])
    assert back(cluster, change).word == "done"
    assert spec(cluster, PATCHED[injection]) == before
    assert_bare(cluster, PATCHED[injection])


def assert_bare(cluster: FakeCluster, path: str) -> None:
    there = cluster.read(path) or {}
    assert not [name for name in there["metadata"].get("annotations", {}) if name.startswith(naming.PREFIX)]


def spec(cluster: FakeCluster, path: str) -> dict[str, Any]:
    found: dict[str, Any] = (cluster.read(path) or {})["spec"]
    return found


def test_a_service_that_is_made_again_without_the_marker_leads_back_from_our_proxy(cluster: FakeCluster) -> None:
    selector = spec(cluster, SERVICE)["selector"]
    change = rig.plan(cluster, "r1")["late-dependency/gateway"][-1]
    assert isinstance(change.undo, KubePatch)
    do(cluster, "late-dependency/gateway", change)
    made_again(cluster, SERVICE, without=change.undo.marker)
    assert back(cluster, change).word == "done"
    assert spec(cluster, SERVICE)["selector"] == selector


def test_what_is_made_again_by_somebody_who_says_what_it_should_be_is_theirs(cluster: FakeCluster) -> None:
    change = patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", scaled(0, 3))
    assert isinstance(change.undo, KubePatch)
    do(cluster, "a", change)
    made_again(cluster, WORKER, without=change.undo.marker)
    cluster.requests.clear()
    assert back(cluster, change).word == "superseded"
    assert [request.method for request in cluster.requests] == ["GET"]
    assert spec(cluster, WORKER)["replicas"] == 0


def test_of_a_copy_only_what_is_still_the_faults_is_put_back(cluster: FakeCluster) -> None:
    change = patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", scaled(0, 3))
    do(cluster, "a", change)
    made_again(cluster, WORKER)
    cluster.registry.change("deployments", PLATFORM, "worker-eu", lambda it: it["spec"].update(replicas=5))
    assert back(cluster, change).word == "superseded"
    assert spec(cluster, WORKER)["replicas"] == 5
    assert_bare(cluster, WORKER)


def test_a_run_that_ends_takes_its_fault_back_from_a_copy(cluster: FakeCluster) -> None:
    cluster.registry.end("configmaps", PLATFORM, naming.ledger("r1"))
    held = held_without_watchdog(Api(cluster.admin))
    change = patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", scaled(0, 3))
    held.arm("a", (change.undo,), 60.0)
    held.apply("a", change)
    made_again(cluster, WORKER)
    assert held.revert("a").word == "done"
    assert held.close() == ()
    assert spec(cluster, WORKER)["replicas"] == 3


def test_what_was_being_made_again_while_it_was_undone_is_found_at_the_end(cluster: FakeCluster) -> None:
    cluster.registry.end("configmaps", PLATFORM, naming.ledger("r1"))
    held = held_without_watchdog(Api(cluster.admin))
    change = patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", scaled(0, 3))
    held.arm("a", (change.undo,), 60.0)
    held.apply("a", change)
    dumped = copy.deepcopy(cluster.read(WORKER) or {})
    dumped["metadata"] = {key: dumped["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    assert cluster.registry.end("deployments", PLATFORM, "worker-eu")
    assert held.revert("a").word == "superseded"
    cluster.apply(dumped)
    assert spec(cluster, WORKER)["replicas"] == 0
    assert held.close() == ()
    assert spec(cluster, WORKER)["replicas"] == 3


def test_what_somebody_wants_after_the_revert_is_no_fault_at_the_end(cluster: FakeCluster) -> None:
    cluster.registry.end("configmaps", PLATFORM, naming.ledger("r1"))
    held = held_without_watchdog(Api(cluster.admin))
    change = patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", scaled(0, 3))
    held.arm("a", (change.undo,), 60.0)
    held.apply("a", change)
    assert held.revert("a").word == "done"
    cluster.registry.change("deployments", PLATFORM, "worker-eu", lambda it: it["spec"].update(replicas=0))
    assert held.close() == ()
    assert spec(cluster, WORKER)["replicas"] == 0


# created, and stripped of what it is known by


def edit(cluster: FakeCluster, metadata: dict[str, object]) -> None:
    """As a person with kubectl does, or a controller that keeps labels in order."""
    query = {"fieldManager": "kubectl-edit"}
    answer = Api(cluster.admin).call("PATCH", POLICY, {"metadata": metadata}, content_type=MERGE_PATCH, query=query)
    assert answer.good


def unlabelled(cluster: FakeCluster) -> None:
    edit(cluster, {"labels": {naming.LABEL: None}})


def renamed(cluster: FakeCluster) -> None:
    edit(cluster, {"labels": {naming.LABEL: "mine"}})


def without_owner(cluster: FakeCluster) -> None:
    edit(cluster, {"ownerReferences": None})


def owned_alone(cluster: FakeCluster) -> None:
    edit(cluster, {"labels": {naming.LABEL: None}, "annotations": {naming.marker("r1", "a"): None}})


def bare(cluster: FakeCluster) -> None:
    """But nobody has written what it says."""
    edit(cluster, {"labels": None, "annotations": None, "ownerReferences": None})


@pytest.mark.parametrize("how", [unlabelled, renamed, without_owner, owned_alone, bare])
def test_what_a_run_created_goes_whatever_was_taken_off_it(
    cluster: FakeCluster, how: Callable[[FakeCluster], None]
) -> None:
    change = rig.policy("r1")
    do(cluster, "a", change)
    how(cluster)
    assert is_ours(cluster.read(POLICY) or {}, "r1")
    assert back(cluster, change).word == "done"
    assert cluster.read(POLICY) is None


def unaccounted(thing: dict[str, Any]) -> None:
    thing["metadata"].pop("managedFields", None)
    thing["metadata"].pop("ownerReferences", None)
    thing["metadata"].pop("labels", None)


def test_what_carries_a_runs_marker_and_nothing_else_of_it_is_told_until_somebody_says_whose_it_is(
    cluster: FakeCluster,
) -> None:
    change = rig.policy("r1")
    do(cluster, "a", change)
    cluster.registry.change("networkpolicies", PLATFORM, "cut-eu", unaccounted)
    undone = back(cluster, change)
    assert undone.word == "failed"
    settles = f"kubectl annotate networkpolicies cut-eu -n {PLATFORM} {naming.marker('r1', 'a')}-"
    assert settles in undone.detail
    assert cluster.read(POLICY) is not None
    edit(cluster, {"annotations": {naming.marker("r1", "a"): None}})
    assert back(cluster, change).word == "superseded"
    assert cluster.read(POLICY) is not None


def test_another_runs_object_of_that_name_is_not_ours(cluster: FakeCluster) -> None:
    cluster.apply(objects.anchor("r2", PLATFORM))
    apply(Api(cluster.admin), rig.policy("r2"), "r2", "a", lambda: None)
    assert not is_ours(cluster.read(POLICY) or {}, "r1")
    assert back(cluster, rig.policy("r1")).word == "superseded"
    assert cluster.read(POLICY) is not None
