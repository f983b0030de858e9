"""What stands in the cluster for a fault: names and labels of it, and pods of the suite's own image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from stormdrill.cluster.changes import Change
from stormdrill.cluster.confined import CONFINED, placed
from stormdrill.cluster.naming import LABEL
from stormdrill.model.plan import Injection
from stormdrill.model.system import ImagePolicy
from stormdrill.model.undo import KubeDelete
from stormdrill.targets.kubernetes.mechanism import PREFIX, Object, text

OF_ONE = f"{PREFIX}injection"
"""The label by which the pod of one injection is selected among all others."""
LONGEST_NAME = 63
GONE_S = 10.0
"""Within which something that is deleted is gone, beyond the time that a pod is given to end: a kubelet takes seconds
more than that, and the API server may be in trouble for a moment."""
Off = Callable[[str], Sequence[str]]
"""Nodes of a cluster on which nothing of the suite's own would run."""


def nowhere(cluster: str) -> Sequence[str]:
    """`Off` where nothing is known of nodes."""
    return ()


def short(injection: Injection) -> str:
    """The same in every run, so that permissions can name what is made before there is a run."""
    return hashlib.sha256(injection.id.encode()).hexdigest()[:8]


def name_of(injection: Injection, what: str) -> str:
    """A name that is a DNS label: `stormdrill-quota-1a2b3c4d`."""
    tail = f"-{short(injection)}"
    return what[: LONGEST_NAME - len(tail)].rstrip("-.") + tail


def created(cluster: str, path: str, run: str, body: Object, why: str) -> Change:
    """`path` without the name, which is the body's. The label by which the undo knows it is set here."""
    meta = body["metadata"]
    assert isinstance(meta, dict)
    meta["labels"] = {**meta.get("labels", {}), LABEL: run}
    spec = body.get("spec")
    grace = spec.get("terminationGracePeriodSeconds") if isinstance(spec, dict) else None
    limit_s = (grace if isinstance(grace, int) else 0) + GONE_S
    # of a pod a scheduler and others write the spec, too
    wrote = () if body.get("kind") == "Pod" else tuple(_said({"spec": spec}))
    return Change(KubeDelete(cluster, f"{path}/{meta['name']}", run, limit_s, wrote), text(body), why)


def _said(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where it says anything, each list as a whole. What is empty a server leaves out."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _said(inner, (*path, name))
    elif value:
        yield path


def pod(
    name: str,
    namespace: str,
    image: ImagePolicy,
    argv: Sequence[str],
    *,
    labels: Mapping[str, str],
    env: Mapping[str, str] | None = None,
    requests: Mapping[str, str],
    limits: Mapping[str, str],
    off: Sequence[str] = (),
) -> Object:
    """As nobody, without a token, with nothing but a place for its own notes; as little as its work takes. `off`:
    nodes that it must not stand on."""
    container: Object = {
        "name": "stormdrill",
        "image": image.name,
        **({"imagePullPolicy": image.pull} if image.pull else {}),
        "command": list(argv),
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        "resources": {"requests": dict(requests), "limits": dict(limits)},
        "securityContext": dict(CONFINED),
        "volumeMounts": [{"name": "notes", "mountPath": "/tmp"}],  # noqa: S108  (of the pod alone)
    }
    spec: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "notes", "emptyDir": {"sizeLimit": "8Mi"}}],
        **placed(nodes=image.nodes, off=off, pull_secret=image.pull_secret),
    }
    # a mesh would put a proxy of its own before ours
    about = {"sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"}
    meta: Object = {"name": name, "namespace": namespace, "labels": dict(labels), "annotations": about}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
