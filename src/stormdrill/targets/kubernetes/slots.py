"""Instances as slots: names bound to pods by their uids, and bound anew when a pod has gone and another has come."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from stormdrill.errors import Problem
from stormdrill.model.event import PodBound
from stormdrill.model.system import KubernetesSpec, ServiceInstance, System
from stormdrill.targets.kubernetes.objects import Node, Pod
from stormdrill.targets.kubernetes.quantity import megabytes
from stormdrill.targets.kubernetes.reach import Bound

BOUND = "pod:"
"""What stands in `ServiceInstance.image` once it is known which pod is meant: cluster, namespace, name and uid, so that
the plan's digest speaks of it."""
REGION = "region"


class Slot(Struct, frozen=True):
    """One instance and the pod that it is now."""

    instance: ServiceInstance
    cluster: str
    pod: Pod
    there: bool = True
    """False: it has gone, and no other has come yet."""

    @property
    def uid(self) -> str:
        return self.pod.metadata.uid

    @property
    def node(self) -> str:
        return self.pod.spec.node_name

    @property
    def bound(self) -> Bound:
        meta = self.pod.metadata
        port = self.instance.port or 0
        return Bound(self.cluster, meta.namespace, meta.name, meta.uid, port, self.pod.status.ip)

    def event(self, instead_of: str = "") -> PodBound:
        meta = self.pod.metadata
        return PodBound(
            instance=self.instance.name,
            service=self.instance.service,
            cluster=self.cluster,
            namespace=meta.namespace,
            pod=meta.name,
            uid=meta.uid,
            node=self.node,
            instead_of=instead_of,
        )


class Slots:
    """All slots of a system. Thread-safe."""

    def __init__(self, system: System, spec: KubernetesSpec) -> None:
        self._system = system
        self._spec = spec
        self._slots: dict[str, Slot] = {}
        self._lock = threading.Lock()

    def fill(self, pods: Mapping[str, Sequence[Pod]], nodes: Mapping[str, Mapping[str, Node]]) -> Iterator[Problem]:
        """Binds every instance to the pods of each cluster: what can't be bound is told, and the rest is."""
        planned = [one for one in self._system.instances if one.image.startswith(BOUND)]
        if planned:
            yield from self._as_planned(planned, pods)
            return
        candidates = [(cluster, pod) for cluster, found in pods.items() for pod in found if alive(pod)]
        candidates.sort(key=lambda one: (one[1].metadata.creation_timestamp, one[1].metadata.name, one[1].metadata.uid))
        carrying: dict[tuple[str, str], list[tuple[str, Pod]]] = {}
        for one in candidates:
            for label in one[1].metadata.labels.items():
                carrying.setdefault(label, []).append(one)
        taken: dict[str, str] = {}
        for template in self._system.instances:
            # only pods with the rarest of its labels are looked at: a namespace may have thousands
            fewest = min((carrying.get(label, []) for label in template.select.items()), key=len, default=[])
            mine = [(cluster, pod) for cluster, pod in fewest if self._is_meant(template, cluster, pod)]
            if not mine:
                yield self._nobody(template)
            for number, (cluster, pod) in enumerate(mine, 1):
                name = template.name if len(mine) == 1 else f"{template.name}-{number}"
                if pod.metadata.uid in taken:
                    yield self._twice(pod, taken[pod.metadata.uid], template.service)
                    continue
                taken[pod.metadata.uid] = template.service
                if name in self._slots:
                    yield self._problem(f"two instances are named {name}", f"rename the service {template.service}")
                    continue
                labels = self._labels(template, cluster, pod, nodes.get(cluster, {}))
                self._slots[name] = Slot(_as(template, name, labels, cluster, pod), cluster, pod)

    def _as_planned(self, planned: Sequence[ServiceInstance], pods: Mapping[str, Sequence[Pod]]) -> Iterator[Problem]:
        """The very pods of the plan; where one has gone meanwhile, the one that came for it."""
        known = {pod.metadata.uid: pod for found in pods.values() for pod in found if alive(pod)}
        gone = []
        for one in planned:
            cluster, namespace, name, uid = one.image.removeprefix(BOUND).split("/")
            pod = known.get(uid)
            if pod is None:
                gone.append(one)
                pod = Pod(metadata=replace(Pod().metadata, name=name, namespace=namespace, uid=uid))
            self._slots[one.name] = Slot(one, cluster, pod, there=uid in known)
        for cluster, found in pods.items():
            self.look(cluster, found)
        for one in gone:
            if not self._slots[one.name].there:
                name = one.image.split("/")[2]
                what = f"{one.name} was planned for pod {name}, which is there no more, and no other has come for it"
                yield self._problem(what, "wait until its controller has made one, and plan anew")

    def look(self, cluster: str, pods: Sequence[Pod]) -> tuple[PodBound, ...]:
        """What is there now, of one cluster: slots whose pod has gone take the ones that came."""
        events = []
        with self._lock:
            known = {pod.metadata.uid: pod for pod in pods if alive(pod)}
            taken = {slot.uid for slot in self._slots.values()}
            free = [pod for uid, pod in known.items() if uid not in taken]
            free.sort(key=lambda pod: (pod.metadata.creation_timestamp, pod.metadata.name))
            for name, slot in self._slots.items():
                if slot.cluster != cluster:
                    continue
                if slot.uid in known:
                    self._slots[name] = replace(slot, pod=known[slot.uid], there=True)
                elif (new := self._replacement(slot, free)) is not None:
                    free.remove(new)
                    self._slots[name] = bound = replace(slot, pod=new, there=True)
                    events.append(bound.event(instead_of=slot.uid))
                elif slot.there:
                    self._slots[name] = replace(slot, there=False)
        return tuple(events)

    def _replacement(self, slot: Slot, free: Sequence[Pod]) -> Pod | None:
        """The oldest pod of its service that is nobody's yet; one of the same controller before others."""
        mine = [pod for pod in free if self._is_meant(slot.instance, slot.cluster, pod)]
        return next((pod for pod in mine if _maker(pod) == _maker(slot.pod)), mine[0] if mine else None)

    @property
    def instances(self) -> tuple[ServiceInstance, ...]:
        return tuple(slot.instance for slot in self._slots.values())

    def all(self) -> tuple[Slot, ...]:
        with self._lock:
            return tuple(self._slots.values())

    def of(self, instance: str) -> Slot:
        """Raises KeyError for a name that is none."""
        with self._lock:
            return self._slots[instance]

    def bound(self, instance: str) -> Bound | None:
        """The pod that it is now; None while it is none."""
        with self._lock:
            slot = self._slots.get(instance)
        return slot.bound if slot is not None and slot.there else None

    def _is_meant(self, one: ServiceInstance, cluster: str, pod: Pod) -> bool:
        if not one.select.items() <= pod.metadata.labels.items():
            return False
        region = one.labels.get(REGION, "")
        return not (cluster and region and region != cluster)

    def _labels(self, one: ServiceInstance, cluster: str, pod: Pod, nodes: Mapping[str, Node]) -> dict[str, str]:
        """What its pod carries, then what the file says, then what its node carries, then its cluster's name."""
        carried = {name: pod.metadata.labels[name] for name in self._system.labels if name in pod.metadata.labels}
        node = nodes.get(pod.spec.node_name)
        of_node = node.metadata.labels if node else {}
        told = {name: of_node[key] for name, key in self._spec.node_labels.items() if key in of_node}
        return {**carried, **one.labels, **told, **({REGION: cluster} if cluster else {})}

    def _nobody(self, one: ServiceInstance) -> Problem:
        wanted = ", ".join(f"{key}={value}" for key, value in one.select.items())
        what = f"no pod of namespace {self._spec.namespace} is {one.name}: labels {wanted}"
        return self._problem(what, f"start it, or say with select by which labels pods of {one.service} are known")

    def _twice(self, pod: Pod, one: str, other: str) -> Problem:
        what = f"pod {pod.metadata.name} is {one} and {other}: the labels of both select it"
        return self._problem(what, "tell them apart by another label")

    def _problem(self, what: str, fix: str) -> Problem:
        return Problem(f"system {self._system.name}", 0, 0, what, fix)


def alive(pod: Pod) -> bool:
    """Neither ended nor ending."""
    return pod.metadata.deletion_timestamp is None and pod.status.phase not in ("Succeeded", "Failed")


def _as(one: ServiceInstance, name: str, labels: dict[str, str], cluster: str, pod: Pod) -> ServiceInstance:
    meta = pod.metadata
    limit_mb = megabytes(next(_limits(pod), {}).get("memory", ""))
    image = f"{BOUND}{cluster}/{meta.namespace}/{meta.name}/{meta.uid}"
    return replace(one, name=name, labels=labels, image=image, memory_mb=limit_mb)


def _limits(pod: Pod) -> Iterator[dict[str, str]]:
    return (one.resources.limits for one in pod.spec.containers)


def _maker(pod: Pod) -> str:
    """Whose pods it belongs to: of a Deployment, whatever its template was."""
    owner = pod.controller
    if owner is None:
        return ""
    return owner.name.removesuffix(f"-{pod.metadata.labels.get('pod-template-hash', '')}")
