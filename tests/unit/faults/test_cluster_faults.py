"""quota-exhaustion and segmentation: what is limited and what is tried, as data; what other targets say."""

from __future__ import annotations

import pytest

from stormdrill.errors import Refused
from stormdrill.faults.builtin import BUILTIN
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import Quota, Segment
from stormdrill.model.plan import Injection
from stormdrill.model.system import KubernetesSpec, ServiceInstance, System
from stormdrill.ports import Instance, Workload, World
from stormdrill.targets.portable.elsewhere import ON_CLUSTERS


def world(*clusters: str) -> World:
    """A region a cluster, or both regions in one; `web` twice, `feed` once."""
    names = [("web-eu", "web", "eu"), ("web-us", "web", "us"), ("feed", "feed", "eu")]
    instances = tuple(
        ServiceInstance(name, service, (), {"region": region}, select={"app": service})
        for name, service, region in names
    )
    workloads = tuple(
        Workload(f"deployments/{name}", "shop", (name,), 1, ("main",), {"app": service}, region)
        for name, service, region in names
        if region in clusters
    )
    system = System("shop", "web", instances, kubernetes=KubernetesSpec("shop"), target="kubernetes")
    found = tuple(Instance(one.name, one.service, one.labels) for one in instances)
    return World(system, found, workloads=workloads)


def planned(word: str, where: World, **parameters: str) -> tuple[Injection, ...]:
    return BUILTIN[word].plan(FaultUse(word, parameters), 0, where, 20.0)


def test_a_quota_is_held_at_what_is_used_and_is_the_whole_namespace() -> None:
    (one,) = planned("quota-exhaustion", world(), resource="pods, requests.cpu", service="web")
    assert (one.id, one.mechanism, one.switches) == ("quota-exhaustion/shop", "quota", ("quota of shop",))
    assert one.how == Quota("shop", {"pods": "", "requests.cpu": ""}, ("web-eu", "web-us"))


def test_without_a_choice_everybody_counts_as_hit_and_each_cluster_has_a_quota_of_its_own() -> None:
    eu, us = planned("quota-exhaustion", world("eu", "us"))
    assert [(one.id, one.instance) for one in (eu, us)] == [
        ("quota-exhaustion/eu.shop", "web-eu"),
        ("quota-exhaustion/us.shop", "web-us"),
    ]
    assert eu.how == Quota("shop", {"pods": ""}, ("web-eu", "feed"), "eu")


def test_what_is_tried_is_tried_from_each_kind_of_pods_once() -> None:
    (one,) = planned("segmentation", world(), **{"from": "web", "to": "feed:8080"})
    assert (one.id, one.mechanism, one.switches) == ("segmentation/web-eu-feed-8080", "segment", ())
    assert one.how == Segment("shop", {"app": "web"}, "feed:8080", "", ("web-eu", "web-us"))


@pytest.mark.parametrize(
    ("word", "parameters", "said"),
    [
        ("segmentation", {"from": "web", "to": "feed"}, "write HOST:PORT"),
        ("segmentation", {"from": "web", "to": "feed:8080", "allowed": "nowhere"}, "allowed is 'nowhere'"),
        ("segmentation", {"from": "nobody", "to": "feed:8080"}, "services here: web, feed"),
        ("quota-exhaustion", {"resource": ","}, "resource is empty"),
        ("quota-exhaustion", {"service": "nobody"}, "no instance has service=nobody"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_what_to_write(word: str, parameters: dict[str, str], said: str) -> None:
    with pytest.raises(Refused, match=said):
        planned(word, world(), **parameters)


@pytest.mark.parametrize("word", ["quota", "segment"])
def test_other_targets_refuse_and_say_where_it_is_done(word: str) -> None:
    (one,) = planned("quota-exhaustion", world(), service="feed")
    assert "--target kubernetes" in ON_CLUSTERS[word].refusal(one)
