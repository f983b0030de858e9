"""What is there: pods, nodes, workloads of a system, read page by page and never one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TypeVar

import msgspec
from msgspec import Struct

from stormdrill.cluster.api import Answer, Api, Lost
from stormdrill.cluster.asking import BUSY, Until
from stormdrill.errors import Refused, Unreachable
from stormdrill.model.system import KubernetesSpec, ServiceInstance
from stormdrill.targets.kubernetes.clusters import named
from stormdrill.targets.kubernetes.mechanism import OPTED_IN, PAGE
from stormdrill.targets.kubernetes.objects import (
    Budget,
    Controller,
    Namespace,
    Node,
    Pod,
    Service,
)

T = TypeVar("T")
AGAIN = 3
"""How often a list is begun anew whose snapshot went while it was read."""
PAGE_LIMIT_S = 10.0
BUSY_S = 5.0
"""So long a server may say that it can't answer now."""
ALIVE = "status.phase!=Succeeded,status.phase!=Failed"


class _Listed(Struct, frozen=True, rename={"more": "continue"}):
    more: str = ""


def page_type(kind: type[T]) -> type[Struct]:
    """A page of a list of this kind, with nothing else of it."""
    if kind not in _PAGES:
        _PAGES[kind] = msgspec.defstruct("Page", [("items", tuple[kind, ...], ()), ("metadata", _Listed, _Listed())])  # type: ignore[valid-type]
    return _PAGES[kind]


_PAGES: dict[type, type[Struct]] = {}


def listed(api: Api, path: str, kind: type[T], **query: str) -> tuple[T, ...]:
    """All objects of a list. Raises Refused for what isn't allowed, Unreachable where there is no answer."""
    for _ in range(AGAIN):
        found = _pages(api, path, kind, query)
        if found is not None:
            return found
    raise Unreachable(f"{named(api.name)}: {path} is forgotten faster than it can be read; try again")


def _pages(api: Api, path: str, kind: type[T], query: Mapping[str, str]) -> tuple[T, ...] | None:
    """None: the snapshot that the pages come from was compacted on the way."""
    decoder = msgspec.json.Decoder(page_type(kind))
    found: list[T] = []
    asked = {**query, "limit": str(PAGE)}
    while True:
        body = ask(api, path, asked)
        if body is None:
            return None
        page = _read(decoder, body, api, path)
        found += page.items  # type: ignore[attr-defined]  # made by defstruct
        more: str = page.metadata.more  # type: ignore[attr-defined]
        if not more:
            return tuple(found)
        asked["continue"] = more


def _read(decoder: msgspec.json.Decoder[T], body: bytes, api: Api, path: str) -> T:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise Unreachable(f"{named(api.name)}: what it answered to GET {path} can't be read: {error}") from error


def ask(api: Api, path: str, query: Mapping[str, str]) -> bytes | None:
    """One answer's body; None for one that came too late (410)."""
    answer = _answer(api, path, query)
    if answer.status == 410:
        return None
    if answer.status in (401, 403):
        raise Refused(f"{named(api.name)}: {answer.said}{allowing(answer.status)}")
    if not answer.good:
        raise Unreachable(f"{named(api.name)}: GET {path}: {answer.said}")
    return answer.body


def _answer(api: Api, path: str, query: Mapping[str, str]) -> Answer:
    """Asked again while the server only says that it is busy, and once where a connection broke."""
    until, broken = Until(BUSY_S), False
    while True:
        try:
            answer = api.call("GET", path, query=query, limit_s=PAGE_LIMIT_S)
        except Lost as lost:
            if broken:
                raise Unreachable(f"{named(api.name)} does not answer: {lost}") from lost
            broken = True
            continue
        if answer.status not in BUSY:
            return answer
        until.pause(f"{named(api.name)}: GET {path}: {answer.said}", answer.retry_after_s)


def allowing(status: int) -> str:
    """What helps where it is a right that is missing."""
    rights = "; ask for this right: stormdrill plan EXPERIMENT --rbac prints all of them"
    return {401: "; log in anew", 403: rights}.get(status, "")


class Cluster:
    """One cluster as planning sees it; every list is read once, and only when it is asked for."""

    def __init__(self, api: Api, spec: KubernetesSpec, services: Sequence[ServiceInstance]) -> None:
        self.api = api
        self.name = api.name
        self.spec = spec
        self._selector = selector(services)

    def _here(self, resource: str, version: str = "/api/v1") -> str:
        return f"{version}/namespaces/{self.spec.namespace}/{resource}"

    @cached_property
    def pods(self) -> tuple[Pod, ...]:
        """Of the system's namespace, as far as they may be of its services."""
        return self.look()

    def look(self) -> tuple[Pod, ...]:
        """The same, read anew."""
        wanted = {"labelSelector": self._selector.ours} if self._selector.ours else {}
        return listed(self.api, self._here("pods"), Pod, fieldSelector=ALIVE, **wanted)

    @cached_property
    def all_pods(self) -> tuple[Pod, ...]:
        """Of all namespaces: what else is on the nodes. The system's own are not read twice."""
        elsewhere = f"{ALIVE},metadata.namespace!={self.spec.namespace}"
        found = [*self.pods, *listed(self.api, "/api/v1/pods", Pod, fieldSelector=elsewhere)]
        if self._selector.others:
            theirs = {"labelSelector": self._selector.others}
            found += listed(self.api, self._here("pods"), Pod, fieldSelector=ALIVE, **theirs)
        return tuple(found)

    @cached_property
    def nodes(self) -> dict[str, Node]:
        return {one.name: one for one in listed(self.api, "/api/v1/nodes", Node)}

    @cached_property
    def unfit(self) -> tuple[str, ...]:
        """Nodes on which nothing of the suite's own would run now: not ready, only simulated, or no place for it."""
        return tuple(sorted(one.name for one in self.nodes.values() if one.simulated or one.foreign or not one.ready))

    @cached_property
    def shunned(self) -> tuple[str, ...]:
        """Nodes that taints keep pods off: they are meant for others, or cordoned."""
        return tuple(sorted(one.name for one in self.nodes.values() if one.shunned))

    @cached_property
    def opted_in(self) -> frozenset[str]:
        """The namespaces that let themselves be drilled."""
        wanted = "=".join(OPTED_IN)
        found = listed(self.api, "/api/v1/namespaces", Namespace, labelSelector=wanted)
        return frozenset(one.metadata.name for one in found)

    @cached_property
    def namespace(self) -> Namespace | None:
        """The system's; None when there is none."""
        path = f"/api/v1/namespaces/{self.spec.namespace}"
        answer = _answer(self.api, path, {})
        if answer.status == 404:
            return None
        if not answer.good:
            what = f"namespace {self.spec.namespace}: {answer.said}{allowing(answer.status)}"
            raise Refused(f"{named(self.name)}: {what}")
        return _read(msgspec.json.Decoder(Namespace), answer.body, self.api, path)

    @cached_property
    def budgets(self) -> tuple[Budget, ...]:
        return listed(self.api, "/apis/policy/v1/poddisruptionbudgets", Budget)

    @cached_property
    def controllers(self) -> dict[str, Controller]:
        """`deployments/cpu-eu`, `statefulsets/queue` of the system's namespace."""
        return {
            f"{resource}/{one.metadata.name}": one
            for resource in ("deployments", "statefulsets")
            for one in listed(self.api, self._here(resource, "/apis/apps/v1"), Controller)
        }

    @cached_property
    def services(self) -> tuple[Service, ...]:
        return listed(self.api, self._here("services"), Service)

    def workload(self, pod: Pod) -> str:
        """What keeps the pod running, `deployments/cpu-eu`; empty for a pod that nothing makes again.

        A ReplicaSet is a Deployment's where it bears that one's name with the template's hash, and is selected by it.
        """
        owner = pod.controller
        if owner is None:
            return ""
        if owner.kind == "ReplicaSet":
            hash = pod.metadata.labels.get("pod-template-hash", "")
            name = f"deployments/{owner.name.removesuffix(f'-{hash}')}" if hash else ""
            found = self.controllers.get(name)
            if found is not None and found.spec.selector.selects(pod.metadata.labels):
                return name
        return f"{owner.kind.lower()}s/{owner.name}"


class Selectors(Struct, frozen=True):
    """For the server: who may be of the system's services, and who can't; empty where it can't be told in one."""

    ours: str = ""
    others: str = ""


def selector(services: Sequence[ServiceInstance]) -> Selectors:
    """By the first label that every service names."""
    shared = [key for key in (services[0].select if services else {}) if all(key in one.select for one in services)]
    if not shared:
        return Selectors()
    key = shared[0]
    values = ",".join(sorted({one.select[key] for one in services}))
    return Selectors(f"{key} in ({values})", f"{key} notin ({values})")
