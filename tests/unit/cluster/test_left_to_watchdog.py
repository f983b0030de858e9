"""What a runner can't revert at its end is left to somebody who is there: a watchdog whose Job is gone is made again,
and where it can't be, nobody is said to take care."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import cluster_rig as rig
from cluster_late import held_without_watchdog
from cluster_rig import SUITE, WORKER, patch_of, scaled
from fake_cluster import FakeCluster
from stormdrill.cluster import job, leaving, recovering
from stormdrill.cluster.api import Api
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.job import Wanted
from stormdrill.cluster.ledger import CLOSED, now
from waiting import eventually

JOBS = f"/apis/batch/v1/namespaces/{SUITE}/jobs"
JOB = f"{JOBS}/stormdrill-r1-watchdog"
WHAT_TO_DO = "`stormdrill recover r1` does"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    """Watchdogs run as processes of this machine."""
    monkeypatch.setattr(leaving, "LIMIT_S", 1.0)
    with FakeCluster(run_images={rig.IMAGE: []}) as made:
        rig.small_world(made)
        made.settle()
        yield made


@pytest.fixture
def held(cluster: FakeCluster) -> Hold:
    """Of a run whose watchdog did not come back; what it has changed can't be put back just now."""
    made = held_without_watchdog(Api(cluster.admin))
    change = patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", scaled(0, 3))
    change = replace(change, undo=replace(change.undo, timeout_s=0.3))
    made.arm("a", (change.undo,), 60.0)
    made.apply("a", change)
    made.abandon("the watchdog did not come back")
    cluster.trouble(("PATCH", "deployments/worker-eu"), "500", 20)
    return made


def watchdogs(cluster: FakeCluster, change: dict[str, Any] | None = None) -> str:
    """Its Job, as somebody has left it; its uid."""
    manifest = job.manifest("r1", SUITE, "stormdrill", rig.IMAGE, Wanted())
    cluster.apply({**manifest, **(change or {})})
    return str((cluster.read(JOB) or {})["metadata"]["uid"])


def test_a_job_that_was_removed_is_made_again_and_reverts(cluster: FakeCluster, held: Hold) -> None:
    (left,) = held.close()
    assert left.startswith("a: ")
    assert cluster.read(JOB) is not None
    eventually(lambda: (cluster.read(WORKER) or {})["spec"]["replicas"] == 3, what="it is reverted")
    eventually(lambda: recovering.look(held.api, "r1", SUITE).state == CLOSED, what="the ledger is closed")


def test_one_that_is_there_stays_as_it_is(cluster: FakeCluster, held: Hold) -> None:
    uid = watchdogs(cluster)
    (left,) = held.close()
    assert left.startswith("a: ")
    assert (cluster.read(JOB) or {})["metadata"]["uid"] == uid


def test_where_none_can_be_made_nobody_is_said_to_be_left(cluster: FakeCluster, held: Hold) -> None:
    cluster.trouble(("POST", JOBS), "403", 1)
    first, *_, last = held.close()
    assert first.startswith("a: ")
    assert "nobody is left to revert" in last
    assert WHAT_TO_DO in last


def test_one_that_has_ended_reverts_nothing_any_more(cluster: FakeCluster, held: Hold) -> None:
    watchdogs(cluster)

    def end(there: dict[str, Any]) -> None:
        over = {"type": "Failed", "status": "True", "lastTransitionTime": f"{now()[:19]}Z"}
        there["status"] = {"conditions": [over]}

    cluster.registry.change("jobs", SUITE, "stormdrill-r1-watchdog", end)
    *_, last = held.close()
    assert f"nobody is left to revert: {JOB} has ended" in last
    assert WHAT_TO_DO in last


def test_without_a_ledger_a_watchdog_that_begins_has_nothing_to_read(cluster: FakeCluster, held: Hold) -> None:
    held._heart.ending = True
    assert cluster.registry.end("configmaps", SUITE, "stormdrill-r1")
    *_, last = held.close()
    assert "there is neither a ledger nor a watchdog any more" in last
    assert cluster.read(JOB) is None


def test_where_it_cannot_be_seen_that_is_said(cluster: FakeCluster, held: Hold) -> None:
    cluster.trouble(("GET", JOB), "403", 1)
    *_, last = held.close()
    assert "whether anybody is left to revert is not known" in last
    assert WHAT_TO_DO in last
