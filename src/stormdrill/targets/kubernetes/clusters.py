"""The clusters of one system while a run lasts: their API servers, and what the run holds in each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from stormdrill.cluster.api import Access, Answer, Api
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.inside import InCluster
from stormdrill.errors import Unreachable
from stormdrill.model.permission import Need
from stormdrill.model.plan import ClusterAt
from stormdrill.model.system import KubernetesSpec
from stormdrill.targets.kubernetes.kubeconfig import Configured
from stormdrill.targets.kubernetes.mechanism import Place


def _configured(context: str) -> Access:
    from stormdrill.targets.kubernetes.kubeconfig import access_for

    return access_for(context)


@runtime_checkable
class Secretive(Protocol):
    """Capability: an access with credentials that are renewed while it is used."""

    def hide(self, tell: Callable[[str, str], None]) -> None:
        """`tell` is told each secret with its name, and each later one before it is used."""
        ...


class Noting(Api):
    """Remembers what was read, since what a plan reads has to be allowed to whoever runs it."""

    def __init__(self, access: Access, name: str) -> None:
        super().__init__(access, name)
        self.read: set[str] = set()

    def call(self, method: str, path: str, body: object = None, **options: Any) -> Answer:
        if method == "GET" and path.startswith(("/api/", "/apis/")):
            self.read.add(path)
        return super().call(method, path, body, **options)


def reads(paths: Iterable[str], cluster: str) -> list[Need]:
    """What it takes to have read them again."""
    found = []
    for path in sorted(paths):
        place = Place.of(path)
        verb = "get" if place.name else "list"
        why = "to find the system and to see what a fault would do"
        found.append(Need(verb, place.group, place.resource, place.namespace, place.name, cluster=cluster, why=why))
    return found


class LiveClusters:
    """`mechanism.Clusters`. Asks nobody before it is asked itself."""

    def __init__(
        self, spec: KubernetesSpec, *, run: str, system: str, connect: Callable[[str], Access] = _configured
    ) -> None:
        self.spec, self.run, self.system = spec, run, system
        self.names: tuple[str, ...] = tuple(spec.contexts) or ("",)
        self.holds: dict[str, Hold] = {}
        """By the cluster's name, once the run has begun."""
        self._connect = connect
        self._apis: dict[str, Noting] = {}
        self._tell: Callable[[str, str], None] | None = None
        self._lock = Lock()

    @property
    def suite(self) -> str:
        return self.spec.suite

    def api(self, cluster: str) -> Api:
        """Raises Refused where there are no credentials for it."""
        with self._lock:
            if cluster not in self._apis:
                access = self._connect(self.spec.contexts.get(cluster, ""))
                if self._tell is not None and isinstance(access, Secretive):
                    access.hide(self._tell)
                self._apis[cluster] = Noting(access, cluster)
            return self._apis[cluster]

    def hide(self, tell: Callable[[str, str], None]) -> None:
        """`tell` is told the credentials, which nothing that is written may hold, by where they come from; renewed ones
        before they are used."""
        with self._lock:
            self._tell = tell
            known = [api.access for api in self._apis.values()]
        for access in known:
            if isinstance(access, Secretive):
                access.hide(tell)

    @property
    def inside(self) -> bool:
        """Whether this process is a pod of the cluster: pods are reached by their own addresses then."""
        return all(isinstance(self.api(name).access, InCluster) for name in self.names)

    def read(self) -> list[Need]:
        """What was read until now, as rights."""
        with self._lock:
            return [need for name, api in self._apis.items() for need in reads(api.read, name)]

    def asked(self, cluster: str) -> frozenset[str]:
        """The paths that were read there until now, or were meant to be."""
        with self._lock:
            return frozenset(self._apis[cluster].read) if cluster in self._apis else frozenset()

    def hold(self, cluster: str) -> Hold:
        """Raises Unreachable before the run has begun there."""
        held = self.holds.get(cluster)
        if held is None:
            raise Unreachable(f"the run holds nothing in {named(cluster)} yet: nothing may be changed there")
        return held

    def told(self) -> tuple[str, ...]:
        """What a person has to know of the ways to them."""
        with self._lock:
            used = [api.access for api in self._apis.values()]
        return tuple(line for access in used if isinstance(access, Configured) for line in access.told)

    def where(self) -> tuple[ClusterAt, ...]:
        """As a person knows them. Raises Refused where there is no way to one."""
        found = []
        for name in self.names:
            access = self.api(name).access
            context = access.name if isinstance(access, Configured) else self.spec.contexts.get(name, "")
            found.append(ClusterAt(name, context, _without_user(access.server), self.spec.namespace))
        return tuple(found)

    def close(self) -> None:
        """Ends connections; what is held stays."""
        with self._lock:
            apis, self._apis = list(self._apis.values()), {}
        for api in apis:
            api.close()


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def named(cluster: str) -> str:
    return f"cluster {cluster}" if cluster else "the cluster"
