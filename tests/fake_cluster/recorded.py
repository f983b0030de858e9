"""The cluster in which the exchanges were recorded, as far as they show it."""

from __future__ import annotations

from fake_cluster import FakeCluster, scenes
from fake_cluster.store import Object, micro_now, now

SIMULATED = ("fake-cpu-r1a", "fake-cpu-r1b", "fake-cpu-r2a", "fake-cpu-r2b", "fake-gpu-r1a", "fake-gpu-r2a")
REAL = ("n1", "n2", "n3")
ZONES = {"n1": "r1a", "n2": "r1b", "n3": "r2a"}
PRESSURES = (
    ("MemoryPressure", "KubeletHasSufficientMemory"),
    ("DiskPressure", "KubeletHasNoDiskPressure"),
    ("PIDPressure", "KubeletHasSufficientPID"),
)


def prepare(cluster: FakeCluster) -> None:
    """Three nodes with kubelets, six simulated ones. The server was of 1.32."""
    cluster.rights.streams_take_create = False
    for place, name in enumerate((*REAL, *SIMULATED)):
        cluster.apply([node(name, place), lease(name)])
    owned = {"apiVersion": "v1", "kind": "Node"}
    for name in REAL:  # a kubelet's lease is owned by its node
        held = cluster.read(f"/api/v1/nodes/{name}")
        assert held is not None
        owner = {**owned, "name": name, "uid": held["metadata"]["uid"]}
        cluster.registry.change(
            "leases", "kube-node-lease", name, lambda obj, owner=owner: obj["metadata"].update(ownerReferences=[owner])
        )


def lease(name: str) -> Object:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro_now()},
    }


def node(name: str, place: int) -> Object:
    region, pool = ZONES.get(name, name.rpartition("-")[2])[:2], ("gpu" if "gpu" in name else "cpu")
    made = scenes.node(name, region, pool, cpus=16, gpus=8 if pool == "gpu" else 0)
    meta, status, stamp = made["metadata"], made["status"], now()
    meta["labels"] |= {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": ZONES.get(name, name.rpartition("-")[2]),
    }
    meta["labels"] |= {"type": "fake"} if name in SIMULATED else {"node": "real"}
    if pool == "gpu":
        meta["labels"]["accelerator"] = "nvidia"
    meta["annotations"] = {"node.alpha.kubernetes.io/ttl": "0"}
    made["spec"] = {"podCIDR": f"10.244.{place}.0/24", "podCIDRs": [f"10.244.{place}.0/24"]}
    status["addresses"] = [
        {"type": "InternalIP", "address": "192.0.2.1"},
        {"type": "Hostname", "address": name},
    ]
    status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": 0}}
    status["conditions"][0]["message"] = "fake"
    for kind, reason in PRESSURES:
        times = {"lastHeartbeatTime": stamp, "lastTransitionTime": stamp}
        status["conditions"].append({"type": kind, "status": "False", **times, "reason": reason, "message": "fake"})
    return made
