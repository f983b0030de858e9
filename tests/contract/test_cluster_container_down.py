"""What was started in a container is gone once that doesn't run any more: in one that the fault's memory took down, and
that waits to be started again, there is nothing to end, and nothing can be run to see it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cluster_rig as rig
from cluster_rig import PLATFORM
from fake_cluster import FakeCluster
from stormdrill.cluster.api import Api, Lost
from stormdrill.cluster.asking import Until
from stormdrill.cluster.changes import Undone
from stormdrill.cluster.exec import Ran, Refusal
from stormdrill.cluster.undoing import undo
from stormdrill.model.undo import KubeEndExec

UP = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
WAITS = {"waiting": {"reason": "CrashLoopBackOff"}}
ENDED = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
NOT_FOUND = Refusal(500, 'container not found ("main")')


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """Nothing acts in it but who is asked."""
    with FakeCluster(world=False) as made:
        rig.small_world(made)
        yield made


class Container:
    """Answers each look into it with the next of these; the last one stays."""

    def __init__(self, *finds: str | Exception) -> None:
        self.finds = list(finds)
        self.asked = 0

    def run(self, *_: object, **__: object) -> Ran:
        self.asked += 1
        found = self.finds.pop(0) if len(self.finds) > 1 else self.finds[0]
        if isinstance(found, Exception):
            raise found
        return Ran(0, f"{found}\n".encode(), b"")


def ending(cluster: FakeCluster, container: Container, kind: str, **states: object) -> Undone:
    """The undo in `main`, where the pod's status has these containers."""
    containers = [{"name": name, "image": "c:1"} for name in ("main", "beside")]
    meta = {"name": "p", "namespace": PLATFORM}
    there = {"phase": "Running", kind: [{"name": name, "state": state} for name, state in states.items()]}
    spec = {"nodeName": "eu-cpu-1", "containers": containers}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": there})
    found = cluster.read(f"/api/v1/namespaces/{PLATFORM}/pods/p")
    assert found is not None
    word = KubeEndExec("", PLATFORM, "p", found["metadata"]["uid"], "main", "tag")
    return undo(Api(cluster.admin), word, container, Until(0.5))


@pytest.mark.parametrize("kind", ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"])
@pytest.mark.parametrize(("state", "why"), [(WAITS, "CrashLoopBackOff"), (ENDED, "OOMKilled")])
def test_what_ran_in_a_container_that_is_down_is_gone(cluster: FakeCluster, kind: str, state: object, why: str) -> None:
    undone = ending(cluster, Container(NOT_FOUND), kind, main=state, beside=UP)
    assert undone.word == "superseded"
    assert f"container main of pod {PLATFORM}/p doesn't run ({why})" in undone.detail
    assert undone.witness == "the API server"


@pytest.mark.parametrize(
    ("states", "heard"),
    [
        ({"main": UP, "beside": WAITS}, NOT_FOUND),
        ({"beside": ENDED}, NOT_FOUND),
        ({"main": WAITS}, Lost("no answer", sent=True)),
    ],
    ids=["another-is-down", "nobody-says", "nobody-refused"],
)
def test_nobody_takes_it_for_down_who_is_not_told_so_twice(
    cluster: FakeCluster, states: dict[str, object], heard: Exception
) -> None:
    assert ending(cluster, Container(heard), "containerStatuses", **states).word == "failed"


def test_a_status_that_comes_late_hides_nothing_that_runs(cluster: FakeCluster) -> None:
    looks = Container("1", "0")
    assert ending(cluster, looks, "containerStatuses", main=WAITS).word == "done"
    assert looks.asked == 2
