"""The controllers of the fake cluster: what is asked for comes to be, and only that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fake_cluster import FakeCluster
from fake_cluster.jobs import BACKOFF_S, backoff_s
from fake_cluster.matching import labels_of, selects
from fake_cluster.store import Event

Obj = dict[str, Any]


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster() as made:
        made.nodes(2, "eu")
        made.nodes(1, "us")
        yield made


def deployment(name: str = "web", replicas: int = 2, image: str = "web:1", **spec: object) -> Obj:
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image}], **spec},
            },
        },
    }  # fmt: skip


def pod(name: str, **spec: object) -> Obj:
    body = {"containers": [{"name": "c", "image": "c:1"}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": body}


def running(cluster: FakeCluster) -> list[Obj]:
    cluster.settle()
    return [one for one in cluster.objects("pods") if one["status"]["phase"] == "Running"]


def status(cluster: FakeCluster, name: str = "web") -> Obj:
    cluster.settle()
    return dict((cluster.read(f"/apis/apps/v1/namespaces/default/deployments/{name}") or {})["status"])


def patch_image(cluster: FakeCluster, image: str) -> None:
    def put(thing: Obj) -> None:
        thing["spec"]["template"]["spec"]["containers"][0]["image"] = image

    cluster.registry.change("deployments", "default", "web", put)


def taint(cluster: FakeCluster, node: str, *taints: Obj) -> None:
    cluster.registry.change("nodes", "", node, lambda thing: thing["spec"].update(taints=list(taints)))


def test_a_deployment_has_its_pods_spread_over_nodes(cluster: FakeCluster) -> None:
    cluster.apply(deployment(replicas=3))
    assert sorted(one["spec"]["nodeName"] for one in running(cluster)) == ["eu-cpu-1", "eu-cpu-2", "us-cpu-1"]
    assert status(cluster)["availableReplicas"] == 3


def test_a_pod_that_goes_is_replaced_under_another_uid(cluster: FakeCluster) -> None:
    cluster.apply(deployment(replicas=1))
    first = running(cluster)[0]["metadata"]
    cluster.registry.end("pods", "default", first["name"])
    second = running(cluster)[0]["metadata"]
    assert second["uid"] != first["uid"]
    assert second["labels"] == first["labels"]


def test_a_rollout_replaces_all_pods_and_going_back_uses_the_first_set_again(cluster: FakeCluster) -> None:
    cluster.apply(deployment())
    cluster.settle()
    for image in ("web:2", "web:1"):
        patch_image(cluster, image)
        assert {one["spec"]["containers"][0]["image"] for one in running(cluster)} == {image}
    sets = cluster.objects("replicasets")
    assert sorted((one["spec"]["replicas"], one["metadata"]["annotations"]["deployment.kubernetes.io/revision"])
                  for one in sets) == [(0, "2"), (2, "3")]  # fmt: skip


def test_a_rollout_to_an_image_that_is_not_there_keeps_the_old_pods(cluster: FakeCluster) -> None:
    cluster.apply(deployment())
    cluster.settle()
    patch_image(cluster, "registry.invalid/web:bad")
    assert [one["spec"]["containers"][0]["image"] for one in running(cluster)] == ["web:1", "web:1"]
    assert status(cluster)["unavailableReplicas"] == 1
    assert status(cluster)["updatedReplicas"] == 1


@pytest.mark.parametrize("left_over", [False, True], ids=["all-run", "one-has-failed"])
def test_recreate_lets_all_old_pods_end_and_then_makes_the_new_ones_by_itself(
    cluster: FakeCluster, left_over: bool
) -> None:
    body = deployment()
    body["spec"]["strategy"] = {"type": "Recreate"}
    cluster.apply(body)
    old = running(cluster)
    if left_over:  # a Pod that has failed stays, and runs no more
        cluster.registry.change("pods", "default", old[0]["metadata"]["name"], _fail)
        old = running(cluster)
    most: list[int] = []
    names = {one["metadata"]["name"] for one in old}

    def look(event: Event) -> None:
        if event.kind.plural == "pods" and event.type == "ADDED":
            most.append(len(names & {one["metadata"]["name"] for one in cluster.objects("pods")}))

    cluster.store.subscribe(look)
    patch_image(cluster, "web:2")
    assert [one["spec"]["containers"][0]["image"] for one in running(cluster)] == ["web:2", "web:2"]
    assert most == [0, 0]
    assert status(cluster)["updatedReplicas"] == 2


def _fail(thing: Obj) -> None:
    thing["status"]["phase"] = "Failed"


def test_a_paused_deployment_keeps_its_template_and_can_be_scaled(cluster: FakeCluster) -> None:
    cluster.apply(deployment())
    cluster.settle()
    cluster.registry.change("deployments", "default", "web", lambda one: one["spec"].update(paused=True, replicas=1))
    patch_image(cluster, "web:2")
    assert [one["spec"]["containers"][0]["image"] for one in running(cluster)] == ["web:1"]


def test_a_cordon_gets_its_taint_behind_the_others_and_loses_it_with_them_kept(cluster: FakeCluster) -> None:
    taint(cluster, "eu-cpu-1", {"key": "a", "effect": "NoSchedule"})
    cluster.registry.change("nodes", "", "eu-cpu-1", lambda one: one["spec"].update(unschedulable=True))
    cluster.settle()
    held = (cluster.read("/api/v1/nodes/eu-cpu-1") or {})["spec"]["taints"]
    assert [one["key"] for one in held] == ["a", "node.kubernetes.io/unschedulable"]
    cluster.registry.change("nodes", "", "eu-cpu-1", lambda one: one["spec"].pop("unschedulable"))
    cluster.settle()
    assert (cluster.read("/api/v1/nodes/eu-cpu-1") or {})["spec"]["taints"] == [{"key": "a", "effect": "NoSchedule"}]


def test_a_no_execute_taint_ends_what_does_not_tolerate_it(cluster: FakeCluster) -> None:
    out = {"key": "out", "effect": "NoExecute"}
    cluster.apply([pod("goes", nodeName="eu-cpu-1"),
                   pod("stays", nodeName="eu-cpu-1", tolerations=[{"key": "out", "operator": "Exists"}]),
                   pod("elsewhere", nodeName="eu-cpu-2")])  # fmt: skip
    cluster.settle()
    taint(cluster, "eu-cpu-1", out)
    assert {one["metadata"]["name"] for one in running(cluster)} == {"stays", "elsewhere"}


def test_a_pod_that_fits_nowhere_says_why_and_goes_when_there_is_room(cluster: FakeCluster) -> None:
    wants = {"resources": {"limits": {"nvidia.com/gpu": "1"}}, "name": "c", "image": "c:1"}
    cluster.apply(pod("gpu", containers=[wants]))
    cluster.settle()
    told = (cluster.read("/api/v1/namespaces/default/pods/gpu") or {})["status"]["conditions"][0]
    assert told["reason"] == "Unschedulable"
    assert told["message"].startswith("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")

    def give(thing: Obj) -> None:
        thing["status"]["allocatable"]["nvidia.com/gpu"] = "1"

    cluster.registry.change("nodes", "", "us-cpu-1", give)
    assert [one["spec"]["nodeName"] for one in running(cluster)] == ["us-cpu-1"]


def test_what_an_owner_leaves_behind_is_collected_and_so_is_what_never_had_one(cluster: FakeCluster) -> None:
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "anchor", "namespace": "default"}})
    uid = (cluster.read("/api/v1/namespaces/default/configmaps/anchor") or {})["metadata"]["uid"]

    def owned(name: str, by: str) -> Obj:
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "anchor", "uid": by}
        meta = {"name": name, "namespace": "default", "ownerReferences": [owner]}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": meta}

    cluster.apply([owned("kept", uid), owned("late", "00000000-0000-0000-0000-000000000001")])
    cluster.settle()
    assert [one["metadata"]["name"] for one in cluster.objects("secrets")] == ["kept"]
    cluster.registry.end("configmaps", "default", "anchor")
    cluster.settle()
    assert not cluster.objects("secrets")


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_a_deployment_takes_its_sets_and_pods_along(cluster: FakeCluster, policy: str) -> None:
    cluster.apply(deployment())
    cluster.settle()
    cluster.registry.end("deployments", "default", "web", propagation=policy)
    cluster.settle()
    assert not cluster.objects("pods")
    assert not cluster.objects("replicasets")
    assert not cluster.objects("deployments")


def test_a_daemon_set_follows_its_node_selector(cluster: FakeCluster) -> None:
    template = deployment("ds")["spec"]
    template.pop("replicas")
    cluster.apply({"apiVersion": "apps/v1", "kind": "DaemonSet", "spec": template,
                   "metadata": {"name": "ds", "namespace": "default"}})  # fmt: skip
    assert sorted(one["spec"]["nodeName"] for one in running(cluster)) == ["eu-cpu-1", "eu-cpu-2", "us-cpu-1"]

    def move(thing: Obj) -> None:
        thing["spec"]["template"]["spec"]["nodeSelector"] = {"topology.kubernetes.io/region": "us"}

    cluster.registry.change("daemonsets", "default", "ds", move)
    assert [one["spec"]["nodeName"] for one in running(cluster)] == ["us-cpu-1"]


def test_devices_are_there_while_their_plugin_runs(cluster: FakeCluster) -> None:
    template = deployment("plugin", nodeSelector={"topology.kubernetes.io/region": "eu"})["spec"]
    template.pop("replicas")
    template["template"]["metadata"]["annotations"] = {"fake-cluster/advertises": "nvidia.com/gpu=4"}
    cluster.apply({"apiVersion": "apps/v1", "kind": "DaemonSet", "spec": template,
                   "metadata": {"name": "plugin", "namespace": "default"}})  # fmt: skip

    def devices(node: str) -> str | None:
        cluster.settle()
        return (cluster.read(f"/api/v1/nodes/{node}") or {})["status"]["allocatable"].get("nvidia.com/gpu")

    assert [devices(node) for node in ("eu-cpu-1", "eu-cpu-2", "us-cpu-1")] == ["4", "4", None]

    def move(thing: Obj) -> None:
        thing["spec"]["template"]["spec"]["nodeSelector"] = {"stormdrill.dev/nowhere": "true"}

    cluster.registry.change("daemonsets", "default", "plugin", move)
    assert [devices(node) for node in ("eu-cpu-1", "eu-cpu-2", "us-cpu-1")] == ["0", "0", None]


def test_a_stateful_set_counts_its_pods(cluster: FakeCluster) -> None:
    body = deployment("db")
    body |= {"kind": "StatefulSet"}
    cluster.apply(body)
    assert [one["metadata"]["name"] for one in running(cluster)] == ["db-0", "db-1"]
    cluster.registry.change("statefulsets", "default", "db", lambda one: one["spec"].update(replicas=1))
    assert [one["metadata"]["name"] for one in running(cluster)] == ["db-0"]


def test_the_pods_of_a_lost_node_that_no_other_node_may_take_wait(cluster: FakeCluster) -> None:
    cluster.apply(deployment(nodeSelector={"topology.kubernetes.io/region": "us"}))
    cluster.settle()
    cluster.registry.change("nodes", "", "us-cpu-1", lambda one: one["spec"].update(unschedulable=True))
    taint(cluster, "us-cpu-1", {"key": "out", "effect": "NoExecute"})
    assert not running(cluster)
    assert len(cluster.objects("pods")) == 2
    cluster.registry.change("nodes", "", "us-cpu-1", lambda one: one.update(spec={}))
    assert len(running(cluster)) == 2


def test_a_job_waits_before_it_replaces_a_pod_that_was_ended_and_twice_as_long_each_time(cluster: FakeCluster) -> None:
    assert [backoff_s(failed) for failed in range(9)] == [0, 10, 20, 40, 80, 160, 320, 600, 600]
    assert cluster.behaviour is not None
    template = {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "web:1"}]}}
    meta = {"name": "j", "namespace": "default"}
    for name, first_s in (("real", BACKOFF_S), ("hasty", 0.0)):
        cluster.behaviour.jobs.first_backoff_s = first_s
        cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {**meta, "name": name},
                       "spec": {"template": template}})  # fmt: skip
        cluster.settle()
        (pod,) = (one["metadata"]["name"] for one in cluster.objects("pods"))
        cluster.registry.end("pods", "default", pod)
        cluster.settle()
        left = cluster.objects("pods")
        assert bool(left) is (first_s == 0.0)
        assert (cluster.read(f"/apis/batch/v1/namespaces/default/jobs/{name}") or {})["status"]["failed"] == 1


@pytest.mark.parametrize("indexed", [False, True], ids=["counted", "indexed"])
def test_a_jobs_selector_finds_its_own_pods_and_no_others(cluster: FakeCluster, indexed: bool) -> None:
    spec: Obj = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "web:1"}]}}}
    if indexed:
        spec |= {"completionMode": "Indexed", "completions": 1}
    for name in ("one", "other"):
        cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "default"},
                       "spec": spec})  # fmt: skip
    cluster.settle()
    for name in ("one", "other"):
        job = cluster.read(f"/apis/batch/v1/namespaces/default/jobs/{name}") or {}
        uid = job["metadata"]["uid"]
        assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        (found,) = (one for one in cluster.objects("pods") if selects(job["spec"]["selector"], labels_of(one)))
        assert [owner["name"] for owner in found["metadata"]["ownerReferences"]] == [name]
        said = job["spec"]["template"]["metadata"]["labels"]
        assert said == {
            "batch.kubernetes.io/controller-uid": uid, "controller-uid": uid,
            "batch.kubernetes.io/job-name": name, "job-name": name,
        }  # fmt: skip
        assert said.items() <= labels_of(found).items()


def test_a_job_that_selects_by_hand_is_left_as_it_was_written(cluster: FakeCluster) -> None:
    template = {"metadata": {"labels": {"app": "own"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "web:1"}]}}  # fmt: skip
    spec = {"manualSelector": True, "selector": {"matchLabels": {"app": "own"}}, "template": template}
    cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "own", "namespace": "default"},
                   "spec": spec})  # fmt: skip
    cluster.settle()
    job = cluster.read("/apis/batch/v1/namespaces/default/jobs/own") or {}
    assert job["spec"]["selector"] == {"matchLabels": {"app": "own"}}
    assert [labels_of(one) for one in cluster.objects("pods")] == [{"app": "own"}]
