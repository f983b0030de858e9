"""Toxics on a Service: its selector is swapped for a proxy of ours, which carries all on to a second Service that has
the first one's selector.

The order is: that second Service, the proxy, and only when the proxy is ready and reaches what it leads to, the
selector. Back: the selector first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec

from stormdrill.cluster import naming
from stormdrill.cluster.api import Lost
from stormdrill.cluster.changes import Change
from stormdrill.cluster.exec import Exec, Ran, Refusal
from stormdrill.cluster.naming import LABEL
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Toxic
from stormdrill.model.permission import Need, to_stream
from stormdrill.model.plan import Injection
from stormdrill.model.system import ImagePolicy
from stormdrill.model.undo import Element, KubePatch, Undo
from stormdrill.ports import Effect
from stormdrill.targets.kubernetes.mechanism import (
    API_SERVER,
    SHARE_OF_LIMIT,
    Changing,
    Clusters,
    Left,
    Object,
    at,
    objects,
    text,
    texts,
)
from stormdrill.targets.kubernetes.mechanisms.ours import OF_ONE, Off, created, name_of, nowhere, pod, short
from stormdrill.targets.kubernetes.mechanisms.policies import closed_to, confining
from stormdrill.targets.kubernetes.mechanisms.within import is_ready
from stormdrill.targets.portable.proxied import EXPIRY_GRACE_S, FIELDS, RATED, Listed, beyond

READY_S = 30.0
"""From the pod's creation until it is ready, without the time in which its image is pulled."""
PULL_S = 66.0
"""For that: a node may never have had it."""
PULLS = "ContainerCreating"
"""What a kubelet says of a container until its image is there."""
LOOK_EVERY_S = 0.2
EXEC_LIMIT_S = 3.0
CONTROL, CONTROLS = 16_000, 2000
"""Ports on loopback of the pod: one of them, the next that the Service doesn't use."""
LOWEST_OF_ALL = 1024
"""Ports below are for root alone, unless the pod says otherwise."""
NAMED_FROM = 20_000
"""Where the proxy listens for ports that pods are asked for by name."""
WITNESS = "the fault proxy"
READY = ("python3", "-m", "stormdrill.proxy.ready")
_LISTED = msgspec.json.Decoder(list[Listed])
WHY = "to lead a Service through a fault proxy, and back"


class Swapping(Changing):
    """Witnesses: the Service's EndpointSlices, and the proxy's own count of what it touched."""

    permission = "lead Services through a fault proxy of stormdrill's own, which it starts in the system's namespace"
    stands = True
    starts_up = True
    inject_timeout_s = (READY_S + PULL_S) / SHARE_OF_LIMIT
    """Until the proxy is ready and the Service leads through it; the plan gives it that."""

    def __init__(
        self,
        clusters: Clusters,
        image: ImagePolicy,
        clock: Callable[[], float] = time.monotonic,
        off: Off = nowhere,
    ) -> None:
        super().__init__(clusters)
        self._image = image
        self._off = off
        self._clock = clock

    # What is planned

    def refusal(self, injection: Injection) -> str:
        how = _toxic(injection)
        if not how.service:
            return "no Service leads to it; a toxic needs one, isolate the pods instead (region-loss, mode: isolate)"
        if said := beyond(injection, how):
            return said
        found = self.get(how.cluster, _path(how))
        if found is None:
            return f"there is no Service {how.service}; name one that is there"
        if why := unfit(found):
            return f"Service {how.service} {why}"
        selector = texts(at(found, "spec", "selector"))
        policies = self._policies(how)
        if closed := closed_to(policies, self._pods(how, selector), self._labels(injection)):
            said = f"NetworkPolicy {', '.join(closed)} would keep a proxy's connections from the pods of {how.service}"
            return f"{said}; allow pods with the label {OF_ONE} there, or isolate instead of slowing"
        if closed := confining(policies, self._labels(injection)):
            said = f"NetworkPolicy {', '.join(closed)} would confine the proxy as well"
            return f"{said}; leave pods with the label {OF_ONE} out of it, or isolate instead of slowing"
        return ""

    def notes(self, injection: Injection) -> tuple[str, ...]:
        how = _toxic(injection)
        found = self.get(how.cluster, _path(how))
        said = [
            f"every caller of Service {how.service} meets it, also those that are no part of the system",
            f"connections to {how.service} that are open go on to its pods, untouched, until they are closed",
        ]
        if at(found, "spec", "type") in ("NodePort", "LoadBalancer"):
            said.append(f"Service {how.service} is entered from outside the cluster too: those callers meet it as well")
        return tuple(said)

    def changes(self, injection: Injection) -> tuple[Change, ...]:
        how = _toxic(injection)
        service = self.fresh(injection, _path(how), how.cluster)
        if why := unfit(service):
            raise Unreachable(f"Service {how.service} {why}")
        namespace, run = how.service.partition("/")[0], self.clusters.run
        behind = created(how.cluster, f"/api/v1/namespaces/{namespace}/services", run, _behind(injection, service), WHY)
        proxy = self._proxy(injection, service, str(at(service, "spec", "clusterIP")))
        # key by key: `kubectl apply` of the same manifest puts the keys of that back, and leaves ours beside them
        place, before = ("spec", "selector"), texts(at(service, "spec", "selector"))
        swapped = [Element((*place, name), text(value)) for name, value in self._labels(injection).items()]
        swapped += [Element((*place, name), "", text(value)) for name, value in before.items()]
        uid = str(at(service, "metadata", "uid"))
        swap = KubePatch(how.cluster, _path(how), uid, self.marker(injection), tuple(swapped))
        return (behind, proxy, Change(swap, why=WHY))

    def touches(self, injection: Injection) -> tuple[Change, ...]:
        how, run = _toxic(injection), self.clusters.run
        namespace = how.service.partition("/")[0]
        path = f"/api/v1/namespaces/{namespace}"
        behind: Object = {"metadata": {"name": _behind_name(injection)}}
        proxy: Object = {"metadata": {"name": _proxy_name(injection)}}
        return (
            created(how.cluster, f"{path}/services", run, behind, WHY),
            created(how.cluster, f"{path}/pods", run, proxy, WHY),
            Change(KubePatch(how.cluster, _path(how), "", "", ()), why=WHY),
        )

    def also(self, injection: Injection) -> tuple[Need, ...]:
        how = _toxic(injection)
        namespace, _, name = how.service.partition("/")
        asks = "to ask the fault proxy what it touched"
        return (
            Need("list", "discovery.k8s.io", "endpointslices", namespace, "", "", how.cluster, f"to see who {name} is"),
            Need(
                "list", "networking.k8s.io", "networkpolicies", namespace, "", "", how.cluster, "to see who is let in"
            ),
            Need("list", "", "pods", namespace, "", "", how.cluster, "to see who is let in"),
            *to_stream("exec", namespace, _proxy_name(injection), cluster=how.cluster, why=asks),
        )

    # What is done

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        """Callers are led back before what carries them goes."""
        return tuple(reversed(super().undo(injection)))

    def apply(self, injection: Injection) -> None:
        how = _toxic(injection)
        bound = self._bound.get(injection.id)
        if bound is None:
            raise Unreachable(f"{injection.id} was never armed: nothing was changed")
        self._looks.pop(injection.id, None)
        last_s = self._clock() + SHARE_OF_LIMIT * injection.inject_timeout_s
        behind, proxy, swap = bound
        hold = self.clusters.hold(how.cluster)
        hold.apply(injection.id, behind)
        service = self.get(how.cluster, _path(how))
        made = self.get(how.cluster, behind.undo.path)
        address = at(made, "spec", "clusterIP")
        if service is None or not isinstance(address, str):
            raise Unreachable(f"Service {how.service} has no second one to lead to")
        # what is undone is the same: the address that the second Service was given is filled in
        hold.apply(injection.id, replace(proxy, body=self._proxy(injection, service, address).body))
        self._await(injection, last_s)
        hold.apply(injection.id, swap)
        self._looks.pop(injection.id, None)

    def _await(self, injection: Injection, last_s: float) -> None:
        """Until the proxy answers and reaches what it leads to, as its kubelet has seen. While its image is pulled its
        time does not begin, but it ends by then at the latest. Raises Unreachable."""
        how, end_s = _toxic(injection), self._clock() + READY_S
        while True:
            found = self.get(how.cluster, self._pod_path(injection))
            why = _state(found)
            if why.startswith(PULLS):
                end_s = self._clock() + READY_S
            if is_ready(found):
                ran = self._run(injection, READY)
                if not ran.code:
                    return
                why = ran.err.decode("utf-8", "replace").strip()[-200:]
            if self._clock() >= min(end_s, last_s):
                raise Unreachable(f"the fault proxy was not ready in time: {why}")
            self.clusters.hold(how.cluster).check(injection.id)
            time.sleep(LOOK_EVERY_S)

    # What is seen

    def look(self, injection: Injection, left: Left) -> Effect:
        how = _toxic(injection)
        if not left.standing:
            return Effect(False, False, API_SERVER, left.said)
        proxy = self.get(how.cluster, self._pod_path(injection))
        ours = {at(one, "ip") for one in objects(at(proxy, "status", "podIPs"))} | {at(proxy, "status", "podIP")}
        ready = self._endpoints(how)
        if not ready or not ready <= ours:
            return Effect(False, False, API_SERVER, f"{how.service} leads to {', '.join(sorted(ready)) or 'nobody'}")
        return self._touched(injection)

    def lingers(self, injection: Injection) -> str:
        """Until the endpoints follow the selector, callers are still sent to a proxy that is gone."""
        how = _toxic(injection)
        named = _proxy_name(injection)
        slices = self._slices(how)
        left = [one for one in slices if at(one, "targetRef", "name") == named and _serves(one)]
        return f"{how.service} still leads to the fault proxy" if left else ""

    def _run(self, injection: Injection, argv: tuple[str, ...]) -> Ran:
        """A program beside the proxy, in its container. Raises Unreachable."""
        how = _toxic(injection)
        inside = Exec(self.clusters.api(how.cluster))
        namespace = how.service.partition("/")[0]
        try:
            return inside.run(namespace, _proxy_name(injection), "stormdrill", argv, limit_s=EXEC_LIMIT_S)
        except (Lost, Refusal) as error:
            raise Unreachable(f"the fault proxy can't be asked: {error}") from error

    def _touched(self, injection: Injection) -> Effect:
        how = _toxic(injection)
        ran = self._run(injection, (*READY, "--toxics"))
        try:
            listed = _LISTED.decode(ran.out) if not ran.code else []
        except msgspec.MsgspecError as error:
            return Effect(False, False, WITNESS, f"it answered something else: {error}")
        if ran.code:
            return Effect(False, False, WITNESS, ran.err.decode("utf-8", "replace").strip()[-200:])
        found = next((one for one in listed if one.tag == injection.id), None)
        if found is None:
            return Effect(False, False, WITNESS, f"no {how.kind} any more: its time is over")
        where = f"{how.kind} on {how.service}"
        if how.kind == "refuse":
            return Effect(True, False, WITNESS, f"{where}: nobody listens")
        said = f"touched {found.bytes} bytes of {found.connections} connections, reset {found.refused}"
        slowed = how.kind in RATED and found.connections > 0
        return Effect(found.bytes + found.refused > 0 or slowed, False, WITNESS, f"{where} {said}")

    # What it reads

    def _slices(self, how: Toxic) -> list[Object]:
        """Every endpoint of the Service."""
        namespace, _, name = how.service.partition("/")
        path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        found = self.items(how.cluster, path, labelSelector=f"kubernetes.io/service-name={name}")
        return [end for one in found for end in objects(one.get("endpoints"))]

    def _endpoints(self, how: Toxic) -> set[str]:
        ready = [end.get("addresses") for end in self._slices(how) if _serves(end)]
        return {str(address) for addresses in ready if isinstance(addresses, list) for address in addresses}

    def _policies(self, how: Toxic) -> list[Object]:
        namespace = how.service.partition("/")[0]
        return list(self.items(how.cluster, f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"))

    def _pods(self, how: Toxic, selector: Mapping[str, str]) -> list[Mapping[str, str]]:
        """The labels of those that it leads to."""
        namespace = how.service.partition("/")[0]
        wanted = ",".join(f"{key}={value}" for key, value in selector.items())
        found = self.items(how.cluster, f"/api/v1/namespaces/{namespace}/pods", labelSelector=wanted)
        return [texts(at(one, "metadata", "labels")) for one in found]

    def _pod_path(self, injection: Injection) -> str:
        namespace = _toxic(injection).service.partition("/")[0]
        return f"/api/v1/namespaces/{namespace}/pods/{_proxy_name(injection)}"

    # What it makes

    def _labels(self, injection: Injection) -> dict[str, str]:
        return {LABEL: self.clusters.run, OF_ONE: short(injection)}

    def _proxy(self, injection: Injection, service: Object, address: str) -> Change:
        how = _toxic(injection)
        namespace = how.service.partition("/")[0]
        ports = listening(service)
        numbers = {number for number, _ in ports.values()}
        body = pod(
            _proxy_name(injection),
            namespace,
            self._image,
            ("python3", "-m", "stormdrill.proxy"),
            labels=self._labels(injection),
            env={"STORMDRILL_PROXY": self._configuration(injection, service, address)},
            requests={"cpu": "50m", "memory": "48Mi"},
            limits={"cpu": "1", "memory": "256Mi"},
            off=self._off(how.cluster),
        )
        spec = body["spec"]
        assert isinstance(spec, dict)
        container = spec["containers"][0]
        ip = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
        container["env"].insert(0, ip)  # what follows may speak of it
        container["ports"] = [
            {"containerPort": number, "protocol": "TCP", **({"name": str(target)} if named else {})}
            for target, (number, named) in ports.items()
        ]
        # asked until it succeeds once; before that no Service leads here
        container["startupProbe"] = {
            "exec": {"command": list(READY)},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": int(READY_S),
        }
        if min(numbers) < LOWEST_OF_ALL:
            allowed = {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}
            spec["securityContext"]["sysctls"] = [allowed]
        return created(how.cluster, f"/api/v1/namespaces/{namespace}/pods", self.clusters.run, body, WHY)

    def _configuration(self, injection: Injection, service: Object, address: str) -> str:
        """A route for each port that is listened on, to the second Service's port for the same."""
        how, ports = _toxic(injection), listening(service)
        families = at(service, "spec", "ipFamilies")
        both = isinstance(families, list) and len(families) > 1
        routes: dict[str, dict[str, object]] = {}
        for port in objects(at(service, "spec", "ports")):
            target = port.get("targetPort", port.get("port"))
            assert isinstance(target, int | str)
            name = f"{how.service}:{target}"
            routes.setdefault(name, {"name": name, "listen": ports[target][0], "to": f"{address}:{port['port']}"})
        taken = {number for number, _ in ports.values()}
        first = CONTROL + int(naming.short(f"{self.clusters.run}/{injection.id}"), 16) % CONTROLS
        control = next(number for number in range(first, first + len(taken) + 1) if number not in taken)
        toxic = {
            "routes": list(routes),
            "kind": how.kind,
            "expires_in_s": injection.for_s + READY_S + EXPIRY_GRACE_S,  # it counts from when the proxy begins
            **{name: getattr(how, name) for name in FIELDS[how.kind]},
        }
        where = {"host": "::" if both else "$(POD_IP)", "control": control}
        return json.dumps({**where, "routes": list(routes.values()), "toxics": {injection.id: toxic}}, sort_keys=True)


def unfit(service: Object) -> str:
    """Why no proxy of ours can stand for its pods, and what would help; empty when one can."""
    spec = service.get("spec")
    ports = objects(at(spec, "ports"))
    if at(spec, "type") == "ExternalName":
        return "is a name for something outside the cluster: callers never pass it; use a Service with a selector"
    if at(spec, "clusterIP") in (None, "", "None"):
        return "is headless: callers ask for pods and connect to them; call it by a Service with an address"
    if not texts(at(spec, "selector")):
        return "has no selector: its endpoints are somebody's own; use one with a selector"
    if LABEL in texts(at(spec, "selector")):
        return "leads to a fault proxy already; let one fault end before the next begins, or: stormdrill recover"
    other = sorted({str(port["protocol"]) for port in ports if port.get("protocol", "TCP") != "TCP"})
    if not ports or other:
        return f"has ports for {', '.join(other) or 'nothing'}, and the fault proxy carries TCP; split it in two"
    if at(spec, "sessionAffinity") not in (None, "None"):
        return "keeps each caller with one pod (sessionAffinity), which a proxy between can't; remove it for the drill"
    for policy in ("internalTrafficPolicy", "externalTrafficPolicy"):
        if at(spec, policy) == "Local":
            return f"is answered by each node's own pods ({policy}: Local), and the proxy is on one; set it to Cluster"
    return ""


def listening(service: Object) -> dict[int | str, tuple[int, bool]]:
    """Target port of the Service → where the proxy listens for it, and whether pods are asked for it by its name."""
    found: dict[int | str, tuple[int, bool]] = {}
    targets = [port.get("targetPort", port.get("port")) for port in objects(at(service, "spec", "ports"))]
    numbers = [target for target in targets if isinstance(target, int)]
    for target in targets:
        if isinstance(target, int):
            found[target] = (target, False)
    free = (number for number in range(NAMED_FROM, NAMED_FROM + 1000) if number not in numbers)
    for target in targets:
        if isinstance(target, str) and target not in found:
            found[target] = (next(free), True)
    return found


def _behind(injection: Injection, service: Object) -> Object:
    """A Service with the first one's selector and ports, and nothing by which anybody else would find it."""
    spec = service["spec"]
    assert isinstance(spec, dict)
    kept = ("selector", "publishNotReadyAddresses", "ipFamilies", "ipFamilyPolicy")
    of_port = ("name", "port", "protocol", "targetPort", "appProtocol")
    made = {key: spec[key] for key in kept if key in spec}
    made["ports"] = [{key: port[key] for key in of_port if key in port} for port in objects(spec.get("ports"))]
    made["type"] = "ClusterIP"
    meta = {"name": _behind_name(injection), "namespace": _toxic(injection).service.partition("/")[0]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": made}


def _behind_name(injection: Injection) -> str:
    return name_of(injection, f"{_toxic(injection).service.partition('/')[2]}-orig")


def _proxy_name(injection: Injection) -> str:
    return name_of(injection, f"{_toxic(injection).service.partition('/')[2]}-proxy")


def _path(how: Toxic) -> str:
    namespace, _, name = how.service.partition("/")
    return f"/api/v1/namespaces/{namespace}/services/{name}"


def _serves(end: Object) -> bool:
    """Ready, or left out, which means the same."""
    return at(end, "conditions", "ready") in (None, True)


def _state(found: Object | None) -> str:
    """Why a pod isn't ready, as far as its status says."""
    if found is None:
        return "it is not there"
    for one in objects(at(found, "status", "containerStatuses")):
        waiting = at(one, "state", "waiting")
        if isinstance(waiting, dict):
            return f"{waiting.get('reason', 'waiting')} {waiting.get('message', '')}".strip()
    for one in objects(at(found, "status", "conditions")):
        if one.get("status") == "False" and one.get("message"):
            return str(one["message"])
    return f"its phase is {at(found, 'status', 'phase')}"


def _toxic(injection: Injection) -> Toxic:
    assert isinstance(injection.how, Toxic)
    return injection.how
