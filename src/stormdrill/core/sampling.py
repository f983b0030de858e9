"""Whether a plan can ever pass: objectives that would see too few samples are refused before anything is touched."""

from __future__ import annotations

import math

from stormdrill.core.statistics import minimum_samples
from stormdrill.errors import Problem
from stormdrill.model.experiment import Experiment, Objective
from stormdrill.model.expression import Comparison
from stormdrill.model.profile import Profile


def enough_planned(experiment: Experiment, profile: Profile) -> list[Problem]:
    """A problem for each objective whose window, at the profile's rate, cannot hold the samples that a PASS needs."""
    problems = []
    for objective in experiment.objectives:
        needed = samples_needed(objective)
        if not needed:
            continue
        planned = planned_samples(experiment, profile, objective)
        if planned < needed:
            assert isinstance(objective.expression, Comparison)
            what = (
                f"{objective.expression.text} in {objective.window.text} would see about {planned:.0f} samples; "
                f"{needed} is the fewest that can pass"
            )
            problems.append(
                Problem(f"experiment {experiment.name}", 0, 0, what, "lengthen the phase or raise the rate")
            )
    return problems


def samples_needed(objective: Objective) -> int:
    """The fewest samples with which the objective can PASS; 0 where the number of requests doesn't matter."""
    expression = objective.expression
    if not isinstance(expression, Comparison) or expression.relative:
        return 0
    if expression.metric == "success" and expression.op in (">", ">=") and 0 < expression.limit < 100:
        return minimum_samples(expression.limit / 100)
    share = quantile_of(expression.metric)
    return minimum_samples(share) if share is not None else 0


def quantile_of(metric: str) -> float | None:
    """0.95 for `p95`; None for what is no latency quantile."""
    if not metric.startswith("p"):
        return None
    try:
        return float(metric[1:]) / 100
    except ValueError:
        return None


def planned_samples(experiment: Experiment, profile: Profile, objective: Objective) -> float:
    expression, window = objective.expression, objective.window
    assert isinstance(expression, Comparison)
    if experiment.load is None:
        return math.inf  # the system's own traffic: nobody knows beforehand
    phases = experiment.phases
    whole = phases.total_s - phases.warmup_s
    length_s = whole if window.phase == "whole run" else phases.of(window.phase)
    share = sum(item.share for item in profile.streams if expression.labels.items() <= item.labels.items())
    return experiment.load.rate_per_s * share * max(0.0, length_s - window.after_s)
