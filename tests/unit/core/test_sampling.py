"""Objectives that can never be shown are refused before anything is touched."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from stormdrill.core.sampling import enough_planned, planned_samples, samples_needed
from stormdrill.model.experiment import Experiment, FaultUse, LoadUse
from stormdrill.model.expression import Comparison
from stormdrill.model.profile import Piece, Profile, Stream, Trace
from synthetic_run import Knobs, comparison, make_plan, objective


def _plan(*uses: FaultUse) -> tuple[Experiment, Profile]:
    """60 requests a second; 5 s of warm-up, 20 s of baseline, 30 s of fault, 20 s of recovery."""
    plan = make_plan(Knobs())
    assert plan.profile is not None
    experiment = replace(plan.experiment, faults=uses or plan.experiment.faults)
    return experiment, plan.profile


def _seconds(window: str, *uses: FaultUse, after_s: float = 0.0, **more: object) -> float:
    asked = objective(window, comparison("success > 90%", "success", ">", 90.0, "%", **more), after_s)
    return planned_samples(*_plan(*uses), asked) / 60.0


@pytest.mark.parametrize(
    ("window", "more", "seconds"),
    [
        ("fault", {}, 30.0),
        ("fault", {"after_s": 10.0}, 20.0),
        ("fault", {"within_s": 25.0}, 5.0),
        ("fault", {"for_s": 3.0}, 3.0),
        ("recovery", {"within_s": 18.0}, 2.0),
        ("whole run", {}, 70.0),
        ("whole run", {"within_s": 10.0}, 40.0),
        ("recovery", {"within_s": 40.0}, 0.0),
    ],
)
def test_samples_are_planned_for_the_stretch_that_will_be_judged(
    window: str, more: dict[str, object], seconds: float
) -> None:
    after_s = more.pop("after_s", None)
    told = {**more, **({"after_s": after_s} if after_s is not None else {})}
    text = comparison("success > 90%", "success", ">", 90.0, "%", **told)
    assert planned_samples(*_plan(), objective(window, text)) / 60.0 == pytest.approx(seconds)


def test_what_may_still_be_in_flight_when_the_baseline_is_judged_is_not_counted_on() -> None:
    experiment, profile = _plan()
    asked = objective("baseline", comparison("success > 90%", "success", ">", 90.0, "%"))
    longest_s = max(stream.deadline_s for stream in profile.streams)
    assert planned_samples(experiment, profile, asked) / 60.0 == pytest.approx(20.0 - longest_s - 0.5)
    patient = replace(profile, streams=tuple(replace(stream, deadline_s=60.0) for stream in profile.streams))
    assert planned_samples(experiment, patient, asked) / 60.0 == pytest.approx(10.0), "at most half of the phase"


def test_the_windows_own_after_counts_too() -> None:
    assert _seconds("fault", after_s=12.0) == pytest.approx(18.0)
    assert _seconds("fault", after_s=12.0, within_s=15.0) == pytest.approx(15.0)


def test_the_fault_phase_lasts_from_the_first_injection_to_the_end_of_the_last() -> None:
    short = FaultUse("region-loss", {}, start_s=10.0, for_s=5.0)
    early = FaultUse("region-loss", {}, start_s=4.0, for_s=3.0)
    to_the_end = FaultUse("region-loss", {}, start_s=10.0)
    assert _seconds("fault", short) == pytest.approx(5.0)
    assert _seconds("fault", short, early) == pytest.approx(11.0)
    assert _seconds("fault", to_the_end) == pytest.approx(20.0)
    assert _seconds("whole run", short) == pytest.approx(45.0)


def test_a_short_fault_cannot_show_what_its_phase_could_have() -> None:
    strict = objective("fault", comparison("success > 99%", "success", ">", 99.0, "%"))
    experiment, profile = _plan(FaultUse("region-loss", {}, for_s=5.0))
    problems = enough_planned(replace(experiment, objectives=(strict,)), profile)
    assert "would see about 300 samples; 368 is the fewest" in problems[0].what
    assert not enough_planned(replace(_plan()[0], objectives=(strict,)), profile)


@pytest.mark.parametrize(
    ("expression", "instead"),
    [
        (comparison("success >= 100%", "success", ">=", 100.0, "%"), "success > 99%"),
        (comparison("success > 100%", "success", ">", 100.0, "%"), "success > 99%"),
        (comparison("success = 100%", "success", "=", 100.0, "%"), "< or >"),
        (comparison("p95 = 1s", "p95", "=", 1.0, "s"), "< or >"),
        (comparison("success <= 0%", "success", "<=", 0.0, "%"), "above 0"),
    ],
)
def test_what_no_sample_can_show_is_refused_with_what_to_write(expression: Comparison, instead: str) -> None:
    experiment, profile = _plan()
    problems = enough_planned(replace(experiment, objectives=(objective("baseline", expression),)), profile)
    assert len(problems) == 1
    assert "can never pass" in problems[0].what
    assert instead in problems[0].fix


def test_every_quantile_needs_its_samples_also_that_of_a_completion() -> None:
    def needs(metric: str, op: str, limit: float) -> int:
        return samples_needed(objective("fault", comparison("x", metric, op, limit)))

    assert needs("p95", "<", 0.4) == needs("completion_p95", "<", 0.4) == 72
    assert needs("p99.9", "<", 0.4) == 3_688
    assert needs("success", ">", 98.0) == needs("success", "<", 2.0) == 183
    assert needs("jobs_lost", "=", 0.0) == needs("queue_age", "<", 3.0) == 0


def _asking(profile: Profile, window: str, labels: dict[str, str] | None = None, **more: object) -> float:
    asked = objective(window, comparison("success > 90%", "success", ">", 90.0, "%", labels=labels or {}, **more))
    return planned_samples(_plan()[0], profile, asked)


def test_samples_are_the_integral_of_the_demand_and_not_its_rate_times_the_time() -> None:
    _, profile = _plan()
    steps = (Piece(0, 1), Piece(25, 1), Piece(25, 3), Piece(35, 3), Piece(35, 0))
    burst = replace(profile, shape=steps)
    assert _asking(burst, "fault") == pytest.approx(60.0 * 3 * 10)
    assert _asking(burst, "fault", within_s=5.0) == pytest.approx(60.0 * 3 * 5)
    assert _asking(burst, "fault", for_s=20.0) == 0
    assert _asking(burst, "recovery") == 0
    assert _asking(burst, "whole run") == pytest.approx(60.0 * (20 + 30))


def test_of_several_demands_those_are_counted_that_carry_the_labels() -> None:
    _, profile = _plan()
    extra = replace(profile, streams=(Stream("vip", 1.0, {"tier": "0"}, 1.0),), weight=0.5)
    both = replace(profile, also=(extra,))
    assert _asking(both, "fault", {"tier": "0"}) == pytest.approx(30.0 * 30)
    assert _asking(both, "fault") == pytest.approx(_asking(profile, "fault") + 30.0 * 30)
    tier_1 = {"tier": "1"}
    assert _asking(both, "fault", tier_1) == pytest.approx(_asking(profile, "fault", tier_1))


def test_of_a_recording_what_fell_into_the_window_is_counted() -> None:
    _, profile = _plan()
    trace = Trace("t.times", "", 100, 50.0, course=(50, 0, 0, 0, 50))
    replayed = replace(profile, trace=trace)
    # 60/s is its mean over 50 s: half of 3,000 requests come in its first 10 s, half in its last.
    assert _asking(replayed, "recovery") == 0
    assert _asking(replayed, "fault") == pytest.approx(1500)
    later = replace(profile, trace=replace(trace, start_s=15.0))
    assert _asking(later, "recovery") == pytest.approx(1500)


def test_nobody_knows_beforehand_how_many_users_that_wait_will_send() -> None:
    experiment, profile = _plan()
    users = LoadUse("", 0.0, locustfile="mine.py", users=5, deadline_s=1.0)
    strict = objective("fault", comparison("success > 99%", "success", ">", 99.0, "%"))
    closed = replace(experiment, load=users, objectives=(strict,))
    assert enough_planned(closed, profile) == []


def test_where_nothing_is_injected_within_counts_from_the_fault_phases_beginning() -> None:
    experiment, profile = _plan()
    asked = objective("fault", comparison("success > 90%", "success", ">", 90.0, "%", within_s=10.0))
    assert planned_samples(replace(experiment, faults=()), profile, asked) == pytest.approx(60.0 * 20)
