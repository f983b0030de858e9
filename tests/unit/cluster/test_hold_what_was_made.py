"""Whatever becomes of a change's answer, a hold undoes what may have been made, or says that it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cluster_rig as rig
from cluster_late import Delaying, held_without_watchdog, made_again
from cluster_rig import GPU_NODE, POLICY, WORKER, patch_of, scaled
from fake_cluster import FakeCluster, scenes
from fake_cluster.registry import Admitted
from stormdrill.cluster import changing, naming
from stormdrill.cluster.api import MERGE_PATCH, Answer, Api, Lost
from stormdrill.cluster.changes import Change, NotApplied
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.ledger import Ledger
from stormdrill.errors import Refused, Unreachable
from stormdrill.model.undo import Element

LEDGER = f"/api/v1/namespaces/{rig.SUITE}/configmaps/stormdrill-r1"
SET = "/apis/apps/v1/namespaces/platform/deployments"
RELEASE = f"{SET}/release-eu"
"""By a person with kubectl, so that the server keeps account of who writes it; of the worker it keeps none."""
MARKER = naming.marker("r1", "a")


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """Nothing acts in it but who is asked."""
    with FakeCluster(world=False) as made:
        rig.small_world(made)
        query = {"fieldManager": "kubectl-create"}
        assert Api(made.admin).call("POST", SET, scenes.deployment("release", "eu", 3, "cpu"), query=query).good
        yield made


def replicas(cluster: FakeCluster, path: str) -> int:
    return int((cluster.read(path) or {})["spec"]["replicas"])


def armed(cluster: FakeCluster, change: Change, api: Api | None = None) -> Hold:
    held = held_without_watchdog(api or Api(cluster.admin))
    held.arm("a", (change.undo,), 60.0)
    held.dry_run("a", change)
    return held


def scaling(cluster: FakeCluster, path: str) -> Change:
    return patch_of(cluster.read(path) or {}, path, "r1", "a", scaled(0, 3))


def in_doubt(held: Hold, change: Change, match: str = "") -> None:
    with pytest.raises(Unreachable, match=match) as told:
        held.apply("a", change)
    assert not isinstance(told.value, NotApplied)


def mended(cluster: FakeCluster, held: Hold) -> None:
    """And the run may say so."""
    assert held.revert("a").word == "done"
    assert held.close() == ()
    assert cluster.read(LEDGER) is None


def told(cluster: FakeCluster, held: Hold, what: str) -> None:
    """It stands, and the run may not end as if it didn't."""
    undone = held.revert("a")
    assert undone.word == "failed"
    assert what in undone.detail
    assert [what in said for said in held.close()] == [True]
    assert cluster.read(LEDGER) is not None


# what an admission makes of a change, though it passed the dry run


def strips(asked: Admitted) -> None:
    held = (asked.obj or {}).get("metadata", {}).get("annotations", {})
    for name in [name for name in held if naming.is_marker(name)]:
        del held[name]


def at_least_one(asked: Admitted) -> None:
    if asked.obj is not None and asked.obj.get("kind") == "Deployment":
        asked.obj["spec"]["replicas"] = max(1, asked.obj["spec"]["replicas"])


@pytest.mark.parametrize(("admission", "left"), [(strips, 0), (at_least_one, 1)])
def test_what_the_server_made_something_else_of_is_undone_where_it_tells_who_wrote_it(
    cluster: FakeCluster, admission: Callable[[Admitted], None], left: int
) -> None:
    change = scaling(cluster, RELEASE)
    held = armed(cluster, change)
    cluster.registry.admission(admission)
    in_doubt(held, change, "takes the marker off|keeps something else")
    assert replicas(cluster, RELEASE) == left
    mended(cluster, held)
    assert replicas(cluster, RELEASE) == 3


def test_a_patch_that_lost_its_marker_is_told_where_nobody_can_say_whose_it_is(cluster: FakeCluster) -> None:
    change = scaling(cluster, WORKER)
    held = armed(cluster, change)
    cluster.registry.admission(strips)
    in_doubt(held, change, "takes the marker off")
    told(cluster, held, "spec.replicas is 0")


def test_a_status_whose_marker_was_refused_is_certainly_as_it_was(cluster: FakeCluster) -> None:
    gone = Element(("status", "allocatable", "nvidia.com/gpu"), '"0"', '"4"')
    change = patch_of(cluster.read(GPU_NODE) or {}, GPU_NODE, "r1", "a", gone, status=True)
    held = armed(cluster, change)
    cluster.registry.admission(strips)
    with pytest.raises(NotApplied, match="takes the marker off"):
        held.apply("a", change)
    assert held.revert("a").word == "superseded"
    assert held.close() == ()


# an answer that was lost


class Losing(Api):
    """The answer to its first real change of an object is lost, and somebody does something before the next look."""

    def __init__(self, cluster: FakeCluster, path: str, does: Callable[[], object], *, arrives: bool = True) -> None:
        super().__init__(cluster.admin)
        self.path, self.arrives = path, arrives
        self.does: Callable[[], object] | None = does

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        real = method in ("PATCH", "POST") and "dryRun" not in (options.get("query") or {})
        if not real or self.does is None or not self.path.startswith(path):
            return super().call(method, path, body, **options)
        does, self.does = self.does, None
        if self.arrives:
            assert super().call(method, path, body, **options).good
        does()
        raise Lost("the answer was lost", sent=True)


def unmarked(cluster: FakeCluster, path: str) -> None:
    by_hand(cluster, path, {"metadata": {"annotations": {MARKER: None}}})


def by_hand(cluster: FakeCluster, path: str, body: dict[str, object]) -> None:
    query = {"fieldManager": "kubectl-edit"}
    assert Api(cluster.admin).call("PATCH", path, body, content_type=MERGE_PATCH, query=query).good


def test_a_marker_that_somebody_takes_off_before_the_next_look_leaves_a_doubt(cluster: FakeCluster) -> None:
    change = scaling(cluster, RELEASE)
    held = armed(cluster, change, Losing(cluster, RELEASE, lambda: unmarked(cluster, RELEASE)))
    in_doubt(held, change, "not known")
    mended(cluster, held)
    assert replicas(cluster, RELEASE) == 3


def test_where_nobody_keeps_account_that_doubt_is_told(cluster: FakeCluster) -> None:
    change = scaling(cluster, WORKER)
    held = armed(cluster, change, Losing(cluster, WORKER, lambda: unmarked(cluster, WORKER)))
    in_doubt(held, change, "not known")
    told(cluster, held, "spec.replicas is 0")


def test_a_copy_of_what_a_lost_answer_was_about_leaves_a_doubt(cluster: FakeCluster) -> None:
    change = scaling(cluster, WORKER)
    held = armed(cluster, change, Losing(cluster, WORKER, lambda: made_again(cluster, WORKER)))
    in_doubt(held, change, "another object has taken its name")
    mended(cluster, held)
    assert replicas(cluster, WORKER) == 3


def test_a_patch_that_can_not_come_any_more_and_left_nothing_is_certainly_not_made(cluster: FakeCluster) -> None:
    change = scaling(cluster, WORKER)
    five = {"spec": {"replicas": 5}}
    held = armed(cluster, change, Losing(cluster, WORKER, lambda: by_hand(cluster, WORKER, five), arrives=False))
    with pytest.raises(NotApplied, match=r"spec.replicas is 5: not as it was planned"):
        held.apply("a", change)
    assert held.revert("a").word == "superseded"
    assert held.close() == ()
    assert replicas(cluster, WORKER) == 5


def test_a_second_attempt_that_changes_nothing_makes_the_first_no_less_made(cluster: FakeCluster) -> None:
    change = scaling(cluster, RELEASE)
    held = armed(cluster, change)
    held.apply("a", change)
    unmarked(cluster, RELEASE)
    with pytest.raises(NotApplied):
        held.apply("a", change)
    mended(cluster, held)
    assert replicas(cluster, RELEASE) == 3


# what is created


def drops(*what: str) -> Callable[[Admitted], None]:
    """Labels, annotations, owners of network policies."""

    def admission(asked: Admitted) -> None:
        if (asked.obj or {}).get("kind") == "NetworkPolicy":
            for each in what:
                (asked.obj or {})["metadata"].pop(each, None)

    return admission


ALL = ("labels", "annotations", "ownerReferences")


@pytest.mark.parametrize("what", [("labels", "ownerReferences"), ALL])
def test_a_creation_that_lost_what_it_is_known_by_and_could_not_be_removed_is_removed_by_the_revert(
    cluster: FakeCluster, what: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changing, "LIMIT_S", 0.3)
    change = rig.policy("r1")
    held = armed(cluster, change)
    held.lease_s = 0.3  # how long an attempt may take
    cluster.registry.admission(drops(*what))
    cluster.trouble(("DELETE", "networkpolicies"), "503", times=1_000_000)
    in_doubt(held, change, "could not be removed")
    assert cluster.read(POLICY) is not None
    cluster.troubles.due.clear()
    mended(cluster, held)
    assert cluster.read(POLICY) is None


class Mumbling(Api):
    """What it says of a creation can't be understood."""

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        answer = super().call(method, path, body, **options)
        real = "dryRun" not in (options.get("query") or {})
        garbled = real and method == "POST" and path.endswith("networkpolicies")
        return Answer(answer.status, answer.headers, b"made it") if garbled else answer


def test_a_creation_whose_answer_says_nothing_is_made_all_the_same(cluster: FakeCluster) -> None:
    change = rig.policy("r1")
    held = armed(cluster, change, Mumbling(cluster.admin))
    in_doubt(held, change, "doesn't tell which object")
    mended(cluster, held)
    assert cluster.read(POLICY) is None


def test_as_long_as_it_can_not_be_removed_the_run_says_so(cluster: FakeCluster) -> None:
    change = rig.policy("r1")
    held = armed(cluster, change)
    cluster.registry.admission(drops("labels", "ownerReferences"))
    cluster.trouble(("DELETE", "networkpolicies"), "403", times=1_000_000)
    in_doubt(held, change, "could not be removed")
    told(cluster, held, "403")


def test_a_creation_that_only_waits_for_a_finalizer_is_not_removed(cluster: FakeCluster) -> None:
    change = rig.policy("r1")
    held = armed(cluster, change)
    held.lease_s = 0.3

    @cluster.registry.admission
    def kept(asked: Admitted) -> None:
        if (asked.obj or {}).get("kind") == "NetworkPolicy":
            (asked.obj or {})["metadata"] |= {"labels": {}, "finalizers": ["of/somebody"]}

    with pytest.MonkeyPatch.context() as quick:
        quick.setattr(changing, "LIMIT_S", 0.3)
        in_doubt(held, change, "could not be removed")
    assert cluster.read(POLICY) is not None
    held._heart.stop()


def test_a_creation_under_way_twice_is_in_doubt_though_one_of_the_two_was_removed(cluster: FakeCluster) -> None:
    change = rig.policy("r1")
    slow = Delaying(cluster, 10**9)
    held = armed(cluster, change, slow)
    cluster.registry.admission(drops("labels"))
    slow.left = 1
    in_doubt(held, change, "doesn't keep")
    assert cluster.read(POLICY) is None
    assert slow.arrive is not None
    assert slow.arrive().good
    mended(cluster, held)
    assert cluster.read(POLICY) is None


# whoever asks for credentials in vain


class Expired(Api):
    """From a moment on its credentials can't be renewed: a person has to log in anew."""

    over = False

    def call(self, *rest: Any, **options: Any) -> Answer:
        if self.over:
            raise Refused("the credential plugin says: log in")
        return super().call(*rest, **options)


def test_a_revert_with_credentials_that_have_run_out_raises_nothing(cluster: FakeCluster) -> None:
    change = scaling(cluster, WORKER)
    api = Expired(cluster.admin)
    held = armed(cluster, change, api)
    held.apply("a", change)
    api.over = True
    undone = held.revert("a")
    assert undone.word == "failed"
    assert "log in" in undone.detail
    assert any("log in" in said for said in held.close())
    api.over = False
    mended(cluster, held)
    assert replicas(cluster, WORKER) == 3


def test_a_run_that_is_taken_down_without_credentials_says_what_it_leaves(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, told = Expired(cluster.admin), list[str]()
    held = held_without_watchdog(api)
    held.tell = told.append
    turn = Ledger.turn

    def last(ledger: Ledger, *rest: Any) -> None:
        turn(ledger, *rest)
        api.over = True

    monkeypatch.setattr(Ledger, "turn", last)
    assert ["log in" in said for said in held.close()] == [True]
    assert any("was not released" in said for said in told)


def test_what_could_not_be_written_down_stands_in_the_ledger_before_it_is_closed(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stormdrill.cluster.hold.NOTE_S", 0.1)
    change = scaling(cluster, WORKER)
    held, closed = armed(cluster, change), list[str]()
    held.apply("a", change)
    cluster.trouble(("PATCH", "configmaps/stormdrill-r1"), "503", times=1_000_000)
    assert held.revert("a").word == "done"
    cluster.troubles.due.clear()
    turn = Ledger.turn

    def look(ledger: Ledger, state: str, *rest: Any) -> None:
        book = ledger.read()
        assert book is not None
        closed.extend(book.ended)
        turn(ledger, state, *rest)

    monkeypatch.setattr(Ledger, "turn", look)
    assert held.close() == ()
    assert closed == ["a"]
