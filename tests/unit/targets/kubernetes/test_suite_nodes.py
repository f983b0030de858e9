"""On which nodes the suite's own pods stand: those that the system file allows, and never one that a fault takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from fake_cluster import FakeCluster
from shop_cluster import shop, system_of, target_of
from stormdrill.cluster import job
from stormdrill.cluster.api import Api
from stormdrill.errors import Refused
from stormdrill.load.in_cluster_pods import Place, job_of
from stormdrill.model.system import ImagePolicy, KubernetesSpec
from stormdrill.targets.kubernetes.inventory import Cluster
from stormdrill.targets.kubernetes.mechanisms.ours import pod
from stormdrill.targets.kubernetes.objects import Node
from stormdrill.targets.kubernetes.scheduled import Scheduled, manifests

ALLOWED = {"node": "real"}
TAKEN = ("n1", "n2")
Manifest = dict[str, Any]


def watchdog(nodes: dict[str, str], avoid: tuple[str, ...]) -> Manifest:
    made = cast("Manifest", job.manifest("run", "suite", "account", "image", "", avoid, nodes))
    return cast("Manifest", made["spec"]["template"]["spec"])


def load(nodes: dict[str, str], avoid: tuple[str, ...]) -> Manifest:
    place = Place(namespace="suite", image="image", run="run", longest_s=60, nodes=nodes, avoid=avoid)
    return cast("Manifest", cast("Manifest", job_of("generator-0", place))["spec"]["template"]["spec"])


def scheduled(nodes: dict[str, str], avoid: tuple[str, ...]) -> Manifest:
    wanted = Scheduled("e", "experiments/e.yaml", "@daily", {}, "image", "suite", "a", 60, nodes=nodes, avoid=avoid)
    cron = cast("Manifest", manifests(wanted)[1])
    return cast("Manifest", cron["spec"]["jobTemplate"]["spec"]["template"]["spec"])


EVERY = pytest.mark.parametrize("made", [watchdog, load, scheduled])


@EVERY
def test_it_stands_where_the_system_file_allows_and_never_where_a_fault_takes_the_node(made: Any) -> None:
    spec = made(ALLOWED, TAKEN)
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert spec["nodeSelector"] == ALLOWED
    assert [(one["key"], one["operator"], one["values"]) for one in term["matchFields"]] == [
        ("metadata.name", "NotIn", [name]) for name in TAKEN
    ]


@EVERY
def test_it_stands_anywhere_where_nothing_is_said(made: Any) -> None:
    assert not {"nodeSelector", "affinity"} & set(made({}, ()))


@pytest.mark.parametrize("nodes", [ALLOWED, {}])
def test_so_does_what_a_mechanism_puts_beside_the_system(nodes: dict[str, str]) -> None:
    image = ImagePolicy("image", nodes=nodes)
    made = cast("Manifest", pod("proxy", "shop", image, ["true"], labels={}, requests={}, limits={}))
    assert made["spec"].get("nodeSelector", {}) == nodes


def test_and_it_keeps_off_the_nodes_where_nothing_would_run() -> None:
    made = cast("Manifest", pod("proxy", "shop", ImagePolicy(), ["true"], labels={}, requests={}, limits={}, off=TAKEN))
    assert made["spec"]["affinity"] == watchdog({}, TAKEN)["affinity"]


@pytest.mark.parametrize(
    ("status", "fit"),
    [
        ({"daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}, True),
        ({"daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}}, False),
        ({}, True),  # nothing is known of it
        ({"conditions": [{"type": "Ready", "status": "Unknown"}]}, False),
    ],
)
def test_nothing_would_run_on_nodes_without_a_kubelet_that_listens(status: Manifest, fit: bool) -> None:
    node = msgspec.convert({"metadata": {"name": "n1"}, "status": status}, Node)
    with FakeCluster() as cluster:
        cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": status})
        seen = Cluster(Api(cluster.admin), KubernetesSpec("shop"), ()).unfit
    assert (node.ready and not node.simulated) is fit
    assert seen == (() if fit else ("n1",))


@pytest.fixture
def on_shop() -> Iterator[FakeCluster]:
    with FakeCluster(world=False) as cluster:
        shop(cluster)
        yield cluster


def pretends(cluster: FakeCluster, *names: str) -> None:
    nothing_listens = {"daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}}
    for name in names:
        cluster.registry.change("nodes", "", name, lambda node: node["status"].update(nothing_listens))


def test_simulated_nodes_are_told_aloud(on_shop: FakeCluster, tmp_path: Path) -> None:
    target = target_of(on_shop, system_of(tmp_path), tmp_path)
    assert "kubelet" not in " ".join(target.aloud(()))
    pretends(on_shop, "eu-1", "eu-2")
    target = target_of(on_shop, system_of(tmp_path), tmp_path)
    assert target.aloud(())[0].startswith("no kubelet listens on eu-1, eu-2: ")


@pytest.mark.parametrize(
    ("asked", "names", "said"),
    [
        ({}, ("eu-1", "eu-2", "us-1", "us-2"), "there are 4 nodes, none of them ready"),
        ({"nodes": "{pool: gpu}"}, ("eu-2", "us-2"), "2 nodes are pool=gpu, none of them ready"),
        ({"nodes": "{node: real}"}, (), "0 nodes are node=real"),
    ],
)
def test_where_nothing_of_the_suites_own_would_run_nothing_is_begun(
    on_shop: FakeCluster, tmp_path: Path, asked: dict[str, str], names: tuple[str, ...], said: str
) -> None:
    pretends(on_shop, *names)
    with pytest.raises(Refused, match=said):
        target_of(on_shop, system_of(tmp_path, **asked), tmp_path).preflight()


def test_a_pod_that_is_said_to_run_and_says_nothing_is_named_with_its_node() -> None:
    silent = {
        "metadata": {"name": "watchdog-x", "namespace": "suite"},
        "spec": {"nodeName": "fake-1"},
        "status": {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]},
    }
    said, hopeless = job.why_waiting([silent])
    assert "watchdog-x runs on fake-1 and has written nothing: kubectl logs -n suite watchdog-x" in said
    assert "kubernetes: {nodes: {LABEL: VALUE}}" in said
    assert not hopeless


@pytest.mark.parametrize(("reason", "hopeless"), [("ErrImagePull", False), ("ImagePullBackOff", True)])
def test_an_image_that_was_asked_for_in_vain_is_not_waited_for(reason: str, hopeless: bool) -> None:
    waiting = {"status": {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": "no such tag"}}}]}}
    assert job.why_waiting([waiting]) == (f"{reason}: no such tag", hopeless)
