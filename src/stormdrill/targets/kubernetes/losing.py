"""Instances that are to crash, as nodes that are lost or workloads that are scaled away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from stormdrill.model.mechanism import How, Nodes, Scale
from stormdrill.model.plan import Injection
from stormdrill.targets.kubernetes.mechanisms.nodes import TAINT
from stormdrill.targets.kubernetes.optin import goes

if TYPE_CHECKING:
    from stormdrill.targets.kubernetes.view import View

REGION = "region"
ON_NODES = ("region-loss", "node-loss", "gpu-pool-outage")
"""Faults by which machines may be meant; any other means the pods."""
UNDO_NODES = "uncordon, take the taint away"
NodeId = tuple[str, str]
"""Cluster and name."""


class Refusing:
    """Collects why something can't be bound."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str]] = []

    def __call__(self, what: str, fix: str) -> None:
        if (what, fix) not in self.problems:
            self.problems.append((what, fix))


def lost(view: View, asked: Sequence[Injection], refuse: Refusing) -> list[Injection]:
    """Of one use of a fault: all that crashes."""
    hit = {one.instance: one for one in asked}
    nodes = _nodes(view, asked[0].fault, hit)
    if nodes:
        return [_on_node(view, node, hit, asked) for node in nodes]
    return scaled(view, hit, refuse)


def _nodes(view: View, fault: str, hit: Mapping[str, Injection]) -> list[NodeId]:
    """The nodes that are meant; none where the pods alone are."""
    if fault not in ON_NODES:
        return []
    there = _of(view, hit)
    if fault == "region-loss" and (whole := _region(view, hit)):
        return whole
    on_them = {name for node in there for name in view.on_nodes[node]}
    if on_them != set(hit):
        return []
    if fault == "gpu-pool-outage" and not _theirs_alone(view, there, hit):
        return []
    return sorted(there)


def _of(view: View, instances: Iterable[str]) -> set[NodeId]:
    slots = (view.slot(name) for name in instances)
    return {(slot.cluster, slot.node) for slot in slots if slot.node}


def _region(view: View, hit: Mapping[str, Injection]) -> list[NodeId]:
    """All nodes of the region, where all of its instances are hit; none where nodes don't say to which they belong.

    In a cluster that is the region, those where the system's pods are: it has others' machines too."""
    regions = {view.slot(name).instance.labels.get(REGION, "") for name in hit}
    inside = {s.instance.name for s in view.slots.all() if s.instance.labels.get(REGION, "") in regions}
    if "" in regions or inside != set(hit):
        return []
    if any(view.clusters):
        return sorted(_of(view, hit))
    key = view.spec.node_labels.get(REGION)
    if key is None:
        return []
    mine = _of(view, hit)
    return sorted(
        mine
        | {
            (name, node.name)
            for name, cluster in view.clusters.items()
            for node in cluster.nodes.values()
            if node.metadata.labels.get(key) in regions and not node.controls and not node.spec.unschedulable
        }
    )


def _theirs_alone(view: View, nodes: set[NodeId], hit: Mapping[str, Injection]) -> bool:
    """Whether nothing would go with these nodes but what is hit."""
    uids = {view.slot(name).uid for name in hit}
    return all(
        pod.metadata.uid in uids
        for name, cluster in view.clusters.items()
        for pod in cluster.all_pods
        if (name, pod.spec.node_name) in nodes and goes(pod, view.spec.empties, TAINT)
    )


def _on_node(view: View, node: NodeId, hit: Mapping[str, Injection], asked: Sequence[Injection]) -> Injection:
    cluster, name = node
    reaches = view.on_nodes.get(node, ())
    mine = [hit[one] for one in reaches if one in hit] or list(asked)
    subject = placed(cluster, name)
    how = Nodes((name,), view.spec.empties, reaches, cluster)
    return made(mine, subject, "nodes", how, UNDO_NODES, (f"node {subject}",), instance=name)


def scaled(view: View, hit: Mapping[str, Injection], refuse: Refusing) -> list[Injection]:
    """Each workload by as many as are hit."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in hit:
        groups.setdefault(view.made_by[name], []).append(name)
    found = []
    for (cluster, workload), names in groups.items():
        known = view.workloads.get((cluster, workload))
        if known is None:
            said = f"is kept by {workload}" if workload else "is a pod that nothing would make again"
            refuse(
                f"{', '.join(names)} {said}", "let a Deployment or a StatefulSet run it, or lose its node (node-loss)"
            )
            continue
        mine = [hit[name] for name in names]
        if len({one.start_s for one in mine}) > 1:
            what = f"{workload} would be scaled down step by step, and the steps could not be told apart afterwards"
            refuse(what, "leave `over` out")
            continue
        whole = set(names) == set(known.instances)
        away = known.replicas if whole else len(names)
        how = Scale(workload, known.namespace, away, tuple(names), cluster)
        short = workload.partition("/")[2]
        undo = f"scale {short} back to {known.replicas}"
        subject = placed(cluster, short)
        found.append(
            made(mine, subject, "scale", how, undo, (f"replicas of {placed(cluster, workload)}",), instance=short)
        )
    return found


def placed(cluster: str, name: str) -> str:
    """Told apart from what bears its name in another cluster."""
    return f"{cluster}.{name}" if cluster else name


def made(
    asked: Sequence[Injection],
    subject: str,
    mechanism: str,
    how: How,
    undo: str,
    switches: tuple[str, ...],
    *,
    instance: str = "",
) -> Injection:
    """One injection that does what several ask for: from the first of them to the last."""
    start_s = min(one.start_s for one in asked)
    end_s = max(one.start_s + one.for_s for one in asked)
    first = asked[0]
    return replace(
        first,
        id=f"{first.id.partition('/')[0]}/{subject}",
        instance=instance or first.instance,
        mechanism=mechanism,
        undo=undo,
        start_s=start_s,
        for_s=end_s - start_s,
        how=how,
        switches=switches,
        loses="",
    )
