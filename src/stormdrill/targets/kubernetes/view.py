"""A system in its clusters as planning sees it: slots, workloads, hops, and whatever a fault needs to know besides."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from msgspec.structs import replace

from stormdrill.errors import Problem, Refused, Unreachable
from stormdrill.model.system import KubernetesSpec, System
from stormdrill.ports import Hop, Instance, Workload, World
from stormdrill.targets.kubernetes.inventory import Cluster
from stormdrill.targets.kubernetes.mechanism import Clusters
from stormdrill.targets.kubernetes.optin import namespace_problems
from stormdrill.targets.kubernetes.several import several
from stormdrill.targets.kubernetes.slots import Slot, Slots

MOST_HOPS = 20_000
"""Of one dependency. Where everybody calls thousands, faults on single ways make no sense."""
SHOWN = 3
"""Names of nodes, which are many."""


class View:
    """Read once; what was read is what the plan speaks of."""

    def __init__(self, system: System, spec: KubernetesSpec, clusters: Clusters, names: tuple[str, ...]) -> None:
        self.spec = spec
        self.slots = Slots(system, spec)
        self.clusters = {name: Cluster(clusters.api(name), spec, system.instances) for name in names}
        self._system = system
        problems: list[Problem] = []
        for cluster in self.clusters.values():
            try:
                problems += namespace_problems(cluster, self.where)
            except Refused as refused:
                problems += refused.problems
        if problems:
            raise Refused(problems)
        pods = {name: one.pods for name, one in self.clusters.items()}
        problems += self.slots.fill(pods, {name: one.nodes for name, one in self.clusters.items()})
        if problems:
            raise Refused(problems)

    @property
    def where(self) -> str:
        return f"system {self._system.name}"

    @cached_property
    def system(self) -> System:
        """With the pods that are meant: they are part of what a plan's digest speaks of."""
        return replace(self._system, instances=self.slots.instances)

    @cached_property
    def world(self) -> World:
        instances = tuple(Instance(one.name, one.service, one.labels) for one in self.slots.instances)
        return World(self.system, instances, self._hops(), tuple(self.workloads.values()))

    @cached_property
    def workloads(self) -> Mapping[tuple[str, str], Workload]:
        """By cluster and name. Only what can be scaled or rolled out: Deployments and StatefulSets."""
        mine: dict[tuple[str, str], list[str]] = {}
        for name, key in self.made_by.items():
            mine.setdefault(key, []).append(name)
        found = {}
        for (cluster, name), instances in mine.items():
            one = self.clusters[cluster].controllers.get(name)
            if one is not None:
                containers = tuple(item.name for item in one.spec.template.spec.containers)
                labels = one.spec.selector.match_labels
                found[cluster, name] = Workload(
                    name, self.spec.namespace, tuple(instances), one.spec.replicas, containers, labels, cluster
                )
        return found

    @cached_property
    def made_by(self) -> dict[str, tuple[str, str]]:
        """Instance → cluster and what keeps its pod running; empty for a pod that nothing makes again."""
        return {
            slot.instance.name: (slot.cluster, self.clusters[slot.cluster].workload(slot.pod))
            for slot in self.slots.all()
        }

    @cached_property
    def on_nodes(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """The instances on each node, by cluster and name."""
        found: dict[tuple[str, str], list[str]] = {}
        for slot in self.slots.all():
            if slot.node:
                found.setdefault((slot.cluster, slot.node), []).append(slot.instance.name)
        return {node: tuple(names) for node, names in found.items()}

    def kept_off(self) -> tuple[str, ...]:
        """Aloud: simulated nodes that the suite's own pods leave, where no labels say where they stand."""
        found = []
        for cluster in self.clusters.values():
            names = sorted(one.name for one in cluster.nodes.values() if one.simulated)
            if names and not self.spec.image.nodes:
                which = several(names, SHOWN)
                found.append(
                    f"no kubelet listens on {which}: pods there only pretend to run, and the suite's own keep off"
                )
        return tuple(found)

    def unlabelled(self) -> tuple[str, ...]:
        """Aloud: labels that no node of a cluster carries, though the file says that nodes tell something by them."""
        found = []
        for cluster in self.clusters.values():
            carried = {key for one in cluster.nodes.values() for key in one.metadata.labels}
            for name, key in self.spec.node_labels.items():
                if cluster.nodes and key not in carried:
                    found.append(f"no node carries {key}: {name} is what the pods' own labels and the system file say")
        return tuple(found)

    def nowhere(self) -> list[Problem]:
        """Clusters on whose nodes nothing of the suite's own would run."""
        wanted = self.spec.image.nodes
        found = []
        for cluster in self.clusters.values():
            meant = [one for one in cluster.nodes.values() if wanted.items() <= one.metadata.labels.items()]
            if cluster.nodes and not {one.name for one in meant} - set(cluster.unfit):
                labels = ", ".join(f"{key}={value}" for key, value in wanted.items())
                which = f"{len(meant)} nodes are {labels}" if wanted else f"there are {len(meant)} nodes"
                what = (
                    f"{which}, none of them ready, with Linux and a kubelet that listens: the watchdog would never run"
                )
                fix = "name others with nodes: {LABEL: VALUE} in the kubernetes section, or mend them"
                found.append(Problem(f"cluster {cluster.name}" if cluster.name else self.where, 0, 0, what, fix))
        return found

    def slot(self, instance: str) -> Slot:
        return self.slots.of(instance)

    def _hops(self) -> tuple[Hop, ...]:
        """Who calls whom, as the file declares it; each way is a call to a Service."""
        of: dict[str, list[str]] = {}
        for one in self.slots.instances:
            of.setdefault(one.service, []).append(one.name)
        found: list[Hop] = []
        for item in self._system.dependencies:
            callers = [name for service in item.callers for name in of.get(service, ())]
            callees = of.get(item.to, [])
            if len(callers) * len(callees) > MOST_HOPS:
                continue
            found += [
                Hop(f"{caller}>{callee}", item.name, caller, callee)
                for caller in callers
                for callee in callees
                if caller != callee
            ]
        return tuple(found)


def read(system: System, clusters: Clusters, names: tuple[str, ...]) -> View:
    """Raises Refused with what is missing, who isn't allowed, or where nobody answers."""
    spec = system.kubernetes
    assert spec is not None, "a system file without the section was refused"
    try:
        return View(system, spec, clusters, names)
    except Unreachable as error:
        raise Refused(f"target kubernetes: {error}") from error
