"""What of a cluster the tests may stand on: its nodes, the image, and what sessions that were killed left there."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from stormdrill.cluster import naming
from stormdrill.cluster.api import MERGE_PATCH, Api
from stormdrill.cluster.confined import NOWHERE
from stormdrill.errors import StormdrillError
from stormdrill.targets.kubernetes.mechanism import OPTED_IN, Object, at, objects, texts
from stormdrill.targets.kubernetes.mechanisms.nodes import CORDONED, TAINT
from stormdrill.targets.kubernetes.sweeping import sweep

if TYPE_CHECKING:
    from kube_rig import Kube

NODES = "STORMDRILL_TEST_NODES"
"""KEY=VALUE,…: labels that every node has besides, on which pods of the tests stand."""
OURS = "stormdrill-test-"
"""What the names of the tests' namespaces begin with."""
RUNS = "test-"
"""What their runs begin with that keep no ledger."""
NODE_LABEL = OPTED_IN[0]
LABELLED = "=".join(OPTED_IN)
"""The same label lets namespaces and nodes be drilled."""
SESSION_LABEL = "stormdrill.dev/test"
SESSION = os.environ.get("STORMDRILL_TEST_SESSION") or uuid.uuid4().hex
RESOURCE = "stormdrill.dev/test-gpu"
"""What the tests let nodes advertise."""
RBAC = "/apis/rbac.authorization.k8s.io/v1"
GONE_S = 180.0
PROBE = ("python3", "-c", "import stormdrill.proxy, stormdrill.beside, stormdrill.cluster")
NEVER_STARTS = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")
leaving: list[tuple[Api, str]] = []
"""Namespaces that were deleted and may still be there."""


# Nodes


def asked_for(text: str) -> dict[str, str]:
    """`node=real,pool=cpu`, as labels."""
    found = dict(part.strip().partition("=")[::2] for part in text.split(",") if part.strip())
    assert all(found), f"${NODES}: write KEY=VALUE, with commas between several"
    return found


def has_kubelet(node: Object) -> bool:
    """A simulated one says that its kubelet listens nowhere."""
    return at(node, "status", "daemonEndpoints", "kubeletEndpoint", "Port") not in (None, 0)


def takes_pods(node: Object) -> bool:
    if any(labels_of(node).get(key) == value for key, value in NOWHERE.items()):
        return False
    conditions = objects(at(node, "status", "conditions"))
    ready = any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
    shut = any(one.get("effect") in ("NoSchedule", "NoExecute") for one in objects(at(node, "spec", "taints")))
    return ready and not shut and at(node, "spec", "unschedulable") is not True


def opens(node: Object) -> bool:
    """It was given back, and whoever sees to that has not done so yet."""
    shut = any(one.get("key") == CORDONED for one in objects(at(node, "spec", "taints")))
    return shut and at(node, "spec", "unschedulable") is not True


def labels_of(node: Object) -> dict[str, str]:
    return dict(texts(at(node, "metadata", "labels")))


def standing(nodes: Sequence[Object], besides: Mapping[str, str]) -> dict[str, str]:
    """Labels that only nodes have on which pods of the tests may stand: those that let themselves be drilled, else any
    with a kubelet. Empty where there is none."""
    good = [one for one in nodes if has_kubelet(one) and takes_pods(one) and besides.items() <= labels_of(one).items()]
    opted = [one for one in good if labels_of(one).get(NODE_LABEL) == OPTED_IN[1]]
    meant = opted or good
    if not meant:
        return {}
    shared = set(labels_of(meant[0]).items()).intersection(*(labels_of(one).items() for one in meant))
    tried = [{NODE_LABEL: OPTED_IN[1], **besides}] if opted else []
    tried += [dict(besides)] if besides else []
    tried += [{**besides, key: value} for key, value in sorted(shared)]
    tried += [{**besides, **_by_name(one)} for one in meant]
    fits = {id(one) for one in meant}
    return next(each for each in tried if {id(one) for one in nodes if each.items() <= labels_of(one).items()} <= fits)


def _by_name(node: Object) -> dict[str, str]:
    name = "kubernetes.io/hostname"
    return {name: labels_of(node).get(name, str(at(node, "metadata", "name")))}


def stranger(pod: Object, empties: str = "taint") -> str:
    """Why a node with this pod is not the tests' to empty in this way; empty when it is. Only a taint ends pods of
    DaemonSets."""
    namespace, name = str(at(pod, "metadata", "namespace")), str(at(pod, "metadata", "name"))
    owners = [owner.get("kind") for owner in objects(at(pod, "metadata", "ownerReferences"))]
    mirror = "kubernetes.io/config.mirror" in texts(at(pod, "metadata", "annotations")) or "Node" in owners
    ended = at(pod, "status", "phase") in ("Succeeded", "Failed")
    if mirror or ended or namespace.startswith(OURS):
        return ""
    if "DaemonSet" not in owners:
        return f"{namespace}/{name} is somebody else's"
    return "" if empties != "taint" or _stays(pod) else f"{namespace}/{name} of a DaemonSet doesn't tolerate NoExecute"


def _stays(pod: Object) -> bool:
    """It tolerates every taint that ends pods, for ever."""
    return any(
        one.get("operator") == "Exists" and not one.get("key") and one.get("effect", "") in ("", "NoExecute")
        and "tolerationSeconds" not in one
        for one in objects(at(pod, "spec", "tolerations"))
    )  # fmt: skip


# The image


def probed(kube: Kube) -> tuple[str, bool]:
    """What the image lacks (empty: nothing), and whether a container of it begins at all."""
    namespace = kube.namespace()
    spec = {"restartPolicy": "Never", **kube.pod(PROBE, terminationMessagePolicy="FallbackToLogsOnError")}
    meta = {"name": "probe", "namespace": namespace}
    path = kube.make({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    last: list[Object | None] = []

    def over() -> bool:
        last[:] = [kube.read(path)]
        return at(last[0], "status", "phase") in ("Succeeded", "Failed") or _waits(last[0]) in NEVER_STARTS

    with contextlib.suppress(AssertionError):
        kube.until(over, "the probe never ended")
    pod = last[0]
    if at(pod, "status", "phase") == "Succeeded":
        return "", True
    said = at(pod, "status", "containerStatuses", "0", "state", "terminated")
    if said:
        told = str(at(said, "message") or at(said, "reason") or "").strip().splitlines()
        code = at(said, "exitCode")
        shown = f"$STORMDRILL_TEST_IMAGE {kube.image} is none of `make image`: {' '.join(PROBE[:2])} ended with {code}"
        return f"{shown}: {told[-1] if told else ''}", True
    waits = _waits(pod) or str(at(pod, "status", "conditions", "0", "message") or "no pod of it began")
    return f"$STORMDRILL_TEST_IMAGE {kube.image} doesn't start on nodes with {kube.place}: {waits}", False


def _waits(pod: Object | None) -> str:
    return str(at(pod, "status", "containerStatuses", "0", "state", "waiting", "reason") or "")


# What is left


def clear(api: Api, tell: Callable[[str], None] = print) -> None:
    """What killed sessions have left: first what their ledgers know, by the product's own undo; then what carries the
    tests' labels and names, and nothing else."""
    found = objects(api.call("GET", "/api/v1/namespaces", query={"labelSelector": SESSION_LABEL}).read().get("items"))
    for one in found:
        name = str(at(one, "metadata", "name"))
        if name.startswith(OURS) and labels_of(one).get(SESSION_LABEL) != SESSION:
            tell(f"removing {name}, which a session of tests left")
            with contextlib.suppress(StormdrillError):
                sweep(api, name)
            api.call("DELETE", f"/api/v1/namespaces/{name}")
            leaving.append((api, name))
    for kind in ("clusterroles", "clusterrolebindings", "roles", "rolebindings"):
        found = objects(api.call("GET", f"{RBAC}/{kind}", query={"labelSelector": SESSION_LABEL}).read().get("items"))
        for one in found:
            if labels_of(one)[SESSION_LABEL] != SESSION:
                namespace = at(one, "metadata", "namespace")
                where = f"/namespaces/{namespace}" if namespace else ""
                api.call("DELETE", f"{RBAC}{where}/{kind}/{at(one, 'metadata', 'name')}")
    nodes = objects(api.call("GET", "/api/v1/nodes", query={"labelSelector": LABELLED}).read().get("items"))
    for node in nodes:
        _open_again(api, node)
    wait_until_gone()


def _open_again(api: Api, node: Object) -> None:
    path, notes = f"/api/v1/nodes/{at(node, 'metadata', 'name')}", texts(at(node, "metadata", "annotations"))
    marks = {name: _run(value) for name, value in notes.items() if naming.is_marker(name)}
    mine = {name: run for name, run in marks.items() if run.startswith(RUNS)}
    taints = objects(at(node, "spec", "taints"))
    kept = [one for one in taints if not (one.get("key") == TAINT and str(one.get("value")).startswith(RUNS))]
    if mine or len(kept) < len(taints):
        # the tests take no node that is cordoned, so that the cordon is theirs, too
        shut = {"unschedulable": None} if len(kept) < len(taints) else {}
        meta = {"annotations": dict.fromkeys(mine), "resourceVersion": at(node, "metadata", "resourceVersion")}
        api.call("PATCH", path, {"metadata": meta, "spec": {"taints": kept, **shut}}, content_type=MERGE_PATCH)
    if RESOURCE in texts_of(at(node, "status", "capacity")):
        none = {part: {RESOURCE: None} for part in ("capacity", "allocatable")}
        api.call("PATCH", f"{path}/status", {"status": none}, content_type=MERGE_PATCH)


def texts_of(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _run(value: str) -> str:
    try:
        return str(json.loads(value).get("run", ""))
    except (ValueError, AttributeError):
        return ""


def wait_until_gone() -> None:
    """Raises AssertionError naming what stays."""
    deadline_s = time.monotonic() + GONE_S
    while leaving:
        api, name = leaving[0]
        if api.call("GET", f"/api/v1/namespaces/{name}").status == 404:
            leaving.pop(0)
            continue
        if time.monotonic() > deadline_s:
            stays = [each for _, each in leaving]
            leaving.clear()
            raise AssertionError(f"namespaces that don't go: {', '.join(stays)}")
        time.sleep(0.3)
