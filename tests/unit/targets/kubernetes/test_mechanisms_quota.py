"""A namespace that may have no more than it has: counted as a quota counts, and believed only on a refusal by name."""

from __future__ import annotations

import pytest

from kube_rig import Kube, Rig, injection
from kube_scenes import runs
from stormdrill.model.mechanism import Quota
from stormdrill.targets.kubernetes.mechanism import Object, at
from stormdrill.targets.kubernetes.quantity import amount, megabytes, of_pod, shown, used


def container(cpu: str, **more: object) -> Object:
    return {"resources": {"requests": {"cpu": cpu}}, **more}


@pytest.mark.parametrize(
    ("written", "said"),
    [("500m", "500m"), ("1", "1"), ("1.5", "1500m"), ("128Mi", "134217728"), ("2e3", "2000"), ("1u", "1m")],
)
def test_amounts_are_read_and_written_exactly_and_never_less(written: str, said: str) -> None:
    assert shown(amount(written)) == said


def test_what_is_no_amount_is_refused() -> None:
    with pytest.raises(ValueError, match="write for instance"):
        amount("lots")
    assert (megabytes("256Mi"), megabytes(""), megabytes("lots")) == (256.0, 0.0, 0.0)


def test_a_pod_counts_with_the_most_that_it_needs_at_once() -> None:
    """Initial containers run before the others, those that go on beside them; its overhead comes on top."""
    spec = {
        "initContainers": [container("3"), container("500m", restartPolicy="Always"), container("1")],
        "containers": [container("1"), container("1")],
        "overhead": {"cpu": "100m"},
    }
    assert shown(of_pod({"spec": spec}, "requests", "cpu")) == "3100m"
    spec["initContainers"] = spec["initContainers"][1:]  # type: ignore[index]  # the list above
    assert shown(of_pod({"spec": spec}, "requests", "cpu")) == "2600m"


def test_pods_that_have_ended_use_nothing() -> None:
    pods = [{"status": {"phase": phase}} for phase in ("Running", "Pending", "Succeeded", "Failed")]
    assert used(pods, "pods") == 2


@pytest.mark.parametrize(
    ("hard", "said"),
    [
        ({}, "write resource: pods"),
        ({"secrets": ""}, "not known here"),
        ({"pods": "many"}, "no amount"),
        ({"requests.nvidia.com/gpu": ""}, ""),
    ],
)
def test_what_can_not_be_limited_is_refused(kube: Kube, rig: Rig, hard: dict[str, str], said: str) -> None:
    found = rig.mechanisms["quota"].refusal(injection("quota", Quota("shop", hard)))
    assert said in found
    assert bool(found) == bool(said)


def test_a_quota_with_room_left_has_not_bitten(kube: Kube, rig: Rig) -> None:
    namespace = kube.namespace()
    one = injection("quota", Quota(namespace, {"pods": "5"}))
    rig.harm(one)
    rig.seen(one, lambda effect: "room left" in effect.detail)
    assert not rig.mechanisms["quota"].observe(one).bit


def test_a_refusal_by_somebody_else_s_quota_is_not_taken_for_ours(kube: Kube, rig: Rig) -> None:
    namespace = kube.namespace()
    runs(kube, namespace, "web", ("sleep", "600"))
    spec = {"hard": {"limits.cpu": "0"}}  # looked at before ours
    kube.make(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "another", "namespace": namespace},
            "spec": spec,
        }
    )
    one = injection("quota", Quota(namespace, {"pods": ""}))
    before = kube.snapshot()
    rig.harm(one)
    rig.seen(one, lambda effect: "by something else" in effect.detail or effect.bit)
    assert not rig.mechanisms["quota"].observe(one).bit
    rig.revert(one)
    rig.seen(one, lambda effect: effect.gone)
    kube.until(lambda: kube.snapshot() == before, "something is not as it was before")


def test_a_pod_that_ends_may_be_replaced_and_one_more_may_not(kube: Kube, rig: Rig) -> None:
    namespace = kube.namespace()
    path = kube.deployment(namespace, replicas=2)
    one = injection("quota", Quota(namespace, {"pods": ""}))
    rig.harm(one)
    rig.seen(one, lambda effect: effect.bit)
    gone = at(kube.all(f"/api/v1/namespaces/{namespace}/pods")[0], "metadata", "name")
    kube.do("DELETE", f"/api/v1/namespaces/{namespace}/pods/{gone}")
    pods = f"/api/v1/namespaces/{namespace}/pods"
    names = lambda: [at(pod, "metadata", "name") for pod in kube.all(pods)]  # noqa: E731
    kube.until(lambda: gone not in names() and kube.ready(path) == 2, "it was never replaced")
    kube.patch(path, {"spec": {"replicas": 3}})
    kube.until(lambda: at(kube.read(path), "status", "replicas") is not None, "its controller never looked")
    assert len(names()) == 2
    rig.revert(one)
