"""How a cluster is read: by pages, in few calls, and again where a page came too late."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fake_cluster import FakeCluster
from shop_cluster import pod, shop
from stormdrill.cluster.api import Answer, Api
from stormdrill.errors import Refused, Unreachable
from stormdrill.model.system import KubernetesSpec, ServiceInstance
from stormdrill.targets.kubernetes import inventory
from stormdrill.targets.kubernetes.inventory import Cluster, Selectors, listed, page_type, selector
from stormdrill.targets.kubernetes.objects import Budget, Controller, Namespace, Node, Pod, Service

PODS = "/api/v1/namespaces/shop/pods"
WEB = ServiceInstance("web", "web", (), select={"app": "web"})
WORKER = ServiceInstance("worker", "worker", (), select={"app": "worker", "region": "eu"})


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(world=False) as made:
        shop(made)
        yield made


@pytest.fixture
def api(cluster: FakeCluster) -> Iterator[Api]:
    made = Api(cluster.admin)
    yield made
    made.close()


@pytest.fixture
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "PAGE", 2)


def test_of_an_object_the_few_fields_are_read_that_planning_needs(api: Api) -> None:
    (node,) = (one for one in listed(api, "/api/v1/nodes", Node) if one.name == "eu-2")
    assert node.metadata.labels["topology.kubernetes.io/region"] == "eu"
    assert (node.status.allocatable["nvidia.com/gpu"], node.ready, node.controls) == ("4", True, False)


@pytest.mark.usefixtures("pages_of_two")
def test_a_list_is_read_page_by_page_and_each_object_once(cluster: FakeCluster, api: Api) -> None:
    found = listed(api, PODS, Pod)
    assert sorted(one.metadata.name for one in found) == [
        "web-abc-1", "web-abc-2", "worker-eu-abc-1", "worker-eu-abc-2", "worker-us-abc-1", "worker-us-abc-2",
    ]  # fmt: skip
    assert [one.query["limit"] for one in cluster.requests] == ["2", "2", "2"]


@pytest.mark.usefixtures("pages_of_two")
def test_a_list_whose_snapshot_went_is_begun_anew(cluster: FakeCluster) -> None:
    class Late(Api):
        """The second page is asked for when the first one's version is forgotten."""

        def call(self, *words: Any, **more: Any) -> Answer:
            if len(cluster.requests) == 1:
                cluster.trouble(("GET", "pods"), "410")
            return super().call(*words, **more)

    api = Late(cluster.admin)
    found = listed(api, PODS, Pod)
    assert len(found) == len({one.metadata.uid for one in found}) == 6
    assert [one.status for one in cluster.requests] == [200, 410, 200, 200, 200]
    api.close()


def test_a_list_that_is_never_whole_is_given_up_in_the_end(cluster: FakeCluster, api: Api) -> None:
    cluster.trouble(("GET", "pods"), "410", times=10)
    with pytest.raises(Unreachable, match="forgotten faster than it can be read"):
        listed(api, PODS, Pod)
    assert len(cluster.requests) == inventory.AGAIN


def test_who_may_not_read_is_told_what_and_what_to_do(cluster: FakeCluster) -> None:
    api = Api(cluster.access(cluster.account("other", "nobody")))
    with pytest.raises(Refused, match=r'cannot list resource "pods".*stormdrill plan EXPERIMENT --rbac'):
        listed(api, PODS, Pod)
    api.close()


@pytest.mark.parametrize("trouble", ["429", "500", "503", "drop-before", "drop-after"])
def test_a_moment_of_trouble_is_no_refusal(cluster: FakeCluster, api: Api, trouble: str) -> None:
    cluster.trouble(("GET", "pods"), trouble)
    assert len(listed(api, PODS, Pod)) == 6


def test_a_server_that_does_not_answer_is_no_empty_cluster(cluster: FakeCluster, api: Api) -> None:
    with cluster.outage(), pytest.raises(Unreachable, match="does not answer"):
        listed(api, PODS, Pod)


def test_the_server_is_asked_for_no_more_pods_than_may_be_of_the_system() -> None:
    ours = Selectors("app in (web,worker)", "app notin (web,worker)")
    assert selector([WEB, WORKER]) == ours
    assert selector([WEB, ServiceInstance("x", "x", (), select={"name": "x"})]) == Selectors()


def test_all_pods_of_a_cluster_are_read_without_reading_one_twice(cluster: FakeCluster, api: Api) -> None:
    cluster.apply(pod("other", "eu-1", {"app": "other"}))
    cluster.apply(pod("agent", "eu-1", {"app": "agent"}, where="kube-system"))
    ended = pod("job", "eu-1", {"app": "other"}, 9)
    cluster.apply({**ended, "status": {"phase": "Succeeded"}})
    view = Cluster(api, KubernetesSpec("shop"), [WEB, WORKER])
    assert len(view.pods) == 6
    names = [one.metadata.name for one in view.all_pods]
    assert len(names) == len(set(names)) == 8
    assert {"other-abc-1", "agent-abc-1"} < set(names)


def test_how_many_are_there_costs_pages_and_nothing_else(cluster: FakeCluster, api: Api) -> None:
    def asked() -> int:
        cluster.requests.clear()
        view = Cluster(api, KubernetesSpec("shop"), [WEB, WORKER])
        assert view.all_pods and view.nodes and view.controllers  # noqa: PT018
        assert next(view.workload(one) for one in view.pods) == "deployments/web"
        return len(cluster.requests)

    few = asked()
    for number in range(3, 60):
        cluster.apply(pod("web", "us-1", {"app": "web"}, number))
    assert asked() == few


def test_a_workload_is_told_by_the_template_s_hash_and_by_its_selector(cluster: FakeCluster, api: Api) -> None:
    stranger = pod("worker-eu", "eu-1", {"app": "web"}, 7)
    cluster.apply(stranger)
    view = Cluster(api, KubernetesSpec("shop"), [WEB, WORKER])
    made = {one.metadata.name: view.workload(one) for one in view.pods}
    assert made["worker-eu-abc-1"] == "deployments/worker-eu"
    assert made["worker-eu-abc-7"] == "replicasets/worker-eu-abc"  # which worker-eu does not select


KINDS = {
    "Pod": Pod, "Node": Node, "Namespace": Namespace, "PodDisruptionBudget": Budget, "Deployment": Controller,
    "Service": Service,
}  # fmt: skip
CORPUS = Path(__file__).parents[3] / "corpus" / "kubernetes"


def test_what_a_real_server_answered_is_read() -> None:
    read: Counter[str] = Counter()
    for path in CORPUS.glob("*.json"):
        for exchange in json.loads(path.read_text()):
            body = exchange["response"].get("body")
            kind = body.get("kind", "") if isinstance(body, dict) else ""
            if (one := KINDS.get(kind.removesuffix("List"))) is not None:
                shape = page_type(one) if kind.endswith("List") else one
                msgspec.json.decode(json.dumps(body), type=shape)
                read[kind] += 1
    assert read.keys() == {*KINDS, "PodList", "NodeList"}


def test_an_answer_that_is_none_is_no_empty_cluster(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Api, "call", lambda *_, **__: Answer(200, {}, b'{"items": 7}'))
    with pytest.raises(Unreachable, match="can't be read"):
        listed(api, PODS, Pod)
