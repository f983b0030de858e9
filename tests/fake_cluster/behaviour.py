"""Whatever acts by itself in the fake cluster: controllers, scheduler, kubelets; started with it and ended with it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fake_cluster import eviction, podcalls, proxying, quotas, streams
from fake_cluster.collector import Collector, Namespaces
from fake_cluster.devices import Devices
from fake_cluster.endpoints import Endpoints
from fake_cluster.eviction import Budgets
from fake_cluster.ground import Ground, Writer
from fake_cluster.jobs import Jobs
from fake_cluster.kubelet import Kubelet
from fake_cluster.loop import Change, Loop
from fake_cluster.proxying import Proxy
from fake_cluster.quotas import Quotas
from fake_cluster.replicas import ReplicaSets
from fake_cluster.rollouts import Deployments
from fake_cluster.scheduling import Scheduler
from fake_cluster.sets import DaemonSets, StatefulSets
from fake_cluster.store import Event
from fake_cluster.surroundings import Surroundings
from fake_cluster.taints import NodeTaints, TaintManager

if TYPE_CHECKING:
    from fake_cluster import FakeCluster


class Behaviour:
    """`loop.settle()` waits until nothing is left to do; `loop.pause(True)` stops all controllers."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.home = Path(tempfile.mkdtemp(prefix="fake-cluster-"))
        self.ground = Ground(Writer(cluster.registry))
        surroundings = Surroundings(self.ground, self.home, cluster.url, cluster.account, cluster.ca)
        self.kubelet = Kubelet(self.ground, surroundings, cluster.run_pods)
        self.proxy = Proxy(self.ground, self.kubelet)
        self.jobs = Jobs(self.ground)
        self.loop = Loop()
        self.loop.controllers += [
            NodeTaints(self.ground), TaintManager(self.ground), Deployments(self.ground), ReplicaSets(self.ground),
            StatefulSets(self.ground), DaemonSets(self.ground), self.jobs, Scheduler(self.ground),
            self.kubelet, Collector(self.ground), Namespaces(self.ground), Budgets(self.ground),
            Quotas(self.ground, cluster.registry), Endpoints(self.ground), self.proxy, Devices(self.ground),
        ]  # fmt: skip
        self.kubelet.poke = lambda key: self.loop.poke(self.kubelet, key)
        eviction.install(cluster.registry)
        quotas.install(cluster.registry)
        proxying.install(cluster.registry)
        podcalls.install(cluster.registry, self.kubelet)
        streams.install(cluster.registry, self.kubelet)

    def start(self) -> None:
        store = self.cluster.store
        with store.lock:
            for shelf in list(store.shelves.values()):
                for stored in list(shelf.objects.values()):
                    self._heard(Change(stored.kind.plural, None, stored.obj, stored.version))
            store.subscribe(self._hear)
        self.loop.start()

    def _hear(self, event: Event) -> None:
        before = event.before.obj if event.before is not None else None
        after = event.after.obj if event.type != "DELETED" else None
        if event.kind.resource != "events.events.k8s.io":
            self._heard(Change(event.kind.plural, before, after, event.version))

    def _heard(self, change: Change) -> None:
        self.ground.take(change)
        self.loop.note(change)

    def stop(self) -> None:
        """Nothing that was started is left; what a controller stumbled over is told."""
        self.loop.stop()
        self.proxy.stop()
        self.kubelet.stop()
        shutil.rmtree(self.home, ignore_errors=True)
        if self.loop.problems:
            raise AssertionError("a controller of the fake cluster failed:\n" + "\n".join(self.loop.problems))


def start(cluster: FakeCluster) -> None:
    cluster.behaviour = behaviour = Behaviour(cluster)
    behaviour.start()
    cluster.on_stop(behaviour.stop)
