"""Ready-made objects: a node, a namespace, a Deployment, a Service."""

from __future__ import annotations

from typing import Any

from fake_cluster.store import Object, now

NODE_INFO = {
    "machineID": "",
    "systemUUID": "",
    "bootID": "",
    "kernelVersion": "6.18",
    "osImage": "fake",
    "containerRuntimeVersion": "fake://0",
    "kubeletVersion": "v1.32.1-fake",
    "kubeProxyVersion": "",
    "operatingSystem": "linux",
    "architecture": "amd64",
}


def node(name: str, region: str, pool: str = "cpu", cpus: int = 8, gpus: int = 0, **labels: str) -> Object:
    capacity = {"cpu": str(cpus), "memory": f"{cpus * 4}Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    if gpus:
        capacity["nvidia.com/gpu"] = str(gpus)
    stamp = now()
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "topology.kubernetes.io/region": region,
                "topology.kubernetes.io/zone": f"{region}-a",
                "pool": pool,
                **labels,
            },
        },
        "spec": {},
        "status": {
            "capacity": dict(capacity),
            "allocatable": dict(capacity),
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "KubeletReady",
                    "message": "simulated",
                    "lastHeartbeatTime": stamp,
                    "lastTransitionTime": stamp,
                }
            ],
            "nodeInfo": dict(NODE_INFO),
        },
    }


def namespace(name: str, drill: bool = True) -> Object:
    labels = {"stormdrill.dev/drill": "allowed"} if drill else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def deployment(name: str, region: str, replicas: int, pool: str, where: str = "platform") -> Object:
    labels = {"app": name, "region": region}
    container: dict[str, Any] = {
        "name": name,
        "image": "platform:1",
        "ports": [{"name": "http", "containerPort": 8080}],
        "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
    }
    if pool == "gpu":
        container["resources"]["limits"]["nvidia.com/gpu"] = "1"
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{name}-{region}", "namespace": where, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": {"topology.kubernetes.io/region": region, "pool": pool},
                    "terminationGracePeriodSeconds": 5,
                    "containers": [container],
                },
            },
        },
    }


def service(name: str, region: str, where: str = "platform") -> Object:
    labels = {"app": name, "region": region}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{name}-{region}", "namespace": where, "labels": labels},
        "spec": {"selector": labels, "ports": [{"name": "http", "port": 8080, "targetPort": "http"}]},
    }
