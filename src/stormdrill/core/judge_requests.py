"""Success, latency, throughput, goodput and completion time, measured over one window."""

from __future__ import annotations

import math

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from stormdrill.core.case import NOTHING, Case, Measured
from stormdrill.core.evidence import DROPPED, Requests
from stormdrill.core.intervals import (
    Floats,
    Interval,
    block_count,
    block_of,
    quantile_interval,
    rate_interval,
    share_interval,
)
from stormdrill.core.judge_metrics import COMPLETION, holds, limit_of, quantile_of
from stormdrill.core.sentences import plural, requests_text
from stormdrill.core.statistics import minimum_samples
from stormdrill.core.windows import Span
from stormdrill.model.expression import Comparison

_MOST_US = 2**32 - 1


def measure_requests(case: Case, expression: Comparison, window: Span) -> Measured:
    """Dispatches on the metric; the caller knows that it is one of these."""
    if window.length_s <= 0:
        return NOTHING
    if COMPLETION.fullmatch(expression.metric):
        return _completion(case, expression, window)
    requests = case.requests.between(window.start_ms, window.end_ms).labelled(expression.labels)
    requests = _without_the_faults_harm(case, expression, window, requests)
    if expression.metric == "success":
        return _success(case, expression, window, requests)
    if quantile_of(expression.metric) is not None:
        return _latency(case, expression, window, requests)
    return _rate(case, expression, window, requests)


def _without_the_faults_harm(case: Case, expression: Comparison, window: Span, requests: Requests) -> Requests:
    """What was in flight when the fault came says nothing of the time before, unless it was overdue already.

    It belongs to the phase of its intended start, and there its outcome is censored; `whole run` counts it.
    """
    if case.inject is None or window.end_ms > case.inject.mono_ms:
        return requests
    latency = quantile_of(expression.metric) is not None and not expression.relative
    patience_us = expression.limit * 1e6 if latency else requests.deadline_us
    return requests.decided_by(case.inject.mono_ms, patience_us)


def _blocks(requests_ms: Floats, window: Span, mask: NDArray[np.bool_] | None = None) -> tuple[NDArray[np.uint16], int]:
    """The block of each request, or of those of a mask; and how many blocks there are."""
    blocks = block_count(window.length_s)
    block = block_of(requests_ms, window.start_ms, window.end_ms, blocks)
    return block if mask is None or mask.all() else block[mask], blocks


def _success(case: Case, expression: Comparison, window: Span, requests: Requests) -> Measured:
    """2xx within the deadline ÷ all intended: 429, 503, time-outs, refused, unfinished and dropped count against it."""
    block, blocks = _blocks(requests.at_ms, window)
    total = np.bincount(block, minlength=blocks)
    good = np.bincount(block[requests.good], minlength=blocks)
    interval = share_interval(good, total, case.seed)
    text = f"{{value}} of {{n}} {requests_text(expression.labels)} succeeded"
    share = limit_of(expression) / 100
    needs = _needs(share if expression.op in (">", ">=") else 1 - share) if not expression.relative else 0
    return Measured(interval, text=text, needs=needs)


def _needs(share: float) -> int:
    return minimum_samples(share) if 0 <= share < 1 else 0


def _latency(case: Case, expression: Comparison, window: Span, requests: Requests) -> Measured:
    """Over admitted requests; the others are judged by success."""
    share = quantile_of(expression.metric) or 0.0
    admitted = requests.admitted
    block, blocks = _blocks(requests.at_ms, window, admitted)
    values = requests.judged_us if admitted.all() else requests.judged_us[admitted]
    interval = _scaled(quantile_interval(values, block, blocks, share, case.seed), 1e-6)
    apart = int(np.count_nonzero(~admitted & (requests.outcome != DROPPED)))
    text = f"{expression.metric} was {{value}} over {{n}} admitted {requests_text(expression.labels)}"
    if apart:
        text += f" ({apart:,} that were rejected or failed at once are judged by success)"
    needs = 0 if expression.relative else _needs(share if expression.op in ("<", "<=") else 1 - share)
    return Measured(interval, text=text, needs=needs)


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(interval.value * factor, interval.low * factor, interval.high * factor, interval.n)


def _rate(case: Case, expression: Comparison, window: Span, requests: Requests) -> Measured:
    """`throughput`: answered with 2xx; `goodput`: within the deadline too. Each by its intended start."""
    counted = requests.good if expression.metric == "goodput" else requests.acknowledged
    block, blocks = _blocks(requests.at_ms, window, counted)
    interval = rate_interval(np.bincount(block, minlength=blocks), window.length_s / blocks, case.seed)
    kind = "answered in time" if expression.metric == "goodput" else "answered"
    text = f"{{value}} of {requests_text(expression.labels)} were {kind} ({{n}} in all)"
    doubt = "" if len(requests) else "no such request was intended"
    return Measured(interval, text=text, doubt=doubt)


def _completion(case: Case, expression: Comparison, window: Span) -> Measured:
    """From the ledger, by the phase of acceptance. What is not done yet counts as slower than any limit."""
    jobs = case.jobs
    if jobs is None:
        return replace(NOTHING, doubt="the system's job ledger was not read")
    fits = np.array([expression.labels.items() <= kind.labels.items() for kind in case.requests.kinds], dtype=np.bool_)
    chosen = (jobs.accepted_ms >= window.start_ms) & (jobs.accepted_ms < window.end_ms) & ~jobs.refused
    chosen &= fits[jobs.kind] if len(fits) else False
    if not chosen.any():
        return NOTHING
    took_us = np.minimum(jobs.took_ms[chosen] * 1000, _MOST_US).astype(np.uint32)
    block, blocks = _blocks(jobs.accepted_ms[chosen], window)
    share = quantile_of(expression.metric) or 0.0
    interval = _scaled(quantile_interval(took_us, block, blocks, share, case.seed), 1e-6)
    interval = Interval(_never(interval.value), _never(interval.low), _never(interval.high), interval.n)
    what = expression.metric.removeprefix("completion_")
    text = f"{what} of the completion time was {{value}} over {{n}} accepted jobs"
    unknown = int(np.count_nonzero(jobs.unknown[chosen]))
    doubt = ""
    if unknown:
        silent = ", ".join(reading.instance for reading in case.silent_ledgers)
        doubt = f"{silent} did not give its ledger: what became of {plural(unknown, 'job')} is not known"
    return Measured(interval, text=text, needs=0 if expression.relative else _needs(share), doubt=doubt)


def _never(value_s: float) -> float:
    return math.inf if value_s >= _MOST_US * 1e-6 else value_s


def word_of(op: str, interval: Interval, limit: float) -> str:
    """PASS when the whole interval is on the right side, FAIL when all of it is on the wrong one."""
    low, high = holds(op, interval.low, limit), holds(op, interval.high, limit)
    if not interval.n:
        return "INCONCLUSIVE"
    if op == "=":
        if interval.low == interval.high == limit:
            return "PASS"
        return "INCONCLUSIVE" if interval.low <= limit <= interval.high else "FAIL"
    if low and high:
        return "PASS"
    return "INCONCLUSIVE" if low or high else "FAIL"
