"""How much of its error budget each objective spent: what a run costs, said apart from its verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from stormdrill.core.case import Case
from stormdrill.core.evidence import RecordFile
from stormdrill.core.judge_metrics import QUANTILE, limit_of, quantile_of
from stormdrill.core.windows import window_of
from stormdrill.model.event import Recorded
from stormdrill.model.expression import Comparison
from stormdrill.model.plan import Plan


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


def budgets(plan: Plan, events: Sequence[Recorded], records: Sequence[RecordFile]) -> tuple[Budget, ...]:
    """For success and latency quantiles with a limit of their own; windows without a request are left out."""
    case = Case(plan, events, records, None)
    found = []
    for objective in plan.experiment.objectives:
        expression = objective.expression
        span = case.spans.get(objective.window.phase)
        if span is None or not isinstance(expression, Comparison) or expression.relative:
            continue
        window = window_of(objective, span, case.inject)
        requests = case.requests.between(window.start_ms, window.end_ms).labelled(expression.labels)
        if expression.metric == "success" and expression.op in (">", ">="):
            allowed, bad, n = 1 - limit_of(expression) / 100, int(np.count_nonzero(~requests.good)), len(requests)
        elif QUANTILE.fullmatch(expression.metric) and expression.op in ("<", "<="):
            counted = requests.where(requests.admitted)
            slow = counted.judged_latency_us >= expression.limit * 1e6
            allowed, bad, n = 1 - (quantile_of(expression.metric) or 0.0), int(np.count_nonzero(slow)), len(counted)
        else:
            continue
        if n and allowed > 0:
            spent = round(bad / (allowed * n), 4)
            found.append(Budget(expression.text, objective.window.text, round(allowed, 9), bad, n, spent))
    return tuple(found)
