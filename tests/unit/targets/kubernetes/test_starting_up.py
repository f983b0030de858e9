"""What a pod of ours has to be started for is in force once that pod runs, and its time counts from then."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from fake_cluster import FakeCluster
from kube_rig import Kube, Rig, injection
from kube_scenes import FLOOD, served, told
from shop_cluster import bound, shop, system_of, target_of
from stormdrill.model.mechanism import Beside, Toxic
from stormdrill.model.plan import Injection
from stormdrill.model.undo import KubeDelete
from stormdrill.targets.kubernetes.mechanism import Object, at
from stormdrill.targets.kubernetes.mechanisms import own_pod
from stormdrill.targets.kubernetes.mechanisms.swap import READY_S, Swapping
from stormdrill.targets.kubernetes.target import KubernetesTarget

TOXICS = {"delay", "stall", "trickle", "squeeze", "reset", "refuse", "cut"}
BY_PODS = {*TOXICS, "beside", "tell"}
SLOW_S, LONG_S = 1.0, 3600.0
LIMIT_S = 60.0
BURN = Beside("burn", ("--cores", "1"), cores=1)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[KubernetesTarget]:
    with FakeCluster(world=False) as made:
        shop(made)
        yield target_of(made, system_of(tmp_path), tmp_path)


def test_a_plan_knows_what_has_to_be_started_first_and_how_long_that_may_take(target: KubernetesTarget) -> None:
    assert {word for word, mechanism in target.mechanisms.items() if mechanism.starts_up} == BY_PODS
    for one in bound(target, "late-dependency", name="worker", delay="2s"):
        assert one.longest_s == one.for_s + one.inject_timeout_s
        assert one.inject_timeout_s == target.mechanisms["delay"].inject_timeout_s
    for one in bound(target, "region-loss", region="eu"):
        assert one.longest_s == one.for_s


def test_the_plan_says_aloud_from_when_such_a_fault_s_time_counts(target: KubernetesTarget) -> None:
    (said,) = [
        text
        for text in target.aloud(bound(target, "late-dependency", name="worker", delay="2s"))
        if "counts from when it is in force" in text
    ]
    limit_s = target.mechanisms["delay"].inject_timeout_s
    assert said.startswith(f"late-dependency: a pod of ours is started first, within {limit_s:g} s; ")
    assert "counts from" not in "".join(target.aloud(bound(target, "region-loss", region="eu")))


def phase(rig: Rig, one: Injection) -> object:
    undo = rig.mechanisms[one.mechanism].applied(one)[0].undo
    return at(rig.kube.read(undo.path), "status", "phase")


def slow(word: str, kube: Kube, fake: FakeCluster, takes_s: float) -> Injection:
    """One whose pod takes so long to run."""
    how = told(kube) if word == "tell" else {"burn": BURN, "flood": FLOOD}[word]
    if word != "tell":
        served(kube)
    fake.behaviour.kubelet.starts_s = takes_s
    return injection("tell" if word == "tell" else "beside", how, inject_timeout_s=LIMIT_S)


@pytest.mark.parametrize("word", ["burn", "flood", "tell"])
def test_the_call_is_answered_once_the_pod_runs(word: str, kube: Kube, fake: FakeCluster, rig: Rig) -> None:
    one = slow(word, kube, fake, SLOW_S)
    rig.harm(one)
    assert phase(rig, one) == "Running"
    rig.seen(one, lambda effect: effect.bit)


def test_a_pod_for_which_there_is_no_node_is_not_waited_for_long(
    kube: Kube, fake: FakeCluster, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_pod, "PLACED_S", 0.3)
    one = slow("burn", kube, fake, 0.0)
    for node in kube.all("/api/v1/nodes"):
        kube.patch(f"/api/v1/nodes/{at(node, 'metadata', 'name')}", {"spec": {"unschedulable": True}})
    rig.harm(one)
    assert phase(rig, one) == "Pending"
    assert not rig.mechanisms["beside"].observe(one).bit


def test_a_revert_does_not_wait_for_a_pod_that_is_on_its_way(kube: Kube, fake: FakeCluster, rig: Rig) -> None:
    one = slow("burn", kube, fake, LONG_S)
    call = threading.Thread(target=rig.harm, args=(one,))
    call.start()
    kube.until(lambda: one.id in rig.words and phase(rig, one) == "Pending", "its pod was never made")
    assert call.is_alive()
    rig.revert(one)
    call.join(10.0)
    assert not call.is_alive()
    rig.seen(one, lambda effect: effect.gone)


@pytest.mark.parametrize("word", ["burn", "tell"])
def test_what_ends_by_itself_does_so_no_sooner_than_its_time_from_when_it_is_in_force(
    word: str, kube: Kube, fake: FakeCluster, rig: Rig
) -> None:
    """Its pod's own deadline counts from when a node has taken it, before its image is there."""
    one = replace(slow(word, kube, fake, 0.0), starts_up=True)
    (change,) = rig.mechanisms[one.mechanism].changes(one)
    pod = json_of(change.body)
    assert int(str(at(pod, "spec", "activeDeadlineSeconds"))) >= one.longest_s


def test_so_does_the_proxy_s_toxic_whose_time_counts_from_when_the_proxy_begins(kube: Kube, rig: Rig) -> None:
    namespace, _ = served(kube)
    one = replace(injection("delay", Toxic((), "delay", delay_ms=300.0, service=f"{namespace}/web")), starts_up=True)
    swapping = rig.mechanisms["delay"]
    assert isinstance(swapping, Swapping)
    (proxy,) = [
        json_of(change.body)
        for change in swapping.changes(one)
        if isinstance(change.undo, KubeDelete) and "/pods/" in change.undo.path
    ]
    (config,) = [
        json_of(str(each["value"]))
        for each in at(proxy, "spec", "containers", "0", "env")
        if "toxics" in str(each)  # type: ignore[attr-defined]
    ]
    assert float(str(at(config, "toxics", one.id, "expires_in_s"))) >= one.for_s + READY_S


def json_of(text: str) -> Object:
    found: Object = json.loads(text)
    return found
