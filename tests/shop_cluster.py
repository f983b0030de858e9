"""A small system on the fake cluster, placed by hand: what planning sees of it is then the same every time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fake_cluster import FakeCluster, scenes
from stormdrill.faults.builtin import BUILTIN
from stormdrill.model.experiment import FaultUse, Scalar
from stormdrill.model.plan import Injection
from stormdrill.model.system import System
from stormdrill.spec.system import read_system
from stormdrill.targets.kubernetes.clusters import LiveClusters
from stormdrill.targets.kubernetes.target import KubernetesTarget

SYSTEM = """name: shop
entry: web
parameters: {regions: [eu, us]}
labels: [region, role, node, team]
kubernetes:
  namespace: shop
  port: 8080
  node_labels: {region: topology.kubernetes.io/region, node: kubernetes.io/hostname}
  stands_for: {freeze: crash}
  services:
    web: {select: {app: web}, ready: GET /, labels: {role: front}}
    worker: {each: regions, devices: [gpu0, gpu1]}
dependencies: {worker: {from: [web], to: worker}}
releases: {worker: {from: web, path: /releases, version: leaky, stable: stable}}
"""
Object = dict[str, object]


def system_of(tmp_path: Path, text: str = SYSTEM, **section: str) -> System:
    """`section`: keys of the kubernetes section besides."""
    more = "".join(f"  {key}: {value}\n" for key, value in section.items())
    path = tmp_path / "shop.yaml"
    path.write_text(text.replace("  services:\n", f"{more}  services:\n"))
    return read_system(path, target="kubernetes")


def shop(cluster: FakeCluster) -> None:
    """Two nodes a region, one of them with GPUs; web in both regions, two workers in each."""
    cluster.apply([scenes.namespace("shop"), scenes.namespace("stormdrill", drill=False)])
    for region in ("eu", "us"):
        cluster.apply([scenes.node(f"{region}-1", region), scenes.node(f"{region}-2", region, "gpu", gpus=4)])
        cluster.apply(deployment(f"worker-{region}", {"app": "worker", "region": region}, 2))
        cluster.apply(service(f"worker-{region}", {"app": "worker", "region": region}))
        for number in (1, 2):
            cluster.apply(pod(f"worker-{region}", f"{region}-2", {"app": "worker", "region": region}, number))
        cluster.apply(pod("web", f"{region}-1", {"app": "web", "team": "shopping"}, 1 if region == "eu" else 2))
    cluster.apply([deployment("web", {"app": "web"}, 2), service("web", {"app": "web"})])


def pod(
    workload: str, node: str, labels: Mapping[str, str], number: int = 1, *, where: str = "shop", **more: object
) -> Object:
    """`more`: into its spec."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{workload}-abc", "uid": workload}
    container = {
        "name": "main",
        "image": "shop:1",
        "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "64Mi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{workload}-abc-{number}",
            "namespace": where,
            "labels": {**labels, "pod-template-hash": "abc"},
            "creationTimestamp": f"2026-01-01T00:00:{number:02}Z",
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": {"nodeName": node, "containers": [container], **more},
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    }


def daemon(name: str, kind: str = "DaemonSet", **spec: object) -> Object:
    """A pod of the cluster's own that is on every node; `kind` Node: written on that one's disk."""
    made = pod(name, "eu-1", {"app": name}, where="kube-system", **spec)
    owner = {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": name, "controller": True}
    return {**made, "metadata": {**_meta(made), "ownerReferences": [owner]}}


def _meta(made: Object) -> Object:
    found = made["metadata"]
    assert isinstance(found, dict)
    return found


def deployment(name: str, labels: Mapping[str, str], replicas: int) -> Object:
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "shop:1"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def service(name: str, labels: Mapping[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"selector": labels, "ports": [{"port": 8080}]},
    }


def budget(name: str, labels: Mapping[str, str], allowed: int) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
        "status": {
            "disruptionsAllowed": allowed, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2,
        },
    }  # fmt: skip


def target_of(cluster: FakeCluster, system: System, run_dir: Path) -> KubernetesTarget:
    assert system.kubernetes is not None
    clusters = LiveClusters(system.kubernetes, run=run_dir.name, system=system.name, connect=lambda _: cluster.admin)
    return KubernetesTarget(system, run_dir, clusters=clusters)


def bound(target: KubernetesTarget, word: str, **parameters: Scalar) -> tuple[Injection, ...]:
    """What one fault comes to on this cluster. Raises Refused."""
    asked = BUILTIN[word].plan(FaultUse(word, parameters), 0, target.world(), 30.0)
    return target.bind(asked)
