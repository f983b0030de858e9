"""A marker of another run keeps a drill off as long as that run may have something in force, and no longer: rollouts
bring old annotations back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cluster_rig as rig
from cluster_rig import SUITE, WORKER, patch_of, scaled
from fake_cluster import FakeCluster, scenes
from stormdrill.cluster import naming
from stormdrill.cluster.api import MERGE_PATCH, Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.changes import Change, NotApplied, Undone
from stormdrill.cluster.changing import apply, dry_run
from stormdrill.cluster.ledger import CLOSED, REVERTING, Armed, Ended, Ledger
from stormdrill.cluster.strangers import Others
from stormdrill.cluster.undoing import undo
from stormdrill.errors import Refused

ELSEWHERE = "stormdrill-b"
"""Another suite's own namespace."""
MARKER = naming.marker("r0", "x")
SETTLES = f"kubectl annotate deployments worker-eu -n platform {MARKER}-"


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """A marker of r0 stands on an object that is as it is without drills, and of which the server tells who wrote
    what."""
    with FakeCluster(world=False) as made:
        rig.small_world(made)
        api, by_hand = Api(made.admin), scenes.deployment("worker", "eu", 3, "cpu")
        assert api.call("DELETE", WORKER).good
        assert api.call("POST", WORKER.rpartition("/")[0], by_hand, query={"fieldManager": "kubectl-create"}).good
        mark(made, naming.marking("r0", "x"))
        yield made


def mark(cluster: FakeCluster, value: str, marker: str = MARKER) -> None:
    """As `kubectl rollout undo` brings it back."""
    written(cluster, "kubectl-rollout", {"metadata": {"annotations": {marker: value}}})


def written(cluster: FakeCluster, manager: str, what: dict[str, Any]) -> None:
    query = {"fieldManager": manager}
    assert Api(cluster.admin).call("PATCH", WORKER, what, content_type=MERGE_PATCH, query=query).good


def change(cluster: FakeCluster) -> Change:
    return patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", scaled(0, 3))


def do(cluster: FakeCluster) -> Change:
    api, wanted = Api(cluster.admin), change(cluster)
    dry_run(api, wanted, "r1", "a", others=Others(api, SUITE))
    apply(api, wanted, "r1", "a", lambda: None, Until(10.0), Others(api, SUITE))
    return wanted


def ledger(cluster: FakeCluster, *, ended: bool = True, run: str = "r0", suite: str = SUITE) -> Ledger:
    made = Ledger(Api(cluster.admin), suite, run)
    made.create({"run": run}, "platform")
    made.arm([Armed("x", (patch_of(cluster.read(WORKER) or {}, WORKER, run, "x", scaled(0, 3)).undo,), 60.0)])
    if ended:
        made.end([Ended("x", Undone("done", "put back"), "runner")])
    return made


def absent(cluster: FakeCluster) -> None:
    pass


def closed(cluster: FakeCluster) -> None:
    ledger(cluster).turn(CLOSED, "reverted")


def open_(cluster: FakeCluster) -> None:
    ledger(cluster, ended=False)


def reverting(cluster: FakeCluster) -> None:
    ledger(cluster).turn(REVERTING, "the Lease was lost")


def closed_early(cluster: FakeCluster) -> None:
    ledger(cluster, ended=False).turn(CLOSED, "by hand")


def removed_early(cluster: FakeCluster) -> None:
    job = {"metadata": {"name": naming.watchdog("r0"), "namespace": SUITE, "labels": {naming.LABEL: "r0"}}}
    container = {"name": "watchdog", "image": rig.IMAGE}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    cluster.apply({"apiVersion": "batch/v1", "kind": "Job", **job, "spec": {"template": template}})


def unreadable(cluster: FakeCluster) -> None:
    cluster.trouble(("GET", f"/namespaces/{SUITE}/configmaps/stormdrill-r0"), "403", times=100)


def nobodys(cluster: FakeCluster) -> None:
    mark(cluster, "by hand")


@pytest.mark.parametrize("over", [absent, closed])
def test_a_marker_whose_run_is_over_keeps_nobody_off_and_is_left_where_it_is(
    cluster: FakeCluster, over: Callable[[FakeCluster], None]
) -> None:
    over(cluster)
    before = rig.still(cluster)
    made = do(cluster)
    there = cluster.read(WORKER) or {}
    assert there["spec"]["replicas"] == 0
    assert json.loads(there["metadata"]["annotations"][MARKER])["run"] == "r0"
    assert undo(Api(cluster.admin), made.undo).word == "done"
    assert rig.differences(before, rig.still(cluster)) == []


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (open_, "its ledger is open"),
        (reverting, "its ledger is reverting"),
        (closed_early, "carries the change of run r0"),
        (removed_early, "its watchdog has not ended"),
        (unreadable, "whether that run is over can't be read"),
        (nobodys, "it can't be told whether that run is over"),
    ],
)
def test_a_marker_whose_run_may_not_be_over_is_refused_with_what_settles_it(
    cluster: FakeCluster, how: Callable[[FakeCluster], None], why: str
) -> None:
    how(cluster)
    api = Api(cluster.admin)
    with pytest.raises(NotApplied) as kept_off:
        apply(api, change(cluster), "r1", "a", lambda: None, Until(10.0), Others(api, SUITE))
    with pytest.raises(Refused) as refused:
        dry_run(api, change(cluster), "r1", "a", others=Others(api, SUITE))
    for said in (str(kept_off.value), str(refused.value)):
        assert why in said
        assert SETTLES in said
    assert (cluster.read(WORKER) or {})["spec"]["replicas"] == 3


# --- neither ledger nor watchdog any more: the suite's namespace was deleted while its run was under way --------------


@pytest.fixture
def abandoned(cluster: FakeCluster) -> Change:
    """What r9 of another suite has in force; nobody is left to put it back."""
    cluster.registry.change("deployments", rig.PLATFORM, "worker-eu", lambda it: it["metadata"].pop("annotations"))
    made = patch_of(cluster.read(WORKER) or {}, WORKER, "r9", "x", scaled(0, 3))
    apply(Api(cluster.admin), made, "r9", "x", lambda: None, Until(10.0), Others(Api(cluster.admin), ELSEWHERE))
    return made


def next_run(cluster: FakeCluster) -> None:
    """Takes what is there for what is there without drills."""
    there, api = cluster.read(WORKER) or {}, Api(cluster.admin)
    wanted = patch_of(there, WORKER, "r1", "a", scaled(5, there["spec"]["replicas"]))
    dry_run(api, wanted, "r1", "a", others=Others(api, SUITE))
    apply(api, wanted, "r1", "a", lambda: None, Until(10.0), Others(api, SUITE))


def settle(cluster: FakeCluster) -> None:
    """What the message says: by kubectl annotate."""
    written(cluster, "kubectl-annotate", {"metadata": {"annotations": {naming.marker("r9", "x"): None}}})


def test_what_nobody_is_left_to_revert_is_not_taken_for_how_it_was_before(
    cluster: FakeCluster, abandoned: Change
) -> None:
    with pytest.raises(Refused) as refused:
        next_run(cluster)
    said = str(refused.value)
    assert "neither ledger nor watchdog any more, and spec.replicas is as it wrote it" in said
    assert f"kubectl annotate deployments worker-eu -n platform {naming.marker('r9', 'x')}-" in said
    assert (cluster.read(WORKER) or {})["spec"]["replicas"] == 0


@pytest.mark.parametrize("replicas", [3, 7, None])
def test_who_puts_it_right_or_takes_the_marker_off_has_settled_it(
    cluster: FakeCluster, abandoned: Change, replicas: int | None
) -> None:
    """Either is enough, so that no object is lost to drills for ever."""
    if replicas is None:
        settle(cluster)
    else:
        written(cluster, "kubectl-scale", {"spec": {"replicas": replicas}})
    next_run(cluster)
    assert (cluster.read(WORKER) or {})["spec"]["replicas"] == 5


def test_a_marker_that_comes_back_after_its_run_was_reverted_keeps_nobody_off(
    cluster: FakeCluster, abandoned: Change
) -> None:
    assert undo(Api(cluster.admin), abandoned.undo).word == "done"
    mark(cluster, naming.marking("r9", "x", ELSEWHERE), naming.marker("r9", "x"))
    next_run(cluster)
    assert (cluster.read(WORKER) or {})["spec"]["replicas"] == 5


def test_where_nobody_can_tell_who_wrote_what_the_marker_is_believed_until_it_is_taken_off(
    cluster: FakeCluster, abandoned: Change
) -> None:
    cluster.registry.change("deployments", rig.PLATFORM, "worker-eu", lambda it: it["metadata"].pop("managedFields"))
    with pytest.raises(Refused, match="no account of who wrote what"):
        next_run(cluster)
    settle(cluster)
    next_run(cluster)


def test_nobody_is_asked_about_other_runs_where_no_marker_is_met(cluster: FakeCluster) -> None:
    cluster.registry.change("deployments", rig.PLATFORM, "worker-eu", lambda it: it["metadata"].pop("annotations"))
    cluster.requests.clear()
    do(cluster)
    assert not [one for one in cluster.requests if one.method == "GET" and "/configmaps/" in one.path]


# --- two suites in one cluster -------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(cluster: FakeCluster) -> FakeCluster:
    """The marker is of a run of another suite."""
    cluster.apply(scenes.namespace(ELSEWHERE, drill=False))
    mark(cluster, naming.marking("r0", "x", ELSEWHERE))
    return cluster


def test_of_two_suites_the_second_leaves_alone_what_the_first_has_in_force(cluster: FakeCluster) -> None:
    """Else it would take the harmed value for the one before, and put that back in the end."""
    cluster.apply(scenes.namespace(ELSEWHERE, drill=False))
    api, first = Api(cluster.admin), change(cluster)
    ledger(cluster, ended=False, run="r1", suite=ELSEWHERE)
    apply(api, first, "r1", "a", lambda: None, Until(10.0), Others(api, ELSEWHERE))
    there = cluster.read(WORKER) or {}
    second = patch_of(there, WORKER, "r2", "b", scaled(5, there["spec"]["replicas"]))
    with pytest.raises(Refused, match=f"run r1 .*its ledger is open; it is of the suite in namespace {ELSEWHERE}"):
        dry_run(api, second, "r2", "b", others=Others(api, SUITE))
    with pytest.raises(NotApplied, match=f"the suite in namespace {ELSEWHERE}"):
        apply(api, second, "r2", "b", lambda: None, Until(10.0), Others(api, SUITE))
    assert undo(api, first.undo).word == "done"
    assert (cluster.read(WORKER) or {})["spec"]["replicas"] == 3


def test_a_marker_of_another_suite_whose_run_is_over_there_keeps_nobody_off(elsewhere: FakeCluster) -> None:
    ledger(elsewhere, suite=ELSEWHERE).turn(CLOSED, "reverted")
    do(elsewhere)
    assert (elsewhere.read(WORKER) or {})["spec"]["replicas"] == 0


def test_who_may_not_read_another_suites_ledger_takes_its_run_for_open(elsewhere: FakeCluster) -> None:
    """No right is asked for: whoever drills from there knows."""
    ledger(elsewhere, suite=ELSEWHERE).turn(CLOSED, "reverted")
    elsewhere.trouble(("GET", f"/namespaces/{ELSEWHERE}/configmaps/stormdrill-r0"), "403", times=100)
    with pytest.raises(Refused, match=f"ask whoever drills from there.*{SETTLES}"):
        do(elsewhere)


@pytest.mark.parametrize("suite", ["../kube-system", "a/b", "A B"])
def test_what_no_namespace_can_be_called_is_asked_for_nowhere(cluster: FakeCluster, suite: str) -> None:
    mark(cluster, naming.marking("r0", "x", suite))
    with pytest.raises(Refused, match="names no namespace"):
        do(cluster)
