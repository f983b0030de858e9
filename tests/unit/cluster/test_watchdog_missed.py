"""A watchdog that somebody takes away is made again, and one that can't come back ends the run; so does a namespace
that is deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

import cluster_rig as rig
from cluster_rig import SUITE
from fake_cluster import FakeCluster
from stormdrill.cluster import hold, vigil
from stormdrill.cluster.api import Api
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.rights import Right, of_watchdog
from waiting import eventually

JOB = f"/apis/batch/v1/namespaces/{SUITE}/jobs/stormdrill-r1-watchdog"
BINDING = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/stormdrill"


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """Watchdogs run as processes of this machine."""
    with FakeCluster(run_images={rig.IMAGE: []}) as made:
        rig.small_world(made)
        made.settle()
        yield made


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def held(cluster: FakeCluster, told: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hold]:
    monkeypatch.setattr(vigil, "BACK_S", 4.0)
    made = Hold(
        Api(cluster.admin),
        "r1",
        "platform",
        rig.IMAGE,
        lease_s=1.0,
        namespaces=(rig.PLATFORM,),
        drills=(rig.PLATFORM,),
        ready_s=20.0,
        tell=told.append,
    )
    made.open()
    yield made
    assert made.close() == ()
    assert cluster.read(JOB) is None


def test_a_watchdog_whose_job_is_removed_is_made_again_and_the_run_goes_on(
    cluster: FakeCluster, held: Hold, told: list[str]
) -> None:
    first = (cluster.read(JOB) or {})["metadata"]["uid"]
    assert cluster.registry.end("jobs", SUITE, "stormdrill-r1-watchdog")
    eventually(lambda: "the watchdog is there again" in told, what="it comes back")
    assert "removed the watchdog's Job" in told[0]
    assert (cluster.read(JOB) or {})["metadata"]["uid"] != first
    assert held.trouble() == ""


def test_a_watchdog_that_does_not_come_back_ends_the_run(cluster: FakeCluster, held: Hold, told: list[str]) -> None:
    cluster.run_pods.clear()  # its pod begins nothing any more
    assert cluster.registry.end("jobs", SUITE, "stormdrill-r1-watchdog")
    eventually(held.trouble, what="it is missed")
    assert "did not come back" in held.trouble()
    assert "nobody would revert if this machine vanished" in held.trouble()
    assert told


def test_a_watchdog_that_is_allowed_its_undos_no_longer_ends_the_run_naming_the_right(
    cluster: FakeCluster, told: list[str]
) -> None:
    """What it takes to say so it is still allowed; a right that it never had is no matter of this run's."""
    for number, right in enumerate(of_watchdog(SUITE, "stormdrill-platform", [])):
        allow(cluster, f"own-{number}", right)
    needs = [Right("patch", "", "nodes", name="eu-cpu-1")]
    held = Hold(Api(cluster.admin), "r2", "platform", rig.IMAGE, lease_s=1.0, ready_s=20.0, needs=needs)
    held.open()
    assert Api(cluster.admin).call("DELETE", BINDING).good
    eventually(held.trouble, what="it is told")
    assert held.trouble().startswith("the watchdog may no longer patch nodes eu-cpu-1: nobody would revert")
    assert held.close() == ()


def allow(cluster: FakeCluster, name: str, right: Right) -> None:
    group = "rbac.authorization.k8s.io"
    rule: dict[str, object] = {"apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb]}
    meta = {"name": name, "namespace": right.namespace}
    cluster.apply({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": [rule]})
    subject = {"kind": "ServiceAccount", "name": "stormdrill", "namespace": SUITE}
    binding = {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": meta}
    cluster.apply({**binding, "roleRef": {"apiGroup": group, "kind": "Role", "name": name}, "subjects": [subject]})


@pytest.mark.parametrize("when", ["by the thread", "when asked"])
def test_a_namespace_that_somebody_deletes_ends_the_run_with_that_reason(
    cluster: FakeCluster, held: Hold, when: str
) -> None:
    assert held.well_s is None, "while it is there nobody asks"
    assert Api(cluster.admin).call("DELETE", f"/api/v1/namespaces/{rig.PLATFORM}").good
    deleted_s = time.monotonic()
    if when == "by the thread":
        eventually(held.trouble, what="it is seen")
    why = held.trouble_now()
    assert why in (
        f"the namespace {rig.PLATFORM} is being deleted by somebody",
        f"the namespace {rig.PLATFORM} was deleted by somebody",
    )
    assert held.well_s is not None, "what was measured since then is something else"
    assert held.well_s <= deleted_s


def test_a_ledger_that_is_gone_is_told_when_asked_before_what_follows_from_it(cluster: FakeCluster, held: Hold) -> None:
    held._heart._over.set()  # as if its next look were still to come
    assert cluster.registry.end("configmaps", SUITE, "stormdrill-r1")
    assert held.trouble_now().startswith("somebody has removed the ledger")


def test_an_outage_in_which_nothing_can_be_written_down_is_told_once_and_counted_at_the_end(
    cluster: FakeCluster, held: Hold, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "NOTE_S", 0.1)
    change = rig.patch_of(cluster.read(rig.WORKER) or {}, rig.WORKER, "r1", "a", rig.scaled(0, 3))
    held.arm("a", (change.undo,), 60.0)
    held.apply("a", change)
    cluster.trouble(("PATCH", "configmaps/stormdrill-r1"), "503", times=1000)
    for _ in range(3):
        assert held.revert("a").word != "failed"
        held._settled.clear()  # as where the undo fails, and is tried again
    cluster.troubles.clear()
    held.close()
    lines = [line for line in told if "written into the ledger" in line]
    assert len(lines) == 2, told
    assert lines[0].startswith("a: what became of it could not be written into the ledger")
    assert "3 times in all" in lines[1]
