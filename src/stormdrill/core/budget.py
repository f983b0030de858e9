"""How much of its error budget each objective spent: what a run costs, said apart from its verdict.

Of its own window always; of the window of the service's declared traffic (`System.traffic`) too, where there is one:
what the same share of bad requests costs of, say, a month, when it meets the traffic that the service has in earnest.
The share of that traffic which an objective's labels choose is taken to be the one that they had in its window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stormdrill.core.case import Case
from stormdrill.core.evidence import RecordFile
from stormdrill.core.judge_metrics import QUANTILE, limit_of, quantile_of
from stormdrill.core.judge_observed import bad_of
from stormdrill.core.windows import Span, narrowed, window_of
from stormdrill.model.event import Recorded
from stormdrill.model.expression import Comparison
from stormdrill.model.plan import Plan
from stormdrill.model.system import Traffic

DIGITS = 6


class Spending(Struct, frozen=True):
    """One objective over the window of the declared traffic."""

    window_s: float
    rate_per_s: float
    """Of the requests that it speaks of, in earnest."""
    budget: float
    """Requests that may be bad in the window."""
    cost: float
    """Requests that would have been bad, had this run's share of bad ones met that traffic for as long as it lasted."""
    share: float
    """`cost` ÷ `budget`: 1.0 is all of it."""
    burn: float
    """How many times faster than the budget allows: at 1.0 it lasts just as long as the window."""
    lasts_s: float | None
    """After which the whole budget is gone at that burn; None: nothing was bad."""
    minute: float
    """Share of the budget that one minute of this costs."""


class Budget(Struct, frozen=True):
    """One objective in one window."""

    name: str
    phase: str
    allowed: float
    """Share of requests that may be bad, 0 to 1."""
    bad: int
    n: int
    spent: float
    """Bad requests ÷ allowed ones: 1.0 is the window's whole budget. The burn rate over that window."""
    length_s: float = 0.0
    spending: Spending | None = None
    """None without declared traffic."""


def budgets(plan: Plan, events: Sequence[Recorded], records: Sequence[RecordFile]) -> tuple[Budget, ...]:
    """For success and latency quantiles with a limit of their own; windows without a request are left out."""
    case = Case(plan, events, records, None)
    found = []
    for objective in plan.experiment.objectives:
        expression = objective.expression
        span = case.spans.get(objective.window.phase)
        if span is None or not isinstance(expression, Comparison) or expression.relative:
            continue
        allowed = _allowed(expression)
        if allowed <= 0:
            continue
        window = window_of(objective, span, case.inject)
        counted = _observed(case, expression, window) if plan.experiment.observed else _sent(case, expression, window)
        if counted is not None and counted.n:
            bad, n = counted.bad, counted.n
            spent, allowed = round(bad / (allowed * n), 4), round(allowed, 9)
            name, phase, length_s = expression.text, objective.window.text, round(window.length_s, 3)
            earnest = None
            if plan.system.traffic is not None:
                earnest = spending(plan.system.traffic, counted.chosen, allowed, bad / n, window.length_s)
            found.append(Budget(name, phase, allowed, bad, n, spent, length_s, earnest))
    return tuple(found)


class _Counted(NamedTuple):
    bad: int
    n: int
    chosen: float
    """The share of all requests that the objective speaks of."""


def _allowed(expression: Comparison) -> float:
    """The share that may be bad; 0 for an objective that has no budget."""
    if expression.metric == "success" and expression.op in (">", ">="):
        return 1 - limit_of(expression) / 100
    if QUANTILE.fullmatch(expression.metric) and expression.op in ("<", "<="):
        return 1 - (quantile_of(expression.metric) or 0.0)
    return 0.0


def _sent(case: Case, expression: Comparison, window: Span) -> _Counted:
    sure = narrowed(window, case.unsure_ms)
    every = case.requests.between(sure.start_ms, sure.end_ms)
    requests = every.labelled(expression.labels)
    if expression.metric == "success":
        bad, n = int(np.count_nonzero(~requests.good)), len(requests)
    else:
        admitted = requests.where(requests.admitted)
        limit_us, latency_us = expression.limit * 1e6, admitted.judged_latency_us
        slow = latency_us >= limit_us if expression.op == "<" else latency_us > limit_us
        bad, n = int(np.count_nonzero(slow)), len(admitted)
    return _Counted(bad, n, n / len(every) if len(every) else 0.0)


def _observed(case: Case, expression: Comparison, window: Span) -> _Counted | None:
    """None where the system's counters don't tell it."""
    found = bad_of(case, expression, window)
    every = bad_of(case, replace(expression, labels={}), window) if expression.labels else found
    if found is None or every is None or not every[1]:
        return None
    return _Counted(found[0], found[1], min(1.0, found[1] / every[1]))


def spending(traffic: Traffic, chosen: float, allowed: float, bad: float, length_s: float) -> Spending:
    """`chosen`: the share of all requests that the objective speaks of; `allowed` and `bad` are shares of those."""
    rate_per_s = traffic.rate_per_s * chosen
    budget, cost = rate_per_s * traffic.window_s * allowed, rate_per_s * length_s * bad
    burn = bad / allowed
    return Spending(
        window_s=traffic.window_s,
        rate_per_s=round(rate_per_s, DIGITS),
        budget=round(budget, 3),
        cost=round(cost, 3),
        share=round(cost / budget, 9),
        burn=round(burn, 4),
        lasts_s=round(traffic.window_s / burn, 3) if burn else None,
        minute=round(60 * burn / traffic.window_s, 9),
    )
