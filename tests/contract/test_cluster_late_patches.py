"""A patch that was under way when its sender ended comes at any moment of the undo: it changes nothing, or is undone;
and nothing is said to be as before that isn't."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

import cluster_rig as rig
from cluster_late import Delaying, Interrupted, made_again
from cluster_rig import SUITE, WORKER, patch_of, scaled
from fake_cluster import FakeCluster
from fake_cluster.registry import Admitted
from stormdrill.cluster import recovering
from stormdrill.cluster.api import Answer, Api
from stormdrill.cluster.changes import Change
from stormdrill.cluster.changing import apply
from stormdrill.cluster.ledger import CLOSED, Armed, Ledger
from stormdrill.cluster.undoing import undo
from stormdrill.cluster.watchdog import Watchdog
from stormdrill.errors import Unreachable

MOMENTS = range(6)
"""An undo that finds nothing looks, moves the version on and back: what comes before each request, and after all."""
LATE = [
    ("queue-backlog/worker", 1),
    ("region-loss/eu-cpu-1", 1),
    ("gpu-pool-outage/eu-gpu-1", 1),
    ("gpu-pool-outage/eu-gpu-1", 2),
]
"""And which patch of it is late: a status is changed in two."""


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """Nothing acts in it but who is asked."""
    with FakeCluster(world=False) as made:
        rig.small_world(made)
        yield made


def under_way(cluster: FakeCluster, change: Change, injection: str, nth: int = 1) -> Callable[[], Answer]:
    """The patch with which a runner was killed."""
    runner = Delaying(cluster, nth)

    def killed() -> None:
        if runner.arrive is not None:
            raise Unreachable("killed")

    with pytest.raises(Unreachable, match="not known"):
        apply(runner, change, "r1", injection, killed)
    assert runner.arrive is not None
    return runner.arrive


@pytest.mark.parametrize("trouble", ["", "drop-before", "drop-after", "503", "409"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("injection", "nth"), LATE)
def test_a_late_patch_is_undone_or_finds_a_closed_door_whenever_it_comes(
    cluster: FakeCluster, injection: str, nth: int, moment: int, trouble: str
) -> None:
    before = rig.still(cluster)
    [change] = rig.plan(cluster, "r1")[injection]
    arrive = under_way(cluster, change, injection, nth)
    if trouble == "409":  # somebody else writes the object first
        cluster.at(1, lambda _: noted(cluster, change.undo.path))
    elif trouble:
        cluster.trouble(("PATCH", "nodes|deployments"), trouble)
    reverter = Interrupted(cluster, moment, arrive)
    undone = undo(reverter, change.undo)
    if reverter.rest is not None:
        assert not reverter.rest().good  # type: ignore[attr-defined]  # an answer
    assert undone.word in ("done", "superseded")
    assert rig.differences(before, rig.still(cluster)) == []


def noted(cluster: FakeCluster, path: str) -> None:
    """A status that a controller writes: it changes nothing that is compared."""
    resource, name = path.split("/")[-2:]
    namespace = rig.PLATFORM if resource == "deployments" else ""
    cluster.registry.change(resource, namespace, name, lambda it: it["status"].update(observedGeneration=77))


def test_a_watchdog_closes_no_ledger_over_a_patch_that_came_while_it_looked(cluster: FakeCluster) -> None:
    api = Api(cluster.admin)
    ledger = Ledger(api, SUITE, "r1")
    about = {"run": "r1", "system": "platform", "lease": "stormdrill-platform", "lease_s": 0.3, "namespaces": []}
    ledger.create(about, "platform")
    change = patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", scaled(0, 3))
    ledger.arm([Armed("a", (change.undo,), 60.0, 1)])
    arrive = under_way(cluster, change, "a")
    dog = Watchdog(Before(cluster, WORKER, arrive), "r1", SUITE)
    end_s = time.monotonic() + 20.0
    while not dog.step() and time.monotonic() < end_s:
        time.sleep(0.05)
    account = recovering.look(api, "r1", SUITE)
    assert (account.state, account.left) == (CLOSED, ())
    assert account.ended[0].undone.word == "done"
    there = cluster.read(WORKER) or {}
    assert there["spec"]["replicas"] == 3
    assert "annotations" not in there["metadata"]


class Before(Api):
    """Something happens right before its first change of that object."""

    def __init__(self, cluster: FakeCluster, path: str, happens: Callable[[], object]) -> None:
        super().__init__(cluster.admin)
        self.path = path
        self.happens: Callable[[], object] | None = happens

    def call(self, method: str, path: str, *rest: object, **options: object) -> Answer:
        if method == "PATCH" and path == self.path and self.happens is not None:
            happens, self.happens = self.happens, None
            happens()
        return super().call(method, path, *rest, **options)  # type: ignore[arg-type]  # as it was called


def test_a_fence_that_was_copied_with_its_object_is_taken_off_there(cluster: FakeCluster) -> None:
    """Nobody would know what it is for."""
    change = patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", scaled(0, 3))
    reverter = Interrupted(cluster, 2, lambda: made_again(cluster, WORKER))
    assert undo(reverter, change.undo).word == "superseded"
    assert reverter.rest is None
    assert "annotations" not in (cluster.read(WORKER) or {})["metadata"]


def test_a_restored_value_that_the_server_does_not_keep_is_not_told_as_put_back(cluster: FakeCluster) -> None:
    change = patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", scaled(0, 3))
    apply(Api(cluster.admin), change, "r1", "a", lambda: None)

    @cluster.registry.admission
    def most(asked: Admitted) -> None:
        assert asked.obj is not None
        asked.obj["spec"]["replicas"] = min(1, asked.obj["spec"]["replicas"])

    undone = undo(Api(cluster.admin), change.undo)
    assert undone.word == "superseded"
    assert "spec.replicas is 1 by now" in undone.detail
