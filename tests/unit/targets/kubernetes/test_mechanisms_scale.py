"""Scale: pods are taken away by the workload's own number, and whoever changes it meanwhile keeps their value."""

from __future__ import annotations

import pytest

from fake_cluster import FakeCluster
from kube_rig import Kube, Rig, injection
from stormdrill.cluster.changes import NotApplied
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Scale
from stormdrill.model.plan import Injection
from stormdrill.targets.kubernetes.mechanism import Object, at


@pytest.fixture
def web(kube: Kube) -> str:
    """A Deployment of three pods that run. Its path."""
    return kube.deployment(kube.namespace(), replicas=3)


def away(path: str, count: int) -> Injection:
    parts = path.split("/")
    return injection("scale", Scale("/".join(parts[-2:]), parts[5], count))


def autoscaler(kube: Kube, path: str, **labels: str) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    metadata = {"name": "web", "namespace": path.split("/")[5], "labels": labels}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 5}
    kube.make({"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2", "metadata": metadata, "spec": spec})


def replicas(kube: Kube, path: str) -> object:
    return at(kube.read(path), "spec", "replicas")


@pytest.mark.parametrize("count", [1, 3])
def test_so_many_are_away_and_come_back(count: int, kube: Kube, rig: Rig, web: str) -> None:
    rig.harm(away(web, count))
    assert rig.seen(away(web, count), lambda effect: effect.bit).witness.startswith("the controller of ")
    kube.until(lambda: kube.ready(web) == 3 - count, "so many never went")
    rig.revert(away(web, count))
    rig.seen(away(web, count), lambda effect: effect.gone)
    kube.until(lambda: kube.ready(web) == 3, "they never came back")
    assert rig.marked(web) == []


def test_number_and_marker_come_in_one_patch_of_the_workload_itself(fake: FakeCluster, rig: Rig, web: str) -> None:
    sent = len(fake.requests)
    rig.harm(away(web, 3))
    (patch,) = [one for one in fake.requests[sent:] if one.method == "PATCH"]
    assert patch.path == web, "a Scale leaves the number out where it is 0"
    changed = {item["path"]: item["value"] for item in patch.read() if item["op"] != "test"}
    assert changed["/spec/replicas"] == 0
    assert any(path.startswith("/metadata/annotations") for path in changed)


def test_the_answer_of_the_patch_is_no_witness(fake: FakeCluster, rig: Rig, web: str) -> None:
    fake.behaviour.loop.pause(True)
    rig.harm(away(web, 2))
    looked = rig.mechanisms["scale"].observe(away(web, 2))
    assert (looked.bit, looked.gone) == (False, False)
    fake.behaviour.loop.pause(False)
    rig.seen(away(web, 2), lambda effect: effect.bit)


@pytest.mark.parametrize("value", [5, 2])
def test_whoever_scales_meanwhile_keeps_their_value(value: int, kube: Kube, rig: Rig, web: str) -> None:
    rig.harm(away(web, 3))
    kube.patch(web, {"spec": {"replicas": value}})
    (undone,) = rig.revert(away(web, 3))
    assert undone.word == "superseded"
    gone = rig.seen(away(web, 3), lambda effect: effect.gone)
    assert f"spec.replicas is {value} on " in gone.detail
    assert "as somebody else left it" in gone.detail
    assert replicas(kube, web) == value
    assert rig.marked(web) == []


def test_whoever_changed_it_before_the_patch_is_not_overwritten(kube: Kube, rig: Rig, web: str) -> None:
    rig.arm(away(web, 3))
    kube.patch(web, {"spec": {"replicas": 4}})
    with pytest.raises(NotApplied, match=r"spec.replicas is 4: not as it was planned"):
        rig.mechanisms["scale"].apply(away(web, 3))
    assert replicas(kube, web) == 4
    assert rig.mechanisms["scale"].observe(away(web, 3)).gone


@pytest.mark.parametrize("what", ["409", "429", "500", "503", "drop-before", "drop-after"])
def test_a_patch_that_met_trouble_is_made_once(what: str, kube: Kube, fake: FakeCluster, rig: Rig, web: str) -> None:
    if what == "409":  # somebody writes in between: the version that was read is old
        fake.at(1, lambda _: fake.apply({**(fake.read(web) or {})}), when="before")
    else:
        fake.trouble(("PATCH", "/deployments/web"), what)
    rig.harm(away(web, 2))
    assert replicas(kube, web) == 1
    rig.seen(away(web, 2), lambda effect: effect.bit)
    rig.revert(away(web, 2))
    assert replicas(kube, web) == 3


def test_one_that_is_deleted_or_made_anew_is_nobodys_to_undo(kube: Kube, rig: Rig, web: str) -> None:
    rig.harm(away(web, 3))
    kube.do("DELETE", web)
    kube.until(lambda: kube.read(web) is None, "it was never gone")
    assert rig.seen(away(web, 3), lambda effect: effect.gone)
    kube.deployment(web.split("/")[5], replicas=2)
    assert {undone.word for undone in rig.revert(away(web, 3))} == {"superseded"}
    assert rig.mechanisms["scale"].observe(away(web, 3)).gone
    assert replicas(kube, web) == 2


def test_one_that_is_not_there_by_now_is_not_armed(kube: Kube, rig: Rig, web: str) -> None:
    kube.do("DELETE", web)
    kube.until(lambda: kube.read(web) is None, "it was never gone")
    with pytest.raises(Unreachable, match="deployments/web is not there: nothing was changed"):
        rig.mechanisms["scale"].undo(away(web, 1))


def test_an_autoscaler_would_give_the_pods_back_unless_all_are_taken(kube: Kube, rig: Rig, web: str) -> None:
    autoscaler(kube, web)
    why = rig.mechanisms["scale"].refusal(away(web, 1))
    assert "the HorizontalPodAutoscaler web would give" in why
    assert "take all 3 away (it pauses at 0)" in why
    assert not rig.mechanisms["scale"].refusal(away(web, 3))
    assert any("pauses while" in note for note in rig.mechanisms["scale"].notes(away(web, 3)))


def test_a_plan_says_what_takes_the_marker_away(rig: Rig, web: str) -> None:
    (note,) = rig.mechanisms["scale"].notes(away(web, 1))
    assert "`kubectl rollout undo` of" in note


def test_what_keda_scales_is_refused_at_0_too(kube: Kube, rig: Rig, web: str) -> None:
    autoscaler(kube, web, **{"scaledobject.keda.sh/name": "web"})
    assert "KEDA scales" in rig.mechanisms["scale"].refusal(away(web, 3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"away": 4}, "has 3 replicas, and 4 can't be taken away; take 1 to 3"),
        ({"away": 0}, "take 1 to 3"),
        ({"workload": "deployments/absent"}, "is not there; name one that is"),
        ({"workload": "daemonsets/web"}, "can't be scaled; deployments/NAME and statefulsets/NAME can"),
    ],
)
def test_what_can_not_be_done_is_refused_with_what_can(change: Object, said: str, rig: Rig, web: str) -> None:
    asked = {"workload": "deployments/web", "namespace": web.split("/")[5], "away": 1, **change}
    assert said in rig.mechanisms["scale"].refusal(injection("scale", Scale(**asked)))  # type: ignore[arg-type]
