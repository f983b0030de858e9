"""A cluster to try things on where there is none: the tests' own API server, with the reference platform in it.

Two nodes in each of two regions, none of them real; but the platform's processes are, on loopback, and so are load and
watchdog. It lives until it is stopped by Ctrl-C.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stormdrill.api.manifests import manifests
from stormdrill.targets.kubernetes.manifests import Layout

ROOT = Path(__file__).parents[1]
IMAGE = "stormdrill-platform:latest"
ROOM = {"cpu": "8", "memory": "16Gi", "pods": "110"}


def node(region: str, number: int) -> dict[str, object]:
    name = f"{region}-{number}"
    labels = {"topology.kubernetes.io/region": region, "kubernetes.io/hostname": name, "pool": "cpu"}
    ready = [{"type": "Ready", "status": "True"}]
    status = {"allocatable": ROOM, "capacity": ROOM, "conditions": ready}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}


def ready(pod: Mapping[str, Any]) -> bool:
    found = pod.get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in found)


def main() -> int:
    sys.path.insert(0, str(ROOT / "tests"))
    from fake_cluster import FakeCluster

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    place = ROOT / "build/cluster.kubeconfig"
    place.parent.mkdir(exist_ok=True)
    layout = Layout(image=IMAGE, queue_nodes={"eu": "eu-1", "us": "us-1"})
    with FakeCluster(run_images=[IMAGE], tls=True) as cluster:
        cluster.apply([node(region, number) for region in ("eu", "us") for number in (1, 2)])
        cluster.kubeconfig(place)
        cluster.apply(list(yaml.safe_load_all(manifests(layout))))
        cluster.settle()
        while not stopped.is_set() and not all(map(ready, cluster.objects("pods"))):  # budgets allow nothing before
            stopped.wait(0.2)
        print(f"a cluster for trying out is there until Ctrl-C:  export KUBECONFIG={place}", flush=True)
        stopped.wait()
    place.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
