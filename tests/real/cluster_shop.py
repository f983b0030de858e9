"""A small shop in two regions on a fake cluster: its pods and its watchdog run as processes, its users are threads."""

from __future__ import annotations

import contextlib
import json
import textwrap
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from drill import Repository

from fake_cluster import FakeCluster
from stormdrill.model.event import Recorded
from stormdrill.store import journal

SHOP, SUITE = "shop:1", "stormdrill:test"
REGION = "topology.kubernetes.io/region"
STOP = "stormdrill.dev/stop"
SERVER = textwrap.dedent(
    """
    import http.server, os, threading, time

    lock, counts, bounds = threading.Lock(), {"ok": 0, "all": 0}, {"0.05": 0, "0.25": 0, "1": 0, "+Inf": 0}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            began, body = time.monotonic(), b"ok"
            if self.path == "/metrics":
                buckets = "".join(f'took_seconds_bucket{{le="{le}"}} {n}\\n' for le, n in bounds.items())
                body = f"ok_total {counts['ok']}\\nall_total {counts['all']}\\n{buckets}".encode()
            elif self.path == "/":
                with lock:
                    for le in bounds:
                        bounds[le] += time.monotonic() - began <= float(le)
                    counts["all"] += 1
                    counts["ok"] += 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8080), Handler).serve_forever()
    """
)
SYSTEM = """
name: shop
entry: web
parameters: {{regions: [eu, us]}}
labels: [region]
kubernetes:
  namespace: shop
  image: {{name: "{image}"}}
  lease: {lease}
  stands_for: {{freeze: crash}}
  node_labels: {{region: topology.kubernetes.io/region}}
  empties: {empties}
  services:
    web: {{select: {{app: web, region: $region}}, each: regions, port: 8080, ready: GET /ready}}
    front: {{select: {{app: front}}}}
dependencies:
  web: {{from: [front], to: web}}
indicators: {{from: web, good: ok_total, total: all_total, histogram: took_seconds}}
"""
EXPERIMENT = """
title: The shop's own users are served while a region is gone
hypothesis: us goes on serving
owner: tests
system: shop
load: {load}
phases: {{warmup: 500ms, baseline: {baseline}, fault: {fault}, recovery: {recovery}}}
faults:
  - {use}
objectives:
  baseline, fault:
    - success{{region=us}} > 90%
guards: []
"""
NODES, PODS = "region-loss: {region: eu, mode: crash}", "queue-backlog: {service: web, region: eu}"


def front() -> dict[str, Any]:
    """Who calls the shop; it is only said to run."""
    labels = {"app": "front"}
    spec = {"nodeSelector": {REGION: "us"}, "containers": [{"name": "front", "image": "front:1"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "front", "namespace": "shop", "labels": labels},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def service(region: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"web-{region}", "namespace": "shop"},
        "spec": {
            "selector": {"app": "web", "region": region},
            "ports": [{"name": "http", "port": 8080, "targetPort": 8080}],
        },
    }


def web(region: str) -> dict[str, Any]:
    labels = {"app": "web", "region": region}
    container = {
        "name": "web",
        "image": SHOP,
        "command": ["python3", "-c", SERVER],
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
    }
    spec = {"nodeSelector": {REGION: region}, "terminationGracePeriodSeconds": 1, "containers": [container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"web-{region}", "namespace": "shop", "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


@dataclass
class Shop:
    cluster: FakeCluster
    repository: Repository
    served: dict[str, int] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.repository.root

    def lay_out(self, use: str = NODES, *, lease: str = "4s", empties: str = "taint", **phases: str) -> None:
        times = {"baseline": "3s", "fault": "3s", "recovery": "1s", "load": "observed", **phases}
        (self.root / "experiments" / "systems").mkdir(parents=True, exist_ok=True)
        (self.root / "experiments" / "systems" / "shop.yaml").write_text(
            SYSTEM.format(image=SUITE, lease=lease, empties=empties)
        )
        (self.root / "experiments" / "shop.yaml").write_text(EXPERIMENT.format(use=use, **times))

    def as_user(self, token: str) -> None:
        """Whoever runs commands from now on."""
        path = self.cluster.kubeconfig(self.root / "kubeconfig", token=token)
        self.repository.environment["KUBECONFIG"] = str(path)

    def events(self) -> list[Recorded]:
        found: list[Recorded] = []
        for path in sorted((self.root / "runs").glob(f"*/{journal.NAME}")):
            found += journal.salvage(path).events
        return found

    def of(self, kind: type) -> list[Any]:
        return [item.event for item in self.events() if isinstance(item.event, kind)]

    @property
    def run_dir(self) -> Path:
        (found,) = (path for path in (self.root / "runs").iterdir() if path.is_dir())
        return found

    def pods(self, region: str) -> list[dict[str, Any]]:
        return [
            pod
            for pod in self.cluster.objects("pods", "shop")
            if pod["metadata"]["labels"].get("region") == region and "deletionTimestamp" not in pod["metadata"]
        ]

    def ready(self, region: str) -> bool:
        return any(
            one["type"] == "Ready" and one["status"] == "True"
            for pod in self.pods(region)
            for one in pod["status"].get("conditions", ())
        )

    def causes(self) -> list[str]:
        """What is left of any injection, of ours or of nobody's."""
        found = []
        for node in self.cluster.objects("nodes"):
            name = node["metadata"]["name"]
            found += [f"{name}: {taint}" for taint in node["spec"].get("taints", ())]
            found += [f"{name}: cordoned"] if node["spec"].get("unschedulable") else []
            found += [f"{name}: {key}" for key in node["metadata"].get("annotations", {}) if "stormdrill" in key]
        for one in self.cluster.objects("deployments", "shop"):
            name = one["metadata"]["name"]
            whole = 2 if name == "front" else 1
            found += [f"{name}: {one['spec']['replicas']} replicas"] if one["spec"]["replicas"] != whole else []
            found += [f"{name}: {key}" for key in one["metadata"].get("annotations", {}) if "stormdrill" in key]
        return found

    def left_behind(self) -> list[str]:
        """What is in the suite's namespace of a run, and its anchors."""
        found = [f"configmap {one['metadata']['name']}" for one in self.cluster.objects("configmaps", "stormdrill")]
        found += [f"configmap shop/{one['metadata']['name']}" for one in self.cluster.objects("configmaps", "shop")]
        found += [f"job {one['metadata']['name']}" for one in self.cluster.objects("jobs", "stormdrill")]
        held = [one["spec"].get("holderIdentity") for one in self.cluster.objects("leases", "stormdrill")]
        return [one for one in found if "stormdrill-" in one] + [f"lease of {one}" for one in held if one]

    def eventually(self, holds_true: Callable[[], object], limit_s: float = 60.0, what: str = "") -> None:
        until = time.monotonic() + limit_s
        while not holds_true():
            assert time.monotonic() < until, what or f"{self.causes()} {self.left_behind()}"
            time.sleep(0.05)


@contextlib.contextmanager
def shop(root: Path) -> Iterator[Shop]:
    """Two regions with two nodes each, everybody ready, and users who ask whoever is there."""
    with FakeCluster(run_images=(SHOP, SUITE)) as cluster:
        cluster.nodes(1, "eu")
        cluster.nodes(2, "us")
        labels = {"stormdrill.dev/drill": "allowed"}
        for name in ("shop", "stormdrill"):
            meta = {"name": name, "labels": labels if name == "shop" else {}}
            cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        cluster.apply([web("eu"), web("us"), front(), service("eu"), service("us")])
        found = Shop(cluster, Repository(root, "shop"))
        found.repository.environment["XDG_STATE_HOME"] = str(root / "state")
        (root / "state").mkdir()
        (root / "runs").mkdir()
        over = threading.Event()
        users = threading.Thread(target=_use, args=(found, over), daemon=True)
        try:
            found.eventually(
                lambda: found.ready("eu") and found.ready("us") and len(cluster.objects("pods", "shop")) == 4,
                what="the shop never got ready",
            )
            users.start()
            yield found
        finally:
            over.set()
            if users.is_alive():
                users.join(5)


def _use(found: Shop, over: threading.Event) -> None:
    while not over.wait(0.02):
        for pod in [*found.pods("eu"), *found.pods("us")]:
            address = pod["status"].get("podIP")
            with contextlib.suppress(OSError):
                if address:
                    urllib.request.urlopen(f"http://{address}:8080/", timeout=0.3).read()


def outcome(text: str) -> dict[str, Any]:
    return json.loads(text or "{}")  # type: ignore[no-any-return]  # an object


def printed_rules(at: Shop) -> list[Any]:
    """What `plan --rbac` prints."""
    printed = at.repository.command("plan", "experiments/shop.yaml", "--rbac")
    assert printed.returncode == 0, printed.stderr
    return list(yaml.safe_load_all(printed.stdout))
