"""What faults ask of instances, as a cluster does it; and what it can't do, with what would help."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_cluster import FakeCluster, scenes
from shop_cluster import SYSTEM, bound, deployment, pod, service, shop, system_of, target_of
from stormdrill.core.plan import make_plan
from stormdrill.core.reach import touched
from stormdrill.errors import Refused
from stormdrill.faults.builtin import BUILTIN
from stormdrill.model.experiment import Experiment, FaultUse, Phases
from stormdrill.model.mechanism import Capacity, Isolate, Nodes, Rollout, Scale, Tell, Toxic
from stormdrill.model.plan import Plan
from stormdrill.model.policy import Policy
from stormdrill.targets.kubernetes.target import KubernetesTarget

EU = ("worker-eu-1", "worker-eu-2")


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(world=False) as made:
        shop(made)
        yield made


def target(cluster: FakeCluster, tmp_path: Path, text: str = SYSTEM, **section: str) -> KubernetesTarget:
    return target_of(cluster, system_of(tmp_path, text, **section), tmp_path)


def refusal(one: KubernetesTarget, word: str, **parameters: Any) -> str:
    with pytest.raises(Refused) as caught:
        bound(one, word, **parameters)
    return str(caught.value)


# --- regions and nodes


@pytest.mark.parametrize("mode", ["crash", "freeze"])
def test_a_region_is_lost_by_all_of_its_nodes(cluster: FakeCluster, tmp_path: Path, mode: str) -> None:
    cluster.apply(scenes.node("eu-3", "eu"))
    found = bound(target(cluster, tmp_path), "region-loss", region="eu", mode=mode)
    assert [(one.id, one.mechanism, one.how) for one in found] == [
        ("region-loss/eu-1", "nodes", Nodes(("eu-1",), "taint", ("web-1",), pods=1)),
        ("region-loss/eu-2", "nodes", Nodes(("eu-2",), "taint", EU, pods=2)),
        ("region-loss/eu-3", "nodes", Nodes(("eu-3",), "taint", ())),
    ]
    assert {name for one in found for name in touched(one)} == {"web-1", *EU}
    assert found[0].switches == ("node eu-1",)


def test_a_freeze_is_done_by_nothing_unless_the_file_says_what_stands_for_it(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    strict = target(cluster, tmp_path, SYSTEM.replace("  stands_for: {freeze: crash}\n", ""))
    said = refusal(strict, "region-loss", region="eu", mode="freeze")
    assert said == (
        "region-loss: a pod can't be frozen from outside; let it crash, or say in the system file what stands for it: "
        "kubernetes: {stands_for: {freeze: crash}}"
    )


def test_what_stands_for_a_freeze_is_said_aloud(cluster: FakeCluster, tmp_path: Path) -> None:
    one = target(cluster, tmp_path)
    told = one.aloud(bound(one, "region-loss", region="eu", mode="freeze"))
    assert "a pod can't be frozen: crash stands for freeze here, so that connections break and memory is lost" in told
    told = one.aloud(bound(one, "region-loss", region="eu", mode="crash"))
    assert not any("freeze" in text for text in told)


def test_a_share_of_a_region_takes_nodes_only_where_nobody_else_is_on_them(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    found = bound(target(cluster, tmp_path), "region-loss", region="eu", mode="crash", share="34%")
    assert len({name for one in found for name in touched(one)}) == 1
    assert found[0].mechanism in ("nodes", "scale")


def test_a_node_is_lost_by_its_name_with_all_that_is_on_it(cluster: FakeCluster, tmp_path: Path) -> None:
    (one,) = bound(target(cluster, tmp_path, empties="delete"), "node-loss", node="eu-2")
    assert one.how == Nodes(("eu-2",), "delete", EU, pods=2)


def test_one_instance_of_several_on_a_node_is_scaled_away_instead(cluster: FakeCluster, tmp_path: Path) -> None:
    one = target(cluster, tmp_path)
    (found,) = bound(one, "node-loss", instance="worker-eu-1")
    assert found.how == Scale("deployments/worker-eu", "shop", 1, ("worker-eu-1",))
    assert found.undo == "scale worker-eu back to 2"
    told = one.aloud([found])
    assert "which 1 of the 2 pods of deployments/worker-eu go is its controller's choice" in told


def test_in_several_clusters_a_region_is_lost_by_the_nodes_on_which_the_system_is(tmp_path: Path) -> None:
    with FakeCluster(world=False) as eu, FakeCluster(world=False) as us:
        shop(eu)
        shop(us)
        eu.apply(scenes.node("eu-9", "eu"))
        one = target(eu, tmp_path, contexts="{eu: one, us: two}")
        one.clusters._connect = lambda context: eu.admin if context == "one" else us.admin
        found = bound(one, "region-loss", region="eu", mode="crash")
    assert [(item.id, item.how.cluster) for item in found if isinstance(item.how, Nodes)] == [
        ("region-loss/eu.eu-1", "eu"),
        ("region-loss/eu.eu-2", "eu"),
        ("region-loss/eu.us-1", "eu"),
    ]


# --- pools and workers


def test_a_pool_is_withdrawn_with_its_nodes_where_nothing_else_goes_with_them(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    (found,) = bound(target(cluster, tmp_path), "gpu-pool-outage", pool="", service="worker", region="eu")
    assert found.how == Nodes(("eu-2",), "taint", EU, pods=2)


def test_a_pool_whose_nodes_others_share_is_scaled_away(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.apply(scenes.namespace("others"))
    cluster.apply(pod("theirs", "eu-2", {"app": "theirs"}, where="others"))
    (found,) = bound(target(cluster, tmp_path), "gpu-pool-outage", pool="", service="worker", region="eu")
    assert found.how == Scale("deployments/worker-eu", "shop", 2, EU)


def test_workers_are_scaled_away_each_workload_by_as_many_as_are_hit(cluster: FakeCluster, tmp_path: Path) -> None:
    found = bound(target(cluster, tmp_path), "queue-backlog", service="worker")
    assert [one.how for one in found] == [
        Scale("deployments/worker-eu", "shop", 2, EU),
        Scale("deployments/worker-us", "shop", 2, ("worker-us-1", "worker-us-2")),
    ]
    assert found[0].id == "queue-backlog/worker-eu"


def test_workers_that_can_not_be_slowed_alone_are_taken_away_where_the_file_says_so(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    callers = SYSTEM.replace("{from: [web], to: worker}", "{from: [web, worker], to: web}")
    said = refusal(target(cluster, tmp_path, callers), "queue-backlog", service="worker", region="eu", slow="80ms")
    assert "web-1, web-2, worker-us-1, worker-us-2 call web-1, web-2 too" in said
    assert "kubernetes: {stands_for: {slow: crash}}" in said
    one = target(cluster, tmp_path, callers.replace("freeze: crash", "slow: crash"))
    (found,) = made = bound(one, "queue-backlog", service="worker", region="eu", slow="80ms")
    assert found.how == Scale("deployments/worker-eu", "shop", 2, EU)
    assert any("crash stands for slow here" in text for text in one.aloud(made))


def test_a_pod_that_nothing_makes_again_is_not_scaled(cluster: FakeCluster, tmp_path: Path) -> None:
    bare: dict[str, Any] = pod("worker-eu", "eu-2", {"app": "worker", "region": "eu"}, 9)
    del bare["metadata"]["ownerReferences"]
    cluster.apply(bare)
    said = refusal(target(cluster, tmp_path), "queue-backlog", service="worker", region="eu")
    assert "worker-eu-3 is a pod that nothing would make again; let a Deployment or a StatefulSet run it" in said


def test_lost_devices_are_capacity_that_nodes_advertise_no_more(cluster: FakeCluster, tmp_path: Path) -> None:
    one = target(cluster, tmp_path, gpu="{plugin: devices/plugin}")
    (found,) = bound(one, "gpu-pool-outage", pool="", service="worker", region="eu", mode="devices")
    assert found.how == Capacity(("eu-2",), "nvidia.com/gpu", "devices/plugin", EU, others=("devices",))


def test_workers_go_for_their_lost_devices_where_the_file_says_so(cluster: FakeCluster, tmp_path: Path) -> None:
    text = SYSTEM.replace("freeze: crash", "devices: crash")
    one = target(cluster, tmp_path, text)
    asked = {"pool": "", "service": "worker", "mode": "devices"}
    (found,) = made = bound(one, "gpu-pool-outage", region="eu", **asked)
    assert found.how == Nodes(("eu-2",), "taint", EU, pods=2)
    assert any("crash stands for lost devices here" in text for text in one.aloud(made))
    said = refusal(one, "gpu-pool-outage", instance="worker-eu-1", share="50%", **asked)
    assert "worker-eu-1 would lose some of its devices, and can only be taken away whole; leave share out" in said
    assert "from outside" in refusal(one, "gpu-pool-outage", region="eu", **asked | {"mode": "hang"})


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({"mode": "slow"}, "devices can't be made slow, hang or run cold from outside"),
        ({"mode": "devices", "share": "50%"}, "a node advertises all of its devices or none"),
        ({"mode": "gone", "how": "crash", "share": "100%", "over": "10s", "region": "us"}, ""),
    ],
)
def test_what_can_not_be_done_to_devices_is_refused(
    cluster: FakeCluster, tmp_path: Path, parameters: dict[str, Any], what: str
) -> None:
    asked = {"pool": "", "service": "worker", "region": "eu", **parameters}
    if what:
        assert what in refusal(target(cluster, tmp_path), "gpu-pool-outage", **asked)
    else:  # their node goes with the first of them
        (found,) = bound(target(cluster, tmp_path), "gpu-pool-outage", **asked)
        assert (found.start_s, found.for_s) == (0.0, 30.0)


# --- ways between


def test_a_region_is_isolated_by_the_labels_of_its_workloads(cluster: FakeCluster, tmp_path: Path) -> None:
    assert cluster.registry.end("pods", "shop", "web-abc-1", grace=0)  # so that all of web is in us
    found = bound(target(cluster, tmp_path), "region-loss", region="eu", mode="isolate")
    labels = {"app": "worker", "region": "eu"}
    assert [one.how for one in found] == [Isolate("shop", labels, (labels,), EU, workload="deployments/worker-eu")]
    assert found[0].mechanism == "isolate"


def test_who_has_no_way_out_of_an_isolated_region_is_still_heard_in_it(cluster: FakeCluster, tmp_path: Path) -> None:
    """`store` is called by workers of eu alone: no hop of it leads across, and its workers must go on reaching it."""
    assert cluster.registry.end("pods", "shop", "web-abc-1", grace=0)
    for number in (1, 2):
        assert cluster.registry.end("pods", "shop", f"worker-us-abc-{number}", grace=0)
    cluster.apply([deployment("store", {"app": "store"}, 1), pod("store", "eu-1", {"app": "store"})])
    text = SYSTEM.replace("[eu, us]", "[eu]").replace("    worker:", "    store: {port: 1}\n    worker:")
    text = text.replace("dependencies: {", "dependencies: {store: {from: [worker], to: store}, ")
    found = bound(target(cluster, tmp_path, text), "region-loss", region="eu", mode="isolate")
    hows = [one.how for one in found if isinstance(one.how, Isolate)]
    worker, store = {"app": "worker", "region": "eu"}, {"app": "store"}
    assert [one.select for one in hows] == [worker, store]
    assert all(one.among == (worker, store) for one in hows)


def test_a_workload_of_which_only_a_part_is_hit_can_not_be_isolated(cluster: FakeCluster, tmp_path: Path) -> None:
    text = SYSTEM.replace("entry: web", "entry: door").replace(
        "    web:", "    door: {port: 1, ready: GET /}\n    web:"
    )
    cluster.apply([deployment("door", {"app": "door"}, 1), pod("door", "us-1", {"app": "door"})])
    said = refusal(target(cluster, tmp_path, text), "region-loss", region="eu", mode="isolate")
    assert "web-2 have the same labels as web-1 (deployments/web), and would be cut off too; hit all of them" in said


def test_the_entry_that_is_everywhere_is_left_as_it_is_and_the_plan_says_so(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    one = target(cluster, tmp_path)
    (found,) = made = bound(one, "region-loss", region="eu", mode="isolate")
    assert touched(found) == set(EU)
    assert "web-1 can't be told from entries elsewhere by labels, and would not be cut off" in one.aloud(made)


def test_one_part_is_not_cut_off_from_one_other_alone(cluster: FakeCluster, tmp_path: Path) -> None:
    said = refusal(target(cluster, tmp_path), "partition", **{"from": "eu", "to": "us"})
    assert "NetworkPolicies say who may be heard, not who may not" in said


def test_a_late_dependency_is_late_by_each_service_that_leads_to_it(cluster: FakeCluster, tmp_path: Path) -> None:
    found = bound(target(cluster, tmp_path), "late-dependency", name="worker", delay="2s")
    hows = [one.how for one in found]
    assert [one.service for one in hows if isinstance(one, Toxic)] == ["shop/worker-eu", "shop/worker-us"]
    assert next(one.hops for one in hows if isinstance(one, Toxic)) == (
        "web-1>worker-eu-1", "web-1>worker-eu-2", "web-2>worker-eu-1", "web-2>worker-eu-2",
    )  # fmt: skip
    assert found[0].id == "late-dependency/worker-eu"
    assert touched(found[0]) == set(EU)
    assert found[0].inject_timeout_s > 30.0  # as long as a proxy takes to get ready


def test_a_service_that_leads_to_others_too_is_not_taken(cluster: FakeCluster, tmp_path: Path) -> None:
    for region in ("eu", "us"):
        assert cluster.registry.end("services", "shop", f"worker-{region}")
    cluster.apply(service("all", {}))
    said = refusal(target(cluster, tmp_path), "late-dependency", name="worker", delay="2s")
    assert "no Service leads to worker-eu-1 and nobody else" in said


def test_callers_can_not_be_told_apart_behind_a_service(cluster: FakeCluster, tmp_path: Path) -> None:
    text = SYSTEM.replace("from: [web]", "from: [web, worker]")
    said = refusal(target(cluster, tmp_path, text), "late-dependency", name="worker", delay="2s", callers="web")
    assert "a Service can't tell its callers apart" in said


# --- releases and the rest


def test_a_release_that_the_cluster_knows_is_rolled_out_there(cluster: FakeCluster, tmp_path: Path) -> None:
    one = target(cluster, tmp_path, releases="{worker: {env: {LEAK: 4}}}")
    found = bound(one, "memory-leak", mode="release", release="worker", region="eu")
    assert [item.how for item in found] == [
        Rollout("deployments/worker-eu", "shop", "main", env={"LEAK": "4"}, reaches=EU)
    ]
    assert found[0].undo == "put the template back"


@pytest.mark.parametrize(
    ("word", "parameters"),
    [
        ("memory-leak", {"mode": "release", "release": "worker", "region": "eu"}),
        ("region-loss", {"region": "eu", "mode": "freeze"}),
        ("late-dependency", {"name": "worker", "delay": "2s"}),
    ],
)
def test_pods_have_the_time_that_the_system_takes_to_be_ready_until_a_revert_must_be_seen(
    cluster: FakeCluster, tmp_path: Path, word: str, parameters: dict[str, Any]
) -> None:
    one = target(cluster, tmp_path, releases="{worker: {env: {LEAK: 4}}}")
    assert {item.verify_timeout_s for item in bound(one, word, **parameters)} == {one.world().system.ready_timeout_s}


def test_who_shares_a_workload_with_whom_a_release_is_meant_for_gets_it_too(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    (one,) = bound(target(cluster, tmp_path), "bad-release", mode="crash", instance="worker-eu-1")
    assert (one.id, touched(one)) == ("bad-release/worker-eu", set(EU))


def test_any_other_release_stays_a_request_to_the_system(cluster: FakeCluster, tmp_path: Path) -> None:
    found = bound(target(cluster, tmp_path), "memory-leak", mode="release", release="worker", region="eu")
    assert all(isinstance(one.how, Tell) for one in found)


def test_pressure_stays_on_its_own_pod(cluster: FakeCluster, tmp_path: Path) -> None:
    found = bound(target(cluster, tmp_path), "memory-leak", mode="pressure", service="worker", region="eu")
    assert [(one.instance, one.mechanism) for one in found] == [
        ("worker-eu-1", "pressure"),
        ("worker-eu-2", "pressure"),
    ]


def test_cores_can_not_be_limited(cluster: FakeCluster, tmp_path: Path) -> None:
    said = refusal(target(cluster, tmp_path), "cpu-starvation", service="worker", cpus=0.1)
    assert "the cores of a pod that runs can't be limited; use noisy-neighbour with mode: cpu" in said


def test_who_else_keeps_a_workload_is_said_aloud(cluster: FakeCluster, tmp_path: Path) -> None:
    kept: dict[str, Any] = deployment("worker-eu", {"app": "worker", "region": "eu"}, 2)
    kept["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:shop/worker-eu"}
    cluster.apply(kept)
    one = target(cluster, tmp_path)
    told = one.aloud(bound(one, "queue-backlog", service="worker", region="eu"))
    assert "Argo CD keeps deployments/worker-eu as it is in its repository, and may put the change back" in told


def test_planning_costs_no_more_calls_for_more_targets(cluster: FakeCluster, tmp_path: Path) -> None:
    def asked() -> int:
        cluster.requests.clear()
        bound(target(cluster, tmp_path), "region-loss", region="eu", mode="crash")
        return len(cluster.requests)

    few = asked()
    for number in range(3, 40):
        cluster.apply(scenes.node(f"eu-x{number}", "eu"))
        cluster.apply(pod("web", f"eu-x{number}", {"app": "web"}, number, nodeSelector={"kubernetes.io/os": "none"}))
    assert asked() == few


# --- the whole plan


def plan_of(one: KubernetesTarget, *uses: FaultUse) -> Plan:
    world = one.world()
    experiment = Experiment("x", "t", "h", "o", "shop", Phases(0, 1, 30, 1), uses, ())
    known = {"policy": Policy(), "profile": None, "target": "kubernetes", "offers": one, "faults": BUILTIN}
    return make_plan(experiment, world.system, world=world, seed=1, **known)  # type: ignore[arg-type]  # by name


def test_a_plan_says_who_goes_with_which_node_and_what_has_to_be_minded(cluster: FakeCluster, tmp_path: Path) -> None:
    made = plan_of(target(cluster, tmp_path), FaultUse("region-loss", {"region": "eu"}))
    assert made.worst_case.startswith("3 of 6 instances out at once: web 1 of 2 left (50%), worker 2 of 4 left (50%)")
    assert made.irreversible == (
        "web-1, worker-eu-1, worker-eu-2: what pods on the nodes hold only in memory or in emptyDir volumes is lost",
    )
    assert any("crash stands for freeze" in text for text in made.notes)
    assert sum("the taint on eu-1, eu-2" in text for text in made.notes) == 1  # said once for all nodes
    assert len(made.digest) == 12


def test_another_pod_behind_a_name_is_another_plan(cluster: FakeCluster, tmp_path: Path) -> None:
    use = FaultUse("region-loss", {"region": "eu"})
    before = plan_of(target(cluster, tmp_path), use)
    assert plan_of(target(cluster, tmp_path), use).digest == before.digest
    assert cluster.registry.end("pods", "shop", "web-abc-1", grace=0)
    cluster.apply(pod("web", "eu-1", {"app": "web", "team": "shopping"}, 1))
    assert plan_of(target(cluster, tmp_path), use).digest != before.digest


def test_what_is_refused_while_binding_is_not_refused_again_in_other_words(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    with pytest.raises(Refused) as caught:
        plan_of(target(cluster, tmp_path), FaultUse("cpu-starvation", {"service": "worker", "cpus": 0.1}))
    assert [one.what for one in caught.value.problems] == [
        "cpu-starvation: the cores of a pod that runs can't be limited"
    ]


def test_who_goes_with_its_node_can_be_told_nothing_meanwhile(cluster: FakeCluster, tmp_path: Path) -> None:
    one = target(cluster, tmp_path, SYSTEM.replace("to: worker}", "to: worker, lag: /lag}"))
    old = FaultUse("late-dependency", {"name": "worker", "data_lag": "5s"}, 0, 10)
    with pytest.raises(Refused, match="worker-eu-1 does not answer then"):
        plan_of(one, old, FaultUse("node-loss", {"node": "eu-2"}, 5, 10))


def test_one_node_is_not_lost_twice_at_once(cluster: FakeCluster, tmp_path: Path) -> None:
    lost = [FaultUse("node-loss", {"node": "eu-2"}, start_s, 10) for start_s in (0, 5)]
    with pytest.raises(Refused, match="would hold the node eu-2 at the same time"):
        plan_of(target(cluster, tmp_path), *lost)


def test_where_thousands_call_thousands_no_single_way_is_spoken_of(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stormdrill.targets.kubernetes.view.MOST_HOPS", 7)
    said = refusal(target(cluster, tmp_path), "late-dependency", name="worker", delay="2s")
    assert "no hop leads to worker" in said
