"""What every mechanism on clusters has from its base: places, needs, looks, lists, and what it refuses to do."""

from __future__ import annotations

import pytest

from fake_cluster import FakeCluster
from kube_rig import Kube, Rig, injection
from stormdrill.cluster import naming
from stormdrill.cluster.changes import Change
from stormdrill.cluster.objects import anchor, anchor_path
from stormdrill.cluster.undoing import undo
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Scale
from stormdrill.model.plan import Injection
from stormdrill.model.undo import KubeDelete, KubePatch
from stormdrill.targets.kubernetes import mechanism
from stormdrill.targets.kubernetes.mechanism import Changing, Place, at, needs_of


@pytest.mark.parametrize(
    ("path", "place", "shown"),
    [
        ("/api/v1/nodes/n1", ("", "nodes", "", "n1"), "nodes/n1"),
        ("/api/v1/namespaces/shop", ("", "namespaces", "", "shop"), "namespaces/shop"),
        ("/api/v1/namespaces/shop/services/web", ("", "services", "shop", "web"), "shop/services/web"),
        (
            "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/x",
            ("networking.k8s.io", "networkpolicies", "shop", "x"),
            "shop/networkpolicies/x",
        ),
    ],
)
def test_a_path_says_what_rules_ask_for(path: str, place: tuple[str, ...], shown: str) -> None:
    assert tuple(Place.of(path)) == place
    assert str(Place.of(path)) == shown


def test_a_change_takes_what_applying_looking_and_undoing_take() -> None:
    def verbs(change: Change) -> list[tuple[str, str, str]]:
        return [(need.verb, need.subresource, need.name) for need in needs_of(change)]

    patch = KubePatch("", "/apis/apps/v1/namespaces/shop/deployments/web", "u", "m", ())
    status = KubePatch("", "/api/v1/nodes/n1", "u", "m", (), subresource="status")
    created = KubeDelete("", "/api/v1/namespaces/shop/services/web", "run")
    assert verbs(Change(patch)) == [("get", "", "web"), ("patch", "", "web")]
    assert verbs(Change(status)) == [("get", "", "n1"), ("patch", "", "n1"), ("patch", "status", "n1")]
    assert verbs(Change(created, "{}")) == [("get", "", "web"), ("create", "", ""), ("delete", "", "web")]


def test_a_list_is_read_page_by_page_and_anew_where_a_page_came_too_late(
    kube: Kube, fake: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mechanism, "PAGE", 2)
    fake.nodes(6, "us")
    base = Changing(Rig(kube))
    sent = len(fake.requests)
    assert len(list(base.items("", "/api/v1/nodes"))) == 9
    assert len(fake.requests) - sent == 5
    fake.trouble(("GET", "/api/v1/nodes"), "410")
    assert len(list(base.items("", "/api/v1/nodes"))) == 9
    fake.trouble(("GET", "/api/v1/nodes"), "410", times=2)
    with pytest.raises(Unreachable, match="GET /api/v1/nodes: 410"):
        list(base.items("", "/api/v1/nodes"))


@pytest.mark.parametrize("what", ["429", "500", "503"])
def test_what_is_planned_waits_for_a_server_that_is_busy_and_a_look_comes_again_by_itself(
    kube: Kube, fake: FakeCluster, what: str
) -> None:
    namespace = kube.namespace()
    kube.deployment(namespace)
    one, rig = injection("scale", Scale("deployments/web", namespace, 1)), Rig(kube)
    fake.trouble(("GET", "deployments/web"), what, times=2)
    assert rig.mechanisms["scale"].refusal(one) == ""
    rig.harm(one)
    fake.trouble(("GET", "deployments/web"), what)
    looked = rig.mechanisms["scale"].observe(one)
    assert (looked.witness, looked.detail[:3]) == ("nobody", "GET")


class Making(Changing):
    """Creates one object."""

    made = KubeDelete("", "/api/v1/namespaces/shop/configmaps/made", "r1")

    def changes(self, injection: Injection) -> tuple[Change, ...]:
        return (Change(self.made, "{}"),)


@pytest.mark.parametrize(
    ("bears", "in_force"),
    [
        ({"labels": {naming.LABEL: "r1"}}, True),
        ({"ownerReferences": "the anchor"}, True),
        ({"annotations": {naming.marker("r1", "one"): naming.marking("r1", "one")}}, True),
        ({"labels": {naming.LABEL: "r2"}}, False),
        ({}, False),
    ],
)
def test_what_was_created_is_in_force_as_long_as_its_undo_would_not_leave_it(
    kube: Kube, fake: FakeCluster, bears: dict[str, object], in_force: bool
) -> None:
    fake.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    fake.apply(anchor("r1", "shop"))
    if "ownerReferences" in bears:
        uid = at(fake.read(anchor_path("r1", "shop")), "metadata", "uid")
        bears = {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "stormdrill-r1", "uid": uid}]}
    metadata = {"name": "made", "namespace": "shop", **bears}
    fake.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    word, one = Making(Rig(kube)), injection("making", Scale("deployments/web", "shop", 1))
    word.undo(one)
    assert word.in_force(one).gone is not in_force
    left = undo(word.clusters.api(""), word.made).word == "superseded"
    assert left is not in_force


def test_nothing_is_applied_that_was_not_armed(kube: Kube, fake: FakeCluster) -> None:
    namespace = kube.namespace()
    path = kube.deployment(namespace)
    sent = len(fake.requests)
    one = injection("scale", Scale("deployments/web", namespace, 1))
    with pytest.raises(Unreachable, match="fault/one was never armed: nothing was changed"):
        Rig(kube).mechanisms["scale"].apply(one)
    assert len(fake.requests) == sent
    assert kube.ready(path) == 2


def test_an_api_server_is_not_asked_again_and_again(
    kube: Kube, fake: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mechanism, "LOOK_EVERY_S", 60.0)
    namespace = kube.namespace()
    kube.deployment(namespace)
    one, rig = injection("scale", Scale("deployments/web", namespace, 1)), Rig(kube)
    rig.arm(one)
    rig.mechanisms["scale"].observe(one)
    sent = len(fake.requests)
    assert {rig.mechanisms["scale"].observe(one).gone for _ in range(50)} == {True}
    assert len(fake.requests) == sent
    rig.mechanisms["scale"].apply(one)
    assert not rig.mechanisms["scale"].observe(one).gone, "what was seen before it was applied is not told again"


def test_what_nobody_can_see_has_neither_bitten_nor_gone(kube: Kube, fake: FakeCluster) -> None:
    namespace = kube.namespace()
    kube.deployment(namespace)
    one, rig = injection("scale", Scale("deployments/web", namespace, 1)), Rig(kube)
    rig.harm(one)
    with fake.outage():
        looked = rig.mechanisms["scale"].observe(one)
    assert (looked.bit, looked.gone, looked.witness) == (False, False, "nobody")
    assert looked.detail
    rig.seen(one, lambda effect: effect.bit)


def test_a_marker_that_somebody_took_away_does_not_make_the_harm_gone(kube: Kube) -> None:
    namespace = kube.namespace()
    path = kube.deployment(namespace)
    one, rig = injection("scale", Scale("deployments/web", namespace, 2)), Rig(kube)
    rig.harm(one)
    (marker,) = rig.marked(path)
    kube.patch(path, {"metadata": {"annotations": {marker: None}}})
    looked = rig.mechanisms["scale"].observe(one)
    assert not looked.gone
    (undone,) = rig.revert(one)
    assert undone.word == "failed", "a value that nothing marks as ours may be somebody's: a person has to look"
    kube.patch(path, {"spec": {"replicas": 2}})
    rig.seen(one, lambda effect: effect.gone)
