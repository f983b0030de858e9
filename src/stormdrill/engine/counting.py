"""What the system's own counters say right now, for guards and the live view where the load is observed.

The verdict never rests on it: `core.judge_observed` computes that from the whole record.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

from stormdrill.engine.looks import BUCKET, GOOD, TOTAL
from stormdrill.engine.watch import Counted

LATELY_MS = 3500.0
"""Three looks, so that one that is missing leaves two."""
STALE_MS = 2500.0


class Added(NamedTuple):
    """What was added lately, by bound where it is a histogram, and in how many seconds."""

    by_bound: dict[str, float]
    per_s: dict[str, float]

    @property
    def all(self) -> float:
        return self.by_bound.get("+Inf", self.by_bound.get("", 0.0))


def figure(counted: Iterable[Counted], metric: str, labels: Mapping[str, str], op: str, now_ms: float) -> float | None:
    """Percent, requests a second, or seconds; None when nothing fresh was counted.

    A latency lies between two bounds: of them the one that makes the least of the matter, so that a guard trips, and a
    wait ends, on what is certain.
    """
    series = list(counted)
    if metric == "success":
        total, good = _added(series, TOTAL, labels, now_ms), _added(series, GOOD, labels, now_ms)
        return min(1.0, (good.all if good else 0.0) / total.all) * 100 if total and total.all > 0 else None
    if metric in ("goodput", "throughput"):
        named = GOOD if metric == "goodput" else TOTAL
        found = _added(series, named, labels, now_ms)
        if found is None and named == TOTAL:
            found = _added(series, BUCKET, labels, now_ms)
        return found.per_s.get("+Inf", found.per_s.get("", 0.0)) if found else None
    found = _added(series, BUCKET, labels, now_ms)
    if found is None or found.all <= 0:
        return None
    low_s, high_s = _bracket(found, float(metric[1:]) / 100)
    return low_s if op in (">", ">=") else high_s


def _bracket(added: Added, share: float) -> tuple[float, float]:
    """The bounds between which the quantile lies."""
    low_s = 0.0
    for bound_s, name in sorted((float(name), name) for name in added.by_bound if name):
        if added.by_bound[name] >= share * added.all:
            return low_s, bound_s
        low_s = bound_s
    return low_s, math.inf


def _added(series: list[Counted], metric: str, labels: Mapping[str, str], now_ms: float) -> Added | None:
    by_bound: dict[str, float] = {}
    per_s: dict[str, float] = {}
    fresh = False
    by_instance: dict[str, list[Counted]] = {}
    for item in series:
        if item.metric == metric:
            by_instance.setdefault(item.labels.get("instance", ""), []).append(item)
    for of_it in by_instance.values():
        times = sorted({at_ms for item in of_it for at_ms, _ in item.seen if at_ms >= now_ms - LATELY_MS})
        if len(times) < 2 or times[-1] < now_ms - STALE_MS:
            continue
        fresh = True
        for item in of_it:
            if not labels.items() <= item.labels.items():
                continue
            bound = item.labels.get("le", "") if metric == BUCKET else ""
            more = _since(item, times[0])
            by_bound[bound] = by_bound.get(bound, 0.0) + more
            per_s[bound] = per_s.get(bound, 0.0) + more * 1000 / (times[-1] - times[0])
    return Added(by_bound, per_s) if fresh and by_bound else None


def _since(item: Counted, start_ms: float) -> float:
    """What one series gained from `start_ms` on; one that came later began at 0, one that fell began anew."""
    seen = [value for at_ms, value in item.seen if at_ms >= start_ms]
    began = [at_ms for at_ms, _ in item.seen]
    values = seen if began and began[0] <= start_ms else [0.0, *seen]
    return sum(after - before if after >= before else after for before, after in pairwise(values))
