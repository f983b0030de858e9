"""Success, rates and latency of the system's own traffic, from what the system counts of it (`load: observed`).

A counter says what was added between two looks at it, and no more: neither when within that stretch, nor what came
after the last look before a restart. So

- a stretch belongs to the window in which most of it lies;
- a counter that fell was restarted and has counted from 0 since, and so has every other one of that instance;
- a stretch that is far longer than the others is a gap: nothing is known of it in time, and nothing passes on it;
- a latency is known between two bounds of the histogram, never within them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from stormdrill.core.case import NOTHING, Case, Measured
from stormdrill.core.intervals import MOST_BLOCKS, Blocks, Interval, Ints, rate_interval, share_interval
from stormdrill.core.judge_metrics import RATES, limit_of, quantile_of
from stormdrill.core.judge_readings import Seen, stale, why_not
from stormdrill.core.sentences import number, plural, requests_text
from stormdrill.core.statistics import minimum_samples
from stormdrill.core.windows import Span, all_of
from stormdrill.model.event import Reading
from stormdrill.model.expression import Comparison

GOOD, TOTAL, BUCKET = "observed.good", "observed.total", "observed.bucket"
"""Names of the readings; `engine.looks` writes them."""
BOUND = "le"
"""The label of a histogram's bucket: its upper bound, in seconds."""
SLACK = 1.01
"""More good ones than all: by so much it may be what was in flight at the edges, beyond it they aren't the same."""
SLACK_REQUESTS = 5

Key = tuple[tuple[str, str], ...]


class _Stretch(Struct, frozen=True):
    """What one instance counted between two looks, by bound where it is a histogram."""

    start_ms: float
    end_ms: float
    added: dict[str, float]
    restarted: bool


class _Counted(Struct, frozen=True):
    """One counter over a window: the stretches of all instances, laid into blocks."""

    stretches: tuple[_Stretch, ...]
    doubt: str
    events: tuple[int, ...]

    @property
    def restarts(self) -> int:
        return sum(item.restarted for item in self.stretches)


class _Grid(Struct, frozen=True):
    """The blocks over which intervals are drawn: as long as a usual stretch."""

    start_ms: float
    width_ms: float
    blocks: int

    def lay(self, stretches: Sequence[_Stretch], bound: str = "") -> Ints:
        """Requests of each block; a stretch counts where its middle lies."""
        found = np.zeros(self.blocks, np.int64)
        for item in stretches:
            middle = (item.start_ms + item.end_ms) / 2
            block = min(self.blocks - 1, max(0, int((middle - self.start_ms) / self.width_ms)))
            found[block] += round(item.added.get(bound, 0.0))
        return found


def measure_observed(case: Case, expression: Comparison, window: Span) -> Measured:
    """Dispatches on the metric. What no counter tells is not measured, and says so."""
    known = case.plan.system.indicators
    if known is None or window.length_s <= 0:
        return replace(NOTHING, doubt="the system file names no indicators")
    if expression.metric == "success":
        return _success(case, expression, window) if known.good else _uncounted(expression)
    if expression.metric in RATES:
        return _rate(case, expression, window)
    if expression.metric.startswith("p") and quantile_of(expression.metric) is not None:
        return _latency(case, expression, window) if known.histogram else _uncounted(expression)
    return _uncounted(expression)


def _uncounted(expression: Comparison) -> Measured:
    return replace(NOTHING, doubt=f"nothing counts {expression.metric} of observed traffic")


def _success(case: Case, expression: Comparison, window: Span) -> Measured:
    all_, well = _counted(case, TOTAL, expression, window), _counted(case, GOOD, expression, window, quiet=True)
    doubt = all_.doubt or well.doubt
    if not all_.stretches:
        return replace(NOTHING, doubt=doubt)
    grid = _grid(all_.stretches)
    total, good = grid.lay(all_.stretches), grid.lay(well.stretches)
    if good.sum() > SLACK * total.sum() + SLACK_REQUESTS:
        more = f"{int(good.sum()):,} good ones of {int(total.sum()):,}"
        doubt = doubt or f"the counters don't speak of the same requests: {more}"
    interval = share_interval(np.minimum(good, total), total, case.seed)
    text = f"{{value}} of {{n}} {_told(case, expression)} were served well{_restarts(all_)}"
    share = limit_of(expression) / 100
    needs = 0 if expression.relative else _needs(share if expression.op in (">", ">=") else 1 - share)
    return Measured(interval, text=text, needs=needs, doubt=doubt, events=(*all_.events, *well.events))


def _rate(case: Case, expression: Comparison, window: Span) -> Measured:
    """`throughput`: all that were counted; `goodput`: those that were served well."""
    known = case.plan.system.indicators
    assert known is not None
    by_histogram = expression.metric == "throughput" and not known.total
    metric = GOOD if expression.metric == "goodput" else BUCKET if by_histogram else TOTAL
    if (metric == GOOD and not known.good) or (by_histogram and not known.histogram):
        return _uncounted(expression)
    found = _counted(case, metric, expression, window)
    if not found.stretches:
        return replace(NOTHING, doubt=found.doubt)
    grid = _grid(found.stretches)
    added = grid.lay(found.stretches, "+Inf" if by_histogram else "")
    interval = rate_interval(added, grid.width_ms / 1000, case.seed)
    whom = requests_text(expression.labels) + (" that were served well" if metric == GOOD else "")
    text = f"{known.service} counted {{value}} of {whom} ({{n}} in all){_restarts(found)}"
    return Measured(interval, text=text, doubt=found.doubt, events=found.events)


def _latency(case: Case, expression: Comparison, window: Span) -> Measured:
    """By the bounds of a histogram: at which of them more than the asked share was surely done, and at which not."""
    share = quantile_of(expression.metric) or 0.0
    found = _counted(case, BUCKET, expression, window)
    if not found.stretches:
        return replace(NOTHING, doubt=found.doubt)
    bounds = _common_bounds(found.stretches)
    if not bounds or bounds[-1][0] != math.inf:
        return replace(NOTHING, doubt="the histogram lacks its last bucket, le=+Inf", events=found.events)
    grid = _grid(found.stretches)
    total = grid.lay(found.stretches, bounds[-1][1])
    n = int(total.sum())
    blocks = Blocks(total, case.seed)
    value, low, high, before = math.inf, 0.0, math.inf, 0
    doubt = found.doubt
    for bound_s, name in bounds[:-1]:
        good = grid.lay(found.stretches, name)
        count = int(good.sum())
        if count < before or count > n:
            doubt = doubt or f"the histogram counts fewer up to {name} than below it: it is none"
        before = count
        good = np.minimum(good, total)
        if n and count >= share * n:
            value = min(value, bound_s)
        if n and blocks.surely_below(good, share):
            low = bound_s
        if high == math.inf and n and blocks.surely_above(good, share):
            high = bound_s
    text = f"{expression.metric} was at most {{value}} over {{n}} {_told(case, expression)}"
    text += _between(expression, [bound_s for bound_s, _ in bounds]) + _restarts(found)
    needs = 0 if expression.relative else _needs(share if expression.op in ("<", "<=") else 1 - share)
    interval = Interval(value if n else math.nan, low, max(high, low), n)
    return Measured(interval, text=text, needs=needs, doubt=doubt, events=found.events, half_open=True)


def bad_of(case: Case, expression: Comparison, window: Span) -> tuple[int, int] | None:
    """How many were bad, and of how many: not served well, or slower than the nearest bound that is no higher than the
    limit. None where nobody counts it, or what was counted is in doubt: a part of it could flatter."""
    known = case.plan.system.indicators
    if known is None or window.length_s <= 0:
        return None
    if expression.metric == "success":
        all_, well = _counted(case, TOTAL, expression, window), _counted(case, GOOD, expression, window, quiet=True)
        names = ("", "")
    else:
        all_ = well = _counted(case, BUCKET, expression, window)
        bounds = _common_bounds(all_.stretches) if all_.stretches else []
        limit_s = expression.limit
        met = [name for bound_s, name in bounds if bound_s <= limit_s or math.isclose(bound_s, limit_s)]
        if not bounds or bounds[-1][0] != math.inf:
            return None
        names = (bounds[-1][1], met[-1] if met else "none of them")
    if all_.doubt or well.doubt or not all_.stretches:
        return None
    n, good = (
        round(sum(item.added.get(name, 0.0) for item in found.stretches))
        for found, name in zip((all_, well), names, strict=True)
    )
    return max(0, n - good), n


def _between(expression: Comparison, bounds_s: list[float]) -> str:
    """Which bounds are judged in place of a limit that is none."""
    limit_s = expression.limit
    if expression.relative or any(math.isclose(limit_s, bound_s) for bound_s in bounds_s):
        return ""
    below = max((bound_s for bound_s in bounds_s if bound_s < limit_s), default=0.0)
    above = min(bound_s for bound_s in bounds_s if bound_s > limit_s)
    last = "nothing beyond" if above == math.inf else f"{number(above)} s"
    return f" (the histogram knows {number(below)} s and {last}, not {number(limit_s)} s)"


def _told(case: Case, expression: Comparison) -> str:
    known = case.plan.system.indicators
    assert known is not None
    return f"{requests_text(expression.labels)} that {known.service} counted"


def _restarts(found: _Counted) -> str:
    return f" ({plural(found.restarts, 'restart')} of counters)" if found.restarts else ""


def _needs(share: float) -> int:
    return minimum_samples(share) if 0 <= share < 1 else 0


def _grid(stretches: Sequence[_Stretch]) -> _Grid:
    start_ms, end_ms = min(item.start_ms for item in stretches), max(item.end_ms for item in stretches)
    usual_ms = statistics.median(item.end_ms - item.start_ms for item in stretches)
    blocks = max(1, min(MOST_BLOCKS, round((end_ms - start_ms) / usual_ms)))
    return _Grid(start_ms, (end_ms - start_ms) / blocks, blocks)


def _common_bounds(stretches: Sequence[_Stretch]) -> list[tuple[float, str]]:
    """Those that every instance counts by, in order."""
    names = set.intersection(*(set(item.added) for item in stretches))
    found = []
    for name in names:
        try:
            found.append((float(name), name))
        except ValueError:
            continue
    return sorted(item for item in found if not math.isnan(item[0]))


def _counted(case: Case, metric: str, expression: Comparison, window: Span, *, quiet: bool = False) -> _Counted:
    """One counter over the window. `quiet`: that it has no samples yet is no lack, since another one says who is there.

    The doubt: a gap, or that there were no two looks.
    """
    labels = {item.name: item.labels for item in case.plan.system.instances}
    seen = [item for item in all_of(case.events, Reading) if item[1].metric == metric]
    seen = [item for item in seen if _may_fit(item[1], expression, labels)]
    stretches: list[_Stretch] = []
    for instance in sorted({reading.instance for _, reading in seen}):
        of_it = [item for item in seen if item[1].instance == instance and item[1].value is not None]
        known = {**labels.get(instance, {}), "instance": instance}
        stretches += _stretches(of_it, known, expression, window)
    doubt = ""
    if not quiet:
        if not seen:
            doubt = f"nobody read what {case.plan.system.name} counts"
        elif not stretches:
            doubt = f"there were no two looks at its counters{why_not(seen)}"
        else:
            doubt = stale(case, seen, window)
    inside = [item for item in seen if window.start_ms <= item[0].mono_ms <= window.end_ms]
    ends = tuple(item[0].seq for item in (inside[:1] + inside[-1:]))
    return _Counted(tuple(stretches), doubt, ends)


def _may_fit(reading: Reading, expression: Comparison, labels: dict[str, dict[str, str]]) -> bool:
    """Whether the instance can have what is asked for; a series that isn't there yet has no labels of its own."""
    known = {**labels.get(reading.instance, {}), "instance": reading.instance}
    return all(known.get(name, value) == value for name, value in expression.labels.items())


def _restarted(before: dict[Key, float], after: dict[Key, float]) -> bool:
    """A series that is told no more is no sign of it while another one goes on."""
    both = before.keys() & after.keys()
    return any(after[key] < before[key] for key in both) or bool(before and not both)


def _looks(of_it: list[Seen]) -> dict[float, dict[Key, float]]:
    """What each look saw of all series of one instance."""
    looks: dict[float, dict[Key, float]] = {}
    for recorded, reading in of_it:
        series = looks.setdefault(recorded.mono_ms, {})
        series[tuple(sorted(reading.labels.items()))] = reading.value or 0.0
    return looks


def _stretches(of_it: list[Seen], known: dict[str, str], expression: Comparison, window: Span) -> list[_Stretch]:
    found = []
    for (start_ms, before), (end_ms, after) in pairwise(sorted(_looks(of_it).items())):
        inside_ms = min(end_ms, window.end_ms) - max(start_ms, window.start_ms)
        if 2 * inside_ms <= end_ms - start_ms:
            continue
        # one process counts all its series: when one of them fell, none of them goes on from where it was
        restarted = _restarted(before, after)
        added: dict[str, float] = {}
        for key, value in after.items():
            own = dict(key)
            bound = own.pop(BOUND, "")
            added.setdefault(bound, 0.0)
            if expression.labels.items() <= {**known, **own}.items():
                added[bound] += value - (0.0 if restarted else before.get(key, 0.0))
        found.append(_Stretch(start_ms, end_ms, added, restarted))
    return found
