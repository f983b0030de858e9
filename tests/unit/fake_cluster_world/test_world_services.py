"""Services, budgets, quotas and the ready-made world of the fake cluster."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from fake_cluster import FakeCluster
from stormdrill.cluster.api import Api
from waiting import eventually

Obj = dict[str, Any]
IMAGE = "stormdrill:test"
NAMES = (
    "import os,socket,threading\n"
    "def serve(c):\n"
    "    while (d := c.recv(100)): c.sendall(os.environ['HOSTNAME'].encode())\n"
    "    c.close()\n"
    "s=socket.create_server((os.environ['HOST'], 8080))\n"
    "while True: threading.Thread(target=serve, args=[s.accept()[0]], daemon=True).start()\n"
)


def pod(name: str, app: str, *, grace: int = 0) -> Obj:
    everywhere = {"name": "HOST", "value": "0.0.0.0"}  # noqa: S104 - the fake puts the Pod's address there
    container = {
        "name": "c", "image": IMAGE, "command": ["python", "-c", NAMES], "env": [everywhere],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": "http"}},
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {"terminationGracePeriodSeconds": grace, "containers": [container]},
    }  # fmt: skip


def service(selector: Obj) -> Obj:
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"},
        "spec": {"selector": selector, "ports": [{"port": 8000, "targetPort": "http"}]},
    }  # fmt: skip


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(run_images={IMAGE}) as made:
        made.nodes(1)
        made.apply([pod("a", "a"), pod("b", "b"), service({"app": "a"})])
        eventually(lambda: all(ready(made, name) for name in ("a", "b")))
        made.settle()
        yield made


def ready(cluster: FakeCluster, name: str) -> bool:
    held = cluster.read(f"/api/v1/namespaces/default/pods/{name}") or {"status": {}}
    return any(one["type"] == "Ready" and one["status"] == "True" for one in held["status"].get("conditions") or [])


def connect(cluster: FakeCluster) -> socket.socket:
    address = (cluster.read("/api/v1/namespaces/default/services/s") or {})["spec"]["clusterIP"]
    return socket.create_connection((address, 8000), 10)


def asked(connection: socket.socket) -> str:
    connection.sendall(b"who")
    return connection.recv(100).decode()


def test_new_connections_follow_a_swapped_selector_and_old_ones_live_on(cluster: FakeCluster) -> None:
    with connect(cluster) as old:
        assert asked(old) == "a"
        cluster.registry.change("services", "default", "s", lambda one: one["spec"].update(selector={"app": "b"}))
        with connect(cluster) as new:
            assert asked(new) == "b"
        assert asked(old) == "a"


def test_a_service_goes_round_and_leaves_out_who_is_not_ready(cluster: FakeCluster) -> None:
    cluster.apply(pod("a2", "a"))
    eventually(lambda: ready(cluster, "a2"))
    with connect(cluster) as one, connect(cluster) as two:
        assert {asked(one), asked(two)} == {"a", "a2"}
    cluster.registry.end("pods", "default", "a")
    cluster.settle()
    for _ in range(3):
        with connect(cluster) as one:
            assert asked(one) == "a2"


def test_a_service_without_a_ready_endpoint_refuses(cluster: FakeCluster) -> None:
    cluster.registry.change("services", "default", "s", lambda one: one["spec"].update(selector={"app": "none"}))
    with pytest.raises(ConnectionError):
        asked_or_refused(cluster)
    cluster.settle()
    assert "subsets" not in (cluster.read("/api/v1/namespaces/default/endpoints/s") or {})


def test_a_slice_that_somebody_edits_is_put_right(cluster: FakeCluster) -> None:
    name = cluster.objects("endpointslices")[0]["metadata"]["name"]
    cluster.registry.change("endpointslices", "default", name, lambda one: one.update(endpoints=None))
    cluster.settle()
    assert cluster.objects("endpointslices")[0]["endpoints"][0]["targetRef"]["name"] == "a"


def evict(cluster: FakeCluster, name: str, namespace: str = "platform") -> int:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    return Api(cluster.admin).call("POST", path, body).status


def of(cluster: FakeCluster, app: str) -> list[Obj]:
    return [one for one in cluster.objects("pods", "platform") if one["metadata"]["labels"]["app"] == app]


def asked_or_refused(cluster: FakeCluster) -> None:
    with connect(cluster) as connection:
        if not asked(connection):
            raise ConnectionError


@pytest.fixture
def world() -> Iterator[FakeCluster]:
    with FakeCluster() as made:
        made.world(bystander=True)
        yield made


def test_the_world_is_whole(world: FakeCluster) -> None:
    deployments = {one["metadata"]["name"]: one["status"] for one in world.objects("deployments", "platform")}
    assert set(deployments) == {
        "edge", "feed", "gateway-eu", "gateway-us", "cpu-eu", "cpu-us", "gpu-eu", "gpu-us",
    }  # fmt: skip
    assert all("unavailableReplicas" not in one for one in deployments.values())
    homes = {one["spec"]["nodeName"].partition("-")[0] for one in of(world, "edge")}
    assert homes == {"eu", "us"}
    assert {one["spec"]["nodeName"] for one in of(world, "gpu")} == {"eu-gpu-1", "us-gpu-1"}
    on_control = {one["metadata"]["namespace"] for one in world.objects("pods")
                  if one["spec"]["nodeName"] == "control-plane"}  # fmt: skip
    assert on_control == {"kube-system"}
    assert world.objects("pods", "bystander")[0]["spec"]["nodeName"] == "eu-cpu-1"


def test_a_budget_allows_one_eviction_until_the_next_pod_is_ready(world: FakeCluster) -> None:
    first, second = (one["metadata"]["name"] for one in of(world, "edge"))
    assert world.behaviour is not None
    world.behaviour.loop.pause(True)
    assert [evict(world, first), evict(world, second)] == [201, 429]
    world.behaviour.loop.pause(False)
    world.settle()
    assert evict(world, second) == 201


def test_a_quota_at_current_use_keeps_new_pods_away_and_says_so(world: FakeCluster) -> None:
    count = len(world.objects("pods", "platform"))
    world.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "platform"},
                 "spec": {"hard": {"pods": str(count)}}})  # fmt: skip
    world.registry.change("deployments", "platform", "feed", lambda one: one["spec"].update(replicas=2))
    world.settle()
    held = world.read("/apis/apps/v1/namespaces/platform/deployments/feed") or {}
    told = [one for one in held["status"]["conditions"] if one["type"] == "ReplicaFailure"]
    assert f"exceeded quota: q, requested: pods=1, used: pods={count}, limited: pods={count}" in told[0]["message"]
    world.registry.end("resourcequotas", "platform", "q")
    eventually(lambda: len(of(world, "feed")) == 2)


def test_a_tainted_region_moves_what_may_move_and_leaves_the_rest_waiting(world: FakeCluster) -> None:
    lost = [{"key": "stormdrill.dev/lost", "effect": "NoExecute"}]
    for name in ("eu-cpu-1", "eu-cpu-2", "eu-gpu-1"):
        world.registry.change("nodes", "", name, lambda one: one["spec"].update(taints=list(lost)))
    world.settle()
    assert {one["spec"]["nodeName"].partition("-")[0] for one in of(world, "edge")} == {"us"}
    assert {one["status"]["phase"] for one in of(world, "gateway") if one["metadata"]["labels"]["region"] == "eu"} == {
        "Pending"
    }
    for name in ("eu-cpu-1", "eu-cpu-2", "eu-gpu-1"):
        world.registry.change("nodes", "", name, lambda one: one["spec"].pop("taints"))
    world.settle()
    assert {one["status"]["phase"] for one in of(world, "gateway")} == {"Running"}
