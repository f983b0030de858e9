"""Request records → what the pictures draw: one value a bucket of time, for all requests and for each tier.

Buckets start anew at each phase's edge, so that none mixes baseline with fault. A bucket without requests is a gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from stormdrill.core import evidence as core

Floats = npt.NDArray[np.float64]
ALL = "all"
WIDTHS_S = (0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
QUANTILES = ((0.5, "p50", 1), (0.95, "p95", 20), (0.99, "p99", 100))
"""Share, name, and the fewest admitted requests of which it says more than their maximum."""
MOST_BUCKETS = 160


class Requests(Struct, frozen=True):
    """Every intended request of the run, all workers together, ordered by intended time."""

    intended_ms: Floats
    """On the run's monotonic clock."""
    lag_ms: Floats
    latency_ms: Floats
    dropped: npt.NDArray[np.bool_]
    good: npt.NDArray[np.bool_]
    """2xx within the deadline."""
    turned_away: npt.NDArray[np.bool_]
    """429 or 503."""
    timed_out: npt.NDArray[np.bool_]
    """No answer within the client's limit, or none yet when the generator ended."""
    late: npt.NDArray[np.bool_]
    """2xx, but after the deadline."""
    admitted: npt.NDArray[np.bool_]
    """What latency is measured over: not refused with 429 or 503, not dropped; time-outs included."""
    tier: npt.NDArray[np.int32]
    """Index into `tiers`."""
    tiers: tuple[str, ...]
    tier_label: str
    """The label that `tiers` are values of: usually `tier`; empty when the records carry no labels."""

    def __len__(self) -> int:
        return len(self.intended_ms)


class Buckets(Struct, frozen=True):
    edges_ms: Floats
    """One more than there are buckets."""

    @property
    def widths_s(self) -> Floats:
        return np.diff(self.edges_ms) / 1000.0

    @property
    def middles_ms(self) -> Floats:
        return (self.edges_ms[:-1] + self.edges_ms[1:]) / 2.0

    def __len__(self) -> int:
        return len(self.edges_ms) - 1


class Group(Struct, frozen=True):
    """What one tier (or all) did, bucket by bucket; NaN where there is nothing to say."""

    name: str
    asked_per_s: Floats
    sent_per_s: Floats
    good_per_s: Floats
    n: npt.NDArray[np.int64]
    success: Floats
    """Percent."""
    success_low: Floats
    success_high: Floats
    quantiles: dict[str, Floats]
    """p50, p95, p99 in ms, over the wider latency buckets."""
    admitted: npt.NDArray[np.int64]


class Series(Struct, frozen=True):
    buckets: Buckets
    wide: Buckets
    """For latency quantiles: wide enough for about a hundred requests each, where the rate allows."""
    groups: tuple[Group, ...]
    """All requests first, then each tier in order."""


def bucket(edges_ms: Sequence[float], width_s: float) -> Buckets:
    """Cuts each phase into buckets of `width_s`; a rest shorter than half joins its neighbour, a phase too."""
    kept = [edges_ms[0]]
    for edge in edges_ms[1:-1]:
        if edge - kept[-1] >= width_s * 500.0:
            kept.append(edge)
    if len(kept) > 1 and edges_ms[-1] - kept[-1] < width_s * 500.0:
        kept.pop()
    kept.append(edges_ms[-1])
    found: list[float] = []
    for start, end in pairwise(kept):
        count = max(1, round((end - start) / 1000.0 / width_s))
        inner = [start + index * width_s * 1000.0 for index in range(count)]
        found += [edge for edge in inner if edge < end]
    return Buckets(np.array([*found, edges_ms[-1]], dtype=np.float64))


def series(requests: Requests, edges_ms: Sequence[float]) -> Series | None:
    """None when there is nothing to draw: no request, or a run without a length."""
    if not len(requests) or len(edges_ms) < 2 or edges_ms[-1] <= edges_ms[0]:
        return None
    span_s = (edges_ms[-1] - edges_ms[0]) / 1000.0
    rate = len(requests) / span_s
    narrow = next((width for width in WIDTHS_S if span_s / width <= MOST_BUCKETS), WIDTHS_S[-1])
    narrow = max(narrow, next((width for width in WIDTHS_S if width * rate >= 20), WIDTHS_S[-1]))
    narrow = min(narrow, max(span_s / 12, WIDTHS_S[0]))
    wide = max(narrow, next((width for width in WIDTHS_S if width * rate >= 100), WIDTHS_S[-1]))
    wide = min(wide, max(span_s / 12, narrow))
    buckets, coarse = bucket(edges_ms, narrow), bucket(edges_ms, wide)
    everyone = np.ones(len(requests), dtype=np.bool_)
    groups = [_group(ALL, requests, everyone, buckets, coarse)]
    if len(requests.tiers) > 1 or requests.tier_label:
        groups += [
            _group(name, requests, requests.tier == index, buckets, coarse) for index, name in enumerate(requests.tiers)
        ]
    return Series(buckets, coarse, tuple(groups))


def _group(name: str, requests: Requests, mine: npt.NDArray[np.bool_], buckets: Buckets, coarse: Buckets) -> Group:
    intended = requests.intended_ms[mine]
    sent = requests.intended_ms[mine & ~requests.dropped] + requests.lag_ms[mine & ~requests.dropped]
    asked = np.histogram(intended, buckets.edges_ms)[0]
    good = np.histogram(requests.intended_ms[mine & requests.good], buckets.edges_ms)[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        success = np.where(asked > 0, 100.0 * good / asked, np.nan)
    low, high = wilson(good, asked)
    admitted = mine & requests.admitted
    quantiles, counts = _quantiles(requests.intended_ms[admitted], requests.latency_ms[admitted], coarse)
    return Group(
        name=name,
        asked_per_s=asked / buckets.widths_s,
        sent_per_s=np.histogram(sent, buckets.edges_ms)[0] / buckets.widths_s,
        good_per_s=good / buckets.widths_s,
        n=asked.astype(np.int64),
        success=success,
        success_low=100.0 * low,
        success_high=100.0 * high,
        quantiles=quantiles,
        admitted=counts,
    )


def _quantiles(at_ms: Floats, latency_ms: Floats, buckets: Buckets) -> tuple[dict[str, Floats], npt.NDArray[np.int64]]:
    """Order statistics (the smallest value not below the share), never interpolated."""
    borders = np.searchsorted(at_ms, buckets.edges_ms, side="left")
    found = {name: np.full(len(buckets), np.nan) for _, name, _ in QUANTILES}
    for index, (start, end) in enumerate(pairwise(borders)):
        ordered = np.sort(latency_ms[start:end])
        for share, name, fewest in QUANTILES:
            if len(ordered) >= fewest:
                found[name][index] = ordered[min(len(ordered) - 1, int(np.ceil(share * len(ordered))) - 1)]
    return found, np.diff(borders).astype(np.int64)


def wilson(good: npt.NDArray[np.int64], n: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """95% Wilson score intervals of shares; NaN where n is 0. For the shade in pictures: verdicts come from `core`."""
    z = 1.959963984540054
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(n > 0, good / n, np.nan)
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * np.sqrt(p * (1 - p) / n + z * z / (4.0 * n * n)) / (1 + z * z / n)
    return np.clip(middle - half, 0.0, 1.0), np.clip(middle + half, 0.0, 1.0)


def tier_of(labels: Mapping[str, str]) -> tuple[str, str]:
    """The label that tells requests apart in pictures and tables, and its value: `tier`, else the first by name."""
    if "tier" in labels:
        return "tier", labels["tier"]
    for name in sorted(labels):
        return name, labels[name]
    return "", ""


def tiered(requests: core.Requests) -> Requests:
    """The requests in order of their intended start, each with its tier."""
    named = sorted({tier_of(kind.labels) for kind in requests.kinds})
    label = named[0][0] if named and all(name == named[0][0] for name, _ in named) else ""
    tiers = tuple(value for _, value in named) if label else ("",)
    of_kind = np.array([tiers.index(tier_of(kind.labels)[1]) if label else 0 for kind in requests.kinds] or [0])
    ordered = requests.where(np.argsort(requests.at_ms, kind="stable"))
    dropped = ordered.outcome == core.DROPPED
    turned_away = (ordered.outcome == core.ANSWERED) & ((ordered.status == 429) | (ordered.status == 503))
    return Requests(
        intended_ms=ordered.at_ms,
        lag_ms=ordered.lag_us / 1000.0,
        latency_ms=ordered.judged_latency_us / 1000.0,
        dropped=dropped,
        good=ordered.good,
        turned_away=turned_away,
        timed_out=ordered.timed_out,
        late=ordered.acknowledged & ~ordered.good,
        admitted=ordered.admitted,
        tier=of_kind[ordered.kind].astype(np.int32),
        tiers=tiers,
        tier_label=label,
    )
