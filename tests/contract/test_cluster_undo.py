"""The laws of changes in a cluster: made at most once, undone element by element, whatever becomes of requests, and
nobody's change is overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import cluster_rig as rig
from cluster_rig import GATEWAY, NODE, PLATFORM, POLICY, PROXY, SERVICE, WORKER, patch_of, scaled, taint
from fake_cluster import FakeCluster
from stormdrill.cluster import naming, objects
from stormdrill.cluster.api import JSON_PATCH, Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.changes import Change, NotApplied, Undone
from stormdrill.cluster.changing import apply, dry_run
from stormdrill.cluster.elements import Draft
from stormdrill.cluster.exec import Ran
from stormdrill.cluster.undoing import undo
from stormdrill.errors import Refused, Unreachable
from stormdrill.model.undo import Element, KubeDelete, KubeEndExec, KubePatch

RUN = "r1"
ONCE = ("500", "429", "503", "401", "drop-before", "drop-after")
INJECTIONS = (
    "region-loss/eu-cpu-1",
    "queue-backlog/worker",
    "late-dependency/gateway",
    "segmentation/eu",
    "gpu-pool-outage/eu-gpu-1",
    "bad-release/gateway",
)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """Nothing acts in it but who is asked."""
    with FakeCluster(world=False) as made:
        rig.small_world(made)
        anchor(made)
        yield made


def anchor(cluster: FakeCluster, run: str = RUN) -> None:
    cluster.apply(objects.anchor(run, PLATFORM))


def do(cluster: FakeCluster, injection: str, change: Change, run: str = RUN, limit_s: float = 10.0) -> None:
    apply(Api(cluster.admin), change, run, injection, lambda: None, Until(limit_s))


def back(cluster: FakeCluster, change: Change, limit_s: float = 5.0) -> Undone:
    return undo(Api(cluster.admin), change.undo, until=Until(limit_s))


def read(cluster: FakeCluster, path: str) -> dict[str, Any]:
    found = cluster.read(path)
    assert found is not None, path
    return found


def worker(cluster: FakeCluster, to: int = 0, before: int = 3, injection: str = "a") -> Change:
    return patch_of(read(cluster, WORKER), WORKER, RUN, injection, scaled(to, before))


def replicas(cluster: FakeCluster) -> int:
    return int(read(cluster, WORKER)["spec"]["replicas"])


def scale(cluster: FakeCluster, to: int) -> None:
    cluster.registry.change("deployments", PLATFORM, "worker-eu", lambda thing: thing["spec"].update(replicas=to))


def finalizers_gone(cluster: FakeCluster) -> None:
    """What the collector would do with what has no pods here."""
    for resource in ("deployments", "services", "networkpolicies"):
        for thing in cluster.objects(resource, PLATFORM):
            if thing["metadata"].get("deletionTimestamp"):
                name = thing["metadata"]["name"]
                cluster.registry.change(resource, PLATFORM, name, lambda it: it["metadata"].pop("finalizers", None))


# made and undone


@pytest.mark.parametrize("injection", INJECTIONS)
def test_what_is_made_is_seen_and_what_is_undone_is_as_it_was(cluster: FakeCluster, injection: str) -> None:
    before = rig.still(cluster)
    changes = rig.plan(cluster, RUN)[injection]
    for change in changes:
        do(cluster, injection, change)
    assert rig.differences(before, rig.still(cluster))
    for change in reversed(changes):
        undone = back(cluster, change, 0.3)
        finalizers_gone(cluster)
        assert undone.word == "done" or back(cluster, change).word != "failed", undone
    assert not rig.differences(before, rig.still(cluster))


@pytest.mark.parametrize("injection", INJECTIONS)
def test_a_second_attempt_of_the_same_change_finds_it_made(cluster: FakeCluster, injection: str) -> None:
    changes = rig.plan(cluster, RUN)[injection]
    for change in changes:
        do(cluster, injection, change)
    made = rig.still(cluster)
    for change in changes:
        do(cluster, injection, change)
    assert not rig.differences(made, rig.still(cluster))


@pytest.mark.parametrize("injection", INJECTIONS)
def test_an_undo_may_be_carried_out_again_and_before_anything_was_made(cluster: FakeCluster, injection: str) -> None:
    before = rig.still(cluster)
    for change in reversed(rig.plan(cluster, RUN)[injection]):
        assert back(cluster, change).word == "superseded"
        assert back(cluster, change).word == "superseded"
    assert not rig.differences(before, rig.still(cluster))


@pytest.mark.parametrize("injection", INJECTIONS)
def test_a_dry_run_changes_nothing(cluster: FakeCluster, injection: str) -> None:
    before = cluster.snapshot(ignore=())
    for change in rig.plan(cluster, RUN)[injection]:
        dry_run(Api(cluster.admin), change, RUN, injection)
    assert cluster.snapshot(ignore=()) == before


def test_what_the_server_will_not_have_is_refused_by_the_dry_run_with_what_it_said(cluster: FakeCluster) -> None:
    with pytest.raises(Refused, match="replicas"):
        dry_run(Api(cluster.admin), worker(cluster, to=-1), RUN, "a", Until(3.0))


# requests that are lost, refused for a moment, or late


@pytest.mark.parametrize("what", ONCE)
@pytest.mark.parametrize("injection", ["region-loss/eu-cpu-1", "segmentation/eu", "gpu-pool-outage/eu-gpu-1"])
def test_a_request_that_goes_wrong_once_changes_nothing_about_the_end(
    cluster: FakeCluster, injection: str, what: str
) -> None:
    before = rig.still(cluster)
    [change] = rig.plan(cluster, RUN)[injection]
    cluster.trouble(("PATCH|POST", "nodes|networkpolicies"), what)
    do(cluster, injection, change)
    assert rig.differences(before, rig.still(cluster))
    cluster.trouble(("PATCH|DELETE", "nodes|networkpolicies"), what)
    assert back(cluster, change).word == "done"
    assert not rig.differences(before, rig.still(cluster))


def test_an_answer_that_was_lost_never_makes_the_harmed_value_the_value_before(cluster: FakeCluster) -> None:
    change = worker(cluster)
    cluster.trouble(("PATCH", "deployments"), "drop-after")
    do(cluster, "a", change)
    assert replicas(cluster) == 0
    assert [r.status for r in cluster.requests if r.method == "PATCH" and r.status == 200] == [200]
    assert back(cluster, change).word == "done"
    assert replicas(cluster) == 3


def test_while_the_server_is_away_it_is_not_undone_and_says_so_and_afterwards_it_is(cluster: FakeCluster) -> None:
    change = worker(cluster)
    do(cluster, "a", change)
    with cluster.outage():
        assert back(cluster, change, 0.3).word == "failed"
    assert back(cluster, change).word == "done"


def test_of_a_change_in_two_patches_the_first_alone_is_not_nothing_and_is_undone(cluster: FakeCluster) -> None:
    before = rig.still(cluster)
    [change] = rig.plan(cluster, RUN)["gpu-pool-outage/eu-gpu-1"]
    cluster.trouble(("PATCH", "nodes/eu-gpu-1/status"), "403")
    with pytest.raises(Unreachable, match="its marker stands there already") as told:
        do(cluster, "a", change)
    assert not isinstance(told.value, NotApplied)
    assert back(cluster, change).word == "superseded"
    assert not rig.differences(before, rig.still(cluster))


def test_a_change_that_may_not_be_made_any_more_is_certainly_not_made(cluster: FakeCluster) -> None:
    def no() -> None:
        raise Unreachable("the Lease is lost")

    with pytest.raises(NotApplied, match="it was not changed: the Lease is lost"):
        apply(Api(cluster.admin), worker(cluster), RUN, "a", no)
    assert replicas(cluster) == 3


def test_a_patch_that_comes_after_its_undo_finds_a_closed_door(cluster: FakeCluster) -> None:
    change = worker(cluster)
    assert isinstance(change.undo, KubePatch)
    late = Draft(read(cluster, WORKER))
    late.annotate(change.undo.marker, naming.marking(RUN, "a"))
    late.apply(change.undo.elements[0])
    assert back(cluster, change).word == "superseded"
    answer = Api(cluster.admin).call("PATCH", WORKER, late.ops, content_type=JSON_PATCH)
    assert answer.status == 422
    assert replicas(cluster) == 3


def test_the_ledger_is_asked_between_the_look_at_the_object_and_its_patch(cluster: FakeCluster) -> None:
    change, asked = worker(cluster), list[list[str]]()

    def ask() -> None:
        asked.append([request.method for request in cluster.requests if request.path == WORKER])

    apply(Api(cluster.admin), change, RUN, "a", ask)
    assert asked == [["GET"]]


# somebody else


def test_somebody_who_changes_another_field_in_between_keeps_it_and_the_change_is_made(cluster: FakeCluster) -> None:
    change = worker(cluster)
    cluster.at(1, lambda _: cluster.registry.change("deployments", PLATFORM, "worker-eu", paused))
    do(cluster, "a", change)
    assert read(cluster, WORKER)["spec"]["paused"] is True
    assert replicas(cluster) == 0


def paused(thing: dict[str, Any]) -> None:
    thing["spec"]["paused"] = True


def test_somebody_who_changes_the_same_element_in_between_wins(cluster: FakeCluster) -> None:
    change = worker(cluster)
    cluster.at(1, lambda _: scale(cluster, 7))
    with pytest.raises(NotApplied, match=r"spec.replicas is 7: not as it was planned"):
        do(cluster, "a", change)
    assert replicas(cluster) == 7
    assert back(cluster, change).word == "superseded"
    assert replicas(cluster) == 7


def test_a_person_who_scales_during_the_fault_keeps_their_value(cluster: FakeCluster) -> None:
    change = worker(cluster)
    do(cluster, "a", change)
    scale(cluster, 5)
    undone = back(cluster, change)
    assert undone.word == "superseded"
    assert "spec.replicas is 5 by now" in undone.detail
    assert replicas(cluster) == 5
    assert not [name for name in read(cluster, WORKER)["metadata"].get("annotations", {}) if "stormdrill" in name]


def test_a_person_who_scales_in_the_middle_of_the_undo_keeps_their_value(cluster: FakeCluster) -> None:
    change = worker(cluster)
    do(cluster, "a", change)
    cluster.at(1, lambda _: scale(cluster, 5))
    assert back(cluster, change).word == "superseded"
    assert replicas(cluster) == 5


def test_of_a_list_only_our_element_is_taken_out(cluster: FakeCluster) -> None:
    change = patch_of(read(cluster, NODE), NODE, RUN, "a", taint(RUN))
    do(cluster, "a", change)
    theirs = {"key": "of-a-person", "effect": "NoSchedule"}
    cluster.registry.change("nodes", "", "eu-cpu-1", lambda node: node["spec"]["taints"].insert(0, theirs))
    assert back(cluster, change).word == "done"
    assert read(cluster, NODE)["spec"]["taints"] == [theirs]


def test_an_element_of_ours_that_a_person_has_rewritten_is_theirs(cluster: FakeCluster) -> None:
    change = patch_of(read(cluster, NODE), NODE, RUN, "a", taint(RUN))
    do(cluster, "a", change)
    cluster.registry.change("nodes", "", "eu-cpu-1", lambda node: node["spec"]["taints"][0].update(value="mine"))
    assert back(cluster, change).word == "superseded"
    assert read(cluster, NODE)["spec"]["taints"][0]["value"] == "mine"


def test_what_the_server_adds_to_our_element_leaves_it_ours(cluster: FakeCluster) -> None:
    change = patch_of(read(cluster, NODE), NODE, RUN, "a", taint(RUN))
    do(cluster, "a", change)
    stamp = "2026-01-01T00:00:00Z"
    cluster.registry.change("nodes", "", "eu-cpu-1", lambda node: node["spec"]["taints"][0].update(timeAdded=stamp))
    assert back(cluster, change).word == "done"
    assert "taints" not in read(cluster, NODE)["spec"]


def test_an_item_that_is_named_by_a_field_is_found_where_it_has_moved(cluster: FakeCluster) -> None:
    [change] = rig.plan(cluster, RUN)["bad-release/gateway"]
    do(cluster, "a", change)
    sidecar = {"name": "sidecar", "image": "sidecar:1"}
    cluster.registry.change(
        "deployments",
        PLATFORM,
        "gateway-eu",
        lambda it: it["spec"]["template"]["spec"]["containers"].insert(0, sidecar),
    )
    assert back(cluster, change).word == "done"
    containers = read(cluster, GATEWAY)["spec"]["template"]["spec"]["containers"]
    assert [(each["name"], each["image"]) for each in containers] == [
        ("sidecar", "sidecar:1"),
        ("gateway", "platform:1"),
    ]


def test_without_the_marker_a_value_is_not_touched_and_the_way_to_mend_it_is_told(cluster: FakeCluster) -> None:
    change = worker(cluster)
    do(cluster, "a", change)
    cluster.registry.change("deployments", PLATFORM, "worker-eu", lambda it: it["metadata"].pop("annotations"))
    undone = back(cluster, change)
    assert undone.word == "failed"
    assert "somebody took the marker away" in undone.detail
    assert replicas(cluster) == 0
    scale(cluster, 3)
    assert back(cluster, change).word == "superseded"


def test_an_object_under_another_runs_change_is_left_alone(cluster: FakeCluster) -> None:
    theirs = patch_of(read(cluster, NODE), NODE, "r0", "x", taint("r0"))
    do(cluster, "x", theirs, run="r0")
    with pytest.raises(NotApplied, match="it carries the change of run r0"):
        do(cluster, "a", patch_of(read(cluster, NODE), NODE, RUN, "a", rig.cordon()))
    assert "unschedulable" not in read(cluster, NODE)["spec"]


@pytest.mark.parametrize("replaced", [True, False])
def test_an_object_that_is_gone_or_another_one_is_neither_changed_nor_put_back(
    cluster: FakeCluster, replaced: bool
) -> None:
    change = worker(cluster)
    do(cluster, "a", change)
    thing = read(cluster, WORKER)
    cluster.registry.end("deployments", PLATFORM, "worker-eu")
    finalizers_gone(cluster)
    if replaced:
        meta = {"name": "worker-eu", "namespace": PLATFORM, "labels": thing["metadata"]["labels"]}
        cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": thing["spec"]})
    assert back(cluster, change).word == "superseded"
    with pytest.raises(NotApplied):
        do(cluster, "b", change)
    if replaced:
        assert replicas(cluster) == 0


# creations


def test_what_is_created_names_its_run_its_injection_and_its_owner(cluster: FakeCluster) -> None:
    do(cluster, "a", rig.policy(RUN))
    meta = read(cluster, POLICY)["metadata"]
    assert meta["labels"]["stormdrill"] == RUN
    assert json.loads(meta["annotations"][naming.marker(RUN, "a")]) == {"run": RUN, "injection": "a"}
    [owner] = meta["ownerReferences"]
    assert owner["uid"] == read(cluster, objects.anchor_path(RUN, PLATFORM))["metadata"]["uid"]


def test_without_the_anchor_nothing_is_created(cluster: FakeCluster) -> None:
    cluster.registry.end("configmaps", PLATFORM, naming.ledger(RUN))
    with pytest.raises(NotApplied, match="anchor"):
        do(cluster, "a", rig.policy(RUN))
    assert cluster.read(POLICY) is None


def test_what_comes_after_the_anchor_has_gone_is_ended_by_the_cluster() -> None:
    with FakeCluster() as cluster:
        rig.small_world(cluster)
        anchor(cluster)
        # the anchor goes when the runner has seen it, and its request is under way
        cluster.at(1, lambda _: cluster.registry.end("configmaps", PLATFORM, naming.ledger(RUN)))
        do(cluster, "a", rig.policy(RUN))
        cluster.settle()
        assert cluster.read(POLICY) is None


def test_somebody_elses_object_of_that_name_is_neither_taken_nor_deleted(cluster: FakeCluster) -> None:
    spec: dict[str, object] = {"podSelector": {}}
    meta = {"name": "cut-eu", "namespace": PLATFORM}
    cluster.apply({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec})
    with pytest.raises(NotApplied, match="exists already"):
        do(cluster, "a", rig.policy(RUN))
    undone = back(cluster, rig.policy(RUN))
    assert (undone.word, "somebody else's" in undone.detail) == ("superseded", True)
    assert read(cluster, POLICY)["spec"]["podSelector"] == {}


def test_a_finalizer_that_nobody_takes_off_is_named_and_is_no_success(cluster: FakeCluster) -> None:
    change = rig.policy(RUN)
    do(cluster, "a", change)
    cluster.registry.change("networkpolicies", PLATFORM, "cut-eu", lambda it: it["metadata"].update(finalizers=["a/b"]))
    undone = back(cluster, change, 0.3)
    assert (undone.word, "a/b" in undone.detail) == ("failed", True)
    finalizers_gone(cluster)
    assert back(cluster, change).word != "failed"


def test_what_has_pods_is_gone_when_they_are() -> None:
    with FakeCluster() as cluster:
        rig.small_world(cluster)
        anchor(cluster)
        change = rig.plan(cluster, RUN)["late-dependency/gateway"][1]
        do(cluster, "a", change)
        cluster.settle()
        assert [pod for pod in cluster.objects("pods", PLATFORM) if pod["metadata"]["labels"]["app"] == "late"]
        assert back(cluster, change, 20.0).word == "done"
        assert cluster.read(PROXY) is None
        assert not [pod for pod in cluster.objects("pods", PLATFORM) if pod["metadata"]["labels"]["app"] == "late"]


def test_a_namespace_that_is_being_deleted_takes_nothing_and_owes_nothing() -> None:
    with FakeCluster() as cluster:
        rig.small_world(cluster)
        anchor(cluster)
        made, policy = worker(cluster), rig.policy(RUN)
        do(cluster, "a", made)
        cluster.registry.change(
            "services", PLATFORM, "gateway-eu", lambda it: it["metadata"].update(finalizers=["a/b"])
        )
        Api(cluster.admin).call("DELETE", f"/api/v1/namespaces/{PLATFORM}")
        with pytest.raises(NotApplied):
            do(cluster, "b", policy)
        assert back(cluster, made).word in ("done", "superseded")
        assert back(cluster, policy).word == "superseded"
        cluster.registry.change("services", PLATFORM, "gateway-eu", lambda it: it["metadata"].pop("finalizers"))
        cluster.settle()
        assert back(cluster, made).word == "superseded"


def test_outside_of_namespaces_nothing_is_created(cluster: FakeCluster) -> None:
    change = Change(KubeDelete("", "/api/v1/nodes/extra", RUN), "{}")
    with pytest.raises(NotApplied, match="only objects in namespaces"):
        do(cluster, "a", change)


def test_somebody_elses_selector_that_has_ours_in_it_stays(cluster: FakeCluster) -> None:
    selector = read(cluster, SERVICE)["spec"]["selector"]
    ours = {**selector, "app": "late"}
    element = Element(("spec", "selector"), json.dumps(ours), json.dumps(selector))
    change = patch_of(read(cluster, SERVICE), SERVICE, RUN, "a", element)
    do(cluster, "a", change)
    cluster.registry.change("services", PLATFORM, "gateway-eu", lambda it: it["spec"]["selector"].update(canary="no"))
    assert back(cluster, change).word == "superseded"
    assert read(cluster, SERVICE)["spec"]["selector"] == {**ours, "canary": "no"}


# programs in pods


class Container:
    """Says what a look into it is told to find."""

    def __init__(self, *finds: str | Exception) -> None:
        self.finds = list(finds)

    def run(
        self, namespace: str, pod: str, container: str, argv: object, stdin: bytes = b"", limit_s: float = 5.0
    ) -> Ran:
        found = self.finds.pop(0)
        if isinstance(found, Exception):
            raise found
        return Ran(0, f"{found}\n".encode(), b"")


def pod(cluster: FakeCluster, phase: str = "Running") -> KubeEndExec:
    meta = {"name": "p", "namespace": PLATFORM}
    spec = {"nodeName": "eu-cpu-1", "containers": [{"name": "c", "image": "c:1"}]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": {"phase": phase}})
    uid = read(cluster, f"/api/v1/namespaces/{PLATFORM}/pods/p")["metadata"]["uid"]
    return KubeEndExec("", PLATFORM, "p", uid, "c", "tag", timeout_s=2.0)


@pytest.mark.parametrize(
    ("finds", "word"),
    [(("1", "0"), "done"), (("0",), "superseded"), (("1",) * 40, "failed"), ((Unreachable("cut"),) * 2, "failed")],
)
def test_a_program_in_a_pod_is_ended_when_a_second_look_finds_nothing(
    cluster: FakeCluster, finds: tuple[str, ...], word: str
) -> None:
    assert undo(Api(cluster.admin), pod(cluster), Container(*finds), Until(0.3)).word == word


@pytest.mark.parametrize("how", ["gone", "another", "ended"])
def test_what_ran_in_a_pod_that_is_gone_is_gone(cluster: FakeCluster, how: str) -> None:
    word = pod(cluster, "Failed" if how == "ended" else "Running")
    if how != "ended":
        _remove_pod(cluster)
    if how == "another":
        pod(cluster)
    assert undo(Api(cluster.admin), word, Container()).word == "superseded"


def _remove_pod(cluster: FakeCluster) -> None:
    body = {"gracePeriodSeconds": 0}
    Api(cluster.admin).call("DELETE", f"/api/v1/namespaces/{PLATFORM}/pods/p", body)
