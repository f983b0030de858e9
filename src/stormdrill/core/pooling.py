"""Samples of several runs as one: a value, and an interval that knows that seconds differ and that runs do.

It is the hull of the block bootstrap over the blocks of all runs together, and of Student's t over the runs' own
values; of two runs, whose values show no spread, the hull of their own intervals. The t interval isn't monotone (harm
that makes runs alike makes it narrower), so `core.combine` lets nothing pass that a run failed by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stormdrill.core.intervals import MOST_BLOCKS, Interval
from stormdrill.core.judge_metrics import COMPLETION, quantile_of
from stormdrill.core.judge_requests import Sample, never
from stormdrill.core.statistics import student_t
from stormdrill.model.expression import Comparison

FEWEST_FOR_T = 3


def over_runs(samples: Sequence[Sample], expression: Comparison, seed: int) -> Interval:
    """The value of all runs together, and an interval that knows that seconds differ, and that runs do. Base units."""
    share = quantile_of(expression.metric) or 0.0
    whole = expression.metric == "success"
    if not samples:
        return Interval(math.nan, 0.0, 1.0 if whole else math.inf, 0)
    found, own = pooled(samples).interval(share, seed), [sample.interval(share, seed) for sample in samples]
    ends = [(found.low, found.high), *between_runs(own)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    made = Interval(found.value, max(low, 0.0), min(high, 1.0) if whole else high, found.n)
    return never(made) if COMPLETION.fullmatch(expression.metric) else made


def between_runs(own: Sequence[Interval]) -> list[tuple[float, float]]:
    """Student's t over the runs' values; of too few their own intervals, since two values show no spread."""
    values = [one.value for one in own if one.n]
    if len(values) < 2:
        return []
    if len(values) < FEWEST_FOR_T or not all(math.isfinite(value) for value in values):
        return [(one.low, one.high) for one in own if one.n]
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = student_t(len(values) - 1) * spread / math.sqrt(len(values))
    return [(mean - half, mean + half)]


def pooled(samples: Sequence[Sample]) -> Sample:
    """All runs' blocks, one run's after the other's; wider ones where there would be too many."""
    each = -(-sum(len(sample.total) for sample in samples) // MOST_BLOCKS)
    while sum(-(-len(sample.total) // each) for sample in samples) > MOST_BLOCKS:
        each += 1
    starts = [np.arange(0, len(sample.total), each) for sample in samples]
    total = np.concatenate([np.add.reduceat(s.total, start) for s, start in zip(samples, starts, strict=True)])
    width_s = math.fsum(len(sample.total) * sample.width_s for sample in samples) / len(total)
    first = samples[0]
    if first.good is not None:
        goods = [np.add.reduceat(s.good, start) for s, start in zip(samples, starts, strict=True) if s.good is not None]
        return Sample(total, width_s, np.concatenate(goods))
    if first.values_us is None:
        return Sample(total, width_s)
    offsets = np.cumsum([0, *(len(start) for start in starts)])
    blocks = [
        (s.block // np.uint16(each) + np.uint16(offset)).astype(np.uint16)
        for s, offset in zip(samples, offsets.tolist(), strict=False)
        if s.block is not None
    ]
    values = [s.values_us for s in samples if s.values_us is not None]
    return Sample(total, width_s, None, np.concatenate(values), np.concatenate(blocks))
