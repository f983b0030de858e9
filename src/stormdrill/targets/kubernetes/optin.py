"""Who may be harmed at all: namespaces that opted in, and nobody else's pods on nodes that are lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stormdrill.errors import Problem
from stormdrill.spec.kubernetes import PROTECTED
from stormdrill.targets.kubernetes.clusters import named
from stormdrill.targets.kubernetes.inventory import Cluster
from stormdrill.targets.kubernetes.mechanism import OPTED_IN
from stormdrill.targets.kubernetes.objects import Node, Pod, Toleration
from stormdrill.targets.kubernetes.several import several

LABELLED = ": ".join(OPTED_IN)
EMPTYING = "NoExecute"
DAEMON = "DaemonSet"


def namespace_problems(cluster: Cluster, where: str) -> Iterator[Problem]:
    """Why the system's namespace may not be drilled."""
    spec = cluster.spec
    name, found = spec.namespace, cluster.namespace
    if said := protected(name, spec.suite):
        yield Problem(where, 0, 0, said, "name the system's own namespace")
    elif found is None:
        yield Problem(where, 0, 0, f"{named(cluster.name)} has no namespace {name}", "make it, or name the right one")
    elif found.metadata.deletion_timestamp is not None:
        yield Problem(where, 0, 0, f"namespace {name} is being deleted", "wait, and make it anew")
    elif found.metadata.labels.get(OPTED_IN[0]) != OPTED_IN[1]:
        what = f"namespace {name} does not let itself be drilled: it carries no label {LABELLED}"
        how = f"kubectl label namespace {name} {'='.join(OPTED_IN)}"
        yield Problem(where, 0, 0, what, f"whoever owns it can: {how}")


def protected(namespace: str, suite: str) -> str:
    """Why no drill may touch it whatever it carries; empty when one may."""
    if namespace.startswith(PROTECTED):
        return f"namespace {namespace} is the cluster's own, which no drill may touch"
    if namespace == suite:
        return f"namespace {namespace} is the suite's own, which no drill may touch"
    return ""


def goes(pod: Pod, empties: str, key: str) -> bool:
    """Whether it leaves a node that is emptied. A taint ends what doesn't tolerate it for ever, DaemonSets' pods too;
    otherwise these are left alone. What is written on the node's own disk (a mirror) nobody ends."""
    owner = pod.controller
    if owner is not None and owner.kind == "Node":
        return False
    if empties == "taint":  # its value is the run's, which nobody can know beforehand
        lasting = (one for one in pod.spec.tolerations if one.operator == "Exists" and one.toleration_seconds is None)
        return not any(tolerates(one, key) for one in lasting)
    return owner is None or owner.kind != DAEMON


def tolerates(one: Toleration, key: str, value: str = "", effect: str = EMPTYING) -> bool:
    if one.effect not in ("", effect) or (one.key and one.key != key):
        return False
    if one.operator == "Exists":
        return True
    return bool(one.key) and one.value == value


def node_problems(nodes: Iterable[Node], where: str) -> Iterator[Problem]:
    """Nodes that no drill may take."""
    found = sorted(node.name for node in nodes if node.controls)
    if found:
        what = f"{several(found)} {'runs' if len(found) == 1 else 'run'} the cluster itself (control plane)"
        fix = "let the system's pods run on other nodes, or choose others by instance, pool or share"
        yield Problem(where, 0, 0, what, fix)


def bystanders(cluster: Cluster, going: Iterable[Pod]) -> dict[str, list[str]]:
    """Pods that would go with a node, of namespaces that didn't opt in: their names by namespace."""
    found: dict[str, list[str]] = {}
    for pod in going:
        namespace = pod.metadata.namespace
        if namespace not in cluster.opted_in or protected(namespace, cluster.spec.suite):
            found.setdefault(namespace, []).append(f"{pod.metadata.name} on {pod.spec.node_name}")
    return found


def bystander_problems(cluster: Cluster, going: Iterable[Pod], where: str) -> Iterator[Problem]:
    going = tuple(going)
    daemons = {pod.metadata.namespace for pod in going if pod.controller is not None and pod.controller.kind == DAEMON}
    for namespace, names in sorted(bystanders(cluster, going).items()):
        what = f"pods of namespace {namespace}, which did not opt in, would go with their nodes: {several(names)}"
        if protected(namespace, cluster.spec.suite):
            fix = "choose nodes without them, or let them tolerate the taint stormdrill.dev/lost (operator Exists)"
        else:
            fix = f"label that namespace {LABELLED} if they may, move them away, or choose other nodes"
        if namespace in daemons:
            fix += "; or write empties: evict, or empties: delete, which leave DaemonSets' pods where they are"
        yield Problem(where, 0, 0, what, fix)
