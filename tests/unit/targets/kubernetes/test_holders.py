"""Who comes second is told who was first, and not what follows from that."""

from __future__ import annotations

from pathlib import Path

import pytest

from fake_cluster import FakeCluster
from shop_cluster import shop, system_of, target_of
from stormdrill.cluster import naming
from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.lease import Lease
from stormdrill.cluster.ledger import CLOSED, Armed, Ledger
from stormdrill.errors import Refused
from stormdrill.model.undo import KubeDelete
from stormdrill.targets.kubernetes.drilling import Drilling

BEGAN = "2026-01-02T03:04:05.000006Z"


@pytest.mark.parametrize("who", ["a living run", "a dead one with something in force", "a dead one", "a closed one"])
def test_whoever_holds_the_system_is_named_before_what_is_not_allowed(tmp_path: Path, who: str) -> None:
    with FakeCluster(world=False) as cluster:
        shop(cluster)
        target = target_of(cluster, system_of(tmp_path), tmp_path)
        other, system = Api(cluster.admin), target.clusters.system
        ledger = Ledger(other, "stormdrill", "other-run")
        ledger.create({"run": "other-run", "began": BEGAN, "lease_s": 10.0}, system)
        if who == "a living run":
            Lease(other, "stormdrill", naming.lease(system), "other-run/runner", 10.0).acquire(Until(10.0))
        if who == "a dead one with something in force":
            path = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/cut"
            ledger.arm([Armed("cut/a", (KubeDelete("", path, "other-run"),), 60.0, 1)])
        if who == "a closed one":
            ledger.turn(CLOSED, "")
        with pytest.raises(Refused) as refused:
            Drilling(target.clusters, target.mechanisms, []).check()
        told = [one.what for one in refused.value.problems]
        if who in ("a dead one", "a closed one"):  # that is cleared away: what is missing is told
            assert not any("other-run" in what for what in told)
            return
        (only,) = told
        assert only.startswith("run other-run holds this system in the cluster since 2026-01-02 03:04:05 UTC")
        assert "stormdrill recover other-run" in refused.value.problems[0].fix
