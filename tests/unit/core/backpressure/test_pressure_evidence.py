"""What a check rests on is all that it says: what taints, hides or makes that up never ends in PASS."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from pressing import EPOCH_MS, checked, retold, seeing
from stormdrill.core.backpressure.needs import missing
from stormdrill.core.evidence import Evidence
from stormdrill.model import event as ev
from synthetic_overload import GATEWAY, Simulated, simulate

STARVED = ev.HostSampled(1000.0, 1.4, 0.78, 0.03, 0.11, 1.2)


def starved(found: Simulated, start_s: float, end_s: float) -> Evidence:
    """The same run on a host that strangers took the cores of, for a while."""
    events = [
        dataclasses.replace(one, event=STARVED)
        if isinstance(one.event, ev.HostSampled) and start_s <= (one.mono_ms - EPOCH_MS) / 1000 <= end_s + 1
        else one
        for one in found.evidence.events
    ]
    return replace(found.evidence, events=tuple(events))


def rows_of(found: Evidence, change: Callable[[np.ndarray], None]) -> Evidence:
    rows = found.records[0].rows.copy()
    change(rows)
    return replace(found, records=(replace(found.records[0], rows=rows),))


@pytest.mark.parametrize("word", ["goodput-plateau", "admitted-latency", "cheap-rejection", "priority"])
def test_who_goes_by_the_capacity_rests_on_the_steps_that_found_it(word: str) -> None:
    found = simulate(episode=False, step_s=12.0)
    lowest = found.stages[0]
    assert checked(found, word).verdict == "PASS"
    assert checked(starved(found, lowest.start_s, lowest.end_s), word).verdict == "INVALID"


@pytest.mark.parametrize("word", ["recovery", "drain"])
def test_what_follows_a_surge_rests_on_that_it_came_as_it_was_asked_for(word: str) -> None:
    found = simulate(steps=(), trigger_s=14.0)
    trigger = next(stage for stage in found.stages if stage.role == "trigger")
    more = {"capacity": "104/s"} if word == "drain" else {}
    assert checked(found, word, **more).verdict == "PASS"
    assert checked(starved(found, trigger.start_s + 4, trigger.end_s - 4), word, **more).verdict == "INVALID"


def test_a_surge_that_was_served_like_everything_else_left_nothing_to_recover_from() -> None:
    found = checked(simulate(steps=(), rate_per_s=24.0, trigger=2.0), "recovery")
    assert found.verdict == "INCONCLUSIVE"
    assert "there was nothing to recover from; raise the trigger" in found.sentence


def test_memory_that_is_named_and_never_told_is_not_said_to_stay() -> None:
    found = checked(retold(simulate(episode=False).evidence, (), without=["memory"]), "bounded-queue")
    assert found.verdict == "INCONCLUSIVE"
    assert "memory was never read" in found.sentence


def test_figures_of_the_inside_that_end_in_the_middle_of_a_stage_say_nothing_of_its_rest() -> None:
    found = simulate(steps=(), every_s=0.5, trigger_s=20.0)
    trigger = next(stage for stage in found.stages if stage.role == "trigger")
    told = [
        ((one.mono_ms - EPOCH_MS) / 1000, "in_flight", GATEWAY, one.event.value)
        for one in found.evidence.events
        if isinstance(one.event, ev.Reading) and one.event.metric == "in_flight"
    ]
    assert checked(found, "littles-law").verdict == "PASS"
    cut = [row for row in told if not trigger.start_s + 7 < row[0] < trigger.end_s]
    verdict = checked(retold(found.evidence, cut), "littles-law")
    assert verdict.verdict == "INCONCLUSIVE"
    assert "not all instances told" in verdict.sentence


def test_attempts_of_a_generator_that_never_tries_again_show_nothing_and_are_refused() -> None:
    found = simulate(attempts=1).evidence
    plain = replace(found.plan.profile, retry=None)
    blind = seeing(found, hops=()).plan.system
    (lacks,) = missing("retry-amplification", True, plain, blind)
    assert "client that tries again" in lacks.what
    assert not missing("retry-amplification", True, plain, found.plan.system)
    assert not missing("retry-amplification", True, found.plan.profile, blind) or not found.plan.profile.retry


@pytest.mark.parametrize("word", ["recovery", "drain"])
def test_users_who_wait_ask_for_less_of_a_slow_system_so_that_no_load_can_be_compared(word: str) -> None:
    assert "an open load" in missing(word, True, None, None, closed=True)[0].what
    assert not missing(word, True, None, None)


def test_a_plateau_is_not_known_where_the_capacity_may_be_far_above_it() -> None:
    found = checked(simulate(steps=(0.5, 3.5, 4.0), collapse=1.2, episode=False), "goodput-plateau")
    assert found.verdict != "PASS"


def test_a_system_that_is_full_before_and_after_has_drained_nothing() -> None:
    found = simulate(steps=(), every_s=1.0)
    rows = [(float(second), "queue_depth", GATEWAY, 40.0) for second in range(60)]
    verdict = checked(retold(found.evidence, rows), "drain", capacity="60/s")
    assert verdict.verdict == "INCONCLUSIVE"
    assert "leaves no room" in verdict.sentence


def test_seconds_that_differ_and_mean_one_moment_are_one_crowd() -> None:
    """A Retry-After that names a date: all come back then, whenever they were told."""
    found = simulate(episode=False)
    top = max(found.stages, key=lambda stage: stage.factor)

    def dated(rows: np.ndarray) -> None:
        away = (rows["status"] == 429) & (rows["intended_us"] >= top.start_s * 1e6)
        done_s = (rows["intended_us"][away] + rows["latency_us"][away]) / 1e6
        rows["retry_after_s"][away] = np.ceil(top.end_s + 5 - done_s)

    verdict = checked(rows_of(found.evidence, dated), "rejection-contract")
    assert verdict.verdict == "FAIL"
    assert "at the same moment, all in one crowd" in verdict.sentence


def test_waits_longer_than_a_record_holds_are_not_called_one() -> None:
    def long(rows: np.ndarray) -> None:
        rows["retry_after_s"][rows["status"] == 429] = 255

    verdict = checked(rows_of(simulate(episode=False).evidence, long), "rejection-contract")
    assert verdict.verdict == "INCONCLUSIVE"
    assert "255 s or later" in verdict.sentence


def test_an_error_that_comes_late_is_waiting_in_vain() -> None:
    def failing(rows: np.ndarray) -> None:
        away = np.flatnonzero(rows["status"] == 429)[::2]
        rows["status"][away], rows["latency_us"][away] = 504, rows["latency_us"][away] + 900_000

    found = simulate(episode=False)
    assert checked(found, "cheap-rejection").verdict == "PASS"
    verdict = checked(rows_of(found.evidence, failing), "cheap-rejection")
    assert verdict.verdict == "FAIL"
    assert "waited in vain" in verdict.sentence
