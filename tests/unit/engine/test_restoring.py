"""The end of a run waits for a system on its way back: as long as that may take where it runs, and no longer."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from stormdrill.core.fold import State
from stormdrill.engine.restoring import LIMIT_S, limit_s, restored
from stormdrill.model import event as ev
from stormdrill.model.experiment import Experiment, Phases
from stormdrill.model.plan import ClusterAt, Plan
from stormdrill.model.system import ServiceInstance, System

READY_S = 45.0
HERE = Plan(
    Experiment("x", "t", "h", "o", "s", Phases(1.0, 1.0, 1.0, 1.0, 0.0), (), ()),
    System("s", "a", tuple(ServiceInstance(name, name, ()) for name in ("web", "api")), ready_timeout_s=READY_S),
    "process", 1, (), 4.0, "", (), (),
)  # fmt: skip
IN_A_CLUSTER = replace(HERE, target="kubernetes", clusters=(ClusterAt("", "here", "https://here", "shop"),))


def stopped(by: str) -> State:
    return State(abort=ev.AbortRequested(by, "why"))  # type: ignore[arg-type]  # one of its words


def test_controllers_have_as_long_as_the_system_may_take_to_be_ready() -> None:
    assert limit_s(IN_A_CLUSTER, State(), "completed") == READY_S
    assert limit_s(IN_A_CLUSTER, stopped("person"), "aborted") == READY_S


def test_where_the_undo_itself_brings_everything_back_there_is_little_to_wait_for() -> None:
    assert limit_s(HERE, State(), "completed") == limit_s(HERE, stopped("person"), "aborted") == LIMIT_S


@pytest.mark.parametrize(("by", "status"), [("deleted", "aborted"), ("person", "dirty")])
def test_what_nobody_will_bring_back_is_not_waited_for(by: str, status: str) -> None:
    assert limit_s(IN_A_CLUSTER, stopped(by), status) == LIMIT_S


def looked(*looks: dict[str, bool], within_s: float = 3600.0, over_after: int = 1000) -> tuple[ev.Restored, int]:
    """What is written down, and after how many looks; the last one is what is so from then on."""
    asked: list[dict[str, bool]] = []

    def ready() -> dict[str, bool]:
        asked.append(looks[min(len(asked), len(looks) - 1)])
        return asked[-1]

    return restored(IN_A_CLUSTER, ready, within_s, lambda: len(asked) >= over_after), len(asked)


ALL, ONE = {"web": True, "api": True}, {"web": True, "api": False}


def test_it_waits_no_longer_than_until_everything_answers() -> None:
    assert looked(ALL) == (ev.Restored(True, "2 pods answer"), 1)
    assert looked(ONE, ONE, ALL) == (ev.Restored(True, "2 pods answer"), 3)


def test_what_does_not_come_back_within_the_limit_is_not_restored_and_named() -> None:
    said, looks = looked(ONE, within_s=0.1)
    assert said == ev.Restored(False, "does not answer: api")
    assert looks > 1


def test_what_ends_the_wait_says_nothing_of_the_system() -> None:
    """Whoever stops the run now, or a keeper that has gone: it is told as it is seen."""
    assert looked(ONE, over_after=2) == (ev.Restored(False, "does not answer: api"), 2)
    assert looked(ALL, over_after=1) == (ev.Restored(True, "2 pods answer"), 1)
