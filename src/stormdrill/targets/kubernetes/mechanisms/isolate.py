"""`isolate`: a NetworkPolicy cuts pods off. Whether the cluster enforces it is found out by trying."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from stormdrill.cluster.changes import Change
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Isolate
from stormdrill.model.permission import Need, to_stream
from stormdrill.model.plan import Injection
from stormdrill.ports import Effect
from stormdrill.targets.kubernetes.mechanism import Changing, Clusters, Left, Object, at, objects, texts
from stormdrill.targets.kubernetes.mechanisms.ours import created, name_of
from stormdrill.targets.kubernetes.mechanisms.policies import DNS, allowing_more
from stormdrill.targets.kubernetes.mechanisms.within import (
    IN_THE_WAY,
    OPEN,
    Blind,
    Slot,
    is_ready,
    reached,
    slot_of,
)

MOST_PEERS = 3
"""Of those outside, before the API server itself is tried."""
MOST_SOURCES = 3
NAMED = 3
"""So many pods are named in a sentence."""
ARMING_LIMIT_S = 8.0
"""For all tries together before the cut."""
THE_API_SERVER = ""


class Way(NamedTuple):
    """From one of the pods to somebody outside, which was open before."""

    pod: str
    host: str
    port: int

    @property
    def said(self) -> str:
        return f"from {self.pod} to {f'{self.host}:{self.port}' if self.host else 'the API server'}"


class Isolating(Changing):
    """Witness: a connection from inside of one of the pods to somebody outside, which was open before and isn't now."""

    permission = "make NetworkPolicies in the system's namespace, and start programs in its pods"
    stands = True

    def __init__(self, clusters: Clusters) -> None:
        super().__init__(clusters)
        self._ways: dict[str, Way] = {}
        self._blind: dict[str, str] = {}

    def refusal(self, injection: Injection) -> str:
        how = _isolate(injection)
        pods = self._pods(how)
        if not pods:
            return f"no pod of {how.namespace} has the labels {_shown(how.select)}; choose some that are there"
        if said := _strangers(how, pods):
            return f"{said}; give them labels by which they can be told apart, or take the pods away (mode: crash)"
        if bare := [str(at(pod, "metadata", "name")) for pod in pods if at(pod, "spec", "hostNetwork")]:
            return f"{', '.join(bare)} use their node's own network, which no policy cuts off; choose others"
        labels = [texts(at(pod, "metadata", "labels")) for pod in pods]
        policies = list(self.items(how.cluster, _path(how)))
        if more := allowing_more(policies, labels, how.among):
            said = f"NetworkPolicy {', '.join(more)} allows them more, and what one allows no other forbids"
            return f"{said}; remove it for the drill, or take the pods away instead (mode: crash)"
        return ""

    def notes(self, injection: Injection) -> tuple[str, ...]:
        how = _isolate(injection)
        whom = " and ".join(_shown(one) for one in how.among) or "nobody"
        who = f"pods of {how.namespace} with {_shown(how.select)}"
        return (
            f"{who} reach {whom} alone, and are reached by nobody else, as far as the cluster enforces NetworkPolicies",
            f"names can still be looked up there (port {DNS}), and their nodes go on with ready checks",
            "connections that are open may outlast the cut",
        )

    def changes(self, injection: Injection) -> tuple[Change, ...]:
        how = _isolate(injection)
        peers: list[Object] = [{"podSelector": {"matchLabels": dict(one)}} for one in how.among]
        names: Object = {"ports": [{"protocol": protocol, "port": DNS} for protocol in ("UDP", "TCP")]}
        spec: Object = {
            "podSelector": {"matchLabels": dict(how.select)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peers}] if peers else [],
            "egress": [*([{"to": peers}] if peers else []), names],
        }
        body: Object = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name_of(injection, "stormdrill-isolate"), "namespace": how.namespace},
            "spec": spec,
        }
        return (created(how.cluster, _path(how), self.clusters.run, body, "to cut pods off"),)

    def also(self, injection: Injection) -> tuple[Need, ...]:
        how = _isolate(injection)
        where = (how.namespace, "", "", how.cluster)
        return (
            Need("list", "networking.k8s.io", "networkpolicies", *where, "to see what is allowed already"),
            Need("list", "", "pods", *where, "to see who is cut off"),
            *to_stream("exec", how.namespace, cluster=how.cluster, why="to try from inside whether they are"),
        )

    def bound(self, injection: Injection) -> None:
        """Somebody who can be reached now has to be known before, or nothing shows later that nobody can."""
        how = _isolate(injection)
        if said := _strangers(how, self._pods(how)):  # who came since the plan
            raise Unreachable(f"{said}: nothing was changed")
        self._ways.pop(injection.id, None)
        self._blind.pop(injection.id, None)
        why, until_s = "none of them is ready", time.monotonic() + ARMING_LIMIT_S
        for slot in self._sources(how):
            for host, port in self._peers(how):
                if time.monotonic() > until_s:
                    break
                try:
                    said = self._try(slot, host, port)
                except Blind as blind:
                    why = str(blind)
                    break
                except Unreachable as error:
                    why = str(error)
                    continue
                if said == OPEN:
                    self._ways[injection.id] = Way(slot.pod, host, port)
                    return
                why = f"from {slot.pod} nobody outside could be reached before either"
        self._blind[injection.id] = why

    def look(self, injection: Injection, left: Left) -> Effect:
        way = self._ways.get(injection.id)
        if way is None:
            why = self._blind.get(injection.id, "nothing was tried before")
            return Effect(False, False, "nobody", f"whether they are cut off can't be seen: {why}")
        said = self._again(injection, way)
        return Effect(said in IN_THE_WAY, False, "a connection from inside", f"{way.said}: {said}")

    def lingers(self, injection: Injection) -> str:
        """The policy is gone; those who enforce it may need a moment."""
        how, way = _isolate(injection), self._ways.get(injection.id)
        if way is None or (way.host and way.host not in [host for host, _ in self._peers(how)]):
            return ""
        try:
            said = self._again(injection, way)
        except Blind:
            return ""
        return "" if said == OPEN else f"no policy of ours is left, and still {way.said}: {said}"

    def _again(self, injection: Injection, way: Way) -> str:
        """From the same pod, or from one that has come for it. Raises Unreachable."""
        how = _isolate(injection)
        sources = sorted(self._sources(how), key=lambda one: one.pod != way.pod)
        if not sources:
            raise Unreachable(f"no pod of {how.namespace} with {_shown(how.select)} is ready, so that none can try")
        return self._try(sources[0], way.host, way.port)

    def _try(self, slot: Slot, host: str, port: int) -> str:
        return reached(self.clusters.api(slot.cluster), slot, host, port)

    def _pods(self, how: Isolate) -> list[Object]:
        path = f"/api/v1/namespaces/{how.namespace}/pods"
        return list(self.items(how.cluster, path, labelSelector=_shown(how.select)))

    def _sources(self, how: Isolate) -> list[Slot]:
        return [slot_of(how.cluster, pod) for pod in self._pods(how) if is_ready(pod)][:MOST_SOURCES]

    def _peers(self, how: Isolate) -> Iterator[tuple[str, int]]:
        """Pods of the namespace that are outside, with a port on which they say they listen; last the API server."""
        inside, count = [how.select, *how.among], 0
        for pod in self.items(how.cluster, f"/api/v1/namespaces/{how.namespace}/pods"):
            labels, host = texts(at(pod, "metadata", "labels")), at(pod, "status", "podIP")
            if any(one.items() <= labels.items() for one in inside) or not is_ready(pod) or not isinstance(host, str):
                continue
            ports = [
                port
                for one in objects(at(pod, "spec", "containers"))
                for item in objects(one.get("ports"))
                if isinstance(port := item.get("containerPort"), int) and item.get("protocol", "TCP") == "TCP"
            ]
            if ports and count < MOST_PEERS:
                count += 1
                yield host, ports[0]
        yield THE_API_SERVER, 0


def _strangers(how: Isolate, pods: list[Object]) -> str:
    """Who else would be cut off by these labels."""
    alive = [pod for pod in pods if at(pod, "status", "phase") not in ("Succeeded", "Failed")]
    found = [str(at(pod, "metadata", "name")) for pod in alive if how.workload and _maker(pod) != how.workload]
    if not found:
        return ""
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"{', '.join(sorted(found)[:NAMED])}{more} are no pods of {how.workload}, and have all of its labels as well"


def _maker(pod: Object) -> str:
    """deployments/NAME of what keeps it running; a Deployment's ReplicaSet bears its name with the template's hash."""
    owners = [one for one in objects(at(pod, "metadata", "ownerReferences")) if one.get("controller")]
    if not owners:
        return ""
    kind, name = str(owners[0].get("kind")), str(owners[0].get("name"))
    made_of = texts(at(pod, "metadata", "labels")).get("pod-template-hash", "")
    if kind == "ReplicaSet" and made_of:
        return f"deployments/{name.removesuffix(f'-{made_of}')}"
    return f"{kind.lower()}s/{name}"


def _shown(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _path(how: Isolate) -> str:
    return f"/apis/networking.k8s.io/v1/namespaces/{how.namespace}/networkpolicies"


def _isolate(injection: Injection) -> Isolate:
    assert isinstance(injection.how, Isolate)
    return injection.how
