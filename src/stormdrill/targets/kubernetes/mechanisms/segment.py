"""`segment`: connections that policy forbids are tried from inside of pods. Nothing is changed, and nobody is harmed.

A try shows something only where the same pod reaches what it may reach, and where somebody listens at what it tries.
"""

from __future__ import annotations

from typing import NamedTuple

from stormdrill.model.mechanism import BLOCKED, Segment
from stormdrill.model.permission import Need, to_stream
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Undo
from stormdrill.ports import Effect
from stormdrill.targets.kubernetes.mechanism import Changing, Object, at, objects, texts
from stormdrill.targets.kubernetes.mechanisms.within import IN_THE_WAY, OPEN, Slot, is_ready, reached, slot_of

MOST_SOURCES = 3
WITNESS = "connections from inside of pods"


class Aim(NamedTuple):
    host: str
    port: int
    alive: str
    """By whom it is known that somebody listens there; empty: nobody knows."""


class Segmenting(Changing):
    """Witness: the connections themselves, and one that is allowed."""

    permission = "start programs in the system's pods, which try connections"

    def refusal(self, injection: Injection) -> str:
        how = _segment(injection)
        for said in (how.to, how.allowed):
            host, _, port = said.rpartition(":")
            if said and not (host and port.isdigit()):
                return f"{said} says not where; write HOST:PORT, feed:8080"
        if not self._pods(how):
            return f"no pod of {how.namespace} has the labels {_shown(how)}; choose some that are there"
        if not self._aim(how, how.to).alive:
            return (
                f"nobody knows whether anything listens at {how.to}; name a Service of the cluster that has ready pods"
            )
        return ""

    def notes(self, injection: Injection) -> tuple[str, ...]:
        how = _segment(injection)
        allowed, who = how.allowed or "the API server", f"pods of {how.namespace} with {_shown(how)}"
        return (f"nothing is changed: {who} try to connect to {how.to}, and to {allowed} to show that they can at all",)

    def changes(self, injection: Injection) -> tuple[()]:
        return ()

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        self._bound[injection.id] = ()
        return ()

    def apply(self, injection: Injection) -> None:
        """Trying is looking."""
        self.clusters.hold(_segment(injection).cluster).check(injection.id)

    def also(self, injection: Injection) -> tuple[Need, ...]:
        how = _segment(injection)
        where = (how.namespace, "", "", how.cluster)
        return (
            Need("list", "", "pods", *where, "to see who tries"),
            Need("list", "", "services", *where, "to see who listens"),
            Need("list", "discovery.k8s.io", "endpointslices", *where, "to see who listens"),
            *to_stream("exec", how.namespace, cluster=how.cluster, why="to try connections from inside"),
        )

    def _seen(self, injection: Injection) -> Effect:
        """Nothing is ever left of it."""
        how = _segment(injection)
        sources = [slot_of(how.cluster, pod) for pod in self._pods(how) if is_ready(pod)][:MOST_SOURCES]
        if not sources:
            return Effect(False, True, "nobody", f"no pod of {how.namespace} with {_shown(how)} is ready to try")
        aim = self._aim(how, how.to)
        if not aim.alive:
            return Effect(False, True, "nobody", f"nobody is known to listen at {how.to}: a try would show nothing")
        found = {slot.pod: self._tried(how, slot, aim) for slot in sources}
        told = f"to {how.to} ({aim.alive}): " + ", ".join(f"from {pod}: {said}" for pod, said in found.items())
        if OPEN in found.values():
            return Effect(False, True, WITNESS, f"NOT blocked, {told}", readings=((BLOCKED, {"to": how.to}, 0.0),))
        if all(said in IN_THE_WAY for said in found.values()):
            return Effect(True, True, WITNESS, f"blocked, {told}", readings=((BLOCKED, {"to": how.to}, 1.0),))
        return Effect(False, True, WITNESS, f"it can't be told, {told}")

    def _tried(self, how: Segment, slot: Slot, aim: Aim) -> str:
        """What became of it; anything but a word of `reached` where it shows nothing. Raises Unreachable."""
        api = self.clusters.api(slot.cluster)
        said = reached(api, slot, aim.host, aim.port)
        if said == OPEN:
            return said
        other = self._aim(how, how.allowed) if how.allowed else Aim("", 0, "")
        control = reached(api, slot, other.host, other.port)
        return said if control == OPEN else f"{said}, but {how.allowed or 'the API server'} is {control} as well"

    def _aim(self, how: Segment, said: str) -> Aim:
        """A Service is tried by its address, so that no look-up of names decides. Raises Unreachable."""
        host, _, port = said.rpartition(":")
        name, _, rest = host.partition(".")
        namespace = rest.partition(".")[0] or how.namespace
        for one in self.items(how.cluster, f"/api/v1/namespaces/{how.namespace}/services"):
            address = at(one, "spec", "clusterIP")
            mine = at(one, "metadata", "name") == name and namespace == how.namespace
            if (mine or address == host) and isinstance(address, str) and address not in ("", "None"):
                return Aim(address, int(port), self._listeners(how, one))
        for pod in self.items(how.cluster, f"/api/v1/namespaces/{how.namespace}/pods"):
            if at(pod, "status", "podIP") == host:
                return Aim(host, int(port), f"pod {at(pod, 'metadata', 'name')}" if is_ready(pod) else "")
        return Aim(host, int(port), "")

    def _listeners(self, how: Segment, service: Object) -> str:
        name = at(service, "metadata", "name")
        path = f"/apis/discovery.k8s.io/v1/namespaces/{how.namespace}/endpointslices"
        slices = self.items(how.cluster, path, labelSelector=f"kubernetes.io/service-name={name}")
        ends = [end for one in slices for end in objects(one.get("endpoints"))]
        ready = [end for end in ends if at(end, "conditions", "ready") in (None, True)]
        return f"Service {name}, {len(ready)} ready" if ready else ""

    def _pods(self, how: Segment) -> list[Object]:
        path = f"/api/v1/namespaces/{how.namespace}/pods"
        found = self.items(how.cluster, path, labelSelector=_shown(how))
        return [pod for pod in found if how.source.items() <= texts(at(pod, "metadata", "labels")).items()]


def _shown(how: Segment) -> str:
    return ",".join(f"{key}={value}" for key, value in how.source.items())


def _segment(injection: Injection) -> Segment:
    assert isinstance(injection.how, Segment)
    return injection.how
