"""Nodes: what is taken from them, whom it hits, and what stays somebody else's."""

from __future__ import annotations

from typing import Literal

import pytest

from fake_cluster import FakeCluster, scenes
from kube_rig import SLEEPS, Kube, Rig, injection
from stormdrill.cluster.standing import Found, of
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Nodes
from stormdrill.model.permission import Need
from stormdrill.model.plan import Injection
from stormdrill.model.undo import KubeDelete, KubePatch
from stormdrill.targets.kubernetes.mechanism import Object, at, objects, texts
from stormdrill.targets.kubernetes.mechanisms.nodes import CORDONED, KEEPS, TAINT, WHY

NODE = "/api/v1/nodes/test-1"


@pytest.fixture(autouse=True)
def node(kube: Kube) -> None:
    """test-1, which faults may take."""
    kube.nodes()


def lost(empties: Literal["taint", "evict", "delete"] = "taint", inject_timeout_s: float = 5.0) -> Injection:
    return injection("nodes", Nodes(("test-1",), empties), inject_timeout_s=inject_timeout_s)


def taints(kube: Kube) -> list[tuple[object, object]]:
    return [(one["key"], one["effect"]) for one in objects(at(kube.read(NODE), "spec", "taints"))]


def evictions(fake: FakeCluster) -> list[str]:
    return [one.path.split("/")[-2] for one in fake.requests if one.path.endswith("/eviction")]


def ended(kube: Kube, path: str) -> bool:
    there = kube.read(path)
    return there is None or bool(at(there, "metadata", "deletionTimestamp"))


def a_pod(kube: Kube, namespace: str, name: str, metadata: Object | None = None, **spec: object) -> str:
    """One of its own, that runs on the node. Its path."""
    whole = {"nodeName": "test-1", **kube.pod(SLEEPS), **spec}
    named = {"name": name, "namespace": namespace, **(metadata or {})}
    path = kube.make({"kind": "Pod", "apiVersion": "v1", "metadata": named, "spec": whole})
    kube.until(lambda: at(kube.read(path), "status", "phase") == "Running", f"{name} never ran")
    return path


def agent_of(kube: Kube, namespace: str) -> str:
    """Path of the DaemonSet's pod on the node."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    found = kube.all(path, fieldSelector="spec.nodeName=test-1", labelSelector="app=agent")
    return f"{path}/{at(found[0], 'metadata', 'name')}" if found else ""


def budget(kube: Kube, namespace: str, least: int) -> None:
    spec = {"minAvailable": least, "selector": {"matchLabels": {"app": "web"}}}
    path = kube.make(
        {
            "kind": "PodDisruptionBudget",
            "apiVersion": "policy/v1",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": spec,
        }
    )
    kube.until(lambda: at(kube.read(path), "status", "observedGeneration"), "nobody looked at the budget")


def test_cordon_taint_and_marker_come_in_one_patch(kube: Kube, fake: FakeCluster, rig: Rig) -> None:
    kube.deployment(kube.namespace(), node="test-1")
    sent = len(fake.requests)
    rig.harm(lost())
    (patch,) = [one for one in fake.requests[sent:] if one.method == "PATCH"]
    changed = {item["path"] for item in patch.read() if item["op"] != "test"}
    assert {"/spec/unschedulable", "/spec/taints"} <= changed
    assert any(path.startswith("/metadata/annotations") for path in changed)


def test_a_node_that_was_cordoned_before_stays_so(kube: Kube, rig: Rig) -> None:
    kube.deployment(kube.namespace(), node="test-1")
    kube.patch(NODE, {"spec": {"unschedulable": True}})
    rig.harm(lost())
    rig.seen(lost(), lambda effect: effect.bit)
    rig.revert(lost())
    rig.seen(lost(), lambda effect: effect.gone)
    assert at(kube.read(NODE), "spec", "unschedulable") is True
    kube.until(lambda: taints(kube) == [(CORDONED, "NoSchedule")], "the taint of the cordon is the controller's")


def noted(kube: Kube) -> dict[str, str]:
    """What asks autoscalers to leave the node be."""
    return {
        name: value for name, value in texts(at(kube.read(NODE), "metadata", "annotations")).items() if name in KEEPS
    }


@pytest.mark.parametrize("before", [{}, {KEEPS[0]: "false"}, {KEEPS[1]: "true"}], ids=["none", "other", "so already"])
def test_autoscalers_are_asked_to_leave_a_node_that_stands_empty_until_the_revert(
    before: dict[str, str], kube: Kube, fake: FakeCluster, rig: Rig
) -> None:
    kube.patch(NODE, {"metadata": {"annotations": before}})
    sent = len(fake.requests)
    rig.harm(lost())
    assert len([one for one in fake.requests[sent:] if one.method == "PATCH"]) == 1
    assert noted(kube) == dict.fromkeys(KEEPS, "true")
    rig.revert(lost())
    rig.seen(lost(), lambda effect: effect.gone)
    assert noted(kube) == before


def test_what_others_do_to_that_is_no_change_of_the_fault_and_keeps_it_in_force_no_longer(kube: Kube, rig: Rig) -> None:
    rig.harm(lost())
    words = [change.undo for change in rig.mechanisms["nodes"].applied(lost())]
    kube.patch(NODE, {"metadata": {"annotations": {KEEPS[0]: "false", KEEPS[1]: None}}})
    assert [found.changed for found in looked_at(kube, words)] == [()]
    kube.patch(NODE, {"metadata": {"annotations": dict.fromkeys(KEEPS, "true")}})
    kube.patch(NODE, {"spec": {"taints": None, "unschedulable": None}})
    assert [found.stood for found in looked_at(kube, words)] == [False]
    rig.revert(lost())


def looked_at(kube: Kube, words: list[KubePatch | KubeDelete]) -> list[Found]:
    return [of(word, kube.read(word.path)) for word in words]


def test_taints_that_others_set_during_the_fault_stay(kube: Kube, rig: Rig) -> None:
    kube.deployment(kube.namespace(), node="test-1")
    rig.harm(lost())
    there = objects(at(kube.read(NODE), "spec", "taints"))
    kube.patch(NODE, {"spec": {"taints": [{"key": "maintenance", "effect": "PreferNoSchedule"}, *there]}})
    rig.revert(lost())
    rig.seen(lost(), lambda effect: effect.gone)
    kube.until(lambda: taints(kube) == [("maintenance", "PreferNoSchedule")], "ours is gone, theirs is there")
    assert rig.marked(NODE) == []


def test_the_answer_of_the_patch_is_no_witness(kube: Kube, fake: FakeCluster, rig: Rig) -> None:
    kube.deployment(kube.namespace(), node="test-1")
    fake.behaviour.loop.pause(True)  # nobody acts on the taint
    rig.harm(lost())
    looked = rig.mechanisms["nodes"].observe(lost())
    assert not looked.bit
    assert "0 of 2 pods that were on test-1 are gone or going" in looked.detail
    fake.behaviour.loop.pause(False)
    rig.seen(lost(), lambda effect: effect.bit)


def test_of_a_node_without_pods_the_node_controller_is_the_witness(kube: Kube, rig: Rig) -> None:
    rig.harm(lost())
    assert rig.seen(lost(), lambda effect: effect.bit).witness == "the node controller"


def test_who_tolerates_everything_stays_and_is_not_waited_for(kube: Kube, rig: Rig) -> None:
    namespace = kube.namespace()
    stays = a_pod(kube, namespace, "stays", tolerations=[{"operator": "Exists"}])
    goes = a_pod(kube, namespace, "goes", tolerations=[{"key": "other", "operator": "Exists"}])
    rig.harm(lost())
    rig.seen(lost(), lambda effect: effect.bit)
    assert ended(kube, goes)
    assert not ended(kube, stays)


@pytest.mark.parametrize("empties", ["evict", "delete"])
def test_only_pods_that_may_be_drilled_are_ended_one_by_one(
    empties: Literal["evict", "delete"], kube: Kube, rig: Rig
) -> None:
    namespace = kube.namespace()
    labels = {"app": "agent"}
    template = {"metadata": {"labels": labels}, "spec": kube.pod(SLEEPS)}
    agents = {"selector": {"matchLabels": labels}, "template": template}
    named = {"name": "agent", "namespace": namespace}
    kube.make({"kind": "DaemonSet", "apiVersion": "apps/v1", "metadata": named, "spec": agents})
    kube.until(lambda: agent_of(kube, namespace), "the DaemonSet never got its pod")
    goes = a_pod(kube, namespace, "goes")
    stay = [
        a_pod(kube, namespace, "mirror", {"annotations": {"kubernetes.io/config.mirror": "x"}}),
        agent_of(kube, namespace),
    ]
    rig.harm(lost(empties))
    rig.seen(lost(empties), lambda effect: effect.bit)
    assert ended(kube, goes)
    assert [path for path in stay if ended(kube, path)] == []


@pytest.mark.parametrize("empties", ["taint", "evict", "delete"])
def test_nothing_is_armed_where_a_stranger_came_since_the_plan(
    empties: Literal["taint", "evict", "delete"], kube: Kube, rig: Rig
) -> None:
    closed = kube.namespace(drill=False)
    a_pod(kube, kube.namespace(), "goes")
    stranger = a_pod(kube, closed, "stranger")
    said = rf"test-1: {closed}/stranger would go too, and their namespaces didn't opt in: nothing was changed"
    with pytest.raises(Unreachable, match=said):
        rig.mechanisms["nodes"].undo(lost(empties))
    kube.do("DELETE", stranger)
    kube.until(lambda: kube.read(stranger) is None, "it was never gone")
    a_pod(kube, closed, "tolerates", tolerations=[{"operator": "Exists"}])
    if empties == "taint":
        assert rig.mechanisms["nodes"].undo(lost(empties))


@pytest.mark.parametrize("empties", ["evict", "delete"])
def test_exactly_the_pods_that_were_seen_are_ended(
    empties: Literal["evict", "delete"], kube: Kube, fake: FakeCluster, rig: Rig
) -> None:
    path = a_pod(kube, kube.namespace(), "one")
    uid = at(kube.read(path), "metadata", "uid")
    rig.harm(lost(empties))
    (sent,) = [one for one in fake.requests if one.path.startswith(path) and one.method in ("POST", "DELETE")]
    body = sent.read()
    options = body if empties == "delete" else body["deleteOptions"]
    assert options["preconditions"] == {"uid": uid}
    assert options.get("gracePeriodSeconds") == (0 if empties == "delete" else None)


def test_what_a_budget_keeps_is_asked_again_and_told(kube: Kube, fake: FakeCluster, rig: Rig) -> None:
    namespace = kube.namespace()
    kube.deployment(namespace, replicas=2, node="test-1")
    budget(kube, namespace, least=1)
    kept = lost("evict", inject_timeout_s=1.5)
    rig.harm(kept)
    bitten = rig.seen(kept, lambda effect: effect.bit)
    assert "1 of 2 pods that were on test-1 are gone or going" in bitten.detail
    assert "its disruption budget allows no eviction now" in bitten.detail

    def asked_again() -> set[str]:
        return {name for name in evictions(fake) if evictions(fake).count(name) > 1}

    kube.until(asked_again, "who was kept was never asked again")
    (stays,) = asked_again()
    assert not ended(kube, f"/api/v1/namespaces/{namespace}/pods/{stays}")


def test_a_budget_that_allows_nothing_is_found_by_the_dry_run(kube: Kube, rig: Rig) -> None:
    namespace = kube.namespace()
    kube.deployment(namespace, replicas=2, node="test-1")
    budget(kube, namespace, least=2)
    told = rig.mechanisms["nodes"].dry_run(lost("evict"))
    assert len(told) == 2
    assert all(namespace in one and "disruption budget allows no eviction" in one for one in told)
    assert (
        len(
            [
                one
                for one in kube.all(f"/api/v1/namespaces/{namespace}/pods")
                if not at(one, "metadata", "deletionTimestamp")
            ]
        )
        == 2
    )


@pytest.mark.parametrize("what", ["500", "503", "drop-before", "drop-after"])
def test_an_eviction_that_met_trouble_is_asked_for_again(what: str, kube: Kube, fake: FakeCluster, rig: Rig) -> None:
    path = a_pod(kube, kube.namespace(), "one")
    fake.trouble(("POST", "/eviction"), what)
    rig.harm(lost("evict"))
    rig.seen(lost("evict"), lambda effect: effect.bit)
    assert ended(kube, path)


def test_nobody_is_evicted_once_nothing_may_be_changed_any_more(kube: Kube, fake: FakeCluster, rig: Rig) -> None:
    path = a_pod(kube, kube.namespace(), "one")
    rig.arm(lost("evict"))

    def lease_lost(_: object) -> None:
        rig.over = "the Lease was taken over"

    fake.at(1, lease_lost, when="after")  # once the node is cordoned
    with pytest.raises(Unreachable, match="the Lease was taken over"):
        rig.mechanisms["nodes"].apply(lost("evict"))
    assert evictions(fake) == []
    assert not ended(kube, path)


def test_nobody_is_evicted_any_more_once_the_node_was_taken_back(kube: Kube, fake: FakeCluster, rig: Rig) -> None:
    namespace = kube.namespace()
    kube.deployment(namespace, replicas=1, node="test-1")
    budget(kube, namespace, least=1)
    rig.arm(lost("evict"))
    fake.at(2, lambda _: rig.revert(lost("evict")) and None, when="after")  # the first eviction
    rig.mechanisms["nodes"].apply(lost("evict"))
    assert len(evictions(fake)) == 1


def test_a_node_that_is_deleted_or_made_anew_during_the_fault_is_nobodys_to_undo(kube: Kube, rig: Rig) -> None:
    rig.harm(lost())
    kube.do("DELETE", NODE)
    assert rig.seen(lost(), lambda effect: effect.gone).detail == "nodes/test-1 is there no more"
    assert {undone.word for undone in rig.revert(lost())} == {"superseded"}
    kube.nodes()
    assert rig.seen(lost(), lambda effect: effect.gone)
    assert taints(kube) == []


def test_a_copy_of_the_harmed_node_is_not_taken_for_gone(kube: Kube, fake: FakeCluster, rig: Rig) -> None:
    """Whoever replaces an object by what was read during the fault brings the fault back under another uid."""
    rig.harm(lost())
    copy = kube.read(NODE)
    assert copy is not None
    kube.do("DELETE", NODE)
    metadata = {name: value for name, value in copy["metadata"].items() if name not in ("uid", "resourceVersion")}  # type: ignore[attr-defined]
    fake.apply({**copy, "metadata": metadata})
    assert not rig.mechanisms["nodes"].observe(lost()).gone


def test_a_node_that_another_run_took_is_left_alone(kube: Kube, rig: Rig) -> None:
    taint = {"key": TAINT, "value": "run-other", "effect": "NoExecute"}
    kube.patch(NODE, {"spec": {"taints": [taint]}})
    with pytest.raises(Unreachable, match=r"carries the taint stormdrill.dev/lost=run-other already; .*recover"):
        rig.mechanisms["nodes"].undo(lost())


def test_the_harmed_value_is_never_taken_for_the_one_before(kube: Kube, rig: Rig) -> None:
    rig.harm(lost())
    with pytest.raises(Unreachable, match="is harmed by fault/one already"):
        rig.mechanisms["nodes"].undo(lost())


def test_an_api_server_in_trouble_is_asked_again_before_anything_is_harmed(fake: FakeCluster, rig: Rig) -> None:
    for what in ("500", "429", "503"):
        fake.trouble(("GET", "/nodes/test-1"), what)
    rig.harm(lost())
    fake.trouble(("GET", "/nodes/test-1"), "500")
    looked = rig.mechanisms["nodes"].observe(lost())
    assert (looked.bit, looked.gone, looked.witness) == (False, False, "nobody")


def test_leave_is_asked_for_each_node_by_name_and_evictions_where_drills_are_allowed(kube: Kube, rig: Rig) -> None:
    namespace = kube.namespace()
    needs = rig.mechanisms["nodes"].needs(lost("evict"))
    plain = {(one.verb, one.resource, one.subresource, one.namespace, one.name) for one in needs}
    assert {("get", "nodes", "", "", "test-1"), ("patch", "nodes", "", "", "test-1")} <= plain
    assert ("create", "pods", "eviction", namespace, "") in plain
    assert ("list", "pods", "", "", "") in plain
    assert all(one.why for one in needs)
    assert not [one for one in rig.mechanisms["nodes"].needs(lost()) if one.subresource or one.verb == "delete"]


def test_what_many_nodes_need_is_known_without_asking_for_each(fake: FakeCluster, rig: Rig) -> None:
    sent = len(fake.requests)
    names = [f"n{number}" for number in range(200)]
    for empties in ("taint", "evict"):
        for name in names:
            needs = rig.mechanisms["nodes"].needs(injection("nodes", Nodes((name,), empties)))  # type: ignore[arg-type]
            assert Need("patch", "", "nodes", name=name, why=WHY) in needs
    assert len(fake.requests) == sent + 1


@pytest.mark.parametrize("empties", ["taint", "evict", "delete"])
@pytest.mark.parametrize("whose", ["kube-system", "stormdrill"])
def test_whatever_label_it_carries_nobody_of_the_cluster_s_own_nor_of_the_suite_s_is_ended(
    empties: Literal["taint", "evict", "delete"], whose: str, kube: Kube, fake: FakeCluster, rig: Rig
) -> None:
    fake.apply(scenes.namespace(whose))
    there = a_pod(kube, whose, "coredns")
    with pytest.raises(Unreachable, match=rf"{whose}/coredns would go too"):
        rig.mechanisms["nodes"].undo(lost(empties))
    kube.do("DELETE", there)
    kube.until(lambda: kube.read(there) is None, "it was never gone")
    rig.arm(lost(empties))
    there = a_pod(kube, whose, "late", tolerations=[{"operator": "Exists"}])
    rig.mechanisms["nodes"].apply(lost(empties))
    assert not ended(kube, there)
    assert whose not in {need.namespace for need in rig.mechanisms["nodes"].needs(lost(empties))}


def test_no_right_is_asked_for_where_none_can_be_given_any_more(kube: Kube, fake: FakeCluster, rig: Rig) -> None:
    stays, goes = kube.namespace(), kube.namespace()
    now = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    fake.registry.change("namespaces", "", goes, lambda namespace: namespace["metadata"].update(now))
    asked = {need.namespace for need in rig.mechanisms["nodes"].needs(lost("evict")) if need.subresource == "eviction"}
    assert asked == {stays}
