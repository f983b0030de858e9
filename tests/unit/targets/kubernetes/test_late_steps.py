"""What is no change of an object - an eviction, a program in a pod - ends with its injection, as changes do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

import cluster_rig as rig
from cluster_rig import IMAGE, NODE, PLATFORM
from fake_cluster import FakeCluster, scenes
from kube_rig import Kube, Rig, injection
from kube_scenes import served
from stormdrill.cluster.api import JSON, Answer, Api
from stormdrill.cluster.changes import Undone
from stormdrill.cluster.exec import Exec
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.job import Wanted
from stormdrill.cluster.ledger import Ended, Ledger
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Nodes, Pressure
from stormdrill.targets.kubernetes.mechanisms.nodes import LosingNodes
from stormdrill.targets.kubernetes.mechanisms.pressure import PressingPods

MAIN = threading.main_thread()
NAMES = [f"p{number}" for number in range(4)]


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(run_images={IMAGE: []}) as made:
        rig.small_world(made)
        made.settle()
        for name in NAMES:
            made.apply(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": name, "namespace": PLATFORM},
                    "spec": {"nodeName": "eu-cpu-1", "containers": [{"name": "main", "image": "app:1"}]},
                }
            )
        yield made


class Watched(Api):
    """Lets a test act while the nth eviction is on its way."""

    on: Callable[[int], None] = staticmethod(lambda _: None)
    asks: Callable[[], None] = staticmethod(lambda: None)
    """While the ledger is read."""
    count = 0

    def call(self, method: str, path: str, body: object = None, *, content_type: str = JSON, **more: object) -> Answer:  # type: ignore[override]  # handed on
        if path.endswith("/eviction"):
            self.count += 1
            self.on(self.count)
        if method == "GET" and path.endswith("/configmaps/stormdrill-r1") and threading.current_thread() is MAIN:
            self.asks()
        return super().call(method, path, body, content_type=content_type, **more)  # type: ignore[arg-type]


class Held:
    """`mechanism.Clusters` with a hold."""

    run, suite = "r1", rig.SUITE

    def __init__(self, api: Api, hold: Hold) -> None:
        self._api, self._hold = api, hold

    def api(self, cluster: str) -> Api:
        return self._api

    def hold(self, cluster: str) -> Hold:
        return self._hold


@pytest.fixture
def held(cluster: FakeCluster) -> Iterator[tuple[Watched, Hold]]:
    api = Watched(cluster.admin)
    made = Hold(
        api, "r1", "platform", IMAGE, namespaces=(PLATFORM,), wanted=Wanted(keep_off=("eu-cpu-1",)), ready_s=20.0
    )
    made.open()
    yield api, made
    assert made.close() == ()


ONE = injection("nodes", Nodes(("eu-cpu-1",), "evict"), inject_timeout_s=60.0)


def armed(api: Api, hold: Hold, expires_in_s: float = 60.0) -> LosingNodes:
    made = LosingNodes(Held(api, hold))
    hold.arm(ONE.id, made.undo(ONE), expires_in_s)  # type: ignore[arg-type]  # words of a cluster
    return made


def evicted(cluster: FakeCluster) -> int:
    return sum(one.path.endswith("/eviction") and one.method == "POST" for one in cluster.requests)


def test_a_revert_waits_for_the_eviction_under_way_and_no_other_follows(
    cluster: FakeCluster, held: tuple[Watched, Hold]
) -> None:
    api, hold = held
    losing, reverts = armed(api, hold), []
    reverted = threading.Event()

    def revert() -> None:
        reverts.append((hold.revert(ONE.id).word, evicted(cluster)))
        reverted.set()

    def begin(count: int) -> None:
        if count == 2:  # the runner gives it up from another thread
            threading.Thread(target=revert).start()
            while ONE.id not in hold._begun:
                threading.Event().wait(0.01)
            assert not reverted.wait(0.3), "it had ended before the request had"

    api.on = begin
    with pytest.raises(Unreachable, match="is being reverted"):
        losing.apply(ONE)
    assert reverted.wait(10.0)
    assert reverts == [("done", 2)]
    assert evicted(cluster) == 2
    assert not (cluster.read(NODE) or {})["spec"].get("unschedulable")


def test_a_revert_that_begins_while_the_ledger_is_asked_is_not_overtaken(
    cluster: FakeCluster, held: tuple[Watched, Hold]
) -> None:
    api, hold = held
    losing = armed(api, hold)

    def begin(count: int) -> None:
        if count == 1:  # from now on in this very thread: before the second eviction
            api.asks = lambda: hold._begun.add(ONE.id)

    api.on = begin
    with pytest.raises(Unreachable, match="is being reverted"):
        losing.apply(ONE)
    assert evicted(cluster) == 1


def test_what_the_watchdog_has_reverted_evicts_nobody_more(cluster: FakeCluster, held: tuple[Watched, Hold]) -> None:
    api, hold = held
    losing = armed(api, hold)

    def end(count: int) -> None:
        if count == 1:
            Ledger(Api(cluster.admin), rig.SUITE, "r1").end([Ended(ONE.id, Undone("done", "by it"), "watchdog")])

    api.on = end
    with pytest.raises(Unreachable, match="was reverted by the watchdog"):
        losing.apply(ONE)
    assert evicted(cluster) == 1


def test_after_its_time_nobody_more_is_evicted(cluster: FakeCluster, held: tuple[Watched, Hold]) -> None:
    api, hold = held
    losing = armed(api, hold)

    def pass_(count: int) -> None:
        if count == 3:
            hold._expires_s[ONE.id] = 0.0

    api.on = pass_
    with pytest.raises(Unreachable, match=r"the time of .* is over"):
        losing.apply(ONE)
    assert evicted(cluster) == 3


@pytest.mark.parametrize("how", ["revert", "abort", "expiry"])
def test_what_goes_on_behind_the_call_ends_with_the_injection(
    how: str, cluster: FakeCluster, held: tuple[Watched, Hold]
) -> None:
    """However long the server wants it to wait, and although budgets may allow the next eviction by then."""
    api, hold = held
    cluster.trouble(("POST", "/eviction"), "429", times=1000)
    losing = armed(api, hold)
    losing.apply(ONE)
    thread = losing._evicting[ONE.id].thread
    assert thread is not None
    if how == "revert":
        assert hold.revert(ONE.id).word == "done"
    elif how == "abort":
        hold.abandon("stopped")
    else:
        hold._expires_s[ONE.id] = 0.0
    thread.join(10.0)
    assert not thread.is_alive()
    assert len(losing._evicting[ONE.id].stay) >= len(NAMES)
    assert hold.over_for(ONE.id)


def leaking(kube: Kube) -> tuple[Rig, PressingPods, Hold]:
    """Prepared and armed, under a true hold."""
    assert kube.fake is not None
    served(kube)
    kube.fake.apply(scenes.namespace(rig.SUITE, drill=False))
    made = Rig(kube, run="r1")
    hold = Hold(kube.api, "r1", "platform", IMAGE)
    hold._lease.acquire()
    hold._ledger.create(hold._about(), "platform")
    pressing = made.mechanisms["pressure"]
    assert isinstance(pressing, PressingPods)
    pressing.clusters = Held(kube.api, hold)
    hold.arm(LEAK.id, pressing.undo(LEAK), 60.0)  # type: ignore[arg-type]  # words of a cluster
    return made, pressing, hold


LEAK = injection("pressure", Pressure(40.0, 48.0))


def test_no_memory_is_taken_after_the_revert(kube: Kube) -> None:
    made, pressing, hold = leaking(kube)
    assert hold.revert(LEAK.id).word == "superseded"
    with pytest.raises(Unreachable, match="is being reverted"):
        pressing.apply(LEAK)
    assert made.seen(LEAK, lambda effect: effect.gone).detail == "no allocator runs"


def test_an_allocator_that_came_after_its_revert_ends_with_its_stream(
    kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog looked for it while the request for it was on its way."""
    made, pressing, hold = leaking(kube)
    opened = Exec.open

    def late(*told: object, **more: object) -> object:
        hold._ledger.end([Ended(LEAK.id, Undone("superseded", "not there"), "watchdog")])
        return opened(*told, **more)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(Exec, "open", late)
    with pytest.raises(Unreachable, match="was reverted by the watchdog"):
        pressing.apply(LEAK)
    monkeypatch.setattr(Exec, "open", opened)
    made.seen(LEAK, lambda effect: effect.gone)
