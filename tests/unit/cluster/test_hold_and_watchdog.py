"""A hold leaves everything in place or nothing; the watchdog reverts when nobody else will."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

import cluster_rig as rig
from cluster_rig import NODE, POLICY, SUITE, WORKER, patch_of, scaled, taint
from fake_cluster import FakeCluster
from stormdrill.cluster import mended, naming, recovering
from stormdrill.cluster.api import MERGE_PATCH, Answer, Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.changes import Change, NotApplied, Undone
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.job import Wanted
from stormdrill.cluster.ledger import CLOSED, Armed, Ended, Ledger
from stormdrill.cluster.rights import Right, of_runner, of_watchdog
from stormdrill.cluster.strangers import Others
from stormdrill.cluster.watchdog import Watchdog
from stormdrill.errors import Refused, Unreachable
from stormdrill.model.system import KubernetesSpec
from stormdrill.model.undo import KubeDelete
from stormdrill.targets.kubernetes.inventory import Cluster
from waiting import eventually

LEASE_S = 1.0
LEDGER = f"/api/v1/namespaces/{SUITE}/configmaps/stormdrill-r1"
JOB = f"/apis/batch/v1/namespaces/{SUITE}/jobs/stormdrill-r1-watchdog"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SUITE}/leases/stormdrill-platform"


def hold(cluster: FakeCluster, run: str = "r1", **more: object) -> Hold:
    api = Api(cluster.admin)
    given: dict[str, object] = {"lease_s": LEASE_S, "namespaces": (rig.PLATFORM,), "ready_s": 20.0, **more}
    return Hold(api, run, "platform", rig.IMAGE, **given)  # type: ignore[arg-type]  # by name


def worker(cluster: FakeCluster, injection: str = "a") -> Change:
    return patch_of(cluster.read(WORKER) or {}, WORKER, "r1", injection, scaled(0, 3))


def replicas(cluster: FakeCluster) -> int:
    return int((cluster.read(WORKER) or {})["spec"]["replicas"])


def suite_of(cluster: FakeCluster) -> list[str]:
    """What stands in the suite's namespace and is a run's."""
    found = [thing for kind in ("configmaps", "jobs", "pods") for thing in cluster.objects(kind, SUITE)]
    return [thing["metadata"]["name"] for thing in found if "stormdrill" in thing["metadata"].get("labels", {})]


def stop(cluster: FakeCluster, why: str) -> None:
    body = {"metadata": {"annotations": {naming.STOP: why}}}
    assert Api(cluster.admin).call("PATCH", LEDGER, body, content_type=MERGE_PATCH).good


def abandon(held: Hold) -> None:
    """As if its process were frozen: nothing renews the Lease."""
    held._heart._over.set()


# opening and closing


def test_from_open_to_close_nothing_is_left_behind(cluster: FakeCluster) -> None:
    before = rig.still(cluster)
    held = hold(cluster)
    held.open()
    assert held.trouble() == ""
    assert set(held.names.values()) == {"stormdrill-r1", "stormdrill-platform", "stormdrill-r1-watchdog"}
    for injection, changes in rig.plan(cluster, "r1").items():
        held.arm(injection, rig.undos(changes), 60.0)
        for change in changes:
            held.dry_run(injection, change)
            held.apply(injection, change)
    assert held.close() == ()
    cluster.settle()
    assert rig.differences(before, rig.still(cluster)) == []
    eventually(lambda: not suite_of(cluster), what="the run's own objects are gone")
    assert "holderIdentity" not in (cluster.read(LEASE) or {})["spec"]
    assert mended.look(held.api, SUITE, Until(5.0)) == (), "the runner's own work is in its record"


def test_the_watchdog_is_there_before_open_returns_and_stands_off_the_faulted_nodes(cluster: FakeCluster) -> None:
    held = hold(cluster, wanted=Wanted(keep_off=("eu-cpu-1", "eu-cpu-2")))
    held.open()
    said = json.loads((cluster.read(LEDGER) or {})["data"]["watchdog"])
    assert said["ready"] is True
    [pod] = [pod for pod in cluster.objects("pods", SUITE)]
    assert pod["spec"]["nodeName"] == "eu-gpu-1"
    assert held.close() == ()


@pytest.mark.parametrize("effect", ["NoSchedule", "NoExecute"])
def test_the_watchdog_stands_on_what_others_taint_only_where_there_is_no_other_node(
    cluster: FakeCluster, effect: str
) -> None:
    spec = {"taints": [{"key": "theirs", "effect": effect}]}
    cluster.registry.change("nodes", "", "eu-cpu-2", lambda node: node["spec"].update(spec))
    seen = Cluster(Api(cluster.admin), KubernetesSpec("platform"), ())
    for keep_off, where in ((("eu-gpu-1",), "eu-cpu-1"), (("eu-cpu-1", "eu-gpu-1"), "eu-cpu-2")):
        held = hold(cluster, wanted=Wanted(keep_off=keep_off, rather_not=seen.shunned))
        held.open()
        [pod] = [pod for pod in cluster.objects("pods", SUITE)]
        assert pod["spec"]["nodeName"] == where
        assert held.close() == ()


@pytest.mark.parametrize(
    ("why", "more"),
    [
        ("did not begin", {"wanted": Wanted(keep_off=("eu-cpu-1", "eu-cpu-2", "eu-gpu-1")), "ready_s": 1.0}),
        ("may not delete nosuch", {"needs": (Right("delete", "", "nosuch"),), "account": "small"}),
        ("can't be made|not found", {"namespaces": ("nowhere",)}),
    ],
)
def test_what_can_not_be_held_is_refused_with_the_reason_and_leaves_nothing(
    cluster: FakeCluster, why: str, more: dict[str, object]
) -> None:
    _small_account(cluster)
    held = hold(cluster, **more)
    with pytest.raises(Refused, match=why):
        held.open()
    eventually(lambda: not suite_of(cluster), what="the run's own objects are gone")
    again = hold(cluster, "r2")
    again.open()
    assert again.close() == ()


def _small_account(cluster: FakeCluster) -> None:
    """One that may do what a watchdog needs for itself, and nothing else."""
    cluster.account(SUITE, "small")
    rules = [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "update"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch", "delete"]},
    ]
    group = "rbac.authorization.k8s.io"
    api = f"{group}/v1"
    cluster.apply({"apiVersion": api, "kind": "ClusterRole", "metadata": {"name": "small"}, "rules": rules})
    cluster.apply(
        {
            "apiVersion": api,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "small"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "small"},
            "subjects": [{"kind": "ServiceAccount", "name": "small", "namespace": SUITE}],
        }
    )


def test_a_system_that_is_held_is_refused_and_its_holder_is_named(cluster: FakeCluster) -> None:
    held = hold(cluster)
    held.open()
    with pytest.raises(Refused, match="r1/runner"):
        hold(cluster, "r2").open()
    assert held.trouble() == ""
    assert held.close() == ()


def test_a_run_that_has_something_armed_and_nobody_to_revert_it_keeps_the_next_one_out(cluster: FakeCluster) -> None:
    left = Ledger(Api(cluster.admin), SUITE, "r0")
    left.create({"namespaces": []}, "platform")
    left.arm([Armed("a", (worker(cluster).undo,), 60.0)])
    with pytest.raises(Refused, match="stormdrill recover r0"):
        hold(cluster).open()
    recovering.mend(Api(cluster.admin), "r0", SUITE)
    held = hold(cluster)
    held.open()
    assert held.close() == ()


def test_what_a_run_left_that_never_armed_anything_is_cleared_away(cluster: FakeCluster) -> None:
    Ledger(Api(cluster.admin), SUITE, "r0").create({"namespaces": [rig.PLATFORM]}, "platform")
    held = hold(cluster)
    held.open()
    assert cluster.read(f"/api/v1/namespaces/{SUITE}/configmaps/stormdrill-r0") is None
    assert held.close() == ()


def test_what_a_run_left_whose_state_somebody_took_away_is_cleared_away_once_it_is_reverted(
    cluster: FakeCluster,
) -> None:
    left, told = Ledger(Api(cluster.admin), SUITE, "r0"), list[str]()
    left.create({"run": "r0", "namespaces": []}, "platform")
    left.arm([Armed("a", (worker(cluster).undo,), 60.0)])
    edit(cluster, left.path, {"state": None})
    with pytest.raises(Refused, match="stormdrill recover r0"):
        hold(cluster).open()
    left.end([Ended("a", Undone("done", "gone"), "watchdog")])
    held = hold(cluster, tell=told.append)
    held.open()
    assert any("everything of it is reverted" in said for said in told)
    assert held.close() == ()


def test_an_emptied_ledger_keeps_the_next_run_out_until_somebody_recovers_it(cluster: FakeCluster) -> None:
    left = Ledger(Api(cluster.admin), SUITE, "r0")
    left.create({"run": "r0", "namespaces": []}, "platform")
    edit(cluster, left.path, None)
    with pytest.raises(Refused, match="nobody knows what it had armed"):
        hold(cluster).open()
    assert recovering.mend(Api(cluster.admin), "r0", SUITE, limit_s=10.0).state == CLOSED
    held = hold(cluster)
    held.open()
    assert held.close() == ()


@pytest.mark.parametrize("data", [{"state": None}, {"state": CLOSED}, None])
def test_however_a_person_edits_the_ledger_the_watchdog_reverts_and_it_closes(
    cluster: FakeCluster, data: object
) -> None:
    held, change = hold(cluster, lease_s=10.0), worker(cluster)
    held.open()
    held.arm("a", (change.undo,), 60.0)
    held.apply("a", change)
    time.sleep(1.2)  # two looks of the watchdog
    edit(cluster, LEDGER, data)
    eventually(lambda: replicas(cluster) == 3, what="the watchdog has reverted it")
    eventually(lambda: recovering.look(held.api, "r1", SUITE).state == CLOSED, what="the ledger is closed")
    eventually(held.trouble, what="the runner knows")
    assert held.close() == ()


def edit(cluster: FakeCluster, path: str, data: object) -> None:
    assert Api(cluster.admin).call("PATCH", path, {"data": data}, content_type=MERGE_PATCH).good


def test_an_anchor_that_somebody_removes_ends_the_run_before_its_faults_become_others(cluster: FakeCluster) -> None:
    held = hold(cluster)
    held.open()
    cluster.registry.end("configmaps", rig.PLATFORM, "stormdrill-r1")
    eventually(lambda: "somebody has removed" in held.trouble(), what="the runner knows")
    assert f"namespaces/{rig.PLATFORM}/configmaps/stormdrill-r1" in held.trouble()
    assert held.close() == ()


def test_a_lease_that_a_closed_run_still_holds_is_released_with_the_last_of_it(cluster: FakeCluster) -> None:
    held = hold(cluster)
    held.open()
    abandon(held)
    held._ledger.turn(CLOSED, "the run has ended")  # and was killed before the Lease was released
    recovering.forget(held.api, "r1", SUITE)
    assert not (cluster.read(LEASE) or {})["spec"].get("holderIdentity")
    assert cluster.read(LEDGER) is None


# under the hold


def test_nothing_is_applied_that_was_not_armed(cluster: FakeCluster) -> None:
    held = hold(cluster)
    held.open()
    with pytest.raises(NotApplied, match="was not written down"):
        held.apply("a", worker(cluster))
    held.arm("a", (KubeDelete("", POLICY, "r1"),), 60.0)
    with pytest.raises(NotApplied, match="was not written down"):
        held.apply("a", worker(cluster))
    assert held.close() == ()
    assert replicas(cluster) == 3


def test_what_a_person_did_before_the_fault_could_is_theirs_and_no_cause_of_ours(cluster: FakeCluster) -> None:
    held, change = hold(cluster), worker(cluster)
    held.open()
    held.arm("a", (change.undo,), 60.0)
    cluster.registry.change("deployments", rig.PLATFORM, "worker-eu", lambda it: it["spec"].update(replicas=0))
    with pytest.raises(NotApplied, match="not as it was planned"):
        held.apply("a", change)
    assert held.revert("a").word == "superseded"
    assert held.close() == ()
    assert replicas(cluster) == 0


def test_what_comes_together_is_written_together(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    held, sizes, gate = hold(cluster), list[int](), threading.Event()
    held.open()
    arm = held._ledger.arm

    def slow(entries: list[Armed]) -> None:
        gate.wait(5.0)
        sizes.append(len(entries))
        arm(entries)

    monkeypatch.setattr(Ledger, "arm", lambda _, entries: slow(entries))
    undo = KubeDelete("", POLICY, "r1")
    threads = [threading.Thread(target=held.arm, args=(f"i{number}", (undo,), 60.0)) for number in range(20)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(held._armed) == 20, what="all wait")
    gate.set()
    for thread in threads:
        thread.join()
    assert sum(sizes) == 20
    assert len(sizes) <= 3
    assert held.close() == ()


def test_after_its_revert_has_begun_nothing_is_applied_for_an_injection(cluster: FakeCluster) -> None:
    held, change = hold(cluster), worker(cluster)
    held.open()
    held.arm("a", (change.undo,), 60.0)
    assert held.revert("a").word == "superseded"
    with pytest.raises(NotApplied, match="is being reverted"):
        held.apply("a", change)
    assert held.close() == ()


def test_after_its_time_nothing_is_applied_for_an_injection(cluster: FakeCluster) -> None:
    held, change = hold(cluster), worker(cluster)
    held.open()
    held.arm("a", (change.undo,), 0.0)
    with pytest.raises(NotApplied, match="the time of a is over"):
        held.apply("a", change)
    assert held.close() == ()


def test_a_person_stops_the_run_with_an_annotation_and_the_reason_reaches_the_runner(cluster: FakeCluster) -> None:
    held, change = hold(cluster, lease_s=10.0), worker(cluster)
    held.open()
    held.arm("a", (change.undo,), 60.0)
    held.apply("a", change)
    stop(cluster, "too loud")
    eventually(lambda: replicas(cluster) == 3, what="the watchdog has reverted it, and not the runner")
    eventually(lambda: "stopped by a person: too loud" in held.trouble(), what="the runner knows")
    with pytest.raises(Unreachable):
        held.arm("b", (change.undo,), 60.0)
    undone = held.revert("a")
    assert (undone.word, undone.detail.startswith("by the watchdog")) == ("done", True)
    assert (undone.by, undone.at != "") == ("watchdog", True), "with when that was, by its own clock"
    assert held.close() == ()
    (told,) = mended.look(held.api, SUITE, Until(5.0))
    assert (told.run, told.by) == ("r1", "its own runner")
    assert told.what[0].startswith("a: done by the watchdog at ")


def test_a_runner_that_is_gone_is_reverted_for_and_the_account_tells_by_whom(cluster: FakeCluster) -> None:
    held, change = hold(cluster), worker(cluster)
    held.open()
    held.arm("a", (change.undo,), 60.0)
    held.apply("a", change)
    abandon(held)
    eventually(lambda: replicas(cluster) == 3, what="it was reverted")
    eventually(lambda: recovering.look(held.api, "r1", SUITE).state == CLOSED, what="the ledger is closed")
    account = recovering.look(held.api, "r1", SUITE)
    assert [(each.injection, each.undone.word, each.by) for each in account.ended] == [("a", "done", "watchdog")]
    assert account.left == ()
    assert "was not renewed" in account.why
    with pytest.raises(Unreachable):
        held.apply("a", change)
    recovering.forget(held.api, "r1", SUITE)
    assert cluster.read(LEDGER) is None


def test_a_ledger_that_somebody_removes_is_reverted_all_the_same(cluster: FakeCluster) -> None:
    held, change = hold(cluster, lease_s=10.0), worker(cluster)
    held.open()
    held.arm("a", (change.undo,), 60.0)
    held.apply("a", change)
    time.sleep(1.2)  # two looks of the watchdog
    cluster.registry.end("configmaps", SUITE, "stormdrill-r1")
    eventually(lambda: replicas(cluster) == 3, what="the watchdog has reverted it")
    eventually(held.trouble, what="the runner knows: by the ledger, or by the Lease that the watchdog has released")
    held.close()


def test_what_outlives_its_own_time_is_reverted_though_the_runner_lives(cluster: FakeCluster) -> None:
    held, change = hold(cluster), worker(cluster)
    held.open()
    held.arm("a", (change.undo,), 0.5)
    held.apply("a", change)
    eventually(lambda: replicas(cluster) == 3, what="the watchdog has reverted it")
    assert held.trouble() == ""
    other = patch_of(cluster.read(NODE) or {}, NODE, "r1", "b", taint("r1"))
    held.arm("b", (other.undo,), 60.0)
    held.apply("b", other)
    assert held.close() == ()


def test_an_outage_longer_than_the_lease_ends_the_run_and_both_revert(cluster: FakeCluster) -> None:
    before = rig.still(cluster)
    held = hold(cluster)
    held.open()
    for injection, changes in rig.plan(cluster, "r1").items():
        held.arm(injection, rig.undos(changes), 60.0)
        for change in changes:
            held.apply(injection, change)
    with cluster.outage():
        eventually(lambda: "could not be renewed" in held.trouble(), what="the Lease is lost")
    assert held.close() == ()
    cluster.settle()
    assert rig.differences(before, rig.still(cluster)) == []


def test_what_can_not_be_reverted_is_named_and_left_to_the_watchdog(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, change = hold(cluster), worker(cluster)
    held.open()
    held.arm("a", (change.undo,), 60.0)
    held.apply("a", change)
    cluster.registry.change("deployments", rig.PLATFORM, "worker-eu", lambda it: it["metadata"].pop("annotations"))
    left = held.close()
    assert len(left) == 1
    assert "somebody took the marker away" in left[0]
    assert recovering.look(held.api, "r1", SUITE).left == ("a",)
    cluster.registry.change("deployments", rig.PLATFORM, "worker-eu", lambda it: it["spec"].update(replicas=3))
    eventually(lambda: recovering.look(held.api, "r1", SUITE).state == CLOSED, what="the watchdog goes on until then")


class Meeting(Api):
    """Lets no look at one of these objects go on before all of them are being looked at, once `met` is set."""

    def __init__(self, cluster: FakeCluster, paths: set[str]) -> None:
        super().__init__(cluster.admin)
        self.paths = paths
        self.met: threading.Barrier | None = None
        self._come: set[str] = set()
        self._coming = threading.Lock()

    def call(self, method: str, path: str, *rest: Any, **options: Any) -> Answer:
        if (met := self.met) is not None and method == "GET" and path in self.paths:
            with self._coming:
                first = path not in self._come
                self._come.add(path)
            if first:
                met.wait(10.0)
        return super().call(method, path, *rest, **options)


def test_what_is_left_at_the_end_is_reverted_side_by_side(cluster: FakeCluster) -> None:
    """One after another each would take its whole limit where the API server has trouble."""
    paths = {WORKER, NODE, rig.GATEWAY}
    api = Meeting(cluster, paths)
    held = Hold(api, "r1", "platform", rig.IMAGE, lease_s=10.0, namespaces=(rig.PLATFORM,), ready_s=20.0)
    held.open()
    gateway = patch_of(cluster.read(rig.GATEWAY) or {}, rig.GATEWAY, "r1", "c", scaled(1, 2))
    changes = {
        "a": worker(cluster),
        "b": patch_of(cluster.read(NODE) or {}, NODE, "r1", "b", taint("r1")),
        "c": gateway,
    }
    for name, change in changes.items():
        word = replace(change.undo, timeout_s=1.0)
        held.arm(name, (word,), 60.0)
        held.apply(name, Change(word))
    api.met = threading.Barrier(len(paths))
    cluster.trouble(("PATCH", "/(deployments|nodes)/"), "503", times=1_000_000)
    left = held.close()
    assert not api.met.broken
    assert [said[:3] for said in left] == ["c: ", "b: ", "a: "]
    assert all("503" in said or "no success within" in said for said in left)
    cluster.troubles.clear()
    eventually(lambda: recovering.look(held.api, "r1", SUITE).state == CLOSED, what="the watchdog reverts it")
    assert replicas(cluster) == 3


# recovering


def test_a_living_run_is_not_mended_and_a_dead_one_without_a_watchdog_is(cluster: FakeCluster) -> None:
    held, change = hold(cluster), worker(cluster)
    held.open()
    held.arm("a", (change.undo,), 60.0)
    held.apply("a", change)
    with pytest.raises(Refused, match="is under way"):
        recovering.mend(held.api, "r1", SUITE)
    with pytest.raises(Refused, match="is not closed"):
        recovering.forget(held.api, "r1", SUITE)
    cluster.registry.end("jobs", SUITE, "stormdrill-r1-watchdog")
    abandon(held)
    account = recovering.mend(held.api, "r1", SUITE)
    assert (account.state, account.left) == (CLOSED, ())
    assert replicas(cluster) == 3


def test_a_watchdog_without_a_ledger_ends_by_itself(cluster: FakeCluster) -> None:
    clock = [0.0]
    dog = Watchdog(Api(cluster.admin), "r9", SUITE, now=lambda: clock[0])
    assert not dog.step()
    clock[0] = 61.0
    assert dog.step()


def test_with_the_rights_that_it_names_a_runner_and_a_watchdog_need_no_other(cluster: FakeCluster) -> None:
    token = cluster.account(SUITE, "exact")
    rights = {
        *of_runner(SUITE, "stormdrill-platform", [rig.PLATFORM]),
        *of_watchdog(SUITE, "stormdrill-platform", [rig.PLATFORM]),
    }
    for number, right in enumerate(sorted(rights)):
        _allow(cluster, f"exact-{number}", "exact", right)
    held = hold(cluster, account="exact")
    held.api = Api(cluster.access(token))
    held.__post_init__()
    held.open()
    assert held.close() == ()
    there, marker = cluster.read(WORKER) or {}, naming.marker("r0", "a")
    there["metadata"]["annotations"] = {marker: naming.marking("r0", "a", SUITE)}  # of another run
    assert "neither ledger nor watchdog" in Others(held.api, SUITE).in_force(there, marker)
    assert not [request for request in cluster.requests if request.status == 403]


def _allow(cluster: FakeCluster, name: str, account: str, right: Right) -> None:
    group = "rbac.authorization.k8s.io"
    rule: dict[str, object] = {"apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb]}
    if right.name:
        rule["resourceNames"] = [right.name]
    meta = {"name": name, "namespace": right.namespace}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": SUITE}
    role = {"apiGroup": group, "kind": "Role", "name": name}
    cluster.apply({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": [rule]})
    binding = {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": meta}
    cluster.apply({**binding, "roleRef": role, "subjects": [subject]})
