"""What bears our names and belongs to no ledger is found and removed; nothing of a ledger that is open is touched, and
what could not be looked at is said."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import cluster_rig as rig
from cluster_rig import NODE, PLATFORM, SUITE, patch_of, taint
from fake_cluster import FakeCluster
from stormdrill.api.far import ClusterPlace, swept_too
from stormdrill.cluster import naming, objects
from stormdrill.cluster.api import Answer, Api
from stormdrill.cluster.changes import Undone
from stormdrill.cluster.ledger import CLOSED, Armed, Ended, Ledger
from stormdrill.errors import Unreachable
from stormdrill.keeper.sweep import Swept, Thing
from stormdrill.targets.kubernetes import leftovers
from stormdrill.targets.kubernetes.leftovers import sweep

GONE, OPEN = "20260101T000000Z-gone", "20260102T000000Z-open"
FENCE = naming.fence(naming.marker(GONE, "a"))
LIVING_FENCE = naming.fence(naming.marker(OPEN, "a"))


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """A run of which no ledger is left, and one whose ledger is open; both have the same things."""
    with FakeCluster(world=False) as made:
        rig.small_world(made)
        for run in (GONE, OPEN):
            made.apply(objects.anchor(run, PLATFORM))
            made.apply(policy(run))
        annotate(made, "nodes", "eu-cpu-1", {FENCE: "moves the version on", LIVING_FENCE: "moves the version on"})
        ledger(made, OPEN)
        yield made


def policy(run: str) -> dict[str, Any]:
    metadata = {"name": f"cut-{run[-4:]}", "namespace": PLATFORM, "labels": {naming.LABEL: run}}
    spec = {"podSelector": {}, "policyTypes": ["Ingress"]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def ledger(cluster: FakeCluster, run: str, suite: str = SUITE) -> Ledger:
    made = Ledger(Api(cluster.admin), suite, run)
    made.create({"run": run}, "platform")
    made.arm([Armed("a", (patch_of(cluster.read(NODE) or {}, NODE, run, "a", taint(run)).undo,), 60.0)])
    return made


def annotate(cluster: FakeCluster, kind: str, name: str, what: dict[str, str], namespace: str = "") -> None:
    def put(there: dict[str, Any]) -> None:
        there["metadata"].setdefault("annotations", {}).update(what)

    cluster.registry.change(kind, namespace, name, put)


def left(cluster: FakeCluster) -> set[str]:
    named = {one["metadata"]["name"] for kind in ("networkpolicies", "configmaps") for one in cluster.objects(kind)}
    return {one for one in named if "stormdrill" in one or one.startswith("cut-")}


def told(things: tuple[Thing, ...]) -> set[tuple[str, str, str]]:
    return {(one.kind, one.name, one.outcome) for one in things}


def test_what_has_no_ledger_any_more_is_removed_and_what_has_an_open_one_stays(cluster: FakeCluster) -> None:
    things, notes = sweep(Api(cluster.admin), SUITE)
    assert told(things) == {
        ("network policy", "platform/cut-gone", "removed"),
        ("anchor", f"platform/{naming.ledger(GONE)}", "removed"),
        ("fence", "eu-cpu-1", "removed"),
    }
    assert notes == ()
    assert left(cluster) == {"cut-open", naming.ledger(OPEN)}
    assert set((cluster.read(NODE) or {})["metadata"]["annotations"]) == {LIVING_FENCE}


def test_a_look_alone_touches_nothing(cluster: FakeCluster) -> None:
    before = cluster.snapshot()
    things, _ = sweep(Api(cluster.admin), SUITE, dry_run=True)
    assert {one.outcome for one in things} == {""}
    assert cluster.snapshot() == before


def test_a_ledger_of_another_suite_is_one_too(cluster: FakeCluster) -> None:
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "others"}})
    theirs = ledger(cluster, GONE, "others")
    assert {one.run for one in sweep(Api(cluster.admin), SUITE)[0]} == set()
    theirs.end([Ended("a", Undone("done", "put back"), "runner")])
    theirs.turn(CLOSED, "reverted")
    assert {one.run for one in sweep(Api(cluster.admin), SUITE)[0]} == {GONE, ""}


class Forgetful(Api):
    """Of an API server that forgets, before the second page of a list, what its pages come from; so often."""

    def __init__(self, cluster: FakeCluster, times: int) -> None:
        super().__init__(cluster.admin)
        self.cluster, self.times, self.expired = cluster, times, 0

    def call(self, method: str, path: str, *given: Any, **more: Any) -> Answer:
        if "continue=" in path and self.times:
            self.times -= 1
            annotate(self.cluster, "nodes", "eu-gpu-1", {"seen": str(self.times)})
            self.cluster.store.compact()
        answer = super().call(method, path, *given, **more)
        self.expired += answer.status == 410
        return answer


def test_a_list_that_is_forgotten_between_two_pages_is_begun_anew(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, _ = sweep(Api(cluster.admin), SUITE, dry_run=True)
    monkeypatch.setattr(leftovers, "PAGE", "1")
    forgetful = Forgetful(cluster, 1)
    things, notes = sweep(forgetful, SUITE, dry_run=True)
    assert forgetful.expired == 1
    assert sorted(map(str, things)) == sorted(map(str, seen)), "nothing was left out, nothing told twice"
    assert notes == ()


def test_one_that_is_always_forgotten_ends_the_look_and_is_told(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cluster.objects("networkpolicies")
    monkeypatch.setattr(leftovers, "PAGE", "1")
    forgetful = Forgetful(cluster, 1000)
    with pytest.raises(Unreachable, match="is forgotten faster than it can be read"):
        sweep(forgetful, SUITE)
    assert forgetful.expired == 1 + leftovers.ANEW
    assert cluster.objects("networkpolicies") == before


def test_what_a_marked_object_may_need_is_left_and_the_way_to_settle_it_told(cluster: FakeCluster) -> None:
    marker = naming.marker(GONE, "b")
    annotate(cluster, "services", "gateway-eu", {marker: naming.marking(GONE, "b")}, PLATFORM)
    things, notes = sweep(Api(cluster.admin), SUITE, GONE)
    assert {(one.run, one.left) for one in things} == {(GONE, True)}
    assert f"kubectl annotate services gateway-eu -n platform {marker}-" in " ".join(notes)
    assert "cut-gone" in left(cluster)


WATCHDOG = f"/apis/batch/v1/namespaces/{SUITE}/jobs/{naming.watchdog(GONE)}"
WORKS = {"restartCount": 1, "state": {"running": {"startedAt": "2026-01-01T00:02:00Z"}}}
FAILS = {"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
BEGINS = {"restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}
EVICTED = {"restartCount": 0, "state": {"terminated": {"exitCode": 137}}}


def watchdog(cluster: FakeCluster, *containers: dict[str, Any]) -> None:
    """Its Job, and a pod for each."""
    labels = {naming.LABEL: GONE, naming.PART: "watchdog"}
    spec = {"restartPolicy": "OnFailure", "containers": [{"name": "watchdog", "image": rig.IMAGE}]}
    metadata = {"name": naming.watchdog(GONE), "namespace": SUITE, "labels": labels}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": {"spec": spec}}}
    cluster.apply(job)
    uid = (cluster.read(WATCHDOG) or {})["metadata"]["uid"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": uid, "controller": True}
    for at, status in enumerate(containers):
        whose = {"name": f"watchdog-{at}", "namespace": SUITE, "labels": labels, "ownerReferences": [owner]}
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": whose, "spec": spec})
        cluster.registry.change("pods", SUITE, f"watchdog-{at}", partial(_has, {"name": "watchdog", **status}))


def _has(container: dict[str, Any], pod: dict[str, Any]) -> None:
    pod.setdefault("status", {})["containerStatuses"] = [container]


@pytest.mark.parametrize("pods", [[], [BEGINS], [WORKS], [EVICTED, WORKS]])
def test_a_watchdog_that_may_still_work_without_its_ledger_keeps_its_things(
    cluster: FakeCluster, pods: list[dict[str, Any]]
) -> None:
    watchdog(cluster, *pods)
    things, notes = sweep(Api(cluster.admin), SUITE, GONE)
    assert {one.stale for one in things} == {False}
    assert "its watchdog has not ended" in " ".join(notes)
    assert f"stormdrill recover {GONE}" in " ".join(notes)
    assert "cut-gone" in left(cluster)
    assert cluster.read(WATCHDOG)


@pytest.mark.parametrize("pods", [[FAILS], [EVICTED], [EVICTED, BEGINS]])
def test_a_watchdog_that_has_failed_and_can_know_nothing_any_more_is_removed(
    cluster: FakeCluster, pods: list[dict[str, Any]]
) -> None:
    """Its Job came late: its process is gone with what it may have read, there is no ledger, and no marker stands."""
    watchdog(cluster, *pods)
    things, _ = sweep(Api(cluster.admin), SUITE)
    assert {one.outcome for one in things} == {"removed"}
    assert cluster.read(WATCHDOG) is None
    assert left(cluster) == {"cut-open", naming.ledger(OPEN)}


def test_one_that_has_failed_stays_while_a_marker_of_its_run_stands(cluster: FakeCluster) -> None:
    """It keeps drills off what carries that marker."""
    watchdog(cluster, FAILS)
    annotate(cluster, "nodes", "eu-cpu-1", {naming.marker(GONE, "b"): naming.marking(GONE, "b")})
    assert {one.owner for one in sweep(Api(cluster.admin), SUITE)[0] if one.run == GONE} == {"living"}
    assert cluster.read(WATCHDOG)


def test_one_that_has_failed_stays_where_markers_may_stand_that_nobody_sees(cluster: FakeCluster) -> None:
    watchdog(cluster, FAILS)
    cluster.trouble(("GET", "^/api/v1/nodes"), "403", times=100)
    _, notes = sweep(Api(cluster.admin), SUITE, GONE)
    assert f"kubectl delete job -n {SUITE} {naming.watchdog(GONE)}" in " ".join(notes)
    assert cluster.read(WATCHDOG)


@pytest.mark.parametrize(("run", "owner"), [("", "unknown"), (GONE, "dirty")])
def test_of_another_suite_whose_ledgers_cannot_be_read_no_run_is_called_over(
    cluster: FakeCluster, run: str, owner: str
) -> None:
    """Its fault may be in force: nobody is told to take the marker off, nor is anything that it may need removed."""
    marker = naming.marker(GONE, "b")
    annotate(cluster, "services", "gateway-eu", {marker: naming.marking(GONE, "b", "others")}, PLATFORM)
    cluster.trouble(("GET", "^/api/v1/configmaps"), "403", times=100)
    things, notes = sweep(Api(cluster.admin), SUITE, run)
    said = " ".join(notes)
    assert f"run {GONE} of the suite in namespace others" in said
    assert "ask whoever drills from there" in said
    assert "kubectl annotate" not in said
    assert {one.owner for one in things if one.name == "platform/cut-gone"} == {owner}
    assert "cut-gone" in left(cluster)


def test_what_may_not_be_looked_at_is_said_and_what_others_may_own_is_left_until_its_run_is_named(
    cluster: FakeCluster,
) -> None:
    """With rights in the suite's and the system's namespaces alone nobody can tell what other suites have there."""
    api = Api(cluster.access(cluster.account(SUITE, "small")))
    for namespace in ("", SUITE, PLATFORM):
        allow(cluster, namespace)
    things, notes = sweep(api, SUITE)
    assert {(one.name, one.owner, one.outcome) for one in things} == {
        (f"platform/{naming.ledger(GONE)}", "unknown", ""),
        ("platform/cut-gone", "unknown", ""),
    }
    said = " ".join(notes)
    assert "not looked at: namespaces other than stormdrill, platform" in said
    assert "not looked at: /api/v1/nodes" in said
    assert "cut-gone" in left(cluster)
    assert {one.outcome for one in sweep(api, SUITE, GONE)[0]} == {"removed"}
    assert left(cluster) == {"cut-open", naming.ledger(OPEN)}


def allow(cluster: FakeCluster, namespace: str) -> None:
    """Everything in that namespace; without one: to know which there are."""
    scope = "" if namespace else "Cluster"
    rule = {"apiGroups": ["*"], "resources": ["*" if namespace else "namespaces"], "verbs": ["*"]}
    where = {"name": "small", **({"namespace": namespace} if namespace else {})}
    made = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": where}
    cluster.apply({**made, "kind": f"{scope}Role", "rules": [rule]})
    subject = {"kind": "ServiceAccount", "name": "small", "namespace": SUITE}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": f"{scope}Role", "name": "small"}
    cluster.apply({**made, "kind": f"{scope}RoleBinding", "roleRef": ref, "subjects": [subject]})


def test_a_suite_that_is_not_there_is_said(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
    (note,) = swept_too(Swept((), (), True), ClusterPlace(suite="nope"), OPEN, dry_run=True).notes
    assert note.startswith("the cluster has no namespace nope")
    assert not [
        one
        for one in swept_too(Swept((), (), True), ClusterPlace(suite=SUITE), OPEN, dry_run=True).notes
        if "no namesp" in one
    ]
