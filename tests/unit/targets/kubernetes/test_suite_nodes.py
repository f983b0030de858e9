"""On which nodes the suite's own pods stand: those that the system file allows, and never one that a fault takes; and
what is alike in all of them besides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from fake_cluster import FakeCluster
from shop_cluster import SYSTEM, shop, system_of, target_of
from stormdrill.cluster import job
from stormdrill.cluster.api import Api
from stormdrill.cluster.hold import READY_S
from stormdrill.errors import Refused
from stormdrill.load.in_cluster_pods import Place, job_of
from stormdrill.model.system import ImagePolicy, KubernetesSpec
from stormdrill.targets.kubernetes.inventory import Cluster
from stormdrill.targets.kubernetes.mechanisms.ours import pod
from stormdrill.targets.kubernetes.objects import Affinity, Node, fits
from stormdrill.targets.kubernetes.scheduled import Scheduled, manifests

ALLOWED = {"node": "real"}
TAKEN = ("n1", "n2")
KEY = "registry-key"
Manifest = dict[str, Any]


def watchdog(nodes: dict[str, str], avoid: tuple[str, ...], secret: str = "") -> Manifest:
    wanted = job.Wanted(nodes=nodes, keep_off=avoid, pull_secret=secret)
    made = cast("Manifest", job.manifest("run", "suite", "account", "image", wanted))
    return cast("Manifest", made["spec"]["template"]["spec"])


def load(nodes: dict[str, str], avoid: tuple[str, ...], secret: str = "") -> Manifest:
    place = Place("suite", "image", "run", 60, pull_secret=secret, nodes=nodes, avoid=avoid)
    return cast("Manifest", cast("Manifest", job_of("generator-0", place))["spec"]["template"]["spec"])


def scheduled(nodes: dict[str, str], avoid: tuple[str, ...], secret: str = "") -> Manifest:
    wanted = Scheduled("e", "e.yaml", "@daily", {}, "image", "suite", "a", 60, "", secret, nodes=nodes, avoid=avoid)
    cron = cast("Manifest", manifests(wanted)[1])
    return cast("Manifest", cron["spec"]["jobTemplate"]["spec"]["template"]["spec"])


def beside(nodes: dict[str, str], avoid: tuple[str, ...], secret: str = "") -> Manifest:
    """Proxy, neighbour, whoever tells: what a mechanism makes."""
    image = ImagePolicy("image", "", secret, nodes)
    made = pod("proxy", "shop", image, ["true"], labels={}, requests={}, limits={}, off=avoid)
    return cast("Manifest", made["spec"])


EVERY = pytest.mark.parametrize("made", [watchdog, load, scheduled, beside])


@EVERY
def test_it_stands_where_the_system_file_allows_and_never_where_a_fault_takes_the_node(made: Any) -> None:
    spec = made(ALLOWED, TAKEN)
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert spec["nodeSelector"] == ALLOWED
    assert [(one["key"], one["operator"], one["values"]) for one in term["matchFields"]] == [
        ("metadata.name", "NotIn", [name]) for name in TAKEN
    ]


NODES = [
    ({}, True),  # says nothing of itself
    ({"kubernetes.io/os": "linux", "type": "spot"}, True),
    ({"kubernetes.io/os": "windows"}, False),
    ({"eks.amazonaws.com/compute-type": "fargate"}, False),
    ({"type": "virtual-kubelet"}, False),
]


@EVERY
def test_where_nothing_is_said_it_stands_on_any_node_on_which_it_can_begin(made: Any) -> None:
    said = made({}, ())
    assert "nodeSelector" not in said
    known = msgspec.convert(said["affinity"], Affinity).node_affinity
    assert known is not None
    assert known.required is not None
    (term,) = known.required.node_selector_terms
    for labels, fits_it in NODES:
        assert all(fits(one, labels) for one in term.match_expressions) is fits_it


@EVERY
def test_its_image_is_pulled_with_the_secret_that_the_system_file_names(made: Any) -> None:
    assert made({}, (), KEY)["imagePullSecrets"] == [{"name": KEY}]
    assert "imagePullSecrets" not in made({}, ())


@EVERY
def test_it_may_do_so_little_that_the_strictest_namespace_takes_it(made: Any) -> None:
    spec = {**made({}, ()), "serviceAccountName": "default"}
    with FakeCluster(world=False) as cluster:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": labels}})
        api, path = Api(cluster.admin), "/api/v1/namespaces/strict/pods"
        assert api.call("POST", path, {"metadata": {"name": "one"}, "spec": spec}).said == "201"
        for part in ("pod", "container"):
            laxer = msgspec.json.decode(msgspec.json.encode(spec))
            (laxer if part == "pod" else laxer["containers"][0]).pop("securityContext")
            answer = api.call("POST", path, {"metadata": {"name": part}, "spec": laxer})
            assert (answer.status, 'violates PodSecurity "restricted' in answer.said) == (403, True)
        api.close()


@pytest.mark.parametrize(("labels", "fit"), NODES)
def test_what_it_can_never_begin_on_is_known_when_it_is_planned(labels: dict[str, str], fit: bool) -> None:
    with FakeCluster(world=False) as cluster:
        cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}})
        seen = Cluster(Api(cluster.admin), KubernetesSpec("shop"), ()).unfit
    assert seen == (() if fit else ("n1",))


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


def test_a_label_that_no_node_carries_is_told_aloud(on_shop: FakeCluster, tmp_path: Path) -> None:
    text = SYSTEM.replace("topology.kubernetes.io/region", "stormdrill.dev/region")
    told = target_of(on_shop, system_of(tmp_path, text), tmp_path).aloud(())
    said = "no node carries stormdrill.dev/region: region is what the pods' own labels and the system file say"
    assert said in told
    assert not any("no node carries" in one for one in target_of(on_shop, system_of(tmp_path), tmp_path).aloud(()))


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
    assert "watchdog-x runs on fake-1 and has written nothing" in said
    assert "kubectl logs -n suite -l stormdrill.dev/part=watchdog -f" in said
    assert "kubernetes: {nodes: {LABEL: VALUE}}" in said
    assert not hopeless


@pytest.mark.parametrize(("reason", "hopeless"), [("ErrImagePull", False), ("ImagePullBackOff", True)])
def test_an_image_that_was_asked_for_in_vain_is_not_waited_for(reason: str, hopeless: bool) -> None:
    waiting = {"status": {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": "no such tag"}}}]}}
    assert job.why_waiting([waiting]) == (f"{reason}: no such tag", hopeless)


@pytest.mark.parametrize(("said", "ready_s"), [("30s", READY_S), ("90s", 90.0)])
def test_the_watchdog_is_made_as_the_system_file_says(
    on_shop: FakeCluster, tmp_path: Path, said: str, ready_s: float
) -> None:
    """It has the time that the system's pods have, and a minute at least: its image may have to be pulled."""
    taint = {"taints": [{"key": "theirs", "effect": "NoSchedule"}]}
    on_shop.registry.change("nodes", "", "eu-1", lambda node: node["spec"].update(taint))
    pretends(on_shop, "us-1")
    image = f"{{name: stormdrill:1, pull_secret: {KEY}}}"
    target = target_of(on_shop, system_of(tmp_path, image=image, ready_timeout=said), tmp_path)
    held = target._drilling._hold("", [], cast("Any", None))
    assert held.ready_s == ready_s
    assert held.wanted == job.Wanted(pull_secret=KEY, keep_off=["us-1"], rather_not=("eu-1",))
