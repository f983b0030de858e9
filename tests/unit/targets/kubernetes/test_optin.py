"""Whom no drill may touch, said all at once with who and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fake_cluster import FakeCluster, scenes
from shop_cluster import bound, budget, daemon, pod, shop, system_of, target_of
from stormdrill.errors import Refused, Unreachable
from stormdrill.model.mechanism import Nodes
from stormdrill.targets.kubernetes.emptying import AUTOSCALED
from stormdrill.targets.kubernetes.mechanisms.nodes import TAINT
from stormdrill.targets.kubernetes.objects import Toleration
from stormdrill.targets.kubernetes.optin import protected, tolerates
from stormdrill.targets.kubernetes.target import KubernetesTarget

ANYTHING = [{"operator": "Exists"}]


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(world=False) as made:
        shop(made)
        yield made


def target(cluster: FakeCluster, tmp_path: Path, **section: str) -> KubernetesTarget:
    return target_of(cluster, system_of(tmp_path, **section), tmp_path)


def refusal(one: KubernetesTarget, word: str = "region-loss", **parameters: Any) -> str:
    with pytest.raises(Refused) as caught:
        bound(one, word, **({"region": "eu"} | parameters if word == "region-loss" else parameters))
    return str(caught.value)


def test_a_namespace_that_did_not_opt_in_is_refused_with_how_to(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.apply(scenes.namespace("shop", drill=False))
    with pytest.raises(Refused, match=r"kubectl label namespace shop stormdrill\.dev/drill=allowed"):
        target(cluster, tmp_path).world()


def test_a_namespace_that_is_not_there_is_refused(cluster: FakeCluster, tmp_path: Path) -> None:
    system = system_of(tmp_path)
    assert system.kubernetes is not None
    elsewhere = replace(system, kubernetes=replace(system.kubernetes, namespace="nowhere"))
    with pytest.raises(Refused, match="the cluster has no namespace nowhere"):
        target_of(cluster, elsewhere, tmp_path).world()


def test_the_cluster_s_own_and_the_suite_s_namespaces_are_protected_whatever_they_carry(tmp_path: Path) -> None:
    spec = system_of(tmp_path).kubernetes
    assert spec is not None
    assert "the cluster's own" in protected("kube-system", spec.suite)
    assert "the suite's own" in protected("stormdrill", spec.suite)
    assert protected("shop", spec.suite) == ""


@pytest.mark.parametrize("empties", ["taint", "evict", "delete"])
def test_bystanders_on_a_node_are_named_and_refused(cluster: FakeCluster, tmp_path: Path, empties: str) -> None:
    cluster.apply(scenes.namespace("others", drill=False))
    cluster.apply(pod("theirs", "eu-1", {"app": "theirs"}, where="others"))
    said = refusal(target(cluster, tmp_path, empties=empties))
    assert "pods of namespace others, which did not opt in, would go with their nodes: theirs-abc-1 on eu-1" in said
    assert "label that namespace stormdrill.dev/drill: allowed if they may, move them away, or choose" in said
    assert "DaemonSets" not in said


def test_bystanders_that_opted_in_go_and_are_counted(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.apply(scenes.namespace("others"))
    cluster.apply(pod("theirs", "eu-1", {"app": "theirs"}, where="others"))
    hows = [one.how for one in bound(target(cluster, tmp_path), "region-loss", region="eu")]
    assert [(one.nodes, one.pods) for one in hows if isinstance(one, Nodes)] == [(("eu-1",), 2), (("eu-2",), 2)]


def test_the_cluster_s_own_pods_are_refused_where_the_taint_would_end_them(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    """However their namespace is labelled: what tolerates everything stays, and is no bystander."""
    cluster.apply(scenes.namespace("kube-system"))
    cluster.apply(daemon("proxy", tolerations=ANYTHING))
    assert bound(target(cluster, tmp_path), "region-loss", region="eu")
    cluster.apply(daemon("logger"))
    said = refusal(target(cluster, tmp_path))
    assert "pods of namespace kube-system, which did not opt in" in said
    assert "logger-abc-1 on eu-1" in said
    assert "proxy" not in said
    assert "or write empties: evict, or empties: delete, which leave DaemonSets' pods where they are" in said
    assert bound(target(cluster, tmp_path, empties="evict"), "region-loss", region="eu")  # DaemonSets are left alone


def test_who_stays_on_a_lost_node_is_said_aloud(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.apply(daemon("proxy", tolerations=ANYTHING))
    one = target(cluster, tmp_path)
    assert "what stays on the nodes: pods of kube-system/proxy" in one.aloud(bound(one, "region-loss", region="eu"))


def test_a_node_from_which_the_cluster_is_run_is_refused(cluster: FakeCluster, tmp_path: Path) -> None:
    node = scenes.node("eu-1", "eu", **{"node-role.kubernetes.io/control-plane": ""})
    cluster.apply(node)
    assert "eu-1 runs the cluster itself (control plane)" in refusal(target(cluster, tmp_path))


def test_a_control_plane_without_pods_of_the_system_is_left_out_of_its_region(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    cluster.apply(scenes.node("eu-0", "eu", **{"node-role.kubernetes.io/master": ""}))
    cluster.apply(scenes.node("eu-3", "eu"))
    nodes = [one.instance for one in bound(target(cluster, tmp_path), "region-loss", region="eu")]
    assert nodes == ["eu-1", "eu-2", "eu-3"]  # the empty one goes too: the region is lost as a whole


def test_a_budget_that_allows_nobody_to_go_refuses_evictions(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.apply(budget("web", {"app": "web"}, 0))
    said = refusal(target(cluster, tmp_path, empties="evict"))
    assert "disruption budget shop/web allows nobody to go, and 1 of its pods would have to" in said


def test_a_pod_of_two_budgets_can_not_be_evicted(cluster: FakeCluster, tmp_path: Path) -> None:
    for name in ("one", "two"):
        cluster.apply(budget(name, {"app": "web"}, 1))
    said = refusal(target(cluster, tmp_path, empties="evict"))
    assert "more than one disruption budget covers web-abc-1, and the API server evicts no such pod" in said
    assert bound(target(cluster, tmp_path), "region-loss", region="eu")


@pytest.mark.parametrize("empties", ["taint", "delete"])
def test_what_goes_past_a_budget_is_known_to_the_policy_and_said(
    cluster: FakeCluster, tmp_path: Path, empties: str
) -> None:
    cluster.apply(budget("worker", {"app": "worker", "region": "eu"}, 1))
    cluster.apply(budget("web", {"app": "web"}, 1))
    one = target(cluster, tmp_path, empties=empties)
    made = bound(one, "region-loss", region="eu")
    assert [item.how.budgets for item in made if isinstance(item.how, Nodes)] == [(), ("shop/worker",)]
    assert "disruption budget shop/worker allows 1 to be missing, and 2 would go: they go past it" in one.aloud(made)


def test_no_room_for_the_evicted_is_refused(cluster: FakeCluster, tmp_path: Path) -> None:
    for number in range(1, 3):
        cluster.apply(pod("big", f"us-{number}", {"app": "big"}, number, **asking(cpu="7500m")))
    said = refusal(target(cluster, tmp_path))
    assert "of the pods that go would find no room elsewhere" in said
    assert "take fewer nodes, or make room on those that are left" in said


def test_who_can_go_nowhere_else_needs_no_room_and_is_said_to_stay_away(cluster: FakeCluster, tmp_path: Path) -> None:
    here = {"nodeSelector": {"topology.kubernetes.io/region": "eu"}}
    for number in (1, 2):
        assert cluster.registry.end("pods", "shop", f"worker-eu-abc-{number}", grace=0)
        cluster.apply(pod("worker-eu", "eu-2", {"app": "worker", "region": "eu"}, number, **here, **asking(cpu="3")))
    one = target(cluster, tmp_path)
    told = one.aloud(bound(one, "region-loss", region="eu"))
    assert "no other node is meant for worker-eu-abc-1, worker-eu-abc-2: they stay away until the revert" in told


def test_everything_is_refused_at_once(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.apply(scenes.node("eu-1", "eu", **{"node-role.kubernetes.io/control-plane": ""}))
    cluster.apply(scenes.namespace("others", drill=False))
    cluster.apply(pod("theirs", "eu-2", {"app": "theirs"}, where="others"))
    cluster.apply(budget("web", {"app": "web"}, 0))
    said = refusal(target(cluster, tmp_path, empties="evict"))
    assert all(part in said for part in ("control plane", "namespace others", "budget shop/web"))


@pytest.mark.parametrize(
    ("one", "does"),
    [
        (Toleration(operator="Exists"), True),
        (Toleration(key=TAINT, operator="Exists"), True),
        (Toleration(key=TAINT, effect="NoExecute"), True),
        (Toleration(key=TAINT, value="x"), False),
        (Toleration(key="node.kubernetes.io/not-ready", operator="Exists", effect="NoExecute"), False),
        (Toleration(operator="Exists", effect="NoSchedule"), False),
    ],
)
def test_what_a_toleration_tolerates(one: Toleration, does: bool) -> None:
    assert tolerates(one, TAINT) is does


def asking(**requests: str) -> dict[str, Any]:
    return {"containers": [{"name": "main", "image": "shop:1", "resources": {"requests": requests}}]}


def test_who_came_since_it_was_planned_and_did_not_opt_in_keeps_a_node_from_being_taken(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    one = target(cluster, tmp_path)
    (first, *_) = bound(one, "region-loss", region="eu")
    assert one.undo_of(first)
    cluster.apply(scenes.namespace("others", drill=False))
    cluster.apply(pod("theirs", "eu-1", {"app": "theirs"}, where="others"))
    with pytest.raises(Unreachable, match="others/theirs-abc-1 would go too, and their namespaces didn't opt in"):
        one.undo_of(first)


def test_a_namespace_that_takes_its_word_back_is_heard(cluster: FakeCluster, tmp_path: Path) -> None:
    one = target(cluster, tmp_path)
    (first, *_) = bound(one, "region-loss", region="eu")
    cluster.apply(scenes.namespace("shop", drill=False))
    with pytest.raises(Unreachable, match="their namespaces didn't opt in: nothing was changed"):
        one.undo_of(first)


def test_where_every_node_that_the_watchdog_may_stand_on_is_lost_the_plan_is_refused(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    said = refusal(target(cluster, tmp_path, nodes="{topology.kubernetes.io/region: eu}"))
    assert "no node is left on which a watchdog of the run may stand" in said
    assert "or name others than topology.kubernetes.io/region=eu with nodes: in the kubernetes section" in said
    assert bound(target(cluster, tmp_path, nodes="{topology.kubernetes.io/region: us}"), "region-loss", region="eu")


@pytest.mark.parametrize("label", AUTOSCALED)
def test_nodes_that_an_autoscaler_may_take_away_once_they_stand_empty_are_named(
    label: str, cluster: FakeCluster, tmp_path: Path
) -> None:
    cluster.registry.change("nodes", "", "eu-2", lambda node: node["metadata"]["labels"].update({label: "spot"}))
    one = target(cluster, tmp_path)
    told = [text for text in one.aloud(bound(one, "region-loss", region="eu")) if "autoscaler" in text]
    assert [text.partition(",")[0] for text in told] == [f"an autoscaler may keep eu-2 ({label})"]
    assert not [text for text in one.aloud(bound(one, "region-loss", region="us")) if "autoscaler" in text]


def test_no_room_left_for_the_watchdog_is_refused_as_well(cluster: FakeCluster, tmp_path: Path) -> None:
    """A pod that lost its node and has a higher priority would take its place."""
    for name, free in (("us-1", "6990m"), ("us-2", "3")):  # three that go fill what is left of the second to the last
        cluster.apply(pod(f"big-{name}", name, {"app": "big"}, **asking(cpu=free)))
    said = refusal(target(cluster, tmp_path))
    assert "no room elsewhere: watchdog of the run" in said


@pytest.mark.parametrize(
    "told",
    [
        lambda node: node["metadata"]["labels"].update({"kubernetes.io/os": "windows"}),
        lambda node: node["status"].update(daemonEndpoints={"kubeletEndpoint": {"Port": 0}}),
    ],
    ids=["Windows", "simulated"],
)
def test_room_on_a_node_where_it_would_never_begin_is_none_for_it(
    cluster: FakeCluster, tmp_path: Path, told: Callable[[dict[str, Any]], None]
) -> None:
    cluster.apply(pod("big-us-1", "us-1", {"app": "big"}, **asking(cpu="6990m")))
    cluster.registry.change("nodes", "", "us-2", told)
    said = refusal(target(cluster, tmp_path))
    assert "no room elsewhere: watchdog of the run" in said
