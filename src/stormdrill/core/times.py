"""TTD, TTM, TTR by definition: seconds from when the first fault is in force, each with one meaning for every run.

"From which on it held" is looked for in steps: a stretch of `LOOK_S` slides over the run, and the moment is the start
of the first stretch from which no later one breaks the objective. These are for people to learn from: a point estimate
over a few seconds, no verdict.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stormdrill.core.case import Case
from stormdrill.core.evidence import Requests
from stormdrill.core.judge_alerts import firing_from
from stormdrill.core.judge_metrics import COMPLETION, JOBS, RATES, from_requests, holds, limit_of, quantile_of
from stormdrill.core.judge_readings import last_violation_ms
from stormdrill.core.windows import all_of
from stormdrill.model import event as ev
from stormdrill.model.expression import AlertWithin, Comparison
from stormdrill.model.verdict import Times

LOOK_S = 5.0
STEP_S = 0.5


def times_of(case: Case) -> Times:
    """Everything None when nothing was injected."""
    if case.inject is None:
        return Times()
    start_ms = case.inject.mono_ms
    planned = {item.id for item in case.plan.injections}
    bits = [r.mono_ms for r, e in all_of(case.events, ev.EffectObserved) if e.bit and e.injection in planned]
    looks = [r.mono_ms for r, e in all_of(case.events, ev.RevertVerified) if e.gone and e.injection in planned]
    fault, recovery = case.spans.get("fault"), case.spans.get("recovery")
    mitigated = held_from_ms(case, "fault", start_ms, fault.end_ms) if fault else None
    recovered = held_from_ms(case, "recovery", start_ms, recovery.end_ms) if recovery else None
    if mitigated is not None and fault is not None and mitigated >= fault.end_ms:
        mitigated = None  # the cause was gone by then: that is recovery

    def since(at_ms: float | None) -> float | None:
        return None if at_ms is None else round((at_ms - start_ms) / 1000, 3)

    return Times(
        # seen before the call was answered: it was in force a moment before anybody said so
        bit_s=since(max(start_ms, min(bits)) if bits else None),
        detect_s=since(_detected_ms(case, start_ms)),
        mitigate_s=since(mitigated),
        reverted_s=since(max(looks, default=None)),
        recover_s=since(recovered),
    )


def _detected_ms(case: Case, start_ms: float) -> float | None:
    """The first alert that the experiment names, in an objective or as the runbook's start."""
    experiment = case.plan.experiment
    named = [objective.expression for objective in experiment.objectives]
    if experiment.runbook is not None:
        named.append(experiment.runbook.start)
    fired = [
        found.mono_ms
        for expression in named
        if isinstance(expression, AlertWithin)
        and (found := firing_from(case.events, expression, start_ms)[1]) is not None
    ]
    return min(fired, default=None)


def held_from_ms(case: Case, phase: str, start_ms: float, end_ms: float) -> float | None:
    """From when on all comparisons asked of `phase` held until `end_ms`; None when they never did, or none is asked."""
    latest: float | None = None
    for objective in case.plan.experiment.objectives:
        expression = objective.expression
        if objective.window.phase != phase or not isinstance(expression, Comparison):
            continue
        if expression.relative or expression.metric in JOBS or COMPLETION.fullmatch(expression.metric):
            continue
        if from_requests(expression.metric):
            since = _requests_held_ms(case, expression, start_ms, end_ms)
        else:
            since = last_violation_ms(case, expression, start_ms, end_ms) or start_ms
        if since is None:
            return None
        latest = since if latest is None else max(latest, since)
    return latest


def _requests_held_ms(case: Case, expression: Comparison, start_ms: float, end_ms: float) -> float | None:
    requests = case.requests.between(start_ms, end_ms).labelled(expression.labels)
    steps = math.floor((end_ms - start_ms) / 1000 / STEP_S)
    look = max(1, min(round(LOOK_S / STEP_S), steps // 3))
    if not len(requests) or steps < 1:
        return None
    step = np.minimum(((requests.at_ms - start_ms) / 1000 / STEP_S).astype(np.int64), steps - 1)
    good, total, least = _counted(expression, requests)
    goods, totals = np.bincount(step[good], minlength=steps), np.bincount(step[total], minlength=steps)

    def broken(start: int, width: int) -> bool:
        ok, count = int(goods[start : start + width].sum()), int(totals[start : start + width].sum())
        if expression.metric in RATES:
            return not holds(expression.op, ok / (width * STEP_S), least)
        return count > 0 and not holds(_as_share(expression), ok / count, least)

    last = max((start for start in range(steps - look + 1) if broken(start, look)), default=-1)
    if last == steps - look:
        return None
    first = last + 1
    while last >= 0 and first < steps and broken(first, 1):  # the stretch may begin with the end of the harm
        first += 1
    return start_ms + first * STEP_S * 1000


def _as_share(expression: Comparison) -> str:
    """`p95 < L` says that more than 95% are below L."""
    if expression.metric == "success":
        return expression.op
    return ">" if expression.op in ("<", "<=") else "<"


def _counted(expression: Comparison, requests: Requests) -> tuple[NDArray[np.bool_], NDArray[np.bool_], float]:
    """What is good, of what, and how much of it is asked (a share of 1, or a rate)."""
    everything = np.ones(len(requests), np.bool_)
    if expression.metric == "success":
        return requests.good, everything, limit_of(expression) / 100
    if expression.metric in RATES:
        counted = requests.good if expression.metric == "goodput" else requests.acknowledged
        return counted, everything, limit_of(expression)
    admitted, latency_us = requests.admitted, requests.judged_latency_us
    below = latency_us < expression.limit * 1e6 if expression.op == "<" else latency_us <= expression.limit * 1e6
    return admitted & below, admitted, quantile_of(expression.metric) or 0.0
