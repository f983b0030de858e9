"""What is admitted is answered in time; what isn't is told so quickly and in words; nothing waits unseen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec import convert

from stormdrill.core.backpressure.asked import ASKED
from stormdrill.core.backpressure.littles_law import seen_inside, ticks_of
from stormdrill.core.backpressure.pools import evened, merged
from stormdrill.core.backpressure.registry import check_of
from stormdrill.model.event import LoadStarted, Reading, Recorded
from stormdrill.model.verdict import CheckVerdict
from synthetic_overload import Simulated, case_of, simulate


def judged(found: Simulated, word: str, **thresholds: object) -> CheckVerdict:
    return check_of(word).judge(case_of(found), convert(thresholds, ASKED[word].parameters))


def test_late_answers_fail_admitted_latency_and_a_limit_may_be_wider() -> None:
    found = simulate(stragglers=0.05)
    verdict = judged(found, "admitted-latency")
    assert verdict.verdict == "FAIL"
    assert "of the deadline" in verdict.sentence
    assert judged(found, "admitted-latency", most="120%").verdict == "PASS"


def test_time_outs_are_later_than_any_limit() -> None:
    verdict = judged(simulate(silent=0.1), "admitted-latency", most="1000%")
    assert verdict.verdict == "FAIL"
    assert "a time-out" in verdict.sentence


def test_without_steps_the_surge_is_looked_at() -> None:
    verdict = judged(simulate(steps=()), "admitted-latency")
    assert verdict.verdict == "PASS"
    assert "in the surge (192/s)" in verdict.sentence


def test_without_stages_the_fault_phase_is_looked_at() -> None:
    verdict = judged(simulate(steps=(), episode=False), "admitted-latency")
    assert verdict.verdict == "PASS"
    assert "during the fault" in verdict.sentence


def test_rejections_that_take_long_are_not_cheap() -> None:
    found = simulate(slow_rejection_s=0.9)
    assert judged(found, "cheap-rejection").verdict == "FAIL"
    assert judged(found, "cheap-rejection", most="50%").verdict == "PASS"


def test_waiting_in_vain_is_no_rejection() -> None:
    verdict = judged(simulate(silent=0.05), "cheap-rejection")
    assert verdict.verdict == "FAIL"
    assert "waited in vain" in verdict.sentence


def test_without_overload_nothing_is_known_of_rejections() -> None:
    quiet = simulate(steps=(), episode=False)
    for word in ("cheap-rejection", "rejection-contract"):
        verdict = judged(quiet, word)
        assert verdict.verdict == "INCONCLUSIVE"
        assert "nothing was turned away" in verdict.sentence


@pytest.mark.parametrize(
    ("knob", "said"),
    [
        ("bare", "without Retry-After"),
        ("garbled", "that can't be read"),
        ("wrong_status", "x 500"),
    ],
)
def test_rejections_without_their_words_break_the_contract(knob: str, said: str) -> None:
    verdict = judged(simulate(**{knob: 0.05}), "rejection-contract")
    assert verdict.verdict == "FAIL"
    assert said in verdict.sentence


def test_a_crowd_that_is_told_to_come_back_at_once_breaks_the_contract() -> None:
    verdict = judged(simulate(in_step=True), "rejection-contract")
    assert verdict.verdict == "FAIL"
    assert "to come back in 1 s, all in one crowd" in verdict.sentence


def test_who_comes_back_as_told_is_served_once_there_is_room() -> None:
    broken = judged(simulate(broken_promise=1.0), "rejection-contract")
    assert broken.verdict == "FAIL"
    assert "who came back as told, once there was room, were served; 95% was asked" in broken.sentence
    assert judged(simulate(attempts=1), "rejection-contract").verdict == "PASS"
    # where nobody is served, it isn't the promise that is broken
    assert judged(simulate(metastable=True), "rejection-contract").verdict == "PASS"


@pytest.mark.parametrize("seed", range(4))
def test_a_crowd_that_comes_again_is_an_overload_and_no_broken_promise(seed: int) -> None:
    assert judged(simulate(budget=1.0, seed=seed), "rejection-contract").verdict == "PASS"


def test_clients_and_system_agree_on_what_is_inside() -> None:
    verdict = judged(simulate(), "littles-law")
    assert verdict.verdict == "PASS"
    case = case_of(simulate())
    ticks = [tick for tick in ticks_of(case, "in_flight") if tick.at_ms > case.spans["fault"].start_ms]
    inside = seen_inside(case, np.array([tick.at_ms for tick in ticks]))
    assert abs(inside - [tick.inside for tick in ticks]).max() <= 2


def test_a_hidden_queue_is_named_and_invalid() -> None:
    verdict = judged(simulate(hidden_s=0.15), "littles-law")
    assert verdict.verdict == "INVALID"
    assert "a queue that the system doesn't see" in verdict.sentence
    assert "accept backlog" in verdict.sentence
    assert judged(simulate(hidden_s=0.15), "littles-law", most="60%").verdict == "PASS"


def test_a_system_that_tells_nothing_is_no_agreement() -> None:
    assert judged(simulate(silent_after_s=0.0), "littles-law").verdict == "INCONCLUSIVE"
    assert judged(simulate(silent_after_s=25.0), "littles-law").verdict in ("INCONCLUSIVE", "PASS")


@pytest.mark.parametrize("word", ["capacity", "goodput-plateau", "admitted-latency", "cheap-rejection", "littles-law"])
@pytest.mark.parametrize("taint", [{"hogs": True}, {"lag_ms": 60.0}])
def test_what_rests_on_tainted_windows_is_invalid(word: str, taint: dict[str, object]) -> None:
    verdict = judged(simulate(**taint), word)
    assert verdict.verdict == "INVALID"
    assert verdict.sentence.startswith("not to be believed: ")


def test_of_a_window_that_was_cut_short_nothing_is_said_for_sure() -> None:
    verdict = judged(simulate(stop_at_s=45.0, collapse=1.0), "goodput-plateau")
    assert verdict.verdict == "INCONCLUSIVE"
    assert "the run was stopped" in verdict.sentence


@pytest.mark.parametrize(
    "totals", [[], [0, 0, 0], [5, 0, 0], [3, 70, 70, 0, 1, 60, 2], [0, 0, 9], [1] * 40, [100, 1, 1, 1]]
)
def test_blocks_put_together_hold_half_of_the_average_each_and_lose_nobody(totals: list[int]) -> None:
    counts = np.array(totals, dtype=np.int64)
    parts = evened(counts)
    found = merged(counts, parts)
    assert len(parts) == len(totals)
    assert found.sum() == counts.sum()
    assert (np.diff(parts) >= 0).all()
    if counts.sum():
        assert found.min() >= counts.sum() / len(counts) / 2


def test_what_not_all_told_in_the_overload_is_not_made_up_by_the_calm() -> None:
    simulated = simulate()
    epoch_ms = next(one.event.epoch_mono_ms for one in simulated.events if isinstance(one.event, LoadStarted))
    dumb = [stage for stage in simulated.stages if stage.factor == 3.0]

    def told(one: Recorded) -> Recorded:
        at_s = (one.mono_ms - epoch_ms) / 1000
        hit = isinstance(one.event, Reading) and one.event.metric == "in_flight"
        if not hit or not any(stage.start_s <= at_s < stage.end_s for stage in dumb):
            return one
        return replace(one, event=replace(one.event, value=None, detail="no answer"))

    found = replace(simulated, events=tuple(told(one) for one in simulated.events))
    verdict = judged(found, "littles-law")
    assert verdict.verdict == "INCONCLUSIVE"
    assert "not all instances told what was inside in the step of 192/s" in verdict.sentence
