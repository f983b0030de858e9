"""Runs that begin at the same instant on one system, or on systems with a namespace in common, in any order of their
requests: never do two of them drill it, and one of them does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cluster_rig as rig
from cluster_stage import Actor, Stage, StagedApi
from fake_cluster import FakeCluster
from stormdrill.cluster import naming
from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.ledger import CLOSED
from stormdrill.cluster.setting import books
from stormdrill.cluster.watchdog import Watchdog, watch
from stormdrill.errors import Refused, Unreachable

MOST_STEPS = 4000


@dataclass
class Start:
    """Some runs that begin together."""

    cluster: FakeCluster
    runs: tuple[str, ...]
    fair: bool
    """Nobody stands still while time passes."""
    system: str = ""
    """Of all; empty: each has one of a name of its own."""
    stage: Stage = field(default_factory=Stage)
    holding: set[str] = field(default_factory=set)
    began: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    """Whose ledger has stood there."""
    wrong: list[str] = field(default_factory=list)

    def go(self, choose: Choose) -> None:
        with self.stage.time():
            for run in self.runs:
                self.stage.spawn(run, partial(self._run, run))
            for _ in range(MOST_STEPS):
                while self.stage.jobs:
                    self._watchdog(self.stage.jobs.pop())
                if not (turns := self._turns()):
                    return
                self.stage.give(choose(self, turns))
        raise AssertionError(f"it doesn't end: {self.stage.said}")

    def ledgers(self) -> set[str]:
        """Whose stands there."""
        there = {one["metadata"]["name"] for one in self.cluster.objects("configmaps", rig.SUITE)}
        return {run for run in self.runs if naming.ledger(run) in there}

    def _turns(self) -> list[Actor]:
        """Who may be next: where nobody stands still, no time passes while somebody has something to do."""
        waiting = self.stage.waiting()
        if not self.fair or not waiting:
            return waiting
        now_s = max(self.stage.now_s, waiting[0].wake_s)
        return [actor for actor in waiting if actor.wake_s <= now_s]

    def _run(self, run: str) -> None:
        api = StagedApi(self.cluster.admin, self.stage)
        hold = Hold(
            api, run, self.system or f"system-{run}", rig.IMAGE, lease_s=60.0, drills=(rig.PLATFORM,), ready_s=20.0
        )
        try:
            hold.open()
        except (Refused, Unreachable) as error:
            self.refused[run] = str(error)
            return
        self.began.append(run)
        there = {one.run: one.state for one in books(Api(self.cluster.admin), rig.SUITE, Until(5.0))}
        if beside := {other for other in self.holding if there.get(other, CLOSED) != CLOSED}:
            self.wrong.append(f"{run} drills {rig.PLATFORM} beside {beside}")
        self.holding.add(run)
        self.stage.sleep(60.0)  # until all others have had their answer
        self.holding.discard(run)
        hold.close()

    def _watchdog(self, run: str) -> None:
        dog = Watchdog(StagedApi(self.cluster.admin, self.stage), run, rig.SUITE, tell=self.stage.said.append)
        self.stage.spawn(f"watchdog of {run}", lambda: watch(dog, self.stage.sleep))


Choose = Callable[[Start, list[Actor]], Actor]
"""Whose turn it is."""


def all_written_first(begun: Start, turns: list[Actor]) -> Actor:
    """Who has written its ledger doesn't look for others before everybody has."""
    begun.written |= begun.ledgers()
    waits = begun.written if len(begun.written) < len(begun.runs) else set()
    return next(actor for actor in turns if actor.name not in waits)


def start(runs: tuple[str, ...], choose: Choose, *, fair: bool = True, system: str = "") -> Start:
    with FakeCluster(world=False) as cluster:
        rig.small_world(cluster)
        begun = Start(cluster, runs, fair, system)
        begun.go(choose)
        assert not (fair and begun.ledgers()), "somebody has left its ledger"
    return begun


@pytest.mark.parametrize("runs", [("r1", "r2"), ("r2", "r1"), ("r3", "r1", "r2")])
def test_of_runs_that_see_each_other_begin_the_first_by_rank_goes_on(runs: tuple[str, ...]) -> None:
    begun = start(runs, all_written_first)
    assert begun.began == ["r1"], begun.refused
    assert set(begun.refused) == {*runs} - {"r1"}
    for said in begun.refused.values():
        assert said.endswith("it is only just beginning: where it is refused, too, try again")


@pytest.mark.parametrize("system", ["", "platform"], ids=["a namespace in common", "one system"])
@pytest.mark.parametrize("fair", [True, False], ids=["nobody stands still", "anybody may"])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), three=st.booleans())
def test_in_any_order_of_requests_one_begins_and_never_two(
    data: st.DataObject, three: bool, fair: bool, system: str
) -> None:
    """On one system the Lease decides. Where one stands still for long, so that the other gives up waiting, both may be
    refused."""
    runs = ("r1", "r2", "r3") if three else ("r1", "r2")

    def choose(_: Start, turns: list[Actor]) -> Actor:
        return turns[data.draw(st.integers(0, len(turns) - 1))]

    begun = start(runs, choose, fair=fair, system=system)
    assert not begun.wrong
    assert begun.began or not fair, begun.refused
