"""What is harmed around Services, policies, quotas and pods: a small system in a namespace of the test's own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from unittest import mock

import pytest

import kube_ground
from kube_rig import Kube, Scene
from stormdrill.cluster.api import Api
from stormdrill.model.mechanism import Beside, How, Isolate, Pressure, Quota, Tell, Toxic
from stormdrill.targets.kubernetes.mechanism import Object, at
from stormdrill.targets.kubernetes.mechanisms import isolate, segment, within

PORT = 8080
EVERYWHERE = "0.0.0.0"  # noqa: S104  (in a pod: port-forwards come to its loopback; the fake puts in the pod's address)
SERVER = """
import http.server, json, os
version = "stable"
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(json.dumps({"version": version, "pod": os.environ["POD"]}))
    def do_POST(self):
        global version
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        version = said.get("version", version)
        self.answer("{}")
    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer((os.environ["LISTEN"], PORT), Handler).serve_forever()
""".replace("PORT", str(PORT))
ENFORCED_S = 15.0
"""How long whoever enforces policies may take."""
CALLER = """
import sys, time, urllib.request
while True:
    try:
        urllib.request.urlopen(sys.argv[1], timeout=1.0).read()
    except OSError:
        pass
    time.sleep(0.02)
"""


def served(kube: Kube, **port: object) -> tuple[str, str]:
    """A Deployment `web` that answers HTTP, and a Service `web` that leads to it: the namespace, the Service's path."""
    kube.needs_stormdrill()
    namespace = kube.namespace()
    if kube.fake is not None:
        kube.fake.run_pods[kube.image] = []
    asks = {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1}
    runs(kube, namespace, "web", ("python3", "-c", SERVER), ready=asks)
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": PORT, **port}]}
    metadata = {"name": "web", "namespace": namespace}
    path = kube.make({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    return namespace, path


def runs(kube: Kube, namespace: str, name: str, argv: tuple[str, ...], ready: Object | None = None) -> str:
    """One pod of it, whose container names the port that it listens on."""
    more: Object = {
        "env": [{"name": "LISTEN", "value": EVERYWHERE}, field("POD", "metadata.name")],
        "ports": [{"name": "http", "containerPort": PORT}],
        # of a local process nobody knows what is left to it: the figures are those of the whole machine
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"memory": "256Mi" if kube.real else "1Ti"},
        },
        **({"readinessProbe": ready} if ready else {}),
    }
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": kube.pod(argv, **more),
    }
    whole = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name}}
    path = kube.make({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": whole})
    kube.until(lambda: kube.ready(path) == 1, f"{path} never had a pod ready")
    return path


def field(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def called(kube: Kube, **port: object) -> str:
    """The same with somebody who calls the Service all the time. Its name."""
    namespace, path = served(kube, **port)
    address = at(kube.read(path), "spec", "clusterIP")
    runs(kube, namespace, "caller", ("python3", "-c", CALLER, f"http://{address}/"))
    return f"{namespace}/web"


def toxic(kube: Kube, kind: str, numbers: Mapping[str, object], **port: object) -> How:
    return Toxic(("caller-1>web-1",), kind, service=called(kube, **port), **numbers)  # type: ignore[arg-type]


def told(kube: Kube) -> How:
    served(kube)
    leaky, stable = '{"version": "leaky"}', '{"version": "stable"}'
    return Tell("web", "POST", "/", leaky, "POST", "/", stable, "/", ".version == leaky")


def pressed(kube: Kube) -> How:
    served(kube)
    return Pressure(mb_per_s=40.0, ceiling_mb=48.0)


def beside(kube: Kube, how: Beside) -> How:
    """Skips where cores would be burnt beside others, which is refused."""
    namespace, _ = served(kube)
    if kube.real and how.program == "burn":
        for pod in kube.all(f"/api/v1/namespaces/{namespace}/pods", labelSelector="app=web"):
            on = f"spec.nodeName={at(pod, 'spec', 'nodeName')}"
            there = kube.all("/api/v1/pods", fieldSelector=on)
            if why := [said for one in there if (said := kube_ground.stranger(one, "evict"))]:
                pytest.skip(f"nothing may burn beside it on its node: {why[0]}")
    return how


def filled(kube: Kube, *resources: str) -> How:
    namespace, _ = served(kube)
    return Quota(namespace, dict.fromkeys(resources, ""))


def denied(namespace: str, app: str) -> Object:
    """A policy that lets nobody in."""
    spec = {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"]}
    meta = {"name": f"nobody-to-{app}", "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


def enforcing(kube: Kube, namespace: str, source: str, target: str) -> None:
    """Skips where a connection between two of its pods gets through in spite of a policy. The fake cluster enforces
    none: its tries are answered, after they were made, as by one that does."""
    if kube.fake is not None:
        _answered_by_policies(kube)
        return
    path = f"/api/v1/namespaces/{namespace}/pods"
    pods = {at(pod, "metadata", "labels", "app"): pod for pod in kube.all(path) if within.is_ready(pod)}
    slot, address = within.slot_of("", pods[source]), str(at(pods[target], "status", "podIP"))

    def tried(wanted: bool) -> bool:
        end_s = time.monotonic() + ENFORCED_S
        while (within.reached(kube.api, slot, address, PORT) == within.OPEN) is not wanted:
            if time.monotonic() > end_s:
                return False
        return True

    if not tried(True):
        pytest.skip("a pod reaches no other, so that nothing shows whether NetworkPolicies are enforced")
    policy = kube.make(denied(namespace, target))
    closed = tried(False)
    kube.do("DELETE", policy)
    if not closed:
        pytest.skip("NetworkPolicy isn't enforced everywhere: a connection got through that one forbids")
    assert tried(True), "a policy that is gone is still enforced"


def _answered_by_policies(kube: Kube) -> None:
    really = within.reached

    def reached(api: Api, slot: within.Slot, host: str, port: int) -> str:
        said = really(api, slot, host, port)
        specs = [one["spec"] for one in kube.unasked("networkpolicies", slot.namespace)]
        out = any("Egress" in spec["policyTypes"] for spec in specs if isinstance(spec, dict))
        return "silent" if specs and (host or out) else said

    for word in (isolate, segment):
        patched = mock.patch.object(word, "reached", reached)
        patched.start()
        kube.cleaning.append(patched.stop)


def cut_off(kube: Kube) -> How:
    namespace, _ = served(kube)
    runs(kube, namespace, "feed", ("python3", "-c", SERVER))
    enforcing(kube, namespace, "web", "feed")
    return Isolate(namespace, {"app": "web"})


FLOOD = Beside("flood", ("--entries", "$entry", "--rate", "40", "--method", "GET"), rate_per_s=40.0)
SCENES: dict[str, tuple[str, Scene]] = {
    "delay": ("delay", lambda kube: toxic(kube, "delay", {"delay_ms": 50.0, "direction": "down"})),
    "delay by a port's name": ("delay", lambda kube: toxic(kube, "delay", {"delay_ms": 50.0}, targetPort="http")),
    "stall": ("stall", lambda kube: toxic(kube, "stall", {})),
    "trickle": ("trickle", lambda kube: toxic(kube, "trickle", {"bytes_per_s": 2000.0})),
    "reset": ("reset", lambda kube: toxic(kube, "reset", {})),
    "refuse": ("refuse", lambda kube: toxic(kube, "refuse", {})),
    "quota of pods": ("quota", lambda kube: filled(kube, "pods")),
    "quota of cores and pods": ("quota", lambda kube: filled(kube, "requests.cpu", "pods")),
    "pressure": ("pressure", pressed),
    "burn": ("beside", lambda kube: beside(kube, Beside("burn", ("--cores", "1"), cores=1))),
    "flood": ("beside", lambda kube: beside(kube, FLOOD)),
    "tell": ("tell", told),
    "isolate": ("isolate", cut_off),
}
