"""Who is harmed on a node without having to leave it: where cores are burnt beside others, where devices are given out
no more. Held to the same as nodes that are lost: none that runs the cluster, and nobody who did not opt in.

Looked at when it is planned, and again whenever it is armed: pods come and go, and consent is taken back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec.structs import replace

from stormdrill.core.reach import moments
from stormdrill.errors import Problem, Unreachable
from stormdrill.model.mechanism import Beside, Capacity, Nodes
from stormdrill.model.permission import Need
from stormdrill.model.plan import Injection
from stormdrill.targets.kubernetes.mechanism import OPTED_IN
from stormdrill.targets.kubernetes.objects import Namespace, Node, Pod
from stormdrill.targets.kubernetes.optin import LABELLED, bystanders, node_problems, protected
from stormdrill.targets.kubernetes.quantity import amount
from stormdrill.targets.kubernetes.several import several
from stormdrill.targets.kubernetes.slots import alive

if TYPE_CHECKING:
    from stormdrill.targets.kubernetes.inventory import Cluster
    from stormdrill.targets.kubernetes.mechanism import Changing
    from stormdrill.targets.kubernetes.view import View

SPARED = 1
"""So many cores of a node nobody burns: they are for what runs on every node."""
EVERYWHERE = ("DaemonSet", "Node")
"""Who has pods on every node: a fault that were refused for them would be refused on every cluster."""
Crowding = Beside | Capacity
T = TypeVar("T")


def others(injections: Iterable[Injection], cluster: str) -> tuple[str, ...]:
    """The namespaces besides the system's whose pods are harmed."""
    hows = [one.how for one in injections if isinstance(one.how, Nodes | Beside | Capacity)]
    return tuple(sorted({name for how in hows if how.cluster == cluster for name in how.others}))


# --- when it is planned --------------------------------------------------------------------------------------


def placed(view: View, one: Injection) -> Injection:
    """What burns cores, with the node on which it would stand."""
    if not isinstance(one.how, Beside) or one.how.program != "burn":
        return one
    slot = view.slot(one.instance)
    return replace(one, how=replace(one.how, nodes=(slot.node,) if slot.node else (), cluster=slot.cluster))


def told(view: View, one: Injection) -> Injection:
    """With whose pods it harms."""
    if not isinstance(one.how, Crowding) or not one.how.nodes:
        return one
    plugin = one.how.plugin.partition("/")[0] if isinstance(one.how, Capacity) else ""
    found = {pod.metadata.namespace for pod in _harmed(view.clusters[one.how.cluster], one.how)}
    return replace(one, how=replace(one.how, others=tuple(sorted({*found, plugin} - {"", view.spec.namespace}))))


def problems(view: View, planned: Sequence[Injection]) -> Iterator[Problem]:
    for one in planned:
        if isinstance(one.how, Crowding) and one.how.nodes:
            known = view.clusters[one.how.cluster].nodes
            yield from node_problems((known[name] for name in one.how.nodes if name in known), view.where)
            yield from _bystanders(view.clusters[one.how.cluster], one.how, view.where)
    for node, cores in _burnt(view, planned):
        if said := too_many(cores, node):
            yield Problem(view.where, 0, 0, f"{node.name}: {said}", "write fewer cores")


def notes(view: View, planned: Iterable[Injection]) -> Iterator[str]:
    """What the plan says aloud: who runs on every node has less, too."""
    for one in planned:
        if isinstance(one.how, Beside) and one.how.nodes:
            there = [pod for pod in _on(view.clusters[one.how.cluster], one.how.nodes) if not slowed(pod)]
            made = {f"{pod.metadata.namespace}/{pod.controller.name}" for pod in there if pod.controller}
            if made:
                yield f"on {', '.join(one.how.nodes)} as on every node there are pods of {several(sorted(made))}"


def _bystanders(cluster: Cluster, how: Crowding, where: str) -> Iterator[Problem]:
    does = "would have less of the CPU" if isinstance(how, Beside) else f"would find no {how.resource} again"
    for namespace, names in sorted(bystanders(cluster, _harmed(cluster, how)).items()):
        what = f"pods of namespace {namespace}, which did not opt in, {does}: {several(names)}"
        fix = "move them away, or choose nodes without them"
        if not protected(namespace, cluster.spec.suite):
            fix = f"label that namespace {LABELLED} if they may, or {fix}"
        yield Problem(where, 0, 0, what, fix)


def _burnt(view: View, planned: Sequence[Injection]) -> Iterator[tuple[Node, int]]:
    """Each node with the most cores that are burnt there together."""
    most: Counter[tuple[str, str]] = Counter()
    for together in moments(planned):
        now: Counter[tuple[str, str]] = Counter()
        for how in (one.how for one in together):
            if isinstance(how, Beside):
                now.update({(how.cluster, name): how.cores for name in how.nodes})
        most |= now
    for (cluster, name), cores in most.items():
        if name in view.clusters[cluster].nodes:
            yield view.clusters[cluster].nodes[name], cores


def _harmed(cluster: Cluster, how: Crowding) -> list[Pod]:
    return [pod for pod in _on(cluster, how.nodes) if _harms(how, pod)]


def _on(cluster: Cluster, nodes: Sequence[str]) -> list[Pod]:
    return [pod for pod in cluster.all_pods if pod.spec.node_name in nodes and alive(pod)]


# --- whom ----------------------------------------------------------------------------------------------------


def _harms(how: Crowding, pod: Pod) -> bool:
    return slowed(pod) if isinstance(how, Beside) else holds(pod, how.resource)


def slowed(pod: Pod) -> bool:
    """Whether burnt cores beside it count as harm to it. What is on every node has to bear any neighbour."""
    return pod.controller is None or pod.controller.kind not in EVERYWHERE


def holds(pod: Pod, resource: str) -> bool:
    """Whether it has some of it, and would find none if it were made again there."""
    return any(resource in {**one.resources.requests, **one.resources.limits} for one in pod.spec.containers)


def too_many(cores: int, node: Node) -> str:
    """Why so many cores are not burnt there; empty where they may be."""
    has = int(amount(node.status.allocatable.get("cpu", "0")))
    if cores <= has - SPARED:
        return ""
    return f"{cores} cores would be burnt of {has}, and {SPARED} of them is for what runs on every node"


# --- when it is armed ----------------------------------------------------------------------------------------


def look_again(by: Changing, cluster: str, nodes: Sequence[str], how: Crowding) -> None:
    """Raises Unreachable where it may not be done any more, or that can't be seen."""
    willing = opted_in(by, cluster)
    for name in nodes:
        for found in by.items(cluster, "/api/v1/nodes", fieldSelector=f"metadata.name={name}"):
            node = to_be_harmed(found)
            if isinstance(how, Beside) and (said := too_many(how.cores, node)):
                raise Unreachable(f"{name}: {said}: nothing was changed")
        there = (_read(one, Pod) for one in by.items(cluster, "/api/v1/pods", fieldSelector=f"spec.nodeName={name}"))
        met = [pod.metadata for pod in there if alive(pod) and _harms(how, pod)]
        if strangers := sorted(f"{one.namespace}/{one.name}" for one in met if one.namespace not in willing):
            said = f"{several(strangers)} on {name} would be harmed, too, and their namespaces didn't opt in"
            raise Unreachable(f"{said}: nothing was changed")


def to_be_harmed(found: object) -> Node:
    """A node as it was read just now. Raises Unreachable for one that runs the cluster itself."""
    node = _read(found, Node)
    if node.controls:
        raise Unreachable(f"{node.name} runs the cluster itself (control plane): nothing was changed")
    return node


def needs(cluster: str) -> tuple[Need, ...]:
    """What looking again takes."""
    why = "to harm nobody on the node who may not be drilled"
    return tuple(Need("list", "", kind, cluster=cluster, why=why) for kind in ("nodes", "pods", "namespaces"))


def opted_in(by: Changing, cluster: str, *, lasting: bool = False) -> frozenset[str]:
    """Namespaces by their label; the cluster's own and the suite's never are. `lasting`: without those that are being
    deleted, where no right can be given any more."""
    found = by.items(cluster, "/api/v1/namespaces", labelSelector="=".join(OPTED_IN))
    metas = [_read(one, Namespace).metadata for one in found]
    names = (one.name for one in metas if not (lasting and one.deletion_timestamp))
    return frozenset(name for name in names if not protected(name, by.clusters.suite))


def _read(found: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise Unreachable(f"what the API server answered can't be read: {error}") from error
