"""admitted-latency: what is let in is answered in time: under overload the p99 of what is admitted is within D.

Deadlines differ by kind, so that each request's latency is measured in its own. Time-outs were let in and are counted
as later than any limit; rejections are judged by `cheap-rejection`.
"""

from __future__ import annotations

import math

import numpy as np

from stormdrill.core.backpressure.asked import AdmittedLatency
from stormdrill.core.backpressure.capacity import Overload, climbed, overloads
from stormdrill.core.backpressure.checking import check
from stormdrill.core.backpressure.figures import MOST_US, at_most, figure, percent, scaled, told
from stormdrill.core.backpressure.finding import Answer, conclude, unknown
from stormdrill.core.case import Case
from stormdrill.core.evidence import Requests
from stormdrill.core.intervals import Interval, block_count, block_of, quantile_interval
from stormdrill.core.sentences import quantity
from stormdrill.core.statistics import minimum_samples
from stormdrill.model.verdict import CheckVerdict

WORD = "admitted-latency"
QUANTILE = 0.99
PARTS = 1_000_000
"""Of a deadline, in which latencies are counted: a whole number each."""


def judge(case: Case, asked: AdmittedLatency) -> CheckVerdict:
    windows, missing = overloads(case, asked.up_to)
    if not windows:
        return conclude(case, WORD, [unknown(missing)], ())
    most = float(asked.most.rstrip("%"))
    parts, figures = [unknown(missing)] if missing else [], []
    for window in windows:
        p99 = percent(_p99(case, window))
        parts.append(_part(window, p99, most))
        figures.append(figure(f"p99 at {window.name}, of the deadline", p99, "%", most))
    return conclude(case, WORD, parts, [*climbed(case), *(window.span for window in windows)], figures=figures)


def _p99(case: Case, window: Overload) -> Interval:
    """In deadlines."""
    requests = case.requests.between(window.span.start_ms, window.span.end_ms)
    requests = requests.where(requests.admitted)
    blocks = block_count(window.span.length_s)
    block = block_of(requests.at_ms, window.span.start_ms, window.span.end_ms, blocks)
    found = quantile_interval(in_deadlines(requests), block, blocks, QUANTILE, case.seed)
    return scaled(found, 1 / PARTS)


def in_deadlines(requests: Requests) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """Each one's latency in millionths of its deadline; a time-out is later than anything."""
    share = requests.latency_us / np.maximum(requests.deadline_us, 1.0) * PARTS
    parts: np.ndarray[tuple[int], np.dtype[np.uint32]] = np.minimum(
        np.where(requests.timed_out, float(MOST_US), share), MOST_US
    ).astype(np.uint32)
    return parts


def _part(window: Overload, p99: Interval, most: float) -> Answer:
    if not p99.n:
        return unknown(f"nothing was admitted {window.text}")
    word = at_most(p99, most)
    text = f"p99 of {p99.n:,} admitted requests {window.text} was "
    text += "a time-out" if math.isinf(p99.value) else f"{told(p99, '%')} of the deadline"
    fewest = minimum_samples(QUANTILE)
    few = f"; {fewest} are the fewest that can show it" if word == "INCONCLUSIVE" and p99.n < fewest else ""
    return Answer(word, f"{text}; at most {quantity(most, '%')} was asked{few}")


CHECK = check(WORD, judge)
