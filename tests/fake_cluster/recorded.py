"""The cluster in which the exchanges were recorded, as far as they show it."""

from __future__ import annotations

from fake_cluster import FakeCluster, scenes
from fake_cluster.store import Object, now

SIMULATED = ("fake-cpu-r1a", "fake-cpu-r1b", "fake-cpu-r2a", "fake-cpu-r2b", "fake-gpu-r1a", "fake-gpu-r2a")
REAL = ("n1", "n2", "n3")
PRESSURES = (
    ("MemoryPressure", "KubeletHasSufficientMemory"),
    ("DiskPressure", "KubeletHasNoDiskPressure"),
    ("PIDPressure", "KubeletHasSufficientPID"),
)


def prepare(cluster: FakeCluster) -> None:
    """Three nodes with kubelets, six simulated ones."""
    for place, name in enumerate((*REAL, *SIMULATED)):
        cluster.apply(node(name, place))


def node(name: str, place: int) -> Object:
    region, pool = ("r2" if "r2" in name else "r1"), ("gpu" if "gpu" in name else "cpu")
    made = scenes.node(name, region, pool, cpus=16, gpus=8 if pool == "gpu" else 0)
    meta, status, stamp = made["metadata"], made["status"], now()
    meta["labels"] |= {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": name.rpartition("-")[2] if "-" in name else f"{region}a",
    }
    if name in SIMULATED:
        meta["labels"]["type"] = "fake"
    meta["annotations"] = {"node.alpha.kubernetes.io/ttl": "0"}
    made["spec"] = {"podCIDR": f"10.244.{place}.0/24", "podCIDRs": [f"10.244.{place}.0/24"]}
    status["conditions"][0]["message"] = "fake"
    for kind, reason in PRESSURES:
        times = {"lastHeartbeatTime": stamp, "lastTransitionTime": stamp}
        status["conditions"].append({"type": kind, "status": "False", **times, "reason": reason, "message": "fake"})
    return made
