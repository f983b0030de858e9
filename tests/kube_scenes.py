"""What is harmed around Services, policies, quotas and pods: a small system in a namespace of the test's own."""

from __future__ import annotations

from collections.abc import Mapping

from kube_rig import Kube, Scene
from stormdrill.model.mechanism import Beside, How, Pressure, Quota, Tell, Toxic
from stormdrill.targets.kubernetes.mechanism import Object, at

PORT = 8080
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
http.server.ThreadingHTTPServer((os.environ["POD_IP"], PORT), Handler).serve_forever()
""".replace("PORT", str(PORT))
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
    container: Object = {
        "name": "main",
        "image": kube.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(argv),
        "env": [field("POD_IP", "status.podIP"), field("POD", "metadata.name")],
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
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
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
    served(kube)
    return how


def filled(kube: Kube, *resources: str) -> How:
    namespace, _ = served(kube)
    return Quota(namespace, dict.fromkeys(resources, ""))


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
}
