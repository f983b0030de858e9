"""Instances as names of pods: which pod is which, and what becomes of the name when the pod goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from fake_cluster import FakeCluster, scenes
from shop_cluster import SYSTEM, deployment, pod, shop, system_of, target_of
from stormdrill.errors import Refused
from stormdrill.model.event import Event, PodBound
from stormdrill.model.system import KubernetesSpec, ServiceInstance, System
from stormdrill.ports import Keeper
from stormdrill.targets.kubernetes.objects import Meta, Owner, Pod, PodStatus
from stormdrill.targets.kubernetes.slots import Slots


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(world=False) as made:
        shop(made)
        yield made


def a_pod(name: str, *, at: str = "2026-01-01T00:00:00Z", maker: str = "web", **labels: str) -> Pod:
    owner = Owner("ReplicaSet", f"{maker}-abc", "u", True)
    meta = Meta(name, "shop", f"uid-{name}", {"app": "web", "pod-template-hash": "abc", **labels}, at, None, (owner,))
    return Pod(metadata=meta, status=PodStatus("Running"))


def ending(one: Pod) -> Pod:
    meta = msgspec.structs.replace(one.metadata, deletion_timestamp="2026-01-01T00:01:00Z")
    return msgspec.structs.replace(one, metadata=meta)


def filled(*pods: Pod, cluster: str = "") -> Slots:
    web = ServiceInstance("web", "web", (), select={"app": "web"})
    slots = Slots(System("shop", "web", (web,), labels=("role", "region")), KubernetesSpec("shop"))
    assert list(slots.fill({cluster: pods}, {cluster: {}})) == []
    return slots


def test_a_service_with_several_pods_has_numbered_instances_in_the_order_in_which_they_were_made() -> None:
    late, early = a_pod("a", at="2026-01-01T00:00:09Z"), a_pod("b", at="2026-01-01T00:00:01Z")
    slots = filled(late, early, a_pod("c", at="2026-01-01T00:00:09Z"))
    assert {one.instance.name: one.pod.metadata.name for one in slots.all()} == {
        "web-1": "b",
        "web-2": "a",
        "web-3": "c",
    }


def test_one_pod_alone_bears_the_name_of_its_service() -> None:
    assert [one.name for one in filled(a_pod("a")).instances] == ["web"]


def test_who_ends_or_has_ended_is_nobody() -> None:
    ended = msgspec.structs.replace(a_pod("c"), status=PodStatus("Failed"))
    assert [one.instance.name for one in filled(a_pod("a"), ending(a_pod("b")), ended).all()] == ["web"]


def test_the_name_goes_over_to_the_pod_that_came_for_the_one_that_went() -> None:
    one, two = a_pod("a"), a_pod("b", at="2026-01-01T00:00:01Z")
    slots = filled(one, two)
    new = a_pod("c", at="2026-01-01T00:05:00Z")
    assert slots.look("", [ending(one), two]) == ()
    assert slots.bound("web-1") is None
    (event,) = slots.look("", [two, new])
    assert event == PodBound("web-1", "web", "", "shop", "c", "uid-c", "", "uid-a")
    assert (slots.of("web-1").uid, slots.of("web-2").uid) == ("uid-c", "uid-b")
    assert slots.look("", [two, new]) == ()  # said once


def test_a_pod_that_comes_besides_takes_no_name_from_one_that_is_there() -> None:
    slots = filled(a_pod("a"))
    assert slots.look("", [a_pod("a"), a_pod("b")]) == ()
    assert slots.of("web").uid == "uid-a"


def test_of_several_that_came_each_takes_the_place_of_its_own_workload_s() -> None:
    slots = filled(a_pod("a", maker="blue"), a_pod("b", maker="green", at="2026-01-01T00:00:01Z"))
    late = "2026-01-01T00:05:00Z"
    events = slots.look("", [a_pod("y", maker="green", at=late), a_pod("z", maker="blue", at=late)])
    assert {one.instance: one.pod for one in events} == {"web-1": "z", "web-2": "y"}


def test_an_instance_carries_what_its_pod_the_file_and_its_node_say(cluster: FakeCluster, tmp_path: Path) -> None:
    target = target_of(cluster, system_of(tmp_path), tmp_path)
    known = {one.name: one for one in target.world().instances}
    assert list(known) == ["web-1", "web-2", "worker-eu-1", "worker-eu-2", "worker-us-1", "worker-us-2"]
    assert known["web-1"].labels == {"team": "shopping", "role": "front", "region": "eu", "node": "eu-1"}
    assert known["worker-us-1"].labels == {"region": "us", "node": "us-2"}
    made = {one.name: one for one in target.world().system.instances}
    assert made["web-1"].memory_mb == 64.0
    assert made["web-1"].image.startswith("pod:/shop/web-abc-1/")  # so that the plan's digest speaks of it


def test_in_several_clusters_the_region_is_the_cluster_s_name(tmp_path: Path) -> None:
    with FakeCluster(world=False) as eu, FakeCluster(world=False) as us:
        shop(eu)
        shop(us)
        system = system_of(tmp_path, SYSTEM, contexts="{eu: one, us: two}")
        target = target_of(eu, system, tmp_path)
        target.clusters._connect = lambda context: eu.admin if context == "one" else us.admin
        slots = {one.name: one for one in target.world().instances}
    assert slots["worker-eu-1"].labels["region"] == "eu"
    assert [one for one in slots if one.startswith("web")] == ["web-1", "web-2", "web-3", "web-4"]
    assert {slots[f"web-{number}"].labels["region"] for number in range(1, 5)} == {"eu", "us"}


def test_what_is_not_there_and_what_is_meant_twice_is_told_at_once(cluster: FakeCluster, tmp_path: Path) -> None:
    text = SYSTEM.replace("    worker:", "    none: {port: 1}\n    again: {select: {app: web}}\n    worker:")
    with pytest.raises(Refused) as caught:
        target_of(cluster, system_of(tmp_path, text), tmp_path).world()
    told = str(caught.value)
    assert "no pod of namespace shop is none: labels app=none; start it, or say with select" in told
    assert "pod web-abc-1 is web and again: the labels of both select it; tell them apart by another label" in told


def test_a_planned_run_finds_the_pods_of_its_plan_or_those_that_came_for_them(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    planned = target_of(cluster, system_of(tmp_path), tmp_path).world().system
    assert [one.name for one in target_of(cluster, planned, tmp_path).world().instances] == [
        one.name for one in planned.instances
    ]
    assert cluster.registry.end("pods", "shop", "web-abc-1", grace=0)
    cluster.apply(pod("web", "us-1", {"app": "web"}, 30))
    again = target_of(cluster, planned, tmp_path)
    again.world()
    bound = again._view.slots.bound("web-1")
    assert bound is not None
    assert bound.pod == "web-abc-30"


def test_a_planned_pod_for_which_no_other_came_is_refused(cluster: FakeCluster, tmp_path: Path) -> None:
    planned = target_of(cluster, system_of(tmp_path), tmp_path).world().system
    assert cluster.registry.end("pods", "shop", "web-abc-1", grace=0)
    with pytest.raises(Refused, match="web-1 was planned for pod web-abc-1, which is there no more"):
        target_of(cluster, planned, tmp_path).world()


class Notes:
    """A keeper that only remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Event] = []

    def record(self, event: Event, mono_ms: float | None = None) -> int:
        self.told.append(event)
        return len(self.told)


def test_what_a_controller_makes_for_an_evicted_pod_is_the_same_instance(tmp_path: Path) -> None:
    """With controllers and a scheduler that act by themselves; the journal tells who it is from now on."""
    with FakeCluster() as cluster:
        cluster.apply([scenes.namespace("shop"), scenes.node("eu-1", "eu"), scenes.node("us-1", "us")])
        for region in ("eu", "us"):
            cluster.apply(deployment(f"worker-{region}", {"app": "worker", "region": region}, 1))
        cluster.apply(deployment("web", {"app": "web"}, 2))
        cluster.settle()
        target, notes = target_of(cluster, system_of(tmp_path), tmp_path), Notes()
        target.world()
        target._keeper = cast("Keeper", notes)
        before = target._view.slots.bound("web-1")
        assert before is not None
        assert cluster.registry.end("pods", "shop", before.pod, grace=0)
        cluster.settle()
        target.look()
        (event,) = notes.told
        assert isinstance(event, PodBound)
        assert (event.instance, event.instead_of) == ("web-1", before.uid)
        assert event.uid != before.uid
        assert event.node in ("eu-1", "us-1")
