"""Whoever may not read what planning looks at is told all of it at once, as preflight tells rights."""

from __future__ import annotations

from pathlib import Path

import pytest

from fake_cluster import FakeCluster
from shop_cluster import bound, shop, system_of, target_of
from stormdrill.errors import Refused
from stormdrill.model.permission import Need
from stormdrill.targets.kubernetes.clusters import LiveClusters
from stormdrill.targets.kubernetes.rbac import manifests
from stormdrill.targets.kubernetes.target import KubernetesTarget
from stormdrill.targets.kubernetes.unread import OWN, WIDE


def target_as(cluster: FakeCluster, account: str, tmp_path: Path) -> KubernetesTarget:
    system = system_of(tmp_path)
    assert system.kubernetes is not None
    access = cluster.access(cluster.account("stormdrill", account))
    clusters = LiveClusters(system.kubernetes, run="r", system=system.name, connect=lambda _: access)
    return KubernetesTarget(system, tmp_path, clusters=clusters)


def test_all_that_finding_the_system_takes_is_named_at_once(tmp_path: Path) -> None:
    with FakeCluster(world=False) as cluster:
        shop(cluster)
        with pytest.raises(Refused) as refused:
            target_as(cluster, "nobody", tmp_path).world()
        told = refused.value.problems
        assert len(told) == len(OWN)
        nodes = "this user may not list nodes (cluster-wide): needed to find the system"
        assert any(one.what.startswith(nodes) for one in told)
        assert all("--rbac" in one.fix for one in told)
        assert not any("403" in one.what for one in told)


def test_all_that_looking_at_whole_nodes_takes_is_named_at_once(tmp_path: Path) -> None:
    with FakeCluster(world=False) as cluster:
        shop(cluster)
        target = target_of(cluster, system_of(tmp_path), tmp_path)
        target.world()
        needs = [need for need in target.clusters.read() if need.resource in ("pods", "nodes", "services") or need.name]
        needs += [Need("list", "apps", one, "shop") for one in ("deployments", "statefulsets")]
        needs += [Need("list", "", "services", "shop")]
        cluster.account("stormdrill", "stormdrill")
        cluster.apply(manifests(needs, name="d", suite="stormdrill", account="stormdrill", namespace=False))
        with pytest.raises(Refused) as refused:
            bound(target_as(cluster, "stormdrill", tmp_path), "region-loss", region="eu", mode="crash")
        told = [one.what for one in refused.value.problems]
        assert len(told) == len(WIDE), told
        assert not any("403" in what for what in told)
