"""Nodes advertise nothing of a resource any more: the number itself is set to 0, or its device plugin is moved away.

A device plugin that is registered with the kubelet writes the number again within about ten seconds, so that the number
alone only bites where it was still 0 after that.
"""

from __future__ import annotations

import time

from stormdrill.cluster.changes import Change
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Capacity
from stormdrill.model.permission import Need
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Element, KubePatch
from stormdrill.ports import Effect
from stormdrill.targets.kubernetes.mechanism import (
    API_SERVER,
    OPTED_IN,
    PREFIX,
    Changing,
    Clusters,
    Left,
    Object,
    at,
    objects,
    text,
    texts,
)
from stormdrill.targets.kubernetes.neighbours import look_again, needs
from stormdrill.targets.kubernetes.optin import protected

STICKS_S = 12.0
"""A kubelet writes its node's status every 10 s where it changed: what is still 0 after this stays so."""
AWAY = PREFIX + "away"
"""Label that no node has: a DaemonSet that selects by it runs nowhere."""
WHY = "to advertise nothing of the resource, and as much as before again"


class Withdrawing(Changing):
    """`capacity`: the witness is the node's status, at a time when its kubelet has had its say."""

    permission = "change what nodes advertise through the cluster's API server"
    stands = True

    def __init__(self, clusters: Clusters) -> None:
        super().__init__(clusters)
        self._since_s: dict[str, float] = {}
        """Injection → when it was applied; of those that no kubelet has contradicted since."""
        self._overwritten: dict[str, str] = {}

    def refusal(self, injection: Injection) -> str:
        how = _how(injection)
        if not how.plugin:
            return ""
        namespace, _, name = how.plugin.partition("/")
        if not name:
            return f"gpu_plugin {how.plugin} is no NAMESPACE/NAME of a DaemonSet; write for instance gpu/device-plugin"
        if said := protected(namespace, self.clusters.suite):
            return f"{said}, and the device plugin {how.plugin} is in it; leave gpu_plugin out"
        found = self.get(how.cluster, f"/api/v1/namespaces/{namespace}")
        if texts(at(found, "metadata", "labels")).get(OPTED_IN[0]) != OPTED_IN[1]:
            label = "=".join(OPTED_IN)
            return f"namespace {namespace} of the device plugin doesn't let itself be drilled; label it {label}"
        return self._reaches_too_far(how)

    def notes(self, injection: Injection) -> tuple[str, ...]:
        how = _how(injection)
        return (f"pods that have {how.resource} on {', '.join(how.nodes)} keep it: new ones find none",)

    def changes(self, injection: Injection) -> tuple[Change, ...]:
        how = _how(injection)
        look_again(self, how.cluster, how.nodes, how)
        if how.plugin:
            if said := self.refusal(injection):  # as it is by now
                raise Unreachable(f"{said}: nothing was changed")
            return (self._moved_away(injection, how),)
        return tuple(self._zeroed(injection, how, name) for name in how.nodes)

    def touches(self, injection: Injection) -> tuple[Change, ...]:
        how = _how(injection)
        if how.plugin:
            return (Change(KubePatch(how.cluster, _plugin(how), "", "", ()), why=WHY),)
        return tuple(
            Change(KubePatch(how.cluster, _node(name), "", "", (), subresource="status"), why=WHY) for name in how.nodes
        )

    def also(self, injection: Injection) -> tuple[Need, ...]:
        how = _how(injection)
        again = needs(how.cluster)
        if not how.plugin:
            return again
        namespace, why = how.plugin.partition("/")[0], "to see what the nodes advertise without their device plugin"
        return (
            *again,
            *(Need("get", "", "nodes", name=name, cluster=how.cluster, why=why) for name in how.nodes),
            Need("get", "", "namespaces", name=namespace, cluster=how.cluster, why=why),
            Need("list", "", "pods", namespace, cluster=how.cluster, why=why),
        )

    def after(self, injection: Injection) -> None:
        self._since_s[injection.id] = time.monotonic()

    def look(self, injection: Injection, left: Left) -> Effect:
        how = _how(injection)
        nodes = {name: self.get(how.cluster, _node(name)) for name in how.nodes}
        some = {name: now for name, node in nodes.items() if (now := _advertised(node, how.resource)) not in ("", "0")}
        told = "; ".join(f"{name} advertises {now} of {how.resource}" for name, now in some.items())
        if how.plugin:
            return Effect(not some, False, "the nodes' kubelets", told or f"no node advertises any {how.resource}")
        return self._stuck(injection, how, told)

    def _stuck(self, injection: Injection, how: Capacity, told: str) -> Effect:
        """The number was written by us: it says something only once a kubelet could have written its own."""
        witness = f"{API_SERVER}, of the nodes' status"
        if told:
            self._overwritten[injection.id] = f"{told} again: a device plugin overwrote it, and it did not stick"
        if injection.id in self._overwritten:
            return Effect(False, False, witness, self._overwritten[injection.id])
        since_s = self._since_s.get(injection.id)
        if since_s is None or time.monotonic() < since_s + STICKS_S:
            wait = f"whether it sticks is seen {STICKS_S:g} s after it was set"
            return Effect(False, False, witness, f"the nodes advertise 0 of {how.resource}; {wait}")
        said = f"{', '.join(how.nodes)} advertise 0 of {how.resource}, {STICKS_S:g} s after it was set too"
        return Effect(True, False, witness, said, at_ms=since_s * 1000)

    def _zeroed(self, injection: Injection, how: Capacity, name: str) -> Change:
        node = self.fresh(injection, _node(name), how.cluster)
        elements = []
        for where in ("capacity", "allocatable"):
            before = at(node, "status", where, how.resource)
            if before not in (None, "0"):
                elements.append(Element(("status", where, how.resource), text("0"), text(before)))
        if not any("allocatable" in element.path for element in elements):
            raise Unreachable(f"nodes/{name} advertises no {how.resource}: nothing would be taken away")
        uid, marker = str(at(node, "metadata", "uid")), self.marker(injection)
        undo = KubePatch(how.cluster, _node(name), uid, marker, tuple(elements), subresource="status")
        return Change(undo, why=WHY)

    def _moved_away(self, injection: Injection, how: Capacity) -> Change:
        found = self.fresh(injection, _plugin(how), how.cluster)
        element = Element(("spec", "template", "spec", "nodeSelector", AWAY), text(self.clusters.run))
        uid = str(at(found, "metadata", "uid"))
        return Change(KubePatch(how.cluster, _plugin(how), uid, self.marker(injection), (element,)), why=WHY)

    def _reaches_too_far(self, how: Capacity) -> str:
        """The plugin goes everywhere or nowhere: why not, where that is more than was chosen."""
        found = self.get(how.cluster, _plugin(how))
        if found is None:
            return f"the device plugin {how.plugin} is no DaemonSet here; correct gpu_plugin, or leave it out"
        namespace, uid = how.plugin.partition("/")[0], at(found, "metadata", "uid")
        pods = self.items(how.cluster, f"/api/v1/namespaces/{namespace}/pods")
        on = {str(at(pod, "spec", "nodeName")) for pod in pods if _made_by(pod, uid)}
        if more := sorted(on - set(how.nodes)):
            why = f"moving {how.plugin} away would take {how.resource} from {', '.join(more)} too"
            return f"{why}; choose those as well, or leave gpu_plugin out"
        return ""


def _advertised(node: Object | None, resource: str) -> str:
    return str(at(node, "status", "allocatable", resource) or "")


def _made_by(pod: Object, uid: object) -> bool:
    return any(owner.get("uid") == uid for owner in objects(at(pod, "metadata", "ownerReferences")))


def _node(name: str) -> str:
    return f"/api/v1/nodes/{name}"


def _plugin(how: Capacity) -> str:
    namespace, _, name = how.plugin.partition("/")
    return f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}"


def _how(injection: Injection) -> Capacity:
    assert isinstance(injection.how, Capacity)
    return injection.how
