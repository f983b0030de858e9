"""Endpoints and EndpointSlices: who stands behind a Service now."""

from __future__ import annotations

from collections.abc import Iterable

from fake_cluster.ground import Ground, Refused, now
from fake_cluster.loop import Change, Key
from fake_cluster.matching import Obj, condition, deleted_at, ended, has_all, is_true, labels_of

TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"
HEADLESS = "service.kubernetes.io/headless"
NAME_LABEL = "kubernetes.io/service-name"


def behind(ground: Ground, service: Obj) -> list[Obj]:
    """The Pods with an address that a Service selects."""
    selector = service["spec"].get("selector")
    return [
        one for one in ground.all("pods", service["metadata"]["namespace"])
        if has_all(selector, labels_of(one)) and (one.get("status") or {}).get("podIP") and not ended(one)
    ]  # fmt: skip


def target_port(port: Obj, pod: Obj) -> int | None:
    """A named port is looked up in the Pod."""
    wanted = port.get("targetPort", port["port"])
    if isinstance(wanted, int):
        return wanted
    for container in pod["spec"]["containers"]:
        for one in container.get("ports") or []:
            if one.get("name") == wanted:
                return int(one["containerPort"])
    return None


class Endpoints:
    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._seen: dict[Key, dict[str, str]] = {}
        """Service → uid of it and of its Pods → when they came, or their readiness last moved."""

    def concerns(self, change: Change) -> Iterable[Key]:
        if change.resource == "services":
            return [(change.namespace, change.name)]
        if change.resource in ("endpoints", "endpointslices") and change.after is None:
            name = change.name if change.resource == "endpoints" else labels_of(change.now).get(NAME_LABEL, "")
            return [(change.namespace, name)]
        if change.resource == "endpointslices":  # whatever else somebody wrote into one is put right
            return [(change.namespace, labels_of(change.now).get(NAME_LABEL, ""))]
        if change.resource != "pods":
            return ()
        things = [one for one in (change.before, change.after) if one is not None]
        return [
            (change.namespace, one["metadata"]["name"]) for one in self.ground.all("services", change.namespace)
            if any(has_all(one["spec"].get("selector"), labels_of(thing)) for thing in things)
        ]  # fmt: skip

    def act(self, namespace: str, name: str) -> float | None:
        service = self.ground.get("services", namespace, name)
        if service is None:
            for resource, thing in self._left(namespace, name):
                self.ground.delete(resource, thing)
            return None
        if deleted_at(service) or not service["spec"].get("selector"):
            return None  # without a selector they stay as they are
        pods = behind(self.ground, service)
        at = self._trigger(service, pods)
        try:
            self._put_slice(service, pods, at)
            self._put_endpoints(service, [one for one in pods if not deleted_at(one)], at)
        except Refused:
            return None  # the namespace ends
        return None

    def _trigger(self, service: Obj, pods: list[Obj]) -> str:
        """The time of what changed since the last look; empty where nothing did that has one."""
        key = service["metadata"]["namespace"], service["metadata"]["name"]
        before = self._seen.get(key, {})
        times = {service["metadata"]["uid"]: service["metadata"]["creationTimestamp"]}
        for pod in pods:
            moved = condition(pod, "Ready") or {}
            times[pod["metadata"]["uid"]] = moved.get("lastTransitionTime") or pod["metadata"]["creationTimestamp"]
        self._seen[key] = times
        return min((at for uid, at in times.items() if before.get(uid) != at), default="")

    def _left(self, namespace: str, name: str) -> list[tuple[str, Obj]]:
        held = self.ground.get("endpoints", namespace, name)
        found = [("endpoints", held)] if held is not None else []
        return found + [("endpointslices", one) for one in self._slices(namespace, name)]

    def _slices(self, namespace: str, name: str) -> list[Obj]:
        return [one for one in self.ground.all("endpointslices", namespace) if labels_of(one).get(NAME_LABEL) == name]

    @staticmethod
    def _extra(service: Obj) -> dict[str, str]:
        own = dict(service["metadata"].get("labels") or {})
        return own | ({HEADLESS: ""} if service["spec"].get("clusterIP") == "None" else {})

    def _put_endpoints(self, service: Obj, pods: list[Obj], at: str) -> None:
        subsets = _subsets(service, pods)
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        body: Obj = {"subsets": subsets} if subsets else {}
        notes = {TRIGGER: at} if subsets and at else {}
        held = self.ground.get("endpoints", namespace, name)
        if held is None:
            meta: Obj = {"name": name, "namespace": namespace}
            meta |= {"labels": self._extra(service)} if self._extra(service) else {}
            meta |= {"annotations": notes} if notes else {}
            self.ground.create("endpoints", namespace, {"metadata": meta, **body})
            return

        def put(thing: Obj) -> bool:
            if thing.get("subsets") == (subsets or None):
                return False
            thing.pop("subsets", None)
            thing.update(body)
            _note(thing, notes)
            return True

        self.ground.change("endpoints", namespace, name, put)

    def _put_slice(self, service: Obj, pods: list[Obj], at: str) -> None:
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        endpoints = [self._endpoint(one) for one in pods] or None
        ports = _slice_ports(service, pods) if pods else None
        held = self._slices(namespace, name)
        labels = {
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io", NAME_LABEL: name,
            **self._extra(service),
        }  # fmt: skip
        if not held:
            meta = service["metadata"]
            owner = {
                "apiVersion": "v1", "kind": "Service", "name": name, "uid": meta["uid"], "controller": True,
                "blockOwnerDeletion": True,
            }  # fmt: skip
            self.ground.create("endpointslices", namespace, {
                "metadata": {
                    "generateName": f"{name}-", "labels": labels, "annotations": {TRIGGER: at or now()},
                    "ownerReferences": [owner],
                },
                "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
            })  # fmt: skip
            return

        def put(thing: Obj) -> bool:
            if thing.get("endpoints") == endpoints and thing.get("ports") == ports:
                return False
            thing.update(endpoints=endpoints, ports=ports)
            _note(thing, {TRIGGER: at} if endpoints and at else {})
            return True

        self.ground.change("endpointslices", namespace, held[0]["metadata"]["name"], put)

    def _endpoint(self, pod: Obj) -> Obj:
        meta, ends = pod["metadata"], bool(deleted_at(pod))
        serving = is_true(pod, "Ready")
        endpoint: Obj = {
            "addresses": [pod["status"]["podIP"]],
            "conditions": {"ready": serving and not ends, "serving": serving, "terminating": ends},
            "targetRef": {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]},
        }  # fmt: skip
        if on := pod["spec"].get("nodeName"):
            endpoint["nodeName"] = on
            zone = labels_of(self.ground.get("nodes", "", on) or {"metadata": {}}).get("topology.kubernetes.io/zone")
            if zone:
                endpoint["zone"] = zone
        return endpoint


def _note(thing: Obj, notes: dict[str, str]) -> None:
    held = {key: value for key, value in (thing["metadata"].get("annotations") or {}).items() if key != TRIGGER}
    thing["metadata"]["annotations"] = held | notes
    if not thing["metadata"]["annotations"]:
        del thing["metadata"]["annotations"]


def _named(port: Obj, number: int) -> Obj:
    name = {"name": port["name"]} if port.get("name") else {}
    return {**name, "port": number, "protocol": port.get("protocol", "TCP")}


def _subsets(service: Obj, pods: list[Obj]) -> list[Obj]:
    """Addresses with the same ports stand together."""
    groups: dict[str, Obj] = {}
    for pod in pods:
        ports = [
            _named(port, number) for port in service["spec"].get("ports") or []
            if (number := target_port(port, pod)) is not None
        ]  # fmt: skip
        meta = pod["metadata"]
        address = {
            "ip": pod["status"]["podIP"], "nodeName": pod["spec"]["nodeName"],
            "targetRef": {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]},
        }  # fmt: skip
        group = groups.setdefault(str(ports), {"addresses": [], "notReadyAddresses": [], "ports": ports})
        group["addresses" if is_true(pod, "Ready") else "notReadyAddresses"].append(address)
    return [{key: value for key, value in group.items() if value} for group in groups.values()]


def _slice_ports(service: Obj, pods: list[Obj]) -> list[Obj]:
    return [
        {"name": port.get("name", ""), "protocol": port.get("protocol", "TCP"), "port": number}
        for port in service["spec"].get("ports") or []
        if (number := next((n for pod in pods if (n := target_port(port, pod)) is not None), None)) is not None
    ]
