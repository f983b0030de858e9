"""A fault that is no more what it was is told once, after two looks in a row, and never for want of an answer."""

from __future__ import annotations

import pytest

from stormdrill.engine.standing import InForce, StandingWatch
from stormdrill.errors import Unreachable
from stormdrill.model.event import CauseChanged, Event
from stormdrill.model.plan import Injection
from stormdrill.ports import Stood

WELL = Stood(False, "", "the API server")
PART = Stood(False, "nodes/n1: spec.unschedulable is absent", "the API server")
GONE = Stood(True, "nodes/n1: spec.taints is absent", "the API server")
LOST = Unreachable("no answer")


def told(*looks: Stood | Unreachable | None) -> list[CauseChanged]:
    return watched(*looks)[0]


def watched(*looks: Stood | Unreachable | None, for_s: float = 60.0) -> tuple[list[CauseChanged], list[float]]:
    """What was told, and after how long each look wants the next."""
    one = Injection("region-loss/n1", "region-loss", 0, "n1", "nodes", "open it", 0.0, for_s)
    events: list[Event] = []
    coming = iter(looks)

    def stands(_: Injection) -> Stood | None:
        look = next(coming)
        if isinstance(look, Unreachable):
            raise look
        return look

    watch = StandingWatch(lambda: [InForce(one, 0.0)], stands, lambda event, _: events.append(event))
    pauses = [watch.look() for _ in looks]
    return [event for event in events if isinstance(event, CauseChanged)], pauses


@pytest.mark.parametrize(
    "looks",
    [
        (WELL, WELL, WELL),
        (GONE,),
        (WELL, GONE, WELL, GONE),
        (GONE, LOST, GONE, LOST),
        (LOST, LOST, LOST),
        (None, None, None),
        (PART, WELL, PART),
    ],
)
def test_nothing_is_told_of_a_blip_nor_of_silence(looks: tuple[Stood | Unreachable | None, ...]) -> None:
    assert told(*looks) == []


def test_what_is_gone_twice_is_told_once_and_not_looked_at_again() -> None:
    (event,) = told(WELL, GONE, GONE)
    assert (event.injection, event.gone, event.witness, event.detail) == (
        "region-loss/n1",
        True,
        "the API server",
        GONE.changed,
    )
    assert event.after_ms > 0


def test_a_part_is_told_as_a_part_and_the_rest_when_it_follows() -> None:
    assert [event.gone for event in told(PART, PART, PART, GONE, GONE)] == [False, True]
    assert [event.detail for event in told(PART, PART, PART)] == [PART.changed]


def test_a_part_and_then_all_of_it_is_gone_only_once_that_was_seen_twice() -> None:
    assert [event.gone for event in told(PART, GONE)] == []
    assert [event.gone for event in told(PART, GONE, GONE)] == [True]


@pytest.mark.parametrize(("for_s", "pause_s"), [(60.0, 1.0), (10.0, 0.5), (1.0, 0.2)])
def test_what_lasts_for_less_is_looked_at_more_often(for_s: float, pause_s: float) -> None:
    assert watched(WELL, WELL, for_s=for_s)[1] == [pause_s, pause_s]


def test_what_was_seen_once_is_looked_at_again_soon_and_after_that_no_more() -> None:
    assert watched(WELL, GONE, WELL, GONE, GONE, GONE)[1] == [1.0, 0.2, 1.0, 0.2, 1.0, 1.0]
    assert watched(PART, PART, PART)[1] == [0.2, 1.0, 1.0]
