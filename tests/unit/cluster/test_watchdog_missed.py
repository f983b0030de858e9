"""A watchdog that somebody takes away is made again, and one that can't come back ends the run; so does a namespace
that is deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

import cluster_rig as rig
from cluster_rig import SUITE
from fake_cluster import FakeCluster, scenes
from fake_cluster.jobs import backoff_s
from stormdrill.cluster import hold, vigil
from stormdrill.cluster.api import Api
from stormdrill.cluster.heart import Heart, beat_every_s
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.lease import Lease
from stormdrill.cluster.ledger import Ledger
from stormdrill.cluster.rights import Right, of_watchdog
from stormdrill.cluster.vigil import Vigil
from waiting import eventually

JOB = f"/apis/batch/v1/namespaces/{SUITE}/jobs/stormdrill-r1-watchdog"
BEGINS_S = 4.0
"""For a node to be found and a program to begin."""
BINDING = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/stormdrill"


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


@pytest.mark.parametrize("lease_s", [3.0, 10.0, 60.0])
def test_one_that_is_evicted_twice_is_back_before_the_run_ends_for_want_of_it(
    lease_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As late as a real Job's own pause and a pod's beginning make it."""
    now_s = 0.0
    monkeypatch.setattr(vigil, "time", SimpleNamespace(monotonic=lambda: now_s))
    with FakeCluster(world=False) as cluster:
        meta = {"name": JOB.rpartition("/")[2], "namespace": SUITE}
        template = {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "watchdog", "image": rig.IMAGE}]}}
        cluster.apply(scenes.namespace(SUITE, drill=False))
        cluster.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": template}})
        api, told = Api(cluster.admin), list[str]()
        heart = Heart(Lease(api, SUITE, "any", "r1/runner", lease_s), Ledger(api, SUITE, "r1"))
        looking = Vigil(api, heart, JOB, lambda _: None, lambda: "it was evicted", (), told.append)
        for evicted in (1, 2):
            back_s = now_s + beat_every_s(lease_s) + backoff_s(evicted) + BEGINS_S
            while now_s < back_s:
                now_s += 1.0
                heart._read_s = now_s
                assert looking.look() == ""
            heart._beat_s, heart.beats = now_s, heart.beats + 1
            assert looking.look() == ""
        assert told[-1:] == (["the watchdog is there again"] if lease_s < 60.0 else []), "whoever is missed is told of"


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
