"""Whether a plan can ever pass: objectives that would see too few samples are refused before anything is touched."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stormdrill.core.demand import Course, Demand
from stormdrill.core.judge_metrics import RATES, quantile_of
from stormdrill.core.statistics import minimum_samples
from stormdrill.core.windows import GIVEN_UP_MS
from stormdrill.errors import Problem
from stormdrill.model.experiment import PHASES, Experiment, Objective, Phase
from stormdrill.model.expression import Comparison
from stormdrill.model.profile import Profile


def enough_planned(experiment: Experiment, profile: Profile) -> list[Problem]:
    """A problem for each objective that no sample can show, or whose window, at the profile's rate, cannot hold the
    samples that a PASS needs."""
    problems = []
    courses: tuple[Course, ...] | None = None  # of a long recording they take a while: made once
    for objective in experiment.objectives:
        expression = objective.expression
        if not isinstance(expression, Comparison):
            continue
        where = f"{expression.text} in {objective.window.text}"
        never = never_passes(expression)
        if never:
            what = f"{where} can never pass: no sample, however large, shows it"
            problems.append(Problem(f"experiment {experiment.name}", 0, 0, what, never))
            continue
        needed = samples_needed(objective)
        if needed and courses is None:
            courses = _courses(experiment, profile)
        planned = planned_samples(experiment, profile, objective, courses) if needed else 0.0
        if planned < needed:
            what = f"{where} would see about {planned:.0f} samples; {needed} is the fewest that can pass"
            problems.append(
                Problem(f"experiment {experiment.name}", 0, 0, what, "lengthen the phase or raise the rate")
            )
    return problems


def never_passes(expression: Comparison) -> str:
    """What to write instead, for what no interval of a sample can lie wholly inside of; empty for all else."""
    metric, op, limit = expression.metric, expression.op, expression.limit
    estimated = metric == "success" or metric in RATES or quantile_of(metric) is not None
    if expression.relative or not estimated:
        return ""
    if op == "=":
        return "write < or > with a limit: what is estimated from samples is never known to equal one"
    if metric == "success" and op in (">", ">=") and limit >= 100:
        return f"write success > 99% ({minimum_samples(0.99)} samples can show it); of jobs, jobs_lost = 0 is counted"
    if (op == "<" and limit <= 0) or (metric == "success" and op == "<=" and limit <= 0):
        return "write a limit above 0"
    return ""


def samples_needed(objective: Objective) -> int:
    """The fewest samples with which the objective can PASS; 0 where the number of requests doesn't matter."""
    expression = objective.expression
    if not isinstance(expression, Comparison) or expression.relative:
        return 0
    above = expression.op in (">", ">=")
    if expression.metric == "success":
        share = expression.limit / 100
        return minimum_samples(share if above else 1 - share) if 0 < share < 1 else 0
    quantile = quantile_of(expression.metric)
    if quantile is None:
        return 0
    return minimum_samples(1 - quantile if above and quantile > 0 else quantile)


def fault_length_s(experiment: Experiment) -> float:
    """How long the fault phase is planned to last: from the first injection's start to the last one's end."""
    fault_s = experiment.phases.fault_s
    if not experiment.faults:
        return fault_s
    ends = [use.start_s + (fault_s - use.start_s if use.for_s is None else use.for_s) for use in experiment.faults]
    return max(0.0, max(ends) - min(use.start_s for use in experiment.faults))


def begins_s(experiment: Experiment, phase: Phase) -> float:
    """The planned beginning of a phase, since the load's epoch, which is that of the warm-up."""
    before = PHASES[: PHASES.index(phase)]
    return sum(length_s(experiment, one) for one in before)


def length_s(experiment: Experiment, phase: Phase) -> float:
    """How long a phase is planned to last."""
    return fault_length_s(experiment) if phase == "fault" else experiment.phases.of(phase)


def _courses(experiment: Experiment, profile: Profile) -> tuple[Course, ...] | None:
    """None for the system's own traffic, or users that wait for answers: nobody knows beforehand."""
    load = experiment.load
    return None if load is None or load.closed_loop else Demand(profile, load.rate_per_s).courses


def planned_samples(
    experiment: Experiment, profile: Profile, objective: Objective, courses: Sequence[Course] | None = None
) -> float:
    """As many as the profile asks for in the stretch that `windows.window_of` will judge, if all goes as planned.

    `courses`: the profile's at the experiment's rate, where they were made already.
    """
    expression = objective.expression
    assert isinstance(expression, Comparison)
    courses = _courses(experiment, profile) if courses is None else courses
    if courses is None:
        return math.inf
    wanted = expression.labels.items()
    asked = [item for item in profile.every_stream if wanted <= item.labels.items()]
    from_s, until_s = _window(experiment, objective, expression)
    if objective.window.phase == "baseline":
        # judged while requests are in flight, before the fault: `judge_baseline` leaves out what may not be over
        longest_s = max((item.deadline_s for item in asked), default=0.0) + GIVEN_UP_MS / 1000
        until_s -= min(longest_s, experiment.phases.baseline_s / 2)
    found = 0.0
    for course in courses:
        share = sum(item.share for item in course.part.streams if wanted <= item.labels.items())
        if share and until_s > from_s:
            found += share * course.between(from_s, until_s)
    return found


def _window(experiment: Experiment, objective: Objective, expression: Comparison) -> tuple[float, float]:
    """From when to when an objective is judged, since the load's epoch."""
    window, injected_s = objective.window, 0.0
    if window.phase == "whole run":
        begin_s = begins_s(experiment, "baseline")
        whole_s = sum(length_s(experiment, phase) for phase in PHASES if phase != "warmup")
        injected_s = length_s(experiment, "baseline")
    else:
        begin_s, whole_s = begins_s(experiment, window.phase), length_s(experiment, window.phase)
    from_s = window.after_s + (expression.after_s or 0.0)
    if expression.within_s is not None:  # since the first inject, or since the fault phase began
        from_s = max(from_s, injected_s + expression.within_s)
    if expression.for_s is not None:
        from_s = max(from_s, whole_s - expression.for_s)
    return begin_s + from_s, begin_s + whole_s
