"""No reading above the limit, no growth on the plateau; and nothing is assumed of what nobody read."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pressing import EPOCH_MS, checked, named, retold, seeing
from stormdrill.model.event import Reading, Recorded
from synthetic_overload import EDGE, GATEWAY, WORKER, simulate

SHORT = {"steps": (), "every_s": 1.0}


def told(
    depth_at: dict[float, float], limit: float = 40.0, until_s: float = 60.0
) -> list[tuple[float, str, str, float]]:
    """One queue whose depth is 5, but where it is told otherwise."""
    rows = []
    for second in range(int(until_s)):
        rows.append((float(second), "queue_limit", GATEWAY, limit))
        rows.append((second + 0.01, "queue_depth", GATEWAY, depth_at.get(float(second), 5.0)))
    return rows


def test_queues_that_stay_within_their_limits_pass() -> None:
    found = checked(simulate(), "bounded-queue")
    assert found.verdict == "PASS"
    assert "nothing was seen to grow" in found.sentence


def test_one_reading_above_the_limit_fails_exactly() -> None:
    evidence = retold(simulate(**SHORT).evidence, told({23.0: 41.0}))
    found = checked(evidence, "bounded-queue")
    assert found.verdict == "FAIL"
    assert "held 41, and its limit is 40 (1 reading of 60 above it)" in found.sentence
    assert named(found, f"depth of {GATEWAY}").limit == 40
    assert any(one.seq in found.events for one in evidence.events if one.mono_ms % 1000 == 10)


def test_at_the_limit_is_within_it() -> None:
    found = checked(retold(simulate(**SHORT).evidence, told({5.0: 40.0})), "bounded-queue")
    assert found.verdict == "PASS"


def test_a_queue_above_its_limit_fails_though_the_run_was_stopped() -> None:
    stopped = simulate(**SHORT, stop_at_s=25.0).evidence
    found = checked(retold(stopped, told({15.0: 70.0}, until_s=25.0)), "bounded-queue")
    assert found.verdict == "FAIL"


def test_a_run_that_was_stopped_has_not_passed() -> None:
    found = checked(simulate(stop_at_s=30.0), "bounded-queue")
    assert found.verdict == "INCONCLUSIVE"
    assert "the run ended before" in found.sentence


def test_a_queue_and_memory_that_grow_all_along_the_plateau_fail() -> None:
    found = checked(simulate(leak=30.0), "bounded-queue")
    assert found.verdict == "FAIL"
    assert f"the queue of {EDGE} grew by 270" in found.sentence
    growth = named(found, f"growth, queue of {EDGE}")
    assert growth.low is not None
    assert growth.limit is not None
    assert growth.low > growth.limit


def test_a_queue_that_goes_up_and_down_too_wildly_to_tell_has_not_passed() -> None:
    wild = {float(second): 38.0 if second // 3 % 2 else 2.0 for second in range(60)}
    found = checked(retold(simulate(**SHORT).evidence, told(wild)), "bounded-queue")
    assert found.verdict == "INCONCLUSIVE"
    assert "can't be told" in found.sentence
    assert "Lengthen the plateau" in found.sentence


def test_what_may_grow_is_the_experiments_to_say() -> None:
    assert checked(simulate(leak=30.0), "bounded-queue", growth="100%").verdict != "FAIL"


def test_too_few_readings_say_nothing_and_how_many_would() -> None:
    found = checked(simulate(step_s=6.0, every_s=1.0, episode=False), "bounded-queue")
    assert found.verdict == "INCONCLUSIVE"
    assert "9 are the fewest, a reading every 1 s" in found.sentence


def test_a_depth_without_a_limit_is_not_bounded_as_far_as_anybody_knows() -> None:
    evidence = retold(simulate(**SHORT).evidence, (), without=["queue_limit"])
    found = checked(evidence, "bounded-queue")
    assert found.verdict == "INCONCLUSIVE"
    assert "no limit of it" in found.sentence


def test_a_limit_without_a_depth_is_told() -> None:
    rows = [row for row in told({}) if row[1] == "queue_depth"]
    rows += [(second + 0.0, "queue_limit", name, 40.0) for second in range(60) for name in (GATEWAY, WORKER)]
    found = checked(retold(simulate(**SHORT).evidence, rows), "bounded-queue")
    assert found.verdict == "INCONCLUSIVE"
    assert f"{WORKER} told its queue's limit and never its depth" in found.sentence


def test_without_readings_it_is_inconclusive_and_names_the_metric() -> None:
    found = checked(retold(simulate(**SHORT).evidence, (), without=["queue_depth"]), "bounded-queue")
    assert found.verdict == "INCONCLUSIVE"
    assert "queue_depth was never read" in found.sentence
    assert checked(seeing(simulate(**SHORT).evidence, depth=""), "bounded-queue").verdict == "INCONCLUSIVE"


def test_nan_and_infinity_are_no_readings() -> None:
    rows = [
        (at_s, metric, name, float("nan") if metric == "queue_depth" else value)
        for at_s, metric, name, value in told({})
    ]
    assert checked(retold(simulate(**SHORT).evidence, rows), "bounded-queue").verdict == "INCONCLUSIVE"


def test_a_queue_that_fell_silent_is_not_vouched_for() -> None:
    found = checked(simulate(silent_after_s=20.0), "bounded-queue")
    assert found.verdict == "INCONCLUSIVE"
    assert "no fresh reading" in found.sentence


@pytest.mark.parametrize("knobs", [{"hogs": True}, {"lag_ms": 200.0}])
def test_tainted_evidence_is_invalid_whatever_it_shows(knobs: dict[str, object]) -> None:
    assert checked(simulate(**knobs), "bounded-queue").verdict == "INVALID"
    assert checked(simulate(**knobs, over_limit=True), "bounded-queue").verdict == "INVALID"


def test_what_is_broken_comes_first_among_the_figures() -> None:
    found = checked(simulate(leak=30.0), "bounded-queue")
    assert found.verdict == "FAIL"
    assert found.figures[0].name == f"growth, queue of {EDGE}"


def test_an_instance_that_never_told_its_queue_is_no_empty_queue() -> None:
    mute: list[tuple[str, float]] = [("queue_depth", second + 0.2) for second in range(40)]
    found = simulate(**SHORT).evidence
    more = [
        Recorded(3_000_000 + index, "", EPOCH_MS + at_s * 1000, Reading(metric, "gateway-2", None, {}, "no answer"))
        for index, (metric, at_s) in enumerate(mute)
    ]
    silent = replace(found, events=tuple(sorted([*found.events, *more], key=lambda one: one.mono_ms)))
    for word in ("bounded-queue", "drain"):
        verdict = checked(silent, word, **({"capacity": "104/s"} if word == "drain" else {}))
        assert verdict.verdict == "INCONCLUSIVE", word
        assert "gateway-2 never told queue_depth" in verdict.sentence


def test_who_is_asked_every_second_and_answers_now_and_then_has_not_passed() -> None:
    rows = [
        (float(second), metric, GATEWAY, value if second % 9 == 0 else None)
        for second in range(58)
        for metric, value in (("queue_depth", 3.0), ("queue_limit", 40.0))
    ]
    verdict = checked(retold(simulate(**SHORT).evidence, rows), "bounded-queue")
    assert verdict.verdict == "INCONCLUSIVE"
    assert f"{GATEWAY} gave no fresh reading for 9.0 s" in verdict.sentence


def test_a_limit_that_was_raised_between_two_readings_was_not_broken() -> None:
    def told(second: int) -> list[tuple[float, str, str, float]]:
        limit = 40.0 if second < 25 else 100.0
        depth = 5.0 if second < 25 else 50.0  # read a moment before its limit
        return [(second + 0.0, "queue_depth", GATEWAY, depth), (second + 0.001, "queue_limit", GATEWAY, limit)]

    rows = [row for second in range(58) for row in told(second)]
    assert "its limit is" not in checked(retold(simulate(**SHORT).evidence, rows), "bounded-queue").sentence
