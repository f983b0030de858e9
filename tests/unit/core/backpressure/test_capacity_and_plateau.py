"""What a staircase says: how much a system carries, and what is left of that with more work than it carries."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import convert

from stormdrill.core.backpressure.asked import ASKED
from stormdrill.core.backpressure.capacity import capacity_of, overloads
from stormdrill.core.backpressure.carried import by_staircase
from stormdrill.core.backpressure.figures import ratio
from stormdrill.core.backpressure.registry import check_of
from stormdrill.core.backpressure.stages import episodes_of, goodput, role_of, stages_of, steps_of
from stormdrill.core.case import Case
from stormdrill.core.intervals import Interval
from stormdrill.model.profile import Piece
from stormdrill.model.verdict import CheckVerdict
from synthetic_overload import Simulated, case_of, simulate


def judged(found: Simulated, word: str, **thresholds: object) -> CheckVerdict:
    return check_of(word).judge(case_of(found), convert(thresholds, ASKED[word].parameters))


def test_a_stage_is_judged_without_its_first_second_or_tenth() -> None:
    short, long = stages_of(case_of(simulate())), stages_of(case_of(simulate(step_s=20.0)))
    assert [stage.role for stage in short] == ["step"] * 4 + ["rest", "base", "trigger", "after", "down"]
    assert short[0].settled.start_ms - short[0].whole.start_ms == pytest.approx(1000)
    assert long[0].settled.start_ms - long[0].whole.start_ms == pytest.approx(2000)
    assert all(stage.settled.end_ms == stage.whole.end_ms for stage in (*short, *long))


def test_what_was_offered_is_what_was_intended() -> None:
    for stage in stages_of(case_of(simulate())):
        assert stage.offered_per_s == pytest.approx(stage.asked_per_s, rel=0.3)
        assert stage.asked_per_s == pytest.approx(64.0 * stage.factor)


def test_episodes_are_told_apart_from_the_staircase() -> None:
    case = case_of(simulate())
    assert [one.factor for one in steps_of(case)] == [0.5, 1.0, 2.0, 3.0]
    (episode,) = episodes_of(case).values()
    assert [len(role_of(episode, role)) for role in ("base", "trigger", "after", "down")] == [1, 1, 1, 1]  # type: ignore[arg-type]


def test_a_stage_that_the_run_never_came_to_is_none() -> None:
    stages = stages_of(case_of(simulate(stop_at_s=35.0)))
    assert [stage.complete for stage in stages] == [True, True, False]


def test_capacity_lies_between_the_last_step_that_is_carried_and_the_first_that_is_not() -> None:
    found = simulate()
    case = case_of(found)
    capacity = capacity_of(case)
    assert capacity.held is not None
    assert capacity.broke is not None
    assert capacity.held.stretch.asked_per_s <= found.capacity_per_s <= capacity.broke.stretch.asked_per_s
    verdict = judged(found, "capacity")
    assert verdict.verdict == "PASS"
    assert verdict.figures[0].low == 64.0
    assert verdict.figures[0].high == 128.0


@pytest.mark.parametrize(("least", "word"), [("60/s", "PASS"), ("100/s", "INCONCLUSIVE"), ("130/s", "FAIL")])
def test_a_capacity_that_is_asked_for_is_compared_with_both_ends(least: str, word: str) -> None:
    assert judged(simulate(), "capacity", least=least).verdict == word


def test_a_staircase_that_ends_too_low_says_how_far_it_must_reach() -> None:
    verdict = judged(simulate(steps=(0.5, 1.0)), "capacity")
    assert verdict.verdict == "INCONCLUSIVE"
    assert "was not reached" in verdict.sentence
    assert "reaches 128/s" in verdict.sentence
    assert judged(simulate(steps=(0.5, 1.0)), "capacity", least="60/s").verdict == "PASS"
    assert judged(simulate(steps=(0.5, 1.0)), "goodput-plateau").verdict == "INCONCLUSIVE"


def test_a_staircase_that_begins_too_high_says_so() -> None:
    verdict = judged(simulate(steps=(2.0, 3.0)), "capacity")
    assert verdict.verdict == "INCONCLUSIVE"
    assert "begin the staircase lower" in verdict.sentence
    assert judged(simulate(steps=(2.0, 3.0)), "goodput-plateau").verdict == "INCONCLUSIVE"


def test_a_step_above_one_that_was_not_carried_proves_nothing() -> None:
    case = case_of(simulate(steps=(1.0, 2.0, 1.1)))
    assert capacity_of(case).held is capacity_of(case).steps[1]  # in the order of rates, not of time


def test_steps_too_short_to_show_anything_are_not_carried_by_default() -> None:
    verdict = judged(simulate(steps=(0.5, 1.0, 2.0, 3.0), step_s=3.0), "capacity")
    assert verdict.verdict == "INCONCLUSIVE"


def test_multiples_are_the_nearest_steps_at_or_above() -> None:
    windows, missing = overloads(case_of(simulate(steps=(1.0, 1.9, 2.5, 4.0))), 3.0)
    assert [window.stretch.factor for window in windows if window.stretch] == [2.5, 4.0]
    assert missing == ""


def test_a_multiple_that_no_step_reaches_says_by_how_much_to_raise_the_rate() -> None:
    verdict = judged(simulate(steps=(1.0, 2.0)), "goodput-plateau")
    assert verdict.verdict == "INCONCLUSIVE"
    assert "3 x is judged; raise the rate 1.5 times" in verdict.sentence
    assert judged(simulate(steps=(1.0, 2.0)), "goodput-plateau", up_to=2).verdict == "PASS"


def test_goodput_that_falls_under_overload_fails_with_its_figures() -> None:
    verdict = judged(simulate(collapse=1.0), "goodput-plateau")
    assert verdict.verdict == "FAIL"
    assert "goodput at 2 x capacity (128/s) was" in verdict.sentence
    assert "90% was asked" in verdict.sentence
    assert judged(simulate(collapse=1.0), "goodput-plateau", least="30%").verdict == "PASS"
    coarse = judged(simulate(collapse=1.0), "goodput-plateau", least="50%")
    assert coarse.verdict == "INCONCLUSIVE"
    assert "the capacity may be anywhere up to 128/s: finer steps would tell" in coarse.sentence


@pytest.mark.parametrize("collapse", [0.0, 1.0])
def test_a_coarse_staircase_is_told_once(collapse: float) -> None:
    found = judged(simulate(collapse=collapse), "goodput-plateau")
    assert found.sentence.count("finer steps would tell") == 1


def test_goodput_counts_what_was_answered_in_time_by_when_that_was() -> None:
    case = case_of(simulate(budget=1.0))
    top, requests = steps_of(case)[-1].settled, case.requests
    done_ms = requests.at_ms + requests.latency_us / 1000
    inside = requests.good & (done_ms >= top.start_ms) & (done_ms < top.end_ms)
    found = goodput(case, top).value
    assert found == pytest.approx(inside.sum() / top.length_s)
    asked = case.requests.between(top.start_ms, top.end_ms)
    assert found < asked.good.sum() / top.length_s  # some came again, and were served, when it was over


def test_clients_that_come_again_later_hide_no_collapse() -> None:
    steps = (0.5, 1.0, 1.4, 2.0, 3.0)
    assert judged(simulate(steps=steps, collapse=0.6, budget=1.0), "goodput-plateau").verdict == "FAIL"


@pytest.mark.parametrize("knobs", [{}, {"budget": 1.0}, {"budget": 1.0, "obey": False, "attempts": 4}])
def test_what_is_carried_by_the_staircase_is_never_more_than_the_slots_do(knobs: dict[str, object]) -> None:
    simulated = simulate(**knobs)
    found = by_staircase(case_of(simulated))
    assert found is not None
    assert found <= 1.06 * simulated.capacity_per_s


def test_a_ratio_of_estimates_is_wider_than_either() -> None:
    one, other = Interval(90.0, 85.0, 95.0, 900), Interval(100.0, 99.0, 101.0, 1000)
    found = ratio(one, other)
    assert found.value == pytest.approx(0.9)
    assert 85.0 / 99.0 * 0.9 < found.low < 85.0 / 100.0 < 95.0 / 100.0 < found.high < 95.0 / 99.0
    assert ratio(Interval(0.0, 0.0, 3.0, 10), other).low == 0.0
    assert ratio(one, Interval(0.0, 0.0, 3.0, 0)).n == 0


def test_where_demands_are_added_up_multiples_are_those_of_all_of_it() -> None:
    """48/s all the time, and 32/s x 0.5, 1, 4, 6 on top: 2 x 80/s is 176/s by the third step, whose factor is 4."""
    simulated = simulate(steps=(1.0, 1.25, 2.75, 3.75))
    profile = simulated.plan.profile
    assert profile is not None

    def own(factor: float) -> float:
        return max(0.0, 2 * factor - 1.5)

    stages = tuple(
        msgspec.structs.replace(stage, factor=own(stage.factor)) for stage in profile.stages if stage.role == "step"
    )
    shape = tuple(Piece(piece.at_s, own(piece.factor)) for piece in profile.shape)
    flat = msgspec.structs.replace(profile, stages=(), shape=(), weight=0.75)
    both = msgspec.structs.replace(profile, stages=stages, shape=shape, weight=0.5, also=(flat,))
    evidence = simulated.evidence
    case = Case(msgspec.structs.replace(evidence.plan, profile=both), evidence.events, evidence.records, None)
    assert [round(step.asked_per_s, 3) for step in steps_of(case)] == [64.0, 80.0, 176.0, 240.0]
    windows, missing = overloads(case, 3.0)
    assert missing == ""
    assert [window.stretch.factor for window in windows if window.stretch] == [4.0, 6.0]
