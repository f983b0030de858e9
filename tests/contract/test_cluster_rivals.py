"""Two systems may have a namespace in common: what keeps two runs on one system apart has to keep those apart too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cluster_rig as rig
from cluster_rig import PLATFORM, SUITE
from fake_cluster import FakeCluster, scenes
from stormdrill.cluster import naming
from stormdrill.cluster.api import Api
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.ledger import CLOSED, Ledger
from stormdrill.errors import Refused
from waiting import eventually


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(run_images={rig.IMAGE: []}) as made:
        rig.small_world(made)
        yield made


def hold(cluster: FakeCluster, run: str, system: str, *drills: str) -> Hold:
    return Hold(Api(cluster.admin), run, system, rig.IMAGE, lease_s=1.0, drills=drills, ready_s=20.0)


def test_whose_pods_go_with_a_node_is_drilled_by_nobody_else(cluster: FakeCluster) -> None:
    """Whichever comes first: else the one's verdict would be of the other's harm."""
    api = Api(cluster.admin)
    cluster.apply(scenes.namespace("bank"))
    Ledger(api, SUITE, "r0").create({"run": "r0", "system": "bank", "drilled": ["bank"]}, "bank")
    more: dict[str, object] = {"lease_s": 1.0, "drills": (PLATFORM,), "beside": ("bank",), "ready_s": 20.0}
    with pytest.raises(Refused, match="run r0 of system bank drills namespace bank"):
        Hold(api, "r1", "platform", rig.IMAGE, **more).open()  # type: ignore[arg-type]  # by name
    Ledger(api, SUITE, "r0").turn(CLOSED, "over")
    taking = Hold(api, "r1", "platform", rig.IMAGE, **more)  # type: ignore[arg-type]  # by name
    taking.open()
    with pytest.raises(Refused, match="run r1 of system platform drills namespace bank"):
        hold(cluster, "r2", "bank", "bank").open()
    assert taking.close() == ()


def left(cluster: FakeCluster) -> set[str]:
    found = [*cluster.objects("configmaps", SUITE), *cluster.objects("jobs", SUITE)]
    return {thing["metadata"]["labels"]["stormdrill"] for thing in found if thing["metadata"].get("labels")}


def test_a_namespace_is_drilled_by_one_run_at_a_time_whatever_its_system_is_called(cluster: FakeCluster) -> None:
    first = hold(cluster, "r1", "platform", PLATFORM, "queue")
    first.open()
    second = hold(cluster, "r2", "same-again", PLATFORM)
    with pytest.raises(Refused, match=rf"run r1 of system platform drills namespace {PLATFORM} \(open\)"):
        second.open()
    eventually(lambda: left(cluster) == {"r1"}, 10.0)
    assert first.trouble() == ""
    elsewhere = hold(cluster, "r3", "other", "other-team")
    elsewhere.open()
    assert elsewhere.close() == ()
    assert first.close() == ()
    second = hold(cluster, "r4", "same-again", PLATFORM)
    second.open()
    assert second.close() == ()


def test_a_run_that_is_over_keeps_nobody_off(cluster: FakeCluster) -> None:
    api = Api(cluster.admin)
    ledger = Ledger(api, SUITE, "r0")
    ledger.create({"run": "r0", "system": "platform", "drilled": [PLATFORM]}, "platform")
    with pytest.raises(Refused, match="run r0 of system platform"):
        hold(cluster, "r1", "same-again", PLATFORM).open()
    ledger.turn(CLOSED, "over")
    held = hold(cluster, "r1", "same-again", PLATFORM)
    held.open()
    assert cluster.read(f"/api/v1/namespaces/{SUITE}/configmaps/{naming.ledger('r1')}")
    assert held.close() == ()
