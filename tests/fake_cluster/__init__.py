"""A Kubernetes API server for tests: stateful, over real HTTP on loopback, with rights, trouble and a world that acts.

What it answers is held against exchanges recorded from a real server (tests/contract/test_fake_cluster_exchanges.py).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fake_cluster import bootstrap, defaults, identities, namespaces, podrules, podsecurity, reviews, scenes, validation
from fake_cluster import world as worlds
from fake_cluster.access import TokenAccess, kubeconfig
from fake_cluster.calls import Call, Reply, Request
from fake_cluster.pipeline import Pipeline
from fake_cluster.problems import Problem
from fake_cluster.rbac import Rights, account_user
from fake_cluster.registry import Registry
from fake_cluster.routing import is_resource, resolve
from fake_cluster.secure import certificate
from fake_cluster.server import Server
from fake_cluster.snapshot import CHANGING, snapshot
from fake_cluster.store import Object, clone
from fake_cluster.tokens import ADMINISTRATOR, Tokens
from fake_cluster.trouble import Moment, Troubles

if TYPE_CHECKING:
    from fake_cluster.behaviour import Behaviour

__all__ = ["Call", "FakeCluster", "Problem", "Registry", "Reply", "Request"]


class FakeCluster:
    """One API server. `registry` is the way in for controllers: reads, writes and hooks without HTTP."""

    def __init__(
        self, *, world: bool = True, run_images: Iterable[str] | Mapping[str, list[str]] = (), tls: bool = False
    ) -> None:
        """`world=False`: nothing acts but the server; what is created stays as it is. Pods of `run_images` run as
        local processes (with an entrypoint for containers without a command, where a mapping is given)."""
        self.registry = Registry()
        self.store = self.registry.store
        self.tokens = Tokens()
        self.troubles = Troubles()
        self.rights = Rights(self.registry)
        self.run_pods: dict[str, list[str]] = (
            dict(run_images) if isinstance(run_images, Mapping) else {image: [] for image in run_images}
        )
        self.behaviour: Behaviour | None = None
        """What acts by itself; None where nothing does."""
        self._world = world
        self._tls = tls
        self._ca: Path | None = None
        self._on_stop: list[Callable[[], None]] = []
        self._pipeline = Pipeline(self.registry, self.rights, self.tokens, self.troubles)
        bootstrap.install(self.registry)
        defaults.install(self.registry)
        reviews.install(self.registry, self.rights, self.tokens)
        namespaces.install(self.registry)
        identities.install(self.registry)
        validation.install(self.registry)
        podrules.install(self.registry)
        podsecurity.install(self.registry)
        bootstrap.fill(self.registry)
        self._server: Server | None = None

    def __enter__(self) -> Self:
        context = None
        if self._tls:
            place = Path(tempfile.mkdtemp(prefix="fake-cluster-tls-"))
            self.on_stop(lambda: shutil.rmtree(place, ignore_errors=True))
            context, self._ca = certificate(place)
        self._server = Server(self._pipeline.answer, context)
        if self._world:
            self._start_world()
        return self

    def __exit__(self, kind: object, raised: BaseException | None, trace: object) -> None:
        try:
            for stop in reversed(self._on_stop):
                stop()
        finally:
            self.registry.closed = True
            with self.store.changed:
                self.store.changed.notify_all()
            if self._server is not None:
                self._server.refuse()
        if self.mistakes and raised is None:
            raise AssertionError("the fake cluster made mistakes:\n" + "\n".join(self.mistakes))

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Called at the end, the last first."""
        self._on_stop.append(stop)

    def _start_world(self) -> None:
        """Whatever acts by itself: `behaviour.start(cluster)`."""
        from fake_cluster import behaviour

        behaviour.start(self)

    def settle(self, limit_s: float = 20.0) -> None:
        """Waits until controllers, scheduler and kubelets have nothing left to do now."""
        if self.behaviour is not None:
            self.behaviour.loop.settle(limit_s)

    # -- ways in

    @property
    def port(self) -> int:
        assert self._server is not None, "the fake cluster is entered with `with`"
        return self._server.port

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def ca(self) -> bytes:
        """In PEM; empty without TLS."""
        return self._ca.read_bytes() if self._ca is not None else b""

    @property
    def admin(self) -> TokenAccess:
        return self.access(ADMINISTRATOR)

    def access(self, token: str) -> TokenAccess:
        return TokenAccess(self.url, token, self._ca)

    def account(self, namespace: str, name: str) -> str:
        """A token for a ServiceAccount; it and its namespace are created when absent."""
        if self.registry.read("namespaces", "", namespace) is None:
            self.apply(scenes.namespace(namespace, drill=False))
        if self.registry.read("serviceaccounts", namespace, name) is None:
            meta = {"name": name, "namespace": namespace}
            self.registry.add({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        held = self.registry.read("serviceaccounts", namespace, name)
        assert held is not None
        return self.tokens.add(account_user(namespace, name, held["metadata"]["uid"]))

    def kubeconfig(
        self, path: Path, token: str = ADMINISTRATOR, namespace: str = "default", context: str = "fake"
    ) -> Path:
        return kubeconfig(path, self.url, token, namespace, context, self._ca)

    # -- content

    def apply(self, objects: Object | list[Object]) -> None:
        """Creates, or replaces, as the administrator; a status in a manifest counts. Not in `requests`."""
        for obj in objects if isinstance(objects, list) else [objects]:
            if obj.get("kind") == "List":
                self.apply(obj["items"])
                continue
            obj = clone(obj)
            kind = self.registry.kinds.of_object(obj)
            meta = obj["metadata"]
            namespace = meta.setdefault("namespace", "default") if kind.namespaced else ""
            with self.store.lock:
                before = self.store.get(kind, namespace, meta["name"])
                if before is None:
                    self.registry.add(obj)
                    continue
                status = obj.get("status")
                self.registry.commit(kind, before, obj)
                if status is not None:
                    self.registry.change(
                        kind.resource, namespace, meta["name"], lambda held, status=status: held.update(status=status)
                    )

    def read(self, path: str) -> Object | None:
        """The object at a path, as the administrator; None when it is absent. A copy."""
        if not is_resource(path):
            raise ValueError(f"{path}: the path of one object, /api/v1/nodes/n1")
        call = Call(Request("GET", path, {}), {}, self.tokens.known[ADMINISTRATOR][0], self.registry)
        resolve(call)
        kind = call.served()
        held = self.store.get(kind, call.namespace if kind.namespaced else "", call.name)
        return clone(held.obj) if held else None

    def objects(self, resource: str, namespace: str = "") -> list[Object]:
        """All of a resource, "pods" or "deployments.apps". Copies."""
        return clone(self.registry.list(resource, namespace))

    def snapshot(self, ignore: tuple[str, ...] = CHANGING) -> dict[str, Any]:
        return snapshot(self.store, ignore)

    def nodes(self, count: int, region: str = "eu", pool: str = "cpu", *, first: int = 1, **more: Any) -> list[str]:
        """Simulated nodes; their names."""
        names = [f"{region}-{pool}-{number}" for number in range(first, first + count)]
        self.apply([scenes.node(name, region, pool, **more) for name in names])
        return names

    def world(self, *, bystander: bool = False) -> None:
        """Two regions with nodes, the reference platform's shape in the namespace `platform` that opted in,
        `stormdrill`, what a cluster has besides (fake_cluster.world); somebody who did not opt in, on a node."""
        self.apply(worlds.world(bystander))
        self.settle()

    # -- what was asked, and what goes wrong

    @property
    def requests(self) -> list[Request]:
        return self._pipeline.requests

    @property
    def warned(self) -> list[str]:
        """What was answered with a warning: unknown fields that fell away."""
        return self._pipeline.warned

    @property
    def mistakes(self) -> list[str]:
        """What the fake itself stumbled over (answered with 500): a cluster that ends with some raises."""
        return self._pipeline.mistakes

    def trouble(self, match: tuple[str, str], what: str, times: int = 1) -> None:
        """The next `times` requests that match (whole method, part of the path; regular expressions) meet it."""
        self.troubles.add(match, what, times)

    def at(self, n_mutation: int, callback: Callable[[Request], None], when: str = "before") -> None:
        """At the nth request from now that would change something (no dry run, no review): before it acts, or after
        it acted and before it is answered."""
        if when not in ("before", "after"):
            raise ValueError(f"at({n_mutation}, …, when={when!r}): before or after")
        self.troubles.moments.append(Moment(n_mutation, callback, when))

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Nobody listens, and connections are cut; what acts by itself goes on."""
        assert self._server is not None
        self._server.refuse()
        try:
            yield
        finally:
            self._server.resume()
