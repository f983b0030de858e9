"""Cores that are burnt and devices that are given out no more are held to what lost nodes are: none that runs the
cluster, nobody who did not opt in, when it is planned and again when it is armed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fake_cluster import FakeCluster, scenes
from shop_cluster import Object, bound, daemon, pod, shop, system_of, target_of
from stormdrill.cluster.hold import Hold
from stormdrill.errors import Refused, Unreachable
from stormdrill.model.plan import Injection
from stormdrill.targets.kubernetes.drilling import Drilling
from stormdrill.targets.kubernetes.target import KubernetesTarget

GPU = "nvidia.com/gpu"
WORDS = {
    "cores": ("noisy-neighbour", {"mode": "cpu"}),
    "devices": ("gpu-pool-outage", {"pool": "", "service": "web", "region": "", "mode": "devices"}),
}
"""Both on eu-1, where the first of the entry is."""
HARMS = {"cores": "would have less of the CPU", "devices": f"would find no {GPU} again"}
TWO = """name: shop
entry: web
labels: [role, node]
kubernetes:
  namespace: shop
  image: {name: 'stormdrill:test'}
  port: 8080
  node_labels: {node: kubernetes.io/hostname}
  services:
    web: {select: {app: web}, ready: GET /, devices: [gpu0]}
"""
CONTROLS = r"eu-1 runs the cluster itself \(control plane\): nothing was changed"
both = pytest.mark.parametrize("what", ["cores", "devices"])


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(world=False) as made:
        shop(made)
        made.registry.change("nodes", "", "eu-1", has(GPU, "4"))
        made.registry.change("nodes", "", "us-1", has(GPU, "4"))
        yield made


def has(resource: str, count: str) -> Callable[[dict[str, Any]], None]:
    def change(node: dict[str, Any]) -> None:
        for where in ("capacity", "allocatable"):
            node["status"][where][resource] = count

    return change


def controls(node: dict[str, Any]) -> None:
    node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] = ""


def stranger(name: str = "theirs", where: str = "others", node: str = "eu-1", *, gpus: bool = True) -> Object:
    limits = {GPU: "1"} if gpus else {"memory": "64Mi"}
    containers = [{"name": "main", "image": "theirs:1", "resources": {"limits": limits}}]
    return pod(name, node, {"app": name}, where=where, containers=containers)


def target(cluster: FakeCluster, tmp_path: Path) -> KubernetesTarget:
    return target_of(cluster, system_of(tmp_path, TWO), tmp_path)


def asked(one: KubernetesTarget, what: str, **more: Any) -> tuple[Injection, ...]:
    word, parameters = WORDS[what]
    return bound(one, word, **{**parameters, **more})


def refused(one: KubernetesTarget, what: str, **more: Any) -> str:
    with pytest.raises(Refused) as caught:
        asked(one, what, **more)
    return str(caught.value)


@both
def test_a_node_that_runs_the_cluster_is_refused(cluster: FakeCluster, tmp_path: Path, what: str) -> None:
    assert asked(target(cluster, tmp_path), what)
    cluster.registry.change("nodes", "", "eu-1", controls)
    assert "eu-1 runs the cluster itself (control plane)" in refused(target(cluster, tmp_path), what)


@both
def test_whoever_did_not_opt_in_is_named_and_refused(cluster: FakeCluster, tmp_path: Path, what: str) -> None:
    cluster.apply([scenes.namespace("others", drill=False), stranger()])
    said = refused(target(cluster, tmp_path), what)
    assert f"pods of namespace others, which did not opt in, {HARMS[what]}: theirs-abc-1 on eu-1" in said
    assert "label that namespace stormdrill.dev/drill: allowed" in said


@both
@pytest.mark.parametrize("whose", ["kube-system", "stormdrill"])
def test_the_clusters_own_and_the_suites_pods_are_refused_however_labelled(
    cluster: FakeCluster, tmp_path: Path, what: str, whose: str
) -> None:
    cluster.apply([scenes.namespace(whose), stranger(where=whose)])
    said = refused(target(cluster, tmp_path), what)
    assert f"pods of namespace {whose}" in said
    assert "label that namespace" not in said


@both
def test_who_opted_in_is_harmed_and_no_other_run_drills_them_meanwhile(
    cluster: FakeCluster, tmp_path: Path, what: str
) -> None:
    cluster.apply([scenes.namespace("others"), stranger()])
    one = target(cluster, tmp_path)
    assert held(one, asked(one, what)).beside == ("others",)


def test_so_it_is_with_whose_pods_go_with_a_node(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.apply([scenes.namespace("others"), stranger(), scenes.namespace("elsewhere")])
    cluster.apply(stranger("far", "elsewhere", "us-1"))
    one = target_of(cluster, system_of(tmp_path), tmp_path)
    assert held(one, bound(one, "region-loss", region="eu")).beside == ("others",)


def test_who_is_on_every_node_is_no_reason_to_refuse_and_is_told(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.apply([scenes.namespace("kube-system", drill=False), daemon("proxy"), daemon("etcd", "Node")])
    one = target(cluster, tmp_path)
    told = one.aloud(asked(one, "cores"))
    assert "on eu-1 as on every node there are pods of kube-system/etcd, kube-system/proxy" in told


def test_who_has_no_device_there_misses_none(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.apply([scenes.namespace("others", drill=False), stranger(gpus=False), stranger("other-node", node="us-2")])
    assert asked(target(cluster, tmp_path), "devices")


def test_who_is_on_another_node_or_has_ended_is_not_slowed(cluster: FakeCluster, tmp_path: Path) -> None:
    ended = {**stranger("ended"), "status": {"phase": "Succeeded"}}
    cluster.apply([scenes.namespace("others", drill=False), stranger(node="us-1"), ended])
    assert asked(target(cluster, tmp_path), "cores")


def test_one_core_of_a_node_is_never_burnt(cluster: FakeCluster, tmp_path: Path) -> None:
    one = target(cluster, tmp_path)
    assert asked(one, "cores", cores=7)
    assert "eu-1: 8 cores would be burnt of 8, and 1 of them is for what runs on every node" in refused(
        one, "cores", cores=8
    )


def test_what_burns_at_the_same_time_counts_together(cluster: FakeCluster, tmp_path: Path) -> None:
    one = target(cluster, tmp_path)
    (first,) = asked(one, "cores", cores=4)
    beside, after = (replace(first, id=f"again/{at}", use=1, start_s=first.start_s + at) for at in (10.0, first.for_s))
    assert one.bind([first, after])
    with pytest.raises(Refused, match="eu-1: 8 cores would be burnt of 8"):
        one.bind([first, beside])


def test_the_suites_own_pods_keep_off_burnt_cores_alone(cluster: FakeCluster, tmp_path: Path) -> None:
    one = target(cluster, tmp_path)
    assert held(one, asked(one, "cores")).wanted.keep_off == ["eu-1"]
    assert held(one, asked(one, "devices")).wanted.keep_off == []


def windows(node: dict[str, Any]) -> None:
    """Nothing of the suite's own runs there."""
    node["metadata"]["labels"]["kubernetes.io/os"] = "windows"


def full(node: dict[str, Any]) -> None:
    has("memory", "1Mi")(node)


@pytest.mark.parametrize(
    ("others", "why"), [(windows, "no other node is left for one"), (full, "no other node has room for one")]
)
def test_where_no_node_is_left_for_the_watchdog_but_the_burnt_one_the_plan_is_refused(
    cluster: FakeCluster, tmp_path: Path, others: Callable[[dict[str, Any]], None], why: str
) -> None:
    for name in ("eu-2", "us-2"):
        cluster.registry.change("nodes", "", name, others)
    assert asked(target(cluster, tmp_path), "cores")
    cluster.registry.change("nodes", "", "us-1", others)
    said = refused(target(cluster, tmp_path), "cores")
    assert f"a watchdog of the run keeps off burnt cores, and {why}" in said
    assert asked(target(cluster, tmp_path), "devices")


def test_nodes_that_are_lost_count_with_the_burnt_ones(cluster: FakeCluster, tmp_path: Path) -> None:
    one = target_of(cluster, system_of(tmp_path), tmp_path)
    burnt = replace(asked(one, "cores")[0], id="burnt/1", use=1)
    lost = bound(one, "region-loss", region="us")
    assert one.bind([burnt, *lost])
    cluster.registry.change("nodes", "", "eu-2", windows)
    one = target_of(cluster, system_of(tmp_path), tmp_path)
    assert one.bind([burnt])
    assert one.bind(lost)
    with pytest.raises(Refused, match="keeps off burnt cores, and no other node is left for one"):
        one.bind([burnt, *lost])


# --- when it is armed ------------------------------------------------------------------------------------------


@both
def test_who_came_since_and_did_not_opt_in_keeps_it_from_being_done(
    cluster: FakeCluster, tmp_path: Path, what: str
) -> None:
    one = target(cluster, tmp_path)
    (first, *_) = asked(one, what)
    assert one.undo_of(first)
    cluster.apply([scenes.namespace("others", drill=False), stranger()])
    with pytest.raises(Unreachable, match=r"others/theirs-abc-1 on eu-1 would be harmed, too.*nothing was changed"):
        one.undo_of(first)


@both
def test_consent_that_is_taken_back_is_heard(cluster: FakeCluster, tmp_path: Path, what: str) -> None:
    cluster.apply([scenes.namespace("others"), stranger()])
    one = target(cluster, tmp_path)
    (first, *_) = asked(one, what)
    assert one.undo_of(first)
    cluster.apply(scenes.namespace("others", drill=False))
    with pytest.raises(Unreachable, match="their namespaces didn't opt in: nothing was changed"):
        one.undo_of(first)


@both
def test_a_node_that_runs_the_cluster_by_now_is_left_alone(cluster: FakeCluster, tmp_path: Path, what: str) -> None:
    one = target(cluster, tmp_path)
    (first, *_) = asked(one, what)
    cluster.registry.change("nodes", "", "eu-1", controls)
    with pytest.raises(Unreachable, match=CONTROLS):
        one.undo_of(first)


def test_nor_is_it_emptied(cluster: FakeCluster, tmp_path: Path) -> None:
    one = target_of(cluster, system_of(tmp_path), tmp_path)
    (first, *_) = bound(one, "region-loss", region="eu")
    assert one.undo_of(first)
    cluster.registry.change("nodes", "", "eu-1", controls)
    with pytest.raises(Unreachable, match=CONTROLS):
        one.undo_of(first)


def test_a_node_that_has_fewer_cores_by_now_keeps_one(cluster: FakeCluster, tmp_path: Path) -> None:
    one = target(cluster, tmp_path)
    (first,) = asked(one, "cores", cores=2)
    cluster.registry.change("nodes", "", "eu-1", has("cpu", "2"))
    with pytest.raises(Unreachable, match="eu-1: 2 cores would be burnt of 2"):
        one.undo_of(first)


def test_a_device_plugin_whose_namespace_took_its_word_back_stays(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.apply(scenes.namespace("gpu"))
    cluster.apply(plugin())
    text = TWO.replace("  port: 8080\n", "  port: 8080\n  gpu: {plugin: gpu/plugin}\n")
    one = target_of(cluster, system_of(tmp_path, text), tmp_path)
    moved = asked(one, "devices")
    assert held(one, moved).beside == ("gpu",)
    assert all(map(one.undo_of, moved))
    cluster.apply(scenes.namespace("gpu", drill=False))
    with pytest.raises(Unreachable, match=r"label it stormdrill\.dev/drill=allowed: nothing was changed"):
        one.undo_of(moved[0])


@both
def test_what_it_takes_to_look_again_is_asked_for(cluster: FakeCluster, tmp_path: Path, what: str) -> None:
    one = target(cluster, tmp_path)
    (first, *_) = asked(one, what)
    listed = {need.resource for need in one.mechanisms[first.mechanism].needs(first) if need.verb == "list"}
    assert {"nodes", "pods", "namespaces"} <= listed


def plugin() -> Object:
    labels = {"app": "plugin"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "plugin:1"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "plugin", "namespace": "gpu"},
        "spec": spec,
    }


class _Silent:
    def record(self, *_: object) -> int:
        return 0


def held(one: KubernetesTarget, injections: tuple[Injection, ...]) -> Hold:
    """As a run would hold the cluster for them."""
    drilling = Drilling(one.clusters, one.mechanisms, injections)
    return drilling._hold("", drilling.of_injections(), _Silent())  # type: ignore[arg-type]  # nothing is to be told
