"""Capacity: what nodes advertise is taken away, and only what stays away has bitten."""

from __future__ import annotations

import pytest

from fake_cluster import FakeCluster, scenes
from kube_rig import SLEEPS, Kube, Rig, injection
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Capacity
from stormdrill.model.plan import Injection
from stormdrill.targets.kubernetes.mechanism import Object, at
from stormdrill.targets.kubernetes.mechanisms import capacity

GPU = "nvidia.com/gpu"
NODE = "/api/v1/nodes/gpu-1"


@pytest.fixture(autouse=True)
def gpus(fake: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes with four each; nobody there writes a node's status every ten seconds."""
    monkeypatch.setattr(capacity, "STICKS_S", 0.4)
    fake.apply([scenes.node(f"gpu-{number}", "eu", "gpu", gpus=4) for number in (1, 2)])


ZEROED = injection("capacity", Capacity(("gpu-1",), GPU))


def moved(plugin: str, *nodes: str) -> Injection:
    return injection("capacity", Capacity(nodes or ("gpu-1", "gpu-2"), GPU, plugin))


def advertised(kube: Kube, where: str = "allocatable") -> object:
    return at(kube.read(NODE), "status", where, GPU)


def advertise(kube: Kube, count: str, node: str = NODE) -> None:
    """As the node's kubelet does by what a device plugin tells it."""
    kube.patch(f"{node}/status", {"status": {"capacity": {GPU: count}, "allocatable": {GPU: count}}})


def plugin_of(kube: Kube, namespace: str) -> str:
    """A DaemonSet on the nodes with GPUs, as the mechanism's `plugin` names it."""
    labels = {"app": "plugin"}
    pod: Object = {**kube.pod(SLEEPS), "nodeSelector": {"pool": "gpu"}}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    metadata = {"name": "plugin", "namespace": namespace}
    path = kube.make({"kind": "DaemonSet", "apiVersion": "apps/v1", "metadata": metadata, "spec": spec})
    kube.until(lambda: at(kube.read(path), "status", "numberReady") == 2, "it never ran on both")
    return f"{namespace}/plugin"


def test_both_numbers_are_0_and_come_back(kube: Kube, rig: Rig) -> None:
    rig.harm(ZEROED)
    assert (advertised(kube), advertised(kube, "capacity")) == ("0", "0")
    rig.seen(ZEROED, lambda effect: effect.bit)
    rig.revert(ZEROED)
    rig.seen(ZEROED, lambda effect: effect.gone)
    assert (advertised(kube), advertised(kube, "capacity")) == ("4", "4")
    assert rig.marked(NODE) == []


def test_it_has_bitten_only_once_a_kubelet_could_have_written_its_own(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "STICKS_S", 60.0)
    rig.harm(ZEROED)
    looked = rig.mechanisms["capacity"].observe(ZEROED)
    assert (looked.bit, looked.gone) == (False, False)
    assert "whether it sticks is seen 60 s after it was set" in looked.detail


def test_what_a_device_plugin_overwrites_has_not_bitten_and_that_is_said(kube: Kube, rig: Rig) -> None:
    rig.harm(ZEROED)
    advertise(kube, "4")
    looked = rig.seen(ZEROED, lambda effect: "did not stick" in effect.detail)
    assert looked.detail == f"gpu-1 advertises 4 of {GPU} again: a device plugin overwrote it, and it did not stick"
    assert not looked.bit
    rig.revert(ZEROED)
    rig.seen(ZEROED, lambda effect: effect.gone)
    assert advertised(kube) == "4"


def test_another_number_that_somebody_wrote_stays(kube: Kube, rig: Rig) -> None:
    rig.harm(ZEROED)
    advertise(kube, "8")
    rig.revert(ZEROED)
    rig.seen(ZEROED, lambda effect: effect.gone)
    assert advertised(kube) == "8"
    assert rig.marked(NODE) == []


def test_a_node_that_advertises_none_is_not_armed(kube: Kube, rig: Rig) -> None:
    kube.nodes()
    with pytest.raises(Unreachable, match=f"nodes/test-1 advertises no {GPU}: nothing would be taken away"):
        rig.mechanisms["capacity"].undo(injection("capacity", Capacity(("test-1",), GPU)))


def test_pods_that_have_devices_keep_them_and_the_plan_says_so(rig: Rig) -> None:
    assert f"pods that have {GPU} on gpu-1 keep it: new ones find none" in rig.mechanisms["capacity"].notes(ZEROED)


def test_a_device_plugin_is_moved_away_and_comes_back(kube: Kube, rig: Rig) -> None:
    namespace = kube.namespace()
    one = moved(plugin_of(kube, namespace))
    path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/plugin"
    rig.harm(one)
    kube.until(lambda: not kube.all(f"/api/v1/namespaces/{namespace}/pods"), "its pods never went")
    assert not rig.mechanisms["capacity"].observe(one).bit, "the nodes still advertise what they did"
    for node in ("gpu-1", "gpu-2"):
        advertise(kube, "0", f"/api/v1/nodes/{node}")
    assert rig.seen(one, lambda effect: effect.bit).witness == "the nodes' kubelets"
    rig.revert(one)
    rig.seen(one, lambda effect: effect.gone)
    assert at(kube.read(path), "spec", "template", "spec", "nodeSelector") == {"pool": "gpu"}
    kube.until(lambda: at(kube.read(path), "status", "numberReady") == 2, "it never came back")


def test_a_selector_that_somebody_else_adds_to_the_plugin_stays(kube: Kube, rig: Rig) -> None:
    namespace = kube.namespace()
    one = moved(plugin_of(kube, namespace))
    path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/plugin"
    rig.harm(one)
    kube.patch(path, {"spec": {"template": {"spec": {"nodeSelector": {"driver": "ready"}}}}})
    rig.revert(one)
    rig.seen(one, lambda effect: effect.gone)
    assert at(kube.read(path), "spec", "template", "spec", "nodeSelector") == {"driver": "ready", "pool": "gpu"}


def test_a_plugin_goes_from_all_its_nodes_or_is_refused(kube: Kube, rig: Rig) -> None:
    plugin = plugin_of(kube, kube.namespace())
    why = rig.mechanisms["capacity"].refusal(moved(plugin, "gpu-1"))
    assert f"would take {GPU} from gpu-2 too; choose those as well" in why
    assert not rig.mechanisms["capacity"].refusal(moved(plugin))


def test_a_plugin_that_may_not_be_drilled_is_refused(kube: Kube, rig: Rig) -> None:
    closed = kube.namespace(drill=False)
    plugin_of(kube, closed)
    for plugin, said in (
        ("kube-system/plugin", "namespace kube-system is the cluster's own, which no drill may touch"),
        (f"{rig.suite}/plugin", f"namespace {rig.suite} is the suite's own, which no drill may touch"),
        (f"{closed}/plugin", "label it stormdrill.dev/drill=allowed"),
        ("plugin", "is no NAMESPACE/NAME of a DaemonSet"),
        (f"{kube.namespace()}/absent", "is no DaemonSet here"),
    ):
        assert said in rig.mechanisms["capacity"].refusal(moved(plugin))
