"""What piled up is gone in time: as much time as the room that is left over needs, half as much again."""

from __future__ import annotations

import pytest

from pressing import EPOCH_MS, checked, named, retold, seeing, with_fault
from stormdrill.core.backpressure.asked import Drain
from stormdrill.core.backpressure.drain import allowed_s
from synthetic_overload import GATEWAY, WORKER, simulate

SURGE = {"steps": (), "every_s": 1.0, "base_s": 8.0, "trigger_s": 8.0, "after_s": 20.0, "down_s": 6.0}
TRIGGER_END_S = 2.0 + 8.0 + 8.0 + 8.0


def backlog(gone_s: float, high: float = 120.0, every_s: float = 1.0) -> list[tuple[float, str, str, float]]:
    """A queue that is level at `high` when the surge ends, and empty `gone_s` later."""
    rows, at_s = [], 0.0
    while at_s < 58:
        since = at_s - TRIGGER_END_S
        depth = 0.0 if since < -8 or since >= gone_s else high if since <= 0 else high * (1 - since / gone_s)
        rows.append((at_s, "queue_depth", WORKER, depth))
        at_s += every_s
    return rows


def test_what_is_allowed_is_one_and_a_half_times_what_the_room_needs() -> None:
    assert allowed_s(120.0, 40.0, Drain()) == pytest.approx(4.5)
    assert allowed_s(120.0, 40.0, Drain(times=1.0)) == pytest.approx(3.0)
    assert allowed_s(1.0, 40.0, Drain()) == 2.0
    assert allowed_s(120.0, 0.0, Drain()) == float("inf")


@pytest.mark.parametrize(
    ("gone_s", "word"), [(2.0, "PASS"), (3.4, "PASS"), (4.2, "INCONCLUSIVE"), (9.0, "FAIL"), (99.0, "FAIL")]
)
def test_it_is_judged_between_two_readings(gone_s: float, word: str) -> None:
    """104 a second carried, 64 asked for, 120 waiting: 4.5 s is asked for; a reading comes every second."""
    found = checked(retold(simulate(**SURGE).evidence, backlog(gone_s)), "drain", capacity="104/s")
    assert found.verdict == word
    assert "4.5 s was asked" in found.sentence
    assert ("too seldom to tell" in found.sentence) == (word == "INCONCLUSIVE")


def test_the_true_moment_lies_within_what_is_told() -> None:
    found = checked(retold(simulate(**SURGE).evidence, backlog(3.4)), "drain", capacity="104/s")
    took = named(found, "time to drain after surge 1")
    assert took.low is not None
    assert took.high is not None
    assert took.low <= 3.4 <= took.high


def test_background_work_that_is_done_slowly_fails_and_a_sound_one_passes() -> None:
    assert checked(simulate(), "drain").verdict == "PASS"
    found = checked(simulate(slow_drain=0.2), "drain")
    assert found.verdict == "FAIL"
    assert "not gone after 12 s" in found.sentence


def test_no_room_is_nobodys_fault_and_said() -> None:
    found = checked(retold(simulate(**SURGE).evidence, backlog(9.0)), "drain", capacity="60/s")
    assert found.verdict == "INCONCLUSIVE"
    assert "leaves no room" in found.sentence


def test_a_surge_that_asked_for_no_more_than_is_carried_shows_nothing() -> None:
    found = checked(retold(simulate(**SURGE).evidence, backlog(9.0)), "drain", capacity="500/s")
    assert found.verdict == "INCONCLUSIVE"
    assert "no more than the system carries" in found.sentence


def test_where_nothing_was_left_behind_nothing_has_to_drain() -> None:
    found = checked(retold(simulate(**SURGE).evidence, backlog(1.0, high=0.0)), "drain", capacity="104/s")
    assert found.verdict == "PASS"
    assert "left nothing behind" in found.sentence


def test_where_the_capacity_is_only_what_was_seen_a_pass_says_that_it_is_lenient() -> None:
    found = checked(retold(simulate(**SURGE).evidence, backlog(3.4)), "drain")
    assert found.verdict == "PASS"
    assert "more room would ask for less: name the capacity" in found.sentence
    sure = checked(retold(simulate(**SURGE).evidence, backlog(3.4)), "drain", capacity="104/s")
    assert "more room" not in sure.sentence


def test_too_short_a_look_is_inconclusive() -> None:
    short = SURGE | {"after_s": 3.0}
    found = checked(retold(simulate(**short).evidence, backlog(60.0)), "drain", capacity="104/s")
    assert found.verdict == "INCONCLUSIVE"
    assert "went on for less than that" in found.sentence


def test_a_queue_that_fell_silent_while_it_drained_is_not_gone() -> None:
    rows = [row for row in backlog(9.0) if row[0] < TRIGGER_END_S + 2 or row[0] > TRIGGER_END_S + 12]
    found = checked(retold(simulate(**SURGE).evidence, rows), "drain", capacity="104/s")
    assert found.verdict == "INCONCLUSIVE"
    assert "no fresh reading" in found.sentence


def test_without_a_queue_that_tells_requests_in_flight_are_counted() -> None:
    found = checked(seeing(simulate().evidence, depth=""), "drain")
    assert "in flight at the clients" in found.sentence
    assert found.verdict == "PASS"


def test_a_depth_that_was_never_read_is_inconclusive() -> None:
    found = checked(retold(simulate(**SURGE).evidence, (), without=["queue_depth"]), "drain")
    assert found.verdict == "INCONCLUSIVE"
    assert "queue_depth was never read" in found.sentence


def test_a_fault_leaves_a_backlog_as_a_surge_does() -> None:
    """Without stages: baseline against what follows the last revert, which is where recovery begins."""
    plain = with_fault(simulate(steps=(), episode=False, rate_per_s=40.0, every_s=1.0).evidence, 12.0, 29.0)
    start_s = next(one.mono_ms for one in plain.events if getattr(one.event, "phase", "") == "recovery") - EPOCH_MS
    rows = [
        (float(second), "queue_depth", GATEWAY, 200.0 if 12 <= second <= start_s / 1000 + 4 else 1.0)
        for second in range(40)
    ]
    found = checked(retold(plain, rows), "drain", capacity="240/s")
    assert found.verdict == "FAIL"
    assert "after the fault" in found.sentence
    assert "2 s was asked" in found.sentence
