"""A change that can't be tried ahead is a problem that is told, not a defect of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fake_cluster import FakeCluster
from shop_cluster import bound, shop, system_of, target_of
from stormdrill.cluster.api import Lost
from stormdrill.errors import Refused
from stormdrill.model.plan import Injection
from stormdrill.targets.kubernetes.drilling import Drilling


def no_answer_in_time(mechanism: object, injection: Injection) -> Sequence[str]:
    raise Lost("3 of 9 questions were not answered within 30 s", sent=False)


def test_a_cluster_too_slow_for_the_dry_runs_is_told_and_nothing_was_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeCluster(world=False) as cluster:
        shop(cluster)
        cluster.account("stormdrill", "stormdrill")
        cluster.apply({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "all"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "stormdrill", "namespace": "stormdrill"}],
        })  # fmt: skip
        target = target_of(cluster, system_of(tmp_path, image="{name: 'stormdrill:test'}"), tmp_path)
        injections = bound(target, "region-loss", region="eu", mode="crash")
        monkeypatch.setattr(type(target.mechanisms["nodes"]), "dry_run", no_answer_in_time)
        with pytest.raises(Refused) as refused:
            Drilling(target.clusters, target.mechanisms, injections).check()
        (only,) = refused.value.problems
        assert "not every change could be tried" in only.what
        assert "3 of 9" in only.what
        assert "nothing was touched" in only.fix
