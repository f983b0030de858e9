"""The runner undoes in clusters and the keeper writes it down: ledgers first, each word in turn, nobody left out."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from keeping import KeptRun, kept_run
from stormdrill.cluster.changes import Undone
from stormdrill.errors import Unreachable
from stormdrill.keeper import procfs
from stormdrill.keeper.takeover import take_over
from stormdrill.model.event import Armed, Reverted, RevertStarted
from stormdrill.model.undo import Command, Element, InCluster, KubeDelete, KubePatch, Undo
from stormdrill.targets.kubernetes.keeping import ClusterKeeper, HeldHands

TAINT = Element(("spec", "taints"), '{"key":"stormdrill.dev/x","effect":"NoExecute"}', key=("key", "effect"))
NODE = KubePatch("eu", "/api/v1/nodes/n1", "uid-1", "stormdrill.dev/abc", (TAINT,))
POLICY = KubeDelete("eu", "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/cut", "run")
WEST = KubeDelete("us", "/api/v1/namespaces/shop/configmaps/x", "run")
DONE = Undone("done", "put back", "the API server")


@dataclass
class SomeHold:
    """What one cluster says."""

    say: list[Undone | Exception] = field(default_factory=list)
    armed: dict[str, tuple[InCluster, ...]] = field(default_factory=dict)
    reverted: list[str] = field(default_factory=list)
    left: tuple[str, ...] = ()
    closed: int = 0
    deaf: bool = False

    def arm(self, injection: str, undos: Sequence[InCluster], expires_in_s: float) -> None:
        if self.deaf:
            raise Unreachable("no answer")
        self.armed[injection] = tuple(undos)

    def revert(self, injection: str) -> Undone:
        self.reverted.append(injection)
        said = self.say.pop(0) if self.say else DONE
        if isinstance(said, Exception):
            raise said
        return said

    def close(self) -> tuple[str, ...]:
        self.closed += 1
        return self.left


@pytest.fixture
def run(tmp_path: Path) -> Iterator[KeptRun]:
    with kept_run(tmp_path) as kept:
        yield kept


@pytest.fixture
def holds() -> dict[str, SomeHold]:
    return {"eu": SomeHold(), "us": SomeHold()}


@pytest.fixture
def keeper(run: KeptRun, holds: dict[str, SomeHold]) -> ClusterKeeper:
    return ClusterKeeper(run.keeper, lambda: holds, limit_s=2.0)


def arm(keeper: ClusterKeeper, injection: str, *undo: Undo) -> None:
    keeper.arm(injection, fault="x", instance="n1", mechanism="nodes", undo=undo, expires_in_s=60.0)


def test_each_clusters_ledger_has_its_own_undos_before_the_journal_has_all(
    run: KeptRun, keeper: ClusterKeeper, holds: dict[str, SomeHold]
) -> None:
    arm(keeper, "a", NODE, WEST, POLICY)
    assert holds["eu"].armed == {"a": (NODE, POLICY)}
    assert holds["us"].armed == {"a": (WEST,)}
    assert [item.injection for item in run.events(Armed)] == ["a"]


def test_what_no_ledger_takes_is_not_armed_and_may_not_be_done(
    run: KeptRun, keeper: ClusterKeeper, holds: dict[str, SomeHold]
) -> None:
    holds["us"].deaf = True
    with pytest.raises(Unreachable):
        arm(keeper, "a", NODE, WEST)
    del holds["eu"]
    with pytest.raises(Unreachable, match="cluster eu"):
        arm(keeper, "b", NODE)
    assert run.events(Armed) == []


def test_words_are_carried_out_in_their_order_whoever_does_it(
    run: KeptRun, keeper: ClusterKeeper, holds: dict[str, SomeHold], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    arm(keeper, "a", NODE, Command(("touch", str(mark))), WEST)
    assert keeper.revert("a", "planned") == "done"
    assert mark.exists()
    assert (holds["eu"].reverted, holds["us"].reverted) == (["a"], ["a"])
    (told,) = run.events(Reverted)
    assert told.outcome == "done"
    assert told.detail == f"put back; touch {mark}: exit 0", "what two clusters say alike is told once"
    assert keeper.revert("a", "planned") == "done", "and nobody does it again"
    assert holds["eu"].reverted == ["a"]


def test_a_cluster_that_does_not_answer_is_waited_for(
    run: KeptRun, keeper: ClusterKeeper, holds: dict[str, SomeHold]
) -> None:
    holds["eu"].say = [Undone("failed", "no answer"), Unreachable("still none"), DONE]
    arm(keeper, "a", NODE)
    assert keeper.revert("a", "abort") == "done"
    assert len(run.events(RevertStarted)) == 1


def test_a_cluster_is_waited_for_once_and_not_for_each_injection(
    run: KeptRun, keeper: ClusterKeeper, holds: dict[str, SomeHold]
) -> None:
    holds["eu"].say = [Undone("failed", "no answer")] * 100
    for name in ("a", "b", "c"):
        arm(keeper, name, NODE)
    assert len(keeper.teardown()) == 3
    assert holds["eu"].reverted.count("c") > 1
    assert (holds["eu"].reverted.count("b"), holds["eu"].reverted.count("a")) == (1, 1)


def test_what_could_not_be_undone_is_told_and_the_others_are(
    run: KeptRun, keeper: ClusterKeeper, holds: dict[str, SomeHold]
) -> None:
    holds["eu"].say = [RuntimeError("what nobody foresaw")] * 10
    arm(keeper, "a", NODE)
    arm(keeper, "b", WEST)
    left = keeper.teardown()
    assert len(left) == 1
    assert "what nobody foresaw" in left[0]
    assert {item.injection: item.outcome for item in run.events(Reverted)} == {"b": "done", "a": "failed"}
    assert (holds["eu"].closed, holds["us"].closed) == (1, 1)


def test_what_stays_in_a_cluster_at_the_end_is_left(
    run: KeptRun, keeper: ClusterKeeper, holds: dict[str, SomeHold]
) -> None:
    holds["us"].left = ("the anchor in namespace shop",)
    arm(keeper, "a", NODE)
    assert keeper.teardown() == ["the anchor in namespace shop (cluster us)"]
    assert holds["eu"].reverted == ["a"]


def test_the_last_armed_is_undone_first(run: KeptRun, keeper: ClusterKeeper, holds: dict[str, SomeHold]) -> None:
    for name in ("a", "b", "c"):
        arm(keeper, name, NODE)
    keeper.revert("b", "planned")
    keeper.teardown()
    assert holds["eu"].reverted == ["b", "c", "a"]


def test_what_has_no_object_in_common_is_undone_side_by_side(
    run: KeptRun, keeper: ClusterKeeper, holds: dict[str, SomeHold]
) -> None:
    met = threading.Barrier(3)

    class Meeting(SomeHold):
        def revert(self, injection: str) -> Undone:
            met.wait(10.0)
            return super().revert(injection)

    holds["eu"] = Meeting()
    for name in ("a", "b", "c"):
        arm(keeper, name, replace(NODE, path=f"/api/v1/nodes/{name}"))
    assert keeper.teardown() == []
    assert sorted(holds["eu"].reverted) == ["a", "b", "c"]
    assert not met.broken


def test_the_keeper_dies_and_the_runners_hands_go_on(
    run: KeptRun, keeper: ClusterKeeper, holds: dict[str, SomeHold]
) -> None:
    arm(keeper, "a", NODE, POLICY)
    run.keeper.on_push = None
    procfs.kill_until_gone([run.keeper.identity], 5.0)
    taken = take_over(run.dir, "runner", hands=HeldHands(lambda: holds, limit_s=2.0))
    assert taken.status == "aborted"
    assert holds["eu"].reverted == ["a"]
