"""Every mechanism on clusters: seen to bite by somebody else than its patch, undone, seen to be gone, nothing left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kube_scenes
from kube_ground import NODE_LABEL, RESOURCE
from kube_held import as_account, strictly
from kube_rig import SLEEPS, Kube, Rig, Scene, injection
from stormdrill.cluster import naming
from stormdrill.cluster.standing import together
from stormdrill.model.mechanism import Capacity, How, Nodes, Rollout, Scale, Segment
from stormdrill.model.permission import Need
from stormdrill.ports import Stood
from stormdrill.targets.kubernetes.mechanism import API_SERVER, at
from stormdrill.targets.kubernetes.mechanisms import capacity
from stormdrill.targets.kubernetes.rbac import manifests
from stormdrill.targets.kubernetes.standing import standing

pytestmark = pytest.mark.cluster
UNTOUCHED = Stood(False, "", API_SERVER)
"""In force, and all of it as it was left."""


def on_a_node(kube: Kube, empties: str) -> How:
    (node,) = kube.nodes(empties=empties)
    kube.deployment(kube.namespace(), node=node)
    return Nodes((node,), empties)  # type: ignore[arg-type]  # one of its words


def an_empty_node(kube: Kube) -> How:
    (node,) = kube.nodes()
    return Nodes((node,), "taint")


def scaled(kube: Kube, away: int) -> How:
    namespace = kube.namespace()
    kube.deployment(namespace, replicas=2)
    return Scale("deployments/web", namespace, away)


def scaled_in_order(kube: Kube) -> How:
    namespace, labels = kube.namespace(), {"app": "queue"}
    if not kube.starts:
        pytest.skip(kube.lacks)
    template = {"metadata": {"labels": labels}, "spec": kube.pod(SLEEPS)}
    spec = {"replicas": 2, "serviceName": "queue", "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": "queue", "namespace": namespace}
    path = kube.make({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec})
    kube.until(lambda: kube.ready(path) == 2, "it never had both pods ready")
    return Scale("statefulsets/queue", namespace, 1)


def released(kube: Kube, how: Rollout) -> How:
    namespace = kube.namespace()
    if kube.fake is not None:  # its pods run as local processes, so that a command that ends is seen to end
        kube.fake.run_pods[kube.image] = []
    kube.deployment(namespace)
    return Rollout("deployments/web", namespace, "", how.image, how.env, how.command, how.unready, how.broken)


def advertised(kube: Kube) -> How:
    (node,) = kube.nodes(empties="nobody")
    path = f"/api/v1/nodes/{node}/status"
    kube.patch(path, {"status": {part: {RESOURCE: "4"} for part in ("capacity", "allocatable")}})
    kube.cleaning.append(
        lambda: kube.patch(path, {"status": {part: {RESOURCE: None} for part in ("capacity", "allocatable")}}) and None
    )
    return Capacity((node,), RESOURCE)


SCENES: dict[str, tuple[str, Scene]] = {
    "nodes tainted": ("nodes", lambda kube: on_a_node(kube, "taint")),
    "nodes evicted": ("nodes", lambda kube: on_a_node(kube, "evict")),
    "nodes emptied by force": ("nodes", lambda kube: on_a_node(kube, "delete")),
    "nodes that are empty": ("nodes", an_empty_node),
    "scale to nothing": ("scale", lambda kube: scaled(kube, 2)),
    "scale to one": ("scale", lambda kube: scaled(kube, 1)),
    "scale of a StatefulSet": ("scale", scaled_in_order),
    "rollout of no image": (
        "rollout",
        lambda kube: released(kube, Rollout("", "", "", image="stormdrill.invalid/bad:$run", broken=True)),
    ),
    "rollout that ends": ("rollout", lambda kube: released(kube, Rollout("", "", "", command=("false",), broken=True))),
    "rollout never ready": ("rollout", lambda kube: released(kube, Rollout("", "", "", unready=True, broken=True))),
    "rollout of a release": ("rollout", lambda kube: released(kube, Rollout("", "", "", env={"VERSION": "2"}))),
    "capacity": ("capacity", advertised),
    **kube_scenes.SCENES,
}
"""What is harmed → its word, and how. A new word needs a scene here."""


@pytest.fixture
def rig(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    if kube.fake is not None:  # nobody there writes a node's status every ten seconds
        monkeypatch.setattr(capacity, "STICKS_S", 0.5)
    made = Rig(kube)
    yield made
    made.end()


@pytest.mark.parametrize("name", SCENES)
def test_what_bites_is_seen_to_bite_and_after_its_undo_everything_is_as_before(name: str, kube: Kube, rig: Rig) -> None:
    word, scene = SCENES[name]
    one = injection(word, scene(kube))
    before = kube.snapshot()
    rig.harm(one)
    bitten = rig.seen(one, lambda effect: effect.bit)
    assert not bitten.gone
    assert kube.astray() == []
    assert bitten.witness not in ("", "nobody")
    assert standing(rig.mechanisms[word], one) in (None, UNTOUCHED), "nobody has laid hands on it"
    reverted = rig.revert(one)
    assert {undone.word for undone in reverted} <= {"done", "superseded"}
    found = together([undone.found for undone in reverted if undone.found is not None])
    assert not rig.mechanisms[word].stands or (found is not None and found.stood and not found.changed), found
    rig.seen(one, lambda effect: effect.gone and not effect.bit)
    kube.until(lambda: kube.snapshot() == before, "something is not as it was before")


@pytest.mark.parametrize("name", SCENES)
def test_undoing_twice_or_what_was_never_applied_changes_nothing(name: str, kube: Kube, rig: Rig) -> None:
    word, scene = SCENES[name]
    one = injection(word, scene(kube))
    before = kube.snapshot()
    rig.arm(one)
    assert {undone.word for undone in rig.revert(one)} == {"superseded"}
    kube.until(lambda: kube.snapshot() == before, "something is not as it was before")
    rig.mechanisms[word].apply(one)
    rig.revert(one)
    assert {undone.word for undone in rig.revert(one)} <= {"done", "superseded"}
    rig.seen(one, lambda effect: effect.gone)
    kube.until(lambda: kube.snapshot() == before, "something is not as it was before")


@pytest.mark.parametrize("name", SCENES)
def test_a_dry_run_changes_nothing_and_finds_nothing_wrong(name: str, kube: Kube, rig: Rig) -> None:
    word, scene = SCENES[name]
    one = injection(word, scene(kube))
    before = kube.snapshot()
    assert rig.mechanisms[word].dry_run(one) == ()
    kube.until(lambda: kube.snapshot() == before, "something is not as it was before")


@pytest.mark.parametrize("name", SCENES)
def test_it_does_with_the_rules_that_it_asks_for_and_uses_each_of_them(
    name: str, kube: Kube, rig: Rig, tmp_path: Path
) -> None:
    """That it uses them shows on the fake cluster alone, which tells who has asked for what."""
    word, scene = SCENES[name]
    suite = kube.namespace(drill=False)
    one = injection(word, scene(kube))
    needs = rig.mechanisms[word].needs(one)
    anchors = [Need("get", "", "configmaps", each, naming.ledger(rig.run)) for each in kube.namespaces]  # the run's own
    strictly(kube, manifests([*needs, *anchors], name=suite, suite=suite, account="drill", namespace=False))
    rig.asks = as_account(kube, suite, "drill", tmp_path, needs)
    sent = len(kube.fake.requests) if kube.fake else 0
    assert rig.mechanisms[word].dry_run(one) == ()
    rig.harm(one)
    rig.seen(one, lambda effect: effect.bit)
    rig.revert(one)
    rig.seen(one, lambda effect: effect.gone)
    rig.asks.close()
    if kube.fake is None:
        return
    made = [request for request in kube.fake.requests[sent:] if request.user.endswith(":drill")]
    # a quota refuses a dry run in the same way
    assert {request.path for request in made if request.status == 403 and not request.query.get("dryRun")} == set()
    used = {one for request in made for one in request.took()}
    assert {(need.verb, need.resource, need.subresource) for need in needs} - used == set()


def test_only_nodes_that_were_labelled_for_it_are_touched(kube: Kube) -> None:
    assert all(at(kube.read(f"/api/v1/nodes/{name}"), "metadata", "labels", NODE_LABEL) for name in kube.nodes())


def test_what_policy_forbids_is_seen_to_be_blocked_and_nothing_is_changed(kube: Kube, rig: Rig) -> None:
    namespace, _ = kube_scenes.served(kube)
    kube_scenes.runs(kube, namespace, "caller", ("sleep", "3600"))
    kube_scenes.enforcing(kube, namespace, "caller", "web")
    one = injection("segment", Segment(namespace, {"app": "caller"}, "web:80"))
    policy = kube.make(kube_scenes.denied(namespace, "web"))
    before = kube.snapshot()
    rig.harm(one)
    blocked = rig.seen(one, lambda effect: effect.bit)
    assert [value for _, _, value in blocked.readings] == [1.0]
    assert kube.snapshot() == before
    kube.do("DELETE", policy)
    open_ = rig.seen(one, lambda effect: "NOT blocked" in effect.detail)
    assert [value for _, _, value in open_.readings] == [0.0]
