"""A fault that is no more what it was is told once, and never for want of an answer. Whatever was looked at, its undo
sees it last: a fault of which that isn't known to have held is not known to have held to its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stormdrill.core.fold import fold
from stormdrill.engine.standing import InForce, StandingWatch, in_force
from stormdrill.errors import Unreachable
from stormdrill.model import event as ev
from stormdrill.model.event import CauseChanged, Event
from stormdrill.model.plan import Injection
from stormdrill.ports import Stood
from synthetic_run import Knobs, make_plan

WELL = Stood(False, "", "the API server")
PART = Stood(False, "nodes/n1: spec.unschedulable is absent", "the API server")
GONE = Stood(True, "nodes/n1: spec.taints is absent", "the API server")
EDITED = Stood(True, "shop/resourcequotas/q: spec.hard.pods was written anew (kubectl)", "the API server", edited=True)
LOST = Unreachable("no answer")
Look = Stood | Unreachable | None
NAME = "region-loss/n1"


class Rig:
    """One injection, whose looks come one after another, and then what its undo found."""

    def __init__(self, *looks: Look, undone: Stood | None = None, for_s: float = 60.0) -> None:
        self.injection = Injection(NAME, "region-loss", 0, "n1", "nodes", "open it", 0.0, for_s)
        self.now = InForce(self.injection, 0.0)
        self.looks: Iterator[Look] = iter(looks)
        self.found = undone
        self.events: list[tuple[Event, float | None]] = []
        self.watch = StandingWatch(lambda: [self.now], self, lambda event, at_ms: self.events.append((event, at_ms)))
        self.pauses = [self.watch.look() for _ in looks]

    def stands(self, _: Injection) -> Stood | None:
        look = next(self.looks)
        if isinstance(look, Unreachable):
            raise look
        return look

    def undone(self, _: Injection) -> Stood | None:
        return self.found

    @property
    def told(self) -> list[CauseChanged]:
        return [event for event, _ in self.events if isinstance(event, CauseChanged)]

    def reverted(self, at_ms: float) -> list[CauseChanged]:
        """After its revert, and the end of the run."""
        self.now = self.now._replace(revert_ms=at_ms)
        self.watch.look()
        self.watch.stop()
        return self.told


def told(*looks: Look) -> list[CauseChanged]:
    return Rig(*looks).told


@pytest.mark.parametrize(
    "looks",
    [
        (WELL, WELL, WELL),
        (GONE,),
        (GONE, LOST, LOST),
        (LOST, LOST, LOST),
        (None, None, None),
        (PART, None, None),
    ],
)
def test_nothing_is_told_of_one_look_alone_nor_of_silence(looks: tuple[Look, ...]) -> None:
    assert told(*looks) == []


def test_what_is_gone_twice_is_told_once_and_not_looked_at_again() -> None:
    (event,) = told(WELL, GONE, GONE)
    assert (event.injection, event.gone, event.witness, event.detail) == (NAME, True, "the API server", GONE.changed)
    assert event.after_ms > 0
    assert (event.edited, event.at_revert) == (False, False)


def test_silence_between_two_looks_takes_nothing_of_what_they_saw() -> None:
    assert [event.gone for event in told(GONE, LOST, GONE)] == [True]


def test_a_part_is_told_as_a_part_and_the_rest_when_it_follows() -> None:
    assert [event.gone for event in told(PART, PART, PART, GONE, GONE)] == [False, True]
    assert [event.detail for event in told(PART, PART, PART)] == [PART.changed]


def test_a_part_and_then_all_of_it_is_gone_only_once_that_was_seen_twice() -> None:
    assert [event.gone for event in told(PART, GONE)] == []
    assert [event.gone for event in told(PART, GONE, GONE)] == [True]


@pytest.mark.parametrize("looks", [(GONE, WELL), (WELL, PART, WELL), (PART, LOST, WELL), (GONE, WELL, GONE, WELL)])
def test_what_was_away_at_one_look_and_is_there_at_the_next_was_not_there_all_the_time(looks: tuple[Look, ...]) -> None:
    (event,) = told(*looks)
    assert not event.gone
    assert event.detail.endswith("is absent, and as it was left when it was looked at again")


def test_what_was_edited_is_told_as_that() -> None:
    (event,) = told(WELL, EDITED, EDITED)
    assert (event.gone, event.edited, event.detail) == (True, True, EDITED.changed)


def test_between_the_last_good_look_and_the_first_bad_one_nobody_knows() -> None:
    rig = Rig(WELL, GONE, GONE)
    (event,) = rig.told
    assert event.well_ms is not None
    assert 0 < event.well_ms < event.after_ms
    never = Rig(GONE, GONE).told[0]
    assert never.well_ms == 0, "no look saw it well: since its call"


@pytest.mark.parametrize(("for_s", "pause_s"), [(60.0, 1.0), (10.0, 0.5), (1.0, 0.2)])
def test_what_lasts_for_less_is_looked_at_more_often(for_s: float, pause_s: float) -> None:
    assert Rig(WELL, WELL, for_s=for_s).pauses == [pause_s, pause_s]


def test_what_was_seen_once_is_looked_at_again_soon_and_after_that_no_more() -> None:
    assert Rig(WELL, GONE, WELL, GONE, GONE, GONE).pauses == [1.0, 0.2, 1.0, 0.2, 1.0, 1.0]
    assert Rig(PART, PART, PART).pauses == [0.2, 1.0, 1.0]


def test_what_its_undo_finds_as_it_was_left_has_held_to_the_end() -> None:
    assert Rig(WELL, WELL, undone=WELL).reverted(1e12) == []


@pytest.mark.parametrize("found", [GONE, PART, EDITED])
def test_what_only_its_undo_finds_changed_is_told_with_the_time_that_nobody_knows(found: Stood) -> None:
    """That is how the last second of a fault is known at all."""
    rig = Rig(WELL, undone=found)
    (event,) = rig.reverted(at_ms := 1e12)
    assert (event.at_revert, event.gone, event.edited) == (True, found.gone, found.edited)
    assert event.detail == found.changed
    assert event.after_ms == at_ms
    assert rig.events[0][1] == at_ms
    assert event.well_ms is not None
    assert 0 < event.well_ms < at_ms


def test_a_fault_that_nobody_ever_looked_at_is_known_by_its_undo_alone() -> None:
    (event,) = Rig(undone=GONE).reverted(500.0)
    assert (event.well_ms, event.after_ms) == (0.0, 500.0)
    assert Rig(undone=WELL).reverted(500.0) == []


def test_one_look_and_its_undo_are_two() -> None:
    rig = Rig(WELL, GONE, undone=GONE)
    (event,) = rig.reverted(1e12)
    assert (event.gone, event.at_revert) == (True, False)
    assert event.after_ms < 1e12


def test_what_was_away_once_and_is_there_when_it_is_undone_was_not_there_all_the_time() -> None:
    (event,) = Rig(WELL, GONE, undone=WELL).reverted(1e12)
    assert (event.gone, event.at_revert) == (False, False)


@pytest.mark.parametrize("found", [GONE, WELL, PART])
def test_what_was_told_is_not_told_again_by_its_undo(found: Stood) -> None:
    assert len(Rig(WELL, GONE, GONE, undone=found).reverted(1e12)) == 1


def test_a_part_that_was_told_is_followed_by_all_of_it_where_the_undo_finds_it_gone() -> None:
    assert [(one.gone, one.at_revert) for one in Rig(PART, PART, undone=GONE).reverted(1e12)] == [
        (False, False),
        (True, True),
    ]
    assert len(Rig(PART, PART, undone=PART).reverted(1e12)) == 1


@pytest.mark.parametrize("look", [GONE, PART, EDITED])
def test_a_look_that_was_answered_when_the_revert_had_begun_may_have_seen_the_undo_and_blames_nobody(
    look: Stood,
) -> None:
    assert Rig(WELL, look, undone=WELL).reverted(at_ms=1.0) == []


def test_an_undo_that_tells_nothing_is_no_reason_to_say_anything() -> None:
    assert Rig(WELL, undone=None).reverted(1e12) == []
    assert Rig(WELL, GONE, undone=None).reverted(1e12) == []


def test_only_what_was_answered_before_its_revert_can_be_missed_by_it() -> None:
    """A call that is answered late leaves its undo nothing to find, and nobody has taken anything away."""
    given = make_plan(Knobs())
    name = given.injections[0].id
    moments: list[Event] = [
        ev.Armed(name, "f", "i", "m", [], 60.0, ""),
        ev.InjectStarted(name),
        ev.Injected(name, "done", "", 1.0),
        ev.RevertStarted(name, "planned", "runner"),
    ]

    def seen(*order: int) -> list[InForce]:
        events = [ev.Recorded(n, "", float(n), moments[one]) for n, one in enumerate(order)]
        return in_force(given, fold(given, events))

    assert seen(0, 1) == []
    assert seen(0, 1, 2) == [InForce(given.injections[0], 1.0, None)]
    assert seen(0, 1, 2, 3) == [InForce(given.injections[0], 1.0, 3.0)]
    assert seen(0, 1, 3, 2) == []
    moments[2] = ev.Injected(name, "failed", "", 1.0)
    assert seen(0, 1, 2, 3) == []
