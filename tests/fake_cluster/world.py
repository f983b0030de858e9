"""A small ready-made world: two regions, the reference platform's shape in a namespace that opted in, what a cluster
has besides, and on request somebody who has nothing to do with it."""

from __future__ import annotations

from fake_cluster.matching import Obj
from fake_cluster.scenes import namespace, node

REGIONS = ("eu", "us")
POOL = "stormdrill.dev/pool"
IMAGE = "platform:1"


def nodes() -> list[Obj]:
    """<region>-cpu-1, <region>-cpu-2, <region>-gpu-1, and the control plane."""
    made = []
    for region in REGIONS:
        for name, pool, zone, gpus in (("cpu-1", "cpu", "a", 0), ("cpu-2", "cpu", "b", 0), ("gpu-1", "gpu", "a", 4)):
            labels = {POOL: pool, "topology.kubernetes.io/zone": f"{region}-{zone}"}
            made.append(node(f"{region}-{name}", region, pool, gpus=gpus, **labels))
    plane = node("control-plane", "eu", "control")
    plane["metadata"]["labels"] |= {"node-role.kubernetes.io/control-plane": "", "topology.kubernetes.io/zone": "eu-a"}
    plane["spec"]["taints"] = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]
    return [*made, plane]


def deployment(name: str, labels: dict[str, str], replicas: int = 1, **spec: object) -> Obj:
    """Of the namespace `platform`."""
    container: Obj = {
        "name": labels["app"], "image": IMAGE, "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {"requests": {"cpu": "250m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
    }  # fmt: skip
    if labels.get("pool") == "gpu":
        container["resources"]["limits"]["nvidia.com/gpu"] = "2"
    chosen = {key: value for key, value in labels.items() if key in ("app", "region")}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "platform", "labels": dict(labels)},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": chosen},
            "template": {
                "metadata": {"labels": dict(labels)},
                "spec": {"terminationGracePeriodSeconds": 5, "containers": [container], **spec},
            },
        },
    }  # fmt: skip


def service(name: str, selector: dict[str, str]) -> Obj:
    return {
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "platform", "labels": dict(selector)},
        "spec": {"selector": dict(selector), "ports": [{"name": "http", "port": 8080, "targetPort": "http"}]},
    }  # fmt: skip


def budget(name: str, selector: dict[str, str], **limit: int) -> Obj:
    return {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name, "namespace": "platform"},
        "spec": {"selector": {"matchLabels": dict(selector)}, **limit},
    }  # fmt: skip


def platform() -> list[Obj]:
    spread = {
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "topology.kubernetes.io/region", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "edge"}},
        }],
        "nodeSelector": {POOL: "cpu"},
    }  # fmt: skip
    made = [
        namespace("platform"),
        deployment("edge", {"app": "edge", "role": "edge"}, 2, **spread), service("edge", {"app": "edge"}),
        budget("edge", {"app": "edge"}, minAvailable=1),
        deployment("feed", {"app": "feed", "role": "feed"}, nodeSelector={POOL: "cpu"}),
        service("feed", {"app": "feed"}),
    ]  # fmt: skip
    for region in REGIONS:
        for app, pool in (("gateway", "cpu"), ("cpu", "cpu"), ("gpu", "gpu")):
            labels = {"app": app, "region": region, "role": "gateway" if app == "gateway" else "worker"}
            labels |= {} if app == "gateway" else {"pool": pool}
            where = {"topology.kubernetes.io/region": region, POOL: pool}
            made.append(deployment(f"{app}-{region}", labels, nodeSelector=where))
        chosen = {"app": "gateway", "region": region}
        made += [service(f"gateway-{region}", chosen), budget(f"gateway-{region}", chosen, maxUnavailable=1)]
        for app in ("cpu", "gpu"):
            made.append(budget(f"{app}-{region}", {"app": app, "region": region}, maxUnavailable=1))
    return made


def system_pods() -> list[Obj]:
    """What runs in kube-system: on the control plane, and a daemon on every node."""
    tolerant = [{"operator": "Exists"}]
    daemon: Obj = {
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
        "spec": {
            "selector": {"matchLabels": {"k8s-app": "kube-proxy"}},
            "template": {
                "metadata": {"labels": {"k8s-app": "kube-proxy"}},
                "spec": {
                    "tolerations": tolerant, "priorityClassName": "system-node-critical",
                    "containers": [{"name": "kube-proxy", "image": "kube-proxy:1"}],
                },
            },
        },
    }  # fmt: skip
    server: Obj = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "kube-apiserver-control-plane", "namespace": "kube-system",
            "labels": {"component": "kube-apiserver"},
        },
        "spec": {
            "nodeName": "control-plane", "tolerations": tolerant, "priorityClassName": "system-node-critical",
            "containers": [{"name": "kube-apiserver", "image": "kube-apiserver:1"}],
        },
    }  # fmt: skip
    return [daemon, server]


def bystander(on: str = "eu-cpu-1") -> list[Obj]:
    """A namespace that did not opt in, with one Pod, on a node that the platform uses."""
    return [
        namespace("bystander", drill=False),
        {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "innocent", "namespace": "bystander", "labels": {"app": "innocent"}},
            "spec": {"nodeName": on, "containers": [{"name": "c", "image": "innocent:1"}]},
        },
    ]  # fmt: skip


def world(with_bystander: bool = False) -> list[Obj]:
    suite = namespace("stormdrill", drill=False)
    return [suite, *nodes(), *system_pods(), *platform(), *(bystander() if with_bystander else [])]
