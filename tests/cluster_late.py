"""Requests that come late, objects that are made again, a hold without a watchdog: what tests of reverting share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import cluster_rig as rig
from fake_cluster import FakeCluster
from stormdrill.cluster.api import Answer, Api, Lost
from stormdrill.cluster.hold import Hold

_BY_THE_SERVER = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")


class Delaying(Api):
    """Of its real changes the nth is under way when its sender gives up, and comes when somebody calls `arrive`."""

    def __init__(self, cluster: FakeCluster, nth: int = 1) -> None:
        super().__init__(cluster.admin)
        self.left = nth
        self.arrive: Callable[[], Answer] | None = None

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        if method in ("PATCH", "POST") and self.arrive is None:
            self.left -= 1
            if not self.left:
                self.arrive = lambda: Api.call(self, method, path, body, **options)
                raise Lost("it is under way", sent=True)
        return super().call(method, path, body, **options)


class Interrupted(Api):
    """Something happens right before its nth request; `rest` is what hasn't happened yet."""

    def __init__(self, cluster: FakeCluster, nth: int, happens: Callable[[], object]) -> None:
        super().__init__(cluster.admin)
        self.left = nth
        self.rest: Callable[[], object] | None = happens

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        if self.left == 0 and self.rest is not None:
            happens, self.rest = self.rest, None
            happens()
        self.left -= 1
        return super().call(method, path, body, **options)


def made_again(cluster: FakeCluster, path: str, *, without: str = "") -> None:
    """As by `kubectl replace --force` of what was dumped: the same but for what the server says. `without`: an
    annotation that somebody took out of it."""
    dumped = copy.deepcopy(cluster.read(path))
    if dumped is None:
        return
    for name in _BY_THE_SERVER:
        dumped["metadata"].pop(name, None)
    dumped["metadata"].get("annotations", {}).pop(without, None)
    dumped.pop("status", None)
    api = Api(cluster.admin)
    assert api.call("DELETE", path).good
    assert api.call("POST", path.rpartition("/")[0], dumped, query={"fieldManager": "kubectl-replace"}).good


def held_without_watchdog(api: Api, run: str = "r1") -> Hold:
    """Its runner alone is there, so that nobody else mends what it says is mended."""
    held = Hold(api, run, "platform", rig.IMAGE, lease_s=10.0, namespaces=(rig.PLATFORM,))
    held._lease.acquire()
    held._heart.start()
    held._ledger.create(held._about(), "platform")
    held._heart.anchors = held._setting().anchors()
    return held
