"""The watchdog's Job: how its pod is described, and why it has not begun yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stormdrill.cluster import naming
from stormdrill.cluster.asking import text, under
from stormdrill.cluster.confined import CONFINED, placed

KEPT_S = 3600
"""After its end, where nobody removes it."""
REQUESTS = {"cpu": "20m", "memory": "48Mi"}
"""Of its one container."""
HOPELESS = frozenset({"ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"})
"""Reasons for which waiting longer is of no use: an image that was asked for in vain is asked for ever more rarely."""
_LOST_NODE = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of the watchdog's pod, besides what it runs."""

    pull: str = ""
    """When its image is pulled; empty: the cluster's default."""
    pull_secret: str = ""
    """The Secret in the suite's namespace with which it is pulled."""
    keep_off: Sequence[str] = ()
    """Nodes that faults take: it stands elsewhere."""
    rather_not: Sequence[str] = ()
    """Nodes on which it stands only where there are no others."""
    nodes: Mapping[str, str] = field(default_factory=dict)
    """Labels of those that it may stand on; empty: any."""
    priority: str = ""
    """Its PriorityClass."""


def manifest(run: str, suite: str, account: str, image: str, wanted: Wanted) -> dict[str, object]:
    """It tolerates every taint, ours among them, but leaves a node that is lost, and stands on one that others taint
    only where there is no other; never on a node that a fault takes; and has no deadline: as long as something is armed
    it goes on."""
    container: dict[str, object] = {
        "name": "watchdog",
        "image": image,
        "command": ["python3", "-m", "stormdrill.cluster", "--run", run, "--suite", suite],
        "env": [{"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}, {"name": "PYTHONUNBUFFERED", "value": "1"}],
        "resources": {"requests": dict(REQUESTS), "limits": {"memory": "192Mi"}},
        "securityContext": CONFINED,
        "terminationMessagePolicy": "FallbackToLogsOnError",  # why it failed, on the pod itself
    }
    if wanted.pull:
        container["imagePullPolicy"] = wanted.pull
    soon = [{"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5} for key in _LOST_NODE]
    pod: dict[str, object] = {
        "serviceAccountName": account,
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": 5,
        "enableServiceLinks": False,
        "tolerations": [*soon, {"operator": "Exists"}],  # the first that fits a taint counts
        "containers": [container],
        **placed(nodes=wanted.nodes, off=wanted.keep_off, rather_not=wanted.rather_not, pull_secret=wanted.pull_secret),
    }
    if wanted.priority:
        pod["priorityClassName"] = wanted.priority
    labels = {naming.LABEL: run, naming.PART: "watchdog"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": naming.watchdog(run), "namespace": suite, "labels": labels},
        "spec": {
            "backoffLimit": 1000,
            "ttlSecondsAfterFinished": KEPT_S,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def why_waiting(pods: Sequence[dict[str, object]]) -> tuple[str, bool]:
    """What the pods say for not having begun, and whether that is hopeless."""
    said: list[str] = []
    hopeless, silent = False, ""
    for pod in pods:
        statuses = under(pod, "status").get("containerStatuses")
        for status in statuses if isinstance(statuses, list) else []:
            for kind in ("waiting", "terminated"):
                if reason := text(status, "state", kind, "reason"):
                    said.append(f"{reason}: {text(status, 'state', kind, 'message')}".rstrip(": "))
                    hopeless = hopeless or reason in HOPELESS
        conditions = under(pod, "status").get("conditions")
        for condition in conditions if isinstance(conditions, list) else []:
            if text(condition, "type") == "PodScheduled" and text(condition, "status") == "False":
                said.append(f"{text(condition, 'reason')}: {text(condition, 'message')}".rstrip(": "))
        if text(pod, "status", "phase") == "Running":
            silent = _silent(pod)
    if not said:
        return silent or ("no pod of it was made yet" if not pods else "its pod hasn't said anything"), False
    return "; ".join(dict.fromkeys(said)), hopeless


def _silent(pod: dict[str, object]) -> str:
    """Of one that is told to run: the node may only pretend it, or the program doesn't get through."""
    name, suite = text(pod, "metadata", "name"), text(pod, "metadata", "namespace")
    return (
        f"its pod {name} runs on {text(pod, 'spec', 'nodeName')} and has written nothing; is that a real node? "
        "kubernetes: {nodes: {LABEL: VALUE}} in the system file says which are. While you try it again, "
        f"`kubectl logs -n {suite} -l {naming.PART}=watchdog -f` shows what it says"
    )
