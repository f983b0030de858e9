"""A seeded part of the kill sweep on the fake cluster; and that the sweep would see what is left."""

from __future__ import annotations

import subprocess
import sys

import killing_cluster

import cluster_rig as rig
from fake_cluster import FakeCluster

SEED = "11"


def test_whoever_is_killed_at_whatever_change_the_cluster_is_as_it_was() -> None:
    ended = subprocess.run(
        [sys.executable, killing_cluster.__file__, "24", "--seed", SEED],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "24 runs" in ended.stdout
    assert " 0 mismatches" in ended.stdout


def test_a_plan_of_kills_is_the_same_for_the_same_seed_and_meets_every_change_from_both_sides() -> None:
    planned = killing_cluster.cases(900, 3)
    assert planned == killing_cluster.cases(900, 3)
    met = {(case.runner_at, case.when) for case in planned if case.runner_at}
    assert met >= {(at, when) for at in range(1, 34) for when in killing_cluster.WHEN}


def test_what_a_change_of_any_kind_leaves_would_be_seen() -> None:
    with FakeCluster(world=False) as cluster:
        rig.small_world(cluster)
        before = rig.still(cluster)
        cluster.registry.change("nodes", "", "eu-cpu-1", lambda node: node["spec"].update(unschedulable=True))
        cluster.registry.change("services", "platform", "gateway-eu", lambda it: it["spec"].update(selector={"a": "b"}))
        cluster.registry.change("nodes", "", "eu-gpu-1", lambda it: it["status"]["capacity"].update(pods="1"))
        cluster.registry.change(
            "deployments",
            "platform",
            "worker-eu",
            lambda it: it["metadata"].update(annotations={"stormdrill.dev/0": ""}),
        )
        cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "left", "namespace": "platform"}})
        seen = " ".join(rig.differences(before, rig.still(cluster)))
    for where in (
        "nodes/eu-cpu-1",
        "services/platform/gateway-eu",
        "nodes/eu-gpu-1",
        "deployments.apps/platform/worker-eu",
        "configmaps/platform/left",
    ):
        assert f"{where}:" in seen
