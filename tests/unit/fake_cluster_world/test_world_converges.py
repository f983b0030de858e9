"""Whatever was done to it and in whatever order: once it is left alone, the fake cluster comes to what was asked."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from fake_cluster import FakeCluster

Obj = dict[str, Any]


class Meddler:
    """Somebody who changes things at random."""

    def __init__(self, cluster: FakeCluster, seed: int) -> None:
        self.cluster = cluster
        self.lot = random.Random(seed)
        self.acts: list[Callable[[], object]] = [
            self.scale, self.roll, self.pause, self.taint, self.untaint, self.cordon, self.uncordon, self.delete_pod,
            self.limit, self.unlimit,
        ]  # fmt: skip

    def _deployment(self, how: Callable[[Obj], object]) -> None:
        names = [one["metadata"]["name"] for one in self.cluster.objects("deployments", "platform")]
        self.cluster.registry.change("deployments", "platform", self.lot.choice(names), lambda one: (how(one), None)[1])

    def _node(self, how: Callable[[Obj], object]) -> None:
        names = [one["metadata"]["name"] for one in self.cluster.objects("nodes")]
        self.cluster.registry.change("nodes", "", self.lot.choice(names), lambda one: (how(one["spec"]), None)[1])

    def scale(self) -> None:
        self._deployment(lambda one: one["spec"].update(replicas=self.lot.randrange(5)))

    def roll(self) -> None:
        image = self.lot.choice(["platform:1", "platform:2", "registry.invalid/platform:1"])
        self._deployment(lambda one: one["spec"]["template"]["spec"]["containers"][0].update(image=image))

    def pause(self) -> None:
        self._deployment(lambda one: one["spec"].update(paused=self.lot.random() < 0.5))

    def taint(self) -> None:
        effect = self.lot.choice(["NoExecute", "NoSchedule"])
        self._node(lambda spec: spec.update(taints=[{"key": "x", "effect": effect}]))

    def untaint(self) -> None:
        self._node(lambda spec: spec.pop("taints", None))

    def cordon(self) -> None:
        self._node(lambda spec: spec.update(unschedulable=True))

    def uncordon(self) -> None:
        self._node(lambda spec: spec.pop("unschedulable", None))

    def delete_pod(self) -> None:
        names = [one["metadata"]["name"] for one in self.cluster.objects("pods", "platform")]
        if names:
            self.cluster.registry.end("pods", "platform", self.lot.choice(names), grace=self.lot.choice([None, 0]))

    def limit(self) -> None:
        meta, hard = {"name": "q", "namespace": "platform"}, {"pods": str(self.lot.randrange(3, 14))}
        self.cluster.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": hard}})

    def unlimit(self) -> None:
        self.cluster.registry.end("resourcequotas", "platform", "q")

    def make_good(self) -> None:
        self.unlimit()
        for node in self.cluster.objects("nodes"):
            self.cluster.registry.change("nodes", "", node["metadata"]["name"], _freed)
        for one in self.cluster.objects("deployments", "platform"):
            self.cluster.registry.change("deployments", "platform", one["metadata"]["name"], _as_asked)


def _freed(node: Obj) -> None:
    node["spec"].pop("taints", None)
    node["spec"].pop("unschedulable", None)


def _as_asked(deployment: Obj) -> None:
    deployment["spec"].update(replicas=2, paused=False)
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "platform:1"


def settled(cluster: FakeCluster) -> bool:
    cluster.settle()
    counts = ("replicas", "updatedReplicas", "availableReplicas")
    statuses = [one["status"] for one in cluster.objects("deployments", "platform")]
    whole = all(status.get(count) == 2 for status in statuses for count in counts)
    return whole and len(cluster.objects("pods", "platform")) == 2 * len(statuses)


@pytest.mark.parametrize("seed", range(4))
def test_it_comes_to_what_was_asked(seed: int) -> None:
    with FakeCluster() as cluster:
        cluster.world()
        meddler = Meddler(cluster, seed)
        for _ in range(40):
            meddler.lot.choice(meddler.acts)()
            if meddler.lot.random() < 0.3:
                cluster.settle()
        meddler.make_good()
        until = time.monotonic() + 20
        while not settled(cluster):
            assert time.monotonic() < until, cluster.objects("deployments", "platform")
            time.sleep(0.02)
        cluster.registry.end("namespaces", "", "platform")
        cluster.settle()
        assert cluster.read("/api/v1/namespaces/platform") is None
        assert not cluster.objects("pods", "platform")
