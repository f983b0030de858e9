"""What a metric's name means: how it is measured, and in which unit it is shown."""

from __future__ import annotations

import re

from stormdrill.model.expression import Comparison

QUANTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")
COMPLETION = re.compile(r"completion_p(\d{1,2}(?:\.\d+)?)")
RATES = ("throughput", "goodput")
JOBS = ("jobs_lost", "jobs_doubled", "jobs_strayed")
_OF_BYTES = {"KB": 1 / 1024, "MB": 1 / 1024**2, "GB": 1 / 1024**3}
RESIDENCY = "residency"
"""The label of a request that names the region in which its job must be done."""


def quantile_of(metric: str) -> float | None:
    """0.95 for `p95` and `completion_p95`; None for what is no quantile."""
    match = QUANTILE.fullmatch(metric) or COMPLETION.fullmatch(metric)
    return round(float(match[1]) / 100, 9) if match else None


def from_requests(metric: str) -> bool:
    """Whether it is measured on the request records (or the jobs that they accepted)."""
    return metric == "success" or metric in RATES or metric in JOBS or quantile_of(metric) is not None


def told_as_time(expression: Comparison) -> bool:
    """`queue_depth < 50 within 20s`: what probes read, and what had to hold by then. Told as when it held."""
    return not from_requests(expression.metric) and not expression.relative and expression.within_s is not None


def unit_of(expression: Comparison) -> str:
    """In which unit value, interval and limit are shown."""
    metric = expression.metric
    if metric == "success":
        return "%"
    if metric in RATES:
        return "/s"
    if quantile_of(metric) is not None:
        return expression.unit if expression.unit in ("ms", "s") else "ms"
    if expression.relative and not from_requests(metric):
        return ""
    return {"m": "s", "h": "s", "/m": "/s", "/h": "/s"}.get(expression.unit, expression.unit)


def scale_of(expression: Comparison) -> float:
    """What a value in base units (seconds, shares of 1 for requests) is multiplied by to be shown."""
    return {"ms": 1000.0, "%": 100.0, **_OF_BYTES}.get(unit_of(expression), 1.0)


def limit_of(expression: Comparison) -> float:
    """The limit as shown. Expressions carry percent for shares, seconds for times, bytes for sizes."""
    return round(expression.limit * {"ms": 1000.0, **_OF_BYTES}.get(unit_of(expression), 1.0), 9)


def holds(op: str, value: float, limit: float) -> bool:
    """Whether `value op limit`."""
    match op:
        case "<":
            return value < limit
        case "<=":
            return value <= limit
        case ">":
            return value > limit
        case ">=":
            return value >= limit
    return value == limit
