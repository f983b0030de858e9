"""A small world in the fake cluster, changes of every kind to make in it, and what must be the same after them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fake_cluster import FakeCluster, scenes
from stormdrill.cluster import naming
from stormdrill.cluster.changes import Change
from stormdrill.model.undo import Element, InCluster, KubeDelete, KubePatch

IMAGE = "stormdrill:test"
SUITE, PLATFORM = "stormdrill", "platform"
NODE, GPU_NODE = "/api/v1/nodes/eu-cpu-1", "/api/v1/nodes/eu-gpu-1"
WORKER = "/apis/apps/v1/namespaces/platform/deployments/worker-eu"
GATEWAY = "/apis/apps/v1/namespaces/platform/deployments/gateway-eu"
SERVICE = "/api/v1/namespaces/platform/services/gateway-eu"
POLICY = "/apis/networking.k8s.io/v1/namespaces/platform/networkpolicies/cut-eu"
PROXY = "/apis/apps/v1/namespaces/platform/deployments/gateway-eu-late"
ORIGINAL = "/api/v1/namespaces/platform/services/gateway-eu-orig"
Plan = dict[str, list[Change]]
"""Changes by injection, in the order in which they are made; they are undone in the reverse one."""
_MOVES = frozenset({"pods", "replicasets.apps", "events", "endpoints", "endpointslices.discovery.k8s.io"})
"""Made anew by controllers."""


def small_world(cluster: FakeCluster) -> None:
    """Two nodes and one with GPUs, a Deployment with a Service, another one, and the suite's namespace and account."""
    cluster.apply([scenes.namespace(PLATFORM), scenes.namespace(SUITE, drill=False)])
    cluster.apply(
        [scenes.node("eu-cpu-1", "eu"), scenes.node("eu-cpu-2", "eu"), scenes.node("eu-gpu-1", "eu", "gpu", gpus=4)]
    )
    cluster.apply([scenes.deployment("gateway", "eu", 2, "cpu"), scenes.deployment("worker", "eu", 3, "cpu")])
    cluster.apply(scenes.service("gateway", "eu"))
    cluster.account(SUITE, "stormdrill")
    cluster.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "stormdrill"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "stormdrill", "namespace": SUITE}],
        }
    )


def patch_of(
    there: Mapping[str, Any], path: str, run: str, injection: str, *elements: Element, status: bool = False
) -> Change:
    uid = str(there["metadata"]["uid"])
    subresource = "status" if status else ""
    return Change(KubePatch("", path, uid, naming.marker(run, injection), elements, subresource))


def taint(run: str) -> Element:
    ours = {"key": "stormdrill.dev/lost", "value": run, "effect": "NoExecute"}
    return Element(("spec", "taints"), json.dumps(ours), key=("key", "effect"))


def cordon() -> Element:
    return Element(("spec", "unschedulable"), "true")


def scaled(to: int, before: int) -> Element:
    return Element(("spec", "replicas"), json.dumps(to), json.dumps(before))


def created(path: str, run: str, body: dict[str, object]) -> Change:
    return Change(KubeDelete("", path, run), json.dumps(body))


def policy(run: str) -> Change:
    spec = {"podSelector": {"matchLabels": {"region": "eu"}}, "policyTypes": ["Ingress"]}
    body: dict[str, object] = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {},
        "spec": spec,
    }
    return created(POLICY, run, body)


def plan(cluster: FakeCluster | Mapping[str, Mapping[str, Any]], run: str) -> Plan:
    """One injection of every kind. `cluster`: the fake, or what was read there by path."""

    def there(path: str) -> Mapping[str, Any]:
        found = cluster.read(path) if isinstance(cluster, FakeCluster) else cluster[path]
        assert found is not None, path
        return found

    selector = there(SERVICE)["spec"]["selector"]
    swapped = [Element(("spec", "selector", naming.LABEL), json.dumps(run))]
    swapped += [Element(("spec", "selector", name), "", json.dumps(value)) for name, value in selector.items()]
    gone = Element(("status", "capacity", "nvidia.com/gpu"), '"0"', '"4"')
    image = ("spec", "template", "spec", "containers", "[name=gateway]", "image")
    bad = Element(image, '"platform:2"', '"platform:1"')
    proxy = scenes.deployment("late", "eu", 1, "cpu")
    original = scenes.service("gateway", "eu")
    del proxy["metadata"]["namespace"], original["metadata"]["namespace"]
    proxy["metadata"]["labels"], original["metadata"]["labels"] = {}, {}
    return {
        "region-loss/eu-cpu-1": [patch_of(there(NODE), NODE, run, "region-loss/eu-cpu-1", taint(run), cordon())],
        "queue-backlog/worker": [patch_of(there(WORKER), WORKER, run, "queue-backlog/worker", scaled(0, 3))],
        "late-dependency/gateway": [
            created(ORIGINAL, run, original),
            created(PROXY, run, proxy),
            patch_of(there(SERVICE), SERVICE, run, "late-dependency/gateway", *swapped),
        ],
        "segmentation/eu": [policy(run)],
        "gpu-pool-outage/eu-gpu-1": [
            patch_of(there(GPU_NODE), GPU_NODE, run, "gpu-pool-outage/eu-gpu-1", gone, status=True)
        ],
        "bad-release/gateway": [
            patch_of(there(GATEWAY), GATEWAY, run, "bad-release/gateway", bad)
        ],
    }  # fmt: skip


PATHS = (NODE, GPU_NODE, WORKER, GATEWAY, SERVICE)


def undos(changes: list[Change]) -> tuple[InCluster, ...]:
    return tuple(change.undo for change in reversed(changes))


def still(cluster: FakeCluster) -> dict[str, Any]:
    """Everything that a drill must leave as it was: not what controllers make anew, nor the suite's own namespace."""
    taken = cluster.snapshot()
    kept: dict[str, Any] = {}
    for where, thing in taken.items():
        kind, _, rest = where.partition("/")
        if kind in _MOVES or rest.startswith(f"{SUITE}/"):
            continue
        if kind == "deployments.apps":
            annotations = thing["metadata"].get("annotations", {})
            annotations.pop("deployment.kubernetes.io/revision", None)
            if not annotations:
                thing["metadata"].pop("annotations", None)
            thing["status"] = {name: thing["status"].get(name, 0) for name in ("replicas", "readyReplicas")}
        if kind == "nodes":
            thing["status"] = {name: thing["status"].get(name) for name in ("capacity", "allocatable")}
        kept[where] = thing
    return kept


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        f"{where}: {json.dumps(before.get(where))} became {json.dumps(after.get(where))}"
        for where in sorted({*before, *after})
        if before.get(where) != after.get(where)
    ]
