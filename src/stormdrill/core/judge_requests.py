"""Success, latency, throughput, goodput and completion time, measured over one window."""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from stormdrill.core.case import NOTHING, Case, Measured
from stormdrill.core.evidence import DROPPED, Requests
from stormdrill.core.intervals import (
    Interval,
    Ints,
    block_count,
    block_of,
    quantile_interval,
    rate_interval,
    share_interval,
)
from stormdrill.core.jobs import Jobs
from stormdrill.core.judge_metrics import COMPLETION, holds, limit_of, quantile_of
from stormdrill.core.sentences import plural, requests_text
from stormdrill.core.statistics import TAIL, minimum_samples
from stormdrill.core.windows import Span
from stormdrill.model.expression import Comparison

_MOST_US = 2**32 - 1


def measure_requests(case: Case, expression: Comparison, window: Span) -> Measured:
    """Dispatches on the metric; the caller knows that it is one of these."""
    if window.length_s <= 0:
        return NOTHING
    if COMPLETION.fullmatch(expression.metric):
        return _completion(case, expression, window)
    requests = requests_in(case, expression, window)
    sample = _sample(expression, window, requests)
    if expression.metric == "success":
        return _success(case, expression, sample)
    if quantile_of(expression.metric) is not None:
        return _latency(case, expression, sample, requests)
    return _rate(case, expression, window, sample, requests)


def requests_in(case: Case, expression: Comparison, window: Span) -> Requests:
    """Those that the expression speaks of."""
    requests = case.requests.between(window.start_ms, window.end_ms).labelled(expression.labels)
    return _without_the_faults_harm(case, expression, window, requests)


def _without_the_faults_harm(case: Case, expression: Comparison, window: Span, requests: Requests) -> Requests:
    """What was in flight when the fault came says nothing of the time before, unless it was overdue already.

    It belongs to the phase of its intended start, and there its outcome is censored; `whole run` counts it.
    """
    if case.called is None or window.end_ms > case.called.mono_ms:
        return requests
    latency = quantile_of(expression.metric) is not None and not expression.relative
    patience_us = expression.limit * 1e6 if latency else requests.deadline_us
    return requests.decided_by(case.called.mono_ms, patience_us)


class Sample(Struct, frozen=True):
    """What an interval is made of: a window's requests by the block of time in which they were intended."""

    total: Ints
    """In each block: all that count, or for a rate what happened."""
    width_s: float
    """Of a block."""
    good: Ints | None = None
    """For a share: those of `total` that are good."""
    values_us: NDArray[np.uint32] | None = None
    """For a quantile: each one's latency, whose block is in `block`."""
    block: NDArray[np.uint16] | None = None

    def interval(self, share: float, seed: int) -> Interval:
        """In base units: a share of 1, seconds (the quantile at `share`), or a second."""
        if self.good is not None:
            return share_interval(self.good, self.total, seed)
        if self.values_us is None or self.block is None:
            return rate_interval(self.total, self.width_s, seed)
        found = quantile_interval(self.values_us, self.block, len(self.total), share, seed)
        return Interval(found.value * 1e-6, found.low * 1e-6, found.high * 1e-6, found.n)


def sample_of(case: Case, expression: Comparison, window: Span) -> Sample | None:
    """None where there is nothing to sample: a window without length, no ledger, no accepted job."""
    if window.length_s <= 0:
        return None
    if COMPLETION.fullmatch(expression.metric):
        return _completed(case, expression, window)
    return _sample(expression, window, requests_in(case, expression, window))


def _sample(expression: Comparison, window: Span, requests: Requests) -> Sample:
    blocks = block_count(window.length_s)
    width_s = window.length_s / blocks
    block = block_of(requests.at_ms, window.start_ms, window.end_ms, blocks)
    if expression.metric == "success":
        good = np.bincount(block[requests.good], minlength=blocks)
        return Sample(np.bincount(block, minlength=blocks), width_s, good)
    if quantile_of(expression.metric) is not None:
        admitted = requests.admitted
        values_us = _waited_us(expression, requests)
        if not admitted.all():
            block, values_us = block[admitted], values_us[admitted]
        return Sample(np.bincount(block, minlength=blocks), width_s, None, values_us, block)
    counted = requests.good if expression.metric == "goodput" else requests.acknowledged
    return Sample(np.bincount(block[counted], minlength=blocks), width_s)


def _waited_us(expression: Comparison, requests: Requests) -> NDArray[np.uint32]:
    """Of time-outs the client's patience; but where that ends before the limit that is asked for, nobody waited long
    enough to see the limit kept, and they count as slower than any."""
    values_us = requests.judged_us
    if expression.relative or expression.op not in ("<", "<="):
        return values_us
    late = np.flatnonzero(requests.timed_out)
    short = late[values_us[late] <= expression.limit * 1e6]
    if len(short):
        values_us = values_us.copy()
        values_us[short] = _MOST_US
    return values_us


def _success(case: Case, expression: Comparison, sample: Sample) -> Measured:
    """2xx within the deadline ÷ all intended: 429, 503, time-outs, refused, unfinished and dropped count against it."""
    text = f"{{value}} of {{n}} {requests_text(expression.labels)} succeeded"
    share = limit_of(expression) / 100
    needs = _needs(share if expression.op in (">", ">=") else 1 - share) if not expression.relative else 0
    return Measured(sample.interval(0.0, case.seed), text=text, needs=needs)


def _needs(share: float) -> int:
    return minimum_samples(share) if 0 <= share < 1 else 0


def _latency(case: Case, expression: Comparison, sample: Sample, requests: Requests) -> Measured:
    """Over admitted requests; the others are judged by success."""
    share = quantile_of(expression.metric) or 0.0
    interval = never(sample.interval(share, case.seed))
    apart = int(np.count_nonzero(~requests.admitted & (requests.outcome != DROPPED)))
    text = f"{expression.metric} was {{value}} over {{n}} admitted {requests_text(expression.labels)}"
    if apart:
        text += f" ({apart:,} that were rejected or failed at once are judged by success)"
    needs = 0 if expression.relative else _needs(share if expression.op in ("<", "<=") else 1 - share)
    return Measured(interval, text=text, needs=needs)


def _rate(case: Case, expression: Comparison, window: Span, sample: Sample, requests: Requests) -> Measured:
    """`throughput`: answered with 2xx; `goodput`: within the deadline too. Each by its intended start."""
    kind = "answered in time" if expression.metric == "goodput" else "answered"
    text = f"{{value}} of {requests_text(expression.labels)} were {kind} ({{n}} in all)"
    doubt = "" if len(requests) else "no such request was intended"
    if len(requests) and not sample.total.any():
        # nothing came back of all that was asked: at most a Poisson process that stays silent so long by chance
        most = -math.log(TAIL) / window.length_s
        above = expression.op in (">", ">=")
        text = f"{{value}} of {requests_text(expression.labels)} were {kind}: none of {{n}}"
        doubt = "" if above else "nothing was served, which keeps no limit"
        return Measured(Interval(0.0, 0.0, most, len(requests)), text=text, doubt=doubt)
    return Measured(sample.interval(0.0, case.seed), text=text, doubt=doubt)


def _chosen_jobs(case: Case, jobs: Jobs, expression: Comparison, window: Span) -> NDArray[np.bool_]:
    fits = np.array([expression.labels.items() <= kind.labels.items() for kind in case.requests.kinds], dtype=np.bool_)
    chosen = (jobs.accepted_ms >= window.start_ms) & (jobs.accepted_ms < window.end_ms) & ~jobs.refused
    chosen &= fits[jobs.kind] if len(fits) else False
    return chosen


def _completed(case: Case, expression: Comparison, window: Span) -> Sample | None:
    if case.jobs is None:
        return None
    chosen = _chosen_jobs(case, case.jobs, expression, window)
    if not chosen.any():
        return None
    took_us = np.minimum(case.jobs.took_ms[chosen] * 1000, _MOST_US).astype(np.uint32)
    blocks = block_count(window.length_s)
    block = block_of(case.jobs.accepted_ms[chosen], window.start_ms, window.end_ms, blocks)
    return Sample(np.bincount(block, minlength=blocks), window.length_s / blocks, None, took_us, block)


def _completion(case: Case, expression: Comparison, window: Span) -> Measured:
    """From the ledger, by the phase of acceptance. What is not done yet counts as slower than any limit."""
    jobs, sample = case.jobs, _completed(case, expression, window)
    if jobs is None:
        return replace(NOTHING, doubt="the system's job ledger was not read")
    if sample is None:
        return NOTHING
    share = quantile_of(expression.metric) or 0.0
    interval = never(sample.interval(share, case.seed))
    what = expression.metric.removeprefix("completion_")
    text = f"{what} of the completion time was {{value}} over {{n}} accepted jobs"
    unknown = int(np.count_nonzero(jobs.unknown & _chosen_jobs(case, jobs, expression, window)))
    doubt = ""
    if unknown:
        silent = ", ".join(reading.instance for reading in case.silent_ledgers)
        doubt = f"{silent} did not give its ledger: what became of {plural(unknown, 'job')} is not known"
    return Measured(interval, text=text, needs=0 if expression.relative else _needs(share), doubt=doubt)


def never(interval: Interval) -> Interval:
    """Times with what is not done as what it is: endless."""

    def end(value_s: float) -> float:
        return math.inf if value_s >= _MOST_US * 1e-6 else value_s

    return Interval(end(interval.value), end(interval.low), end(interval.high), interval.n)


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
