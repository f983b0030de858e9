"""What doctor says of runs in a cluster: what is open, and what those that are over have left."""

from __future__ import annotations

from fake_cluster import FakeCluster
from shop_cluster import shop
from stormdrill.cluster.api import Api
from stormdrill.cluster.ledger import CLOSED, Ledger
from stormdrill.targets.kubernetes import look


def runs(cluster: FakeCluster) -> look.Seen:
    (seen,) = [one for one in look._findings(Api(cluster.admin), "stormdrill", "stormdrill") if one.part == "runs"]
    return seen


def test_what_runs_that_are_over_have_left_is_named_with_what_clears_it() -> None:
    with FakeCluster(world=False) as cluster:
        shop(cluster)
        assert runs(cluster).seen == "none is open"
        ledger = Ledger(Api(cluster.admin), "stormdrill", "other-run")
        ledger.create({"run": "other-run", "began": "2026-01-02T03:04:05.000006Z", "lease_s": 10.0}, "shop")
        ledger.turn(CLOSED, "reverted by the watchdog")
        told = runs(cluster)
        assert told.seen == "none is open; of runs that are over there are left: 1 ledger"
        assert "stormdrill recover RUN" in told.cost
        assert "sweep --target kubernetes" in told.cost
