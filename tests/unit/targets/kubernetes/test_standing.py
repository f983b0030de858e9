"""Whether a fault is still in force is seen on what it changed, and not on its marker, which stays for the undo."""

from __future__ import annotations

import pytest

from kube_rig import Kube, Rig, injection
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import How, Isolate, Nodes, Quota, Rollout, Scale
from stormdrill.model.plan import Injection
from stormdrill.ports import Stood
from stormdrill.targets.kubernetes.mechanism import Object, at
from stormdrill.targets.kubernetes.standing import standing

NODE = "/api/v1/nodes/test-1"
MERGE = "application/merge-patch+json"


@pytest.fixture(autouse=True)
def node(kube: Kube) -> None:
    """test-1, which faults may take."""
    kube.nodes()


def stands(rig: Rig, one: Injection) -> Stood:
    found = standing(rig.mechanisms[one.mechanism], one)
    assert found is not None
    return found


def patch(kube: Kube, path: str, body: Object) -> None:
    answer = kube.api.call("PATCH", path, body, content_type=MERGE)
    assert answer.good, answer.said


def scaled(kube: Kube) -> tuple[Injection, str, Object]:
    path = kube.deployment(kube.namespace(), replicas=3)
    one = injection("scale", Scale("deployments/web", path.split("/")[5], 2))
    return one, path, {"spec": {"replicas": 3}}


def released(kube: Kube) -> tuple[Injection, str, Object]:
    path = kube.deployment(kube.namespace(), replicas=1)
    one = injection("rollout", Rollout("deployments/web", path.split("/")[5], "", unready=True))
    return one, path, {"spec": {"template": {"spec": {"readinessGates": None}}}}


@pytest.mark.parametrize("made", [scaled, released])
def test_what_a_person_puts_back_is_gone_though_the_marker_is_there(kube: Kube, rig: Rig, made: object) -> None:
    one, path, back = made(kube)  # type: ignore[operator]
    rig.harm(one)
    assert stands(rig, one) == Stood(False, "", "the API server")
    patch(kube, path, back)
    found = stands(rig, one)
    assert found.gone
    assert "deployments/web: " in found.changed
    assert rig.marked(path)
    rig.revert(one)


def test_a_node_that_is_only_uncordoned_is_changed_and_not_given_back(kube: Kube, rig: Rig) -> None:
    one = injection("nodes", Nodes(("test-1",), "taint"))
    rig.harm(one)
    assert not stands(rig, one).changed
    patch(kube, NODE, {"spec": {"unschedulable": None}})
    assert stands(rig, one) == Stood(False, "nodes/test-1: spec.unschedulable is absent", "the API server")
    patch(kube, NODE, {"spec": {"taints": None}})
    assert stands(rig, one).gone
    rig.revert(one)


@pytest.mark.parametrize(
    "how",
    [lambda place: Quota(place, {"pods": "2"}), lambda place: Isolate(place, {"app": "web"})],
)
def test_what_a_fault_made_is_gone_when_somebody_removes_it(kube: Kube, rig: Rig, how: object) -> None:
    place = kube.namespace()
    kube.deployment(place)
    asked: How = how(place)  # type: ignore[operator]
    one = injection("quota" if isinstance(asked, Quota) else "isolate", asked)
    rig.harm(one)
    assert not stands(rig, one).gone
    path = rig.words[one.id][0].path  # type: ignore[union-attr]  # it was created
    kube.api.call("DELETE", path)
    assert stands(rig, one).gone
    rig.revert(one)


def test_an_object_that_was_removed_is_harmed_still(kube: Kube, rig: Rig) -> None:
    one, path, _ = scaled(kube)
    rig.harm(one)
    kube.api.call("DELETE", path)
    kube.until(lambda: kube.read(path) is None, "it was never removed")
    found = stands(rig, one)
    assert (found.gone, at(kube.read(path), "kind")) == (False, None)
    assert "is there no more" in found.changed


def test_where_the_server_does_not_answer_nothing_is_said(kube: Kube, rig: Rig) -> None:
    one, path, back = scaled(kube)
    rig.harm(one)
    patch(kube, path, back)
    assert kube.fake is not None
    with kube.fake.outage(), pytest.raises(Unreachable):
        stands(rig, one)
    rig.revert(one)


def test_only_what_never_ends_by_itself_can_be_told_of(rig: Rig) -> None:
    """A program that has ended, a container that the kernel has killed: nobody took that away."""
    told = {word for word, one in rig.mechanisms.items() if getattr(one, "stands", False)}
    assert not told & {"crash", "freeze", "pressure", "cpu-limit", "beside", "tell", "segment", "device"}
    assert told >= {"nodes", "scale", "isolate", "rollout", "capacity", "quota", "delay"}


@pytest.mark.parametrize("made", [scaled, released])
def test_the_undo_of_what_a_person_has_put_back_says_so(kube: Kube, rig: Rig, made: object) -> None:
    one, path, back = made(kube)  # type: ignore[operator]
    rig.harm(one)
    patch(kube, path, back)
    (undone,) = rig.revert(one)
    assert undone.word == "superseded"
    assert f"{path}: put back by somebody else before: spec." in undone.detail
    (again,) = rig.revert(one)
    assert (again.word, again.detail) == ("superseded", f"{path} is as it was before")


def test_the_undo_of_what_a_person_has_put_back_in_part_tells_both(kube: Kube, rig: Rig) -> None:
    one = injection("nodes", Nodes(("test-1",), "taint"))
    rig.harm(one)
    patch(kube, NODE, {"spec": {"unschedulable": None}})
    (undone,) = rig.revert(one)
    assert undone.word == "done"
    assert undone.detail.startswith(f"{NODE}: put back: ")
    assert undone.detail.endswith("spec.taints; put back by somebody else before: spec.unschedulable")


def test_what_only_the_undo_has_put_back_names_nobody_else(kube: Kube, rig: Rig) -> None:
    one, _, _ = scaled(kube)
    rig.harm(one)
    (undone,) = rig.revert(one)
    assert (undone.word, "somebody" in undone.detail) == ("done", False)
