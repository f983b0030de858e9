"""The reference platform as plain manifests: two or more regions by topology label, for `kubectl apply`.

A base (namespace, edges, feed) and what each region adds to it. Peers are found through the variables that a kubelet
gives a container for each Service, so that no cluster DNS is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from stormdrill.cluster.confined import CONFINED, HARDENED, hardened

Manifest = dict[str, object]
OPT_IN = {"stormdrill.dev/drill": "allowed"}
REGION = "topology.kubernetes.io/region"
PORT = 8080
PART_OF = "stormdrill-platform"
DEVICES = ("gpu0", "gpu1")
CALLS_FEED = ("gateway", "cpu", "gpu")
DRAIN_S = 2
"""Between leaving the endpoints and the end: callers that still know the address are served."""
CONNECTION_AGE_S = 1
"""A Service that leads somewhere else reaches new connections only: none is kept for longer."""
KEPT_AT = "/var/lib/stormdrill-platform"


class Layout(Struct, frozen=True):
    """What a cluster decides about the platform."""

    image: str
    namespace: str = "platform"
    regions: tuple[str, ...] = ("eu", "us")
    """Values of the nodes' region label."""
    region_label: str = REGION
    """The label of nodes that says in which region they are. Another one where a whole cluster has one region."""
    pull: str = "IfNotPresent"
    nodes: dict[str, str] = {}
    """Labels of the nodes that it may run on, besides the region's."""
    storage: str = "node"
    """Where a gateway's queue is kept: node (a directory of the node), claim (a PersistentVolumeClaim), none (lost with
    the pod, and so is what it had accepted)."""
    queue_nodes: dict[str, str] = {}
    """Region → name of the node that its gateway may run on, for a queue that is kept in a directory of it."""
    gpu_resource: str = ""
    """What a GPU worker asks of its node (nvidia.com/gpu); empty: nothing, its devices are simulated."""
    segmented: bool = False
    """With a NetworkPolicy that lets only gateways and workers reach the feed."""


class Part(Struct, frozen=True):
    """One Deployment of the platform."""

    name: str
    app: str
    """The service that it is an instance of."""
    argv: tuple[str, ...]
    role: str
    region: str = ""
    pool: str = ""
    replicas: int = 1
    drained: bool = False
    """It is called by others."""
    keeps: bool = False
    """Its data outlive the pod."""

    @property
    def selector(self) -> dict[str, str]:
        named = {"app": self.app, "region": self.region, "pool": self.pool}
        return {key: value for key, value in named.items() if value}


EDGE = Part("edge", "edge", ("edge",), "edge", replicas=2, drained=True)
FEED = Part("feed", "feed", ("feed",), "feed")


def parts(name: str) -> tuple[Part, ...]:
    """Of one region."""
    gateway = Part(
        f"gateway-{name}", "gateway", ("gateway", "--region", name), "gateway", name, drained=True, keeps=True
    )
    pools = [
        Part(f"{pool}-{name}", pool, ("workers", "--pool", pool, "--region", name), "worker", name, pool)
        for pool in ("cpu", "gpu")
    ]
    return (gateway, *pools)


def base(layout: Layout) -> list[Manifest]:
    """What there is once, whatever the regions."""
    made = [_namespace(layout), _service(layout, EDGE), _service(layout, FEED)]
    made += [_deployment(layout, EDGE), _deployment(layout, FEED), _budget(layout, EDGE)]
    if layout.segmented:
        made.append(_segment(layout))
    return made


def region(layout: Layout, name: str) -> list[Manifest]:
    """A gateway with its queue, a CPU pool and a GPU pool."""
    gateway, *pools = parts(name)
    made = [_service(layout, gateway), _devices(layout, name)]
    if layout.storage == "claim":
        made.append(_claim(layout, gateway))
    for part in (gateway, *pools):
        made += [_deployment(layout, part), _budget(layout, part)]
    return made


def everything(layout: Layout) -> list[Manifest]:
    """The whole platform, Services before what reads their variables."""
    made = base(layout)
    for name in layout.regions:
        made += region(layout, name)
    order = ("Namespace", "PersistentVolumeClaim", "ConfigMap", "Service")
    return sorted(made, key=lambda one: order.index(str(one["kind"])) if one["kind"] in order else len(order))


def kustomization(layout: Layout) -> dict[str, list[Manifest]]:
    """The same as files of a kustomize tree: a base with one region, and an overlay that adds the others.

    A file's path → its documents.
    """
    first, *others = layout.regions
    alone = replace(layout, regions=(first,))
    files: dict[str, list[Manifest]] = {
        "base/platform.yaml": base(alone),
        "base/region.yaml": region(alone, first),
        "base/kustomization.yaml": [_kustomize(["platform.yaml", "region.yaml"])],
    }
    added = {f"overlays/two-regions/{name}.yaml": region(layout, name) for name in others}
    files |= added
    told = [part for part in (EDGE, *parts(first)) if part.app != "feed"]
    files["overlays/two-regions/peers.yaml"] = [_peers_patch(layout, part) for part in told]
    resources = ["../../base", *(path.rpartition("/")[2] for path in added)]
    files["overlays/two-regions/kustomization.yaml"] = [{**_kustomize(resources), "patches": [{"path": "peers.yaml"}]}]
    return files


def _kustomize(resources: Sequence[str]) -> Manifest:
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": list(resources)}


def _namespace(layout: Layout) -> Manifest:
    """With the opt-in. A directory of the node is what the restricted and baseline levels forbid."""
    level = "privileged" if layout.storage == "node" else "restricted"
    labels = {**OPT_IN, "app.kubernetes.io/part-of": PART_OF, "pod-security.kubernetes.io/enforce": level}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": layout.namespace, "labels": labels}}


def _meta(layout: Layout, name: str, labels: dict[str, str]) -> dict[str, object]:
    return {"name": name, "namespace": layout.namespace, "labels": {**labels, "app.kubernetes.io/part-of": PART_OF}}


def _service(layout: Layout, part: Part) -> Manifest:
    ports = [{"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP"}]
    spec = {"selector": part.selector, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _meta(layout, part.name, part.selector), "spec": spec}


def _budget(layout: Layout, part: Part) -> Manifest:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": part.selector}}
    meta = _meta(layout, part.name, part.selector)
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta, "spec": spec}


def _claim(layout: Layout, part: Part) -> Manifest:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    meta = _meta(layout, part.name, part.selector)
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}


def _devices(layout: Layout, name: str) -> Manifest:
    """The simulated devices of a GPU worker: a file each, whose word is its state."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(layout, f"devices-{name}", {"app": "gpu", "region": name}),
        "data": dict.fromkeys(DEVICES, "ok"),
    }


def _segment(layout: Layout) -> Manifest:
    callers: list[Manifest] = [{"podSelector": {"matchLabels": {"app": app}}} for app in CALLS_FEED]
    ours = {"key": "stormdrill.dev/injection", "operator": "Exists"}  # a fault's proxy stands for those who call
    callers.append({"podSelector": {"matchExpressions": [ours]}})
    spec = {
        "podSelector": {"matchLabels": {"app": "feed"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": callers, "ports": [{"port": PORT, "protocol": "TCP"}]}],
    }
    meta = _meta(layout, "feed", {"app": "feed"})
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


def _deployment(layout: Layout, part: Part) -> Manifest:
    labels = {**part.selector, "role": part.role}
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": str(PORT), "prometheus.io/path": "/metrics"}
    spec = {
        "replicas": part.replicas,
        "selector": {"matchLabels": part.selector},
        "strategy": {"type": "Recreate" if part.keeps else "RollingUpdate"},
        "template": {"metadata": {"labels": labels, "annotations": scraped}, "spec": _pod(layout, part)},
    }
    meta = _meta(layout, part.name, labels)
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def _pod(layout: Layout, part: Part) -> dict[str, object]:
    rooted = part.keeps and layout.storage == "node"
    pod: dict[str, object] = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {**HARDENED, "runAsUser": 0} if rooted else hardened(),  # the node's directory is root's
        "containers": [_container(layout, part)],
        "volumes": _volumes(layout, part),
    }
    where = {**({layout.region_label: part.region} if part.region else {}), **layout.nodes}
    if rooted and part.region in layout.queue_nodes:
        where["kubernetes.io/hostname"] = layout.queue_nodes[part.region]
    if where:
        pod["nodeSelector"] = where
    if part.region:
        pod["affinity"] = _affinity(part)
    if part.replicas > 1:  # over regions first, so that the loss of one leaves somebody
        spread = {"maxSkew": 1, "topologyKey": layout.region_label, "whenUnsatisfiable": "ScheduleAnyway"}
        pod["topologySpreadConstraints"] = [{**spread, "labelSelector": {"matchLabels": part.selector}}]
    return pod


def _container(layout: Layout, part: Part) -> dict[str, object]:
    ready = {"httpGet": {"path": "/healthz", "port": PORT}, "periodSeconds": 1, "timeoutSeconds": 1}
    requests = {"cpu": "50m", "memory": "96Mi"}
    limits = {"cpu": "1", "memory": f"{_memory_mb(part)}Mi"}
    mounts: list[dict[str, object]] = [
        {"name": "data", "mountPath": "/data"},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  (the container's own)
    ]
    if part.pool == "gpu":
        mounts.append({"name": "devices", "mountPath": "/data/devices", "readOnly": True})
        if layout.gpu_resource:
            requests[layout.gpu_resource] = limits[layout.gpu_resource] = str(len(DEVICES))
    one: dict[str, object] = {
        "name": part.app,
        "image": layout.image,
        "imagePullPolicy": layout.pull,
        "command": ["python3", "-m", "stormdrill.platform", *part.argv],
        "env": _environment(layout, part),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {**ready, "failureThreshold": 2},
        "livenessProbe": {**ready, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "resources": {"requests": requests, "limits": limits},
        "securityContext": CONFINED,
        "volumeMounts": mounts,
    }
    if part.drained:
        one["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", str(DRAIN_S)]}}}
    return one


def _memory_mb(part: Part) -> int:
    return 192 if part.role == "worker" else 256


def _environment(layout: Layout, part: Part) -> list[dict[str, object]]:
    """What a target tells a process of the platform; see `platform.wiring`."""
    name: dict[str, object] = {"value": part.name}
    if part.replicas > 1:
        name = {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    said = [{"name": "STORMDRILL_INSTANCE", **name}]
    told = {
        "STORMDRILL_HOST": "0.0.0.0",  # noqa: S104  (of the pod's own network)
        "STORMDRILL_PORT": str(PORT),
        "STORMDRILL_DATA": "/data",
        "STORMDRILL_CONNECTION_AGE_S": str(CONNECTION_AGE_S),
    }
    if part.role == "worker":
        told["STORMDRILL_MEMORY_LIMIT_MB"] = str(_memory_mb(part))
    said += [{"name": variable, "value": value} for variable, value in told.items()]
    if part.app != "feed":
        said.append(_gateways(layout, part))
    if part.app in CALLS_FEED:
        said.append({"name": "STORMDRILL_PEERS_FEED", "value": _peer("feed")})
    return said


def _gateways(layout: Layout, part: Part) -> dict[str, object]:
    """The variable in which it is told of all gateways but itself."""
    names = [f"gateway-{name}" for name in layout.regions if f"gateway-{name}" != part.name]
    return {"name": "STORMDRILL_PEERS_GATEWAY", "value": ",".join(_peer(name) for name in names)}


def _peer(service: str) -> str:
    variable = service.upper().replace("-", "_")
    return f"{service}=$({variable}_SERVICE_HOST):$({variable}_SERVICE_PORT)"


def _volumes(layout: Layout, part: Part) -> list[dict[str, object]]:
    data: dict[str, object] = {"emptyDir": {"sizeLimit": "256Mi"}}
    if part.keeps and layout.storage == "node":
        data = {"hostPath": {"path": f"{KEPT_AT}/{layout.namespace}/{part.name}", "type": "DirectoryOrCreate"}}
    elif part.keeps and layout.storage == "claim":
        data = {"persistentVolumeClaim": {"claimName": part.name}}
    made: list[dict[str, object]] = [{"name": "data", **data}, {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}]
    if part.pool == "gpu":
        made.append({"name": "devices", "configMap": {"name": f"devices-{part.region}"}})
    return made


def _affinity(part: Part) -> dict[str, object]:
    """Wishes only: a cluster without GPU nodes runs the simulated ones elsewhere, and a region with one node has all on
    it. Workers and gateway on different nodes let a drill lose the one without the other."""
    found: dict[str, object] = {}
    if part.pool:
        wanted = {"key": "pool", "operator": "In", "values": [part.pool]}
        one = {"weight": 50, "preference": {"matchExpressions": [wanted]}}
        found["nodeAffinity"] = {"preferredDuringSchedulingIgnoredDuringExecution": [one]}
    shunned = {"region": part.region, "role": "gateway" if part.role == "worker" else "worker"}
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": shunned}}
    apart = {"weight": 20, "podAffinityTerm": term}  # less than to be where its pool belongs
    found["podAntiAffinity"] = {"preferredDuringSchedulingIgnoredDuringExecution": [apart]}
    return found


def _peers_patch(layout: Layout, part: Part) -> Manifest:
    """A strategic merge patch: containers and variables are merged by name."""
    told = {"template": {"spec": {"containers": [{"name": part.app, "env": [_gateways(layout, part)]}]}}}
    meta = {"name": part.name, "namespace": layout.namespace}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": told}
