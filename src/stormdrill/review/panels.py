"""What is drawn over time: rate, goodput, latency, queue, success by tier; each with words for who cannot see it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
from msgspec.structs import replace

from stormdrill.core import telling
from stormdrill.core.demand import Demand
from stormdrill.core.judge_metrics import told_as_time
from stormdrill.core.windows import WHOLE, window_of
from stormdrill.model.event import LoadStarted, PhaseEntered, Reading
from stormdrill.model.experiment import Objective
from stormdrill.model.expression import Comparison
from stormdrill.model.units import show_duration
from stormdrill.model.verdict import ObjectiveVerdict
from stormdrill.review.chart import ALL, Band, Line, Panel, Rule
from stormdrill.review.series import QUANTILES, Buckets, Floats, Group, Series
from stormdrill.review.source import Source
from stormdrill.review.svg import Point, log_ticks, number, ticks
from stormdrill.review.words import count, percent

_COLOURS = 6
_HEADROOM = 1.08


def panels(source: Source, series: Series | None) -> tuple[Panel, ...]:
    """Every panel for which there is something to draw, in the order in which the story reads."""
    found: list[Panel] = []
    if series is not None:
        found += [_rate(series, source), _goodput(series, source)]
        latency = _latency(series, source)
        found += [latency] if latency else []
    queue = _queue(source)
    found += [queue] if queue else []
    if series is not None:
        groups = series.groups[1:] or series.groups
        worst = min((float(np.nanmin(group.success)) for group in groups if group.n.any()), default=0.0)
        floor = next((low for low in (90.0, 80.0, 50.0) if worst >= low), 0.0)
        found += [_success(group, series, source, index, floor) for index, group in enumerate(groups)]
    return tuple(found)


def _points(at_ms: Floats, values: Floats) -> tuple[Point, ...]:
    return tuple(
        (float(at), None if math.isnan(value) else float(value)) for at, value in zip(at_ms, values, strict=True)
    )


def _edges(buckets: Buckets) -> tuple[float, ...]:
    return tuple(float(edge) for edge in buckets.edges_ms)


def _linear(top: float, about: int = 4) -> tuple[float, tuple[tuple[float, str], ...]]:
    """The top of an axis from 0, with room above the highest value, and its ticks."""
    high = max(top, 1e-9) * _HEADROOM
    return high, tuple((mark, number(mark, 3)) for mark in ticks(0.0, high, about))


def _by_phase(source: Source, buckets: Buckets, values: Floats, tell: Callable[[Floats, Floats], str]) -> str:
    """ "baseline 60.0/s, fault 46.1/s": what a picture shows, in words. `tell` is given values and their weights."""
    found = []
    for span in source.spans:
        inside = (buckets.middles_ms >= span.start_ms) & (buckets.middles_ms < span.end_ms) & ~np.isnan(values)
        if inside.any():
            found.append(f"{telling.phase(span.name)} {tell(values[inside], buckets.widths_s[inside])}")
    return ", ".join(found) or "nothing"


def _mean_rate(values: Floats, widths_s: Floats) -> str:
    return f"{float(np.average(values, weights=widths_s)):.1f}/s"


def _highest(values: Floats, _: Floats) -> str:
    return show_duration(float(values.max()) / 1000.0)


def _shares(source: Source, group: Group) -> str:
    """Good of all intended requests, phase by phase, counted and not averaged."""
    requests, found = source.requests, []
    mine = np.ones(len(requests), np.bool_) if group.name == ALL else requests.tier == requests.tiers.index(group.name)
    for span in source.spans:
        inside = mine & (requests.intended_ms >= span.start_ms) & (requests.intended_ms < span.end_ms)
        n = int(inside.sum())
        if n:
            good = int((inside & requests.good).sum())
            found.append(f"{telling.phase(span.name)} {percent(100 * good / n)}% of {count(n)}")
    return ", ".join(found) or "nothing"


def _rate(series: Series, source: Source) -> Panel:
    edges, middles = _edges(series.buckets), series.buckets.middles_ms
    high, marks = _linear(max(float(np.nanmax(g.asked_per_s)) for g in series.groups))
    lines: list[Line] = []
    for group in series.groups:
        sent, asked = _points(middles, group.sent_per_s), _points(middles, group.asked_per_s)
        lines.append(Line("l-sent", "sent", sent, group.name, edges))
        lines.append(Line("l-asked", "asked", asked, group.name, edges))
    everyone = series.groups[0]
    planned = planned_per_s(source, series.buckets)
    if planned is not None:
        # λ as planned stands in the place of the arrivals that were counted: those end where the generator does
        high, marks = _linear(max(high / _HEADROOM, float(planned.max())))
        lines[1] = Line("l-asked", "asked", _points(middles, planned), ALL, edges)
    asked_words = _by_phase(source, series.buckets, everyone.asked_per_s if planned is None else planned, _mean_rate)
    sent_words = _by_phase(source, series.buckets, everyone.sent_per_s, _mean_rate)
    alt = f"Requests intended and sent a second. Mean asked: {asked_words}; sent: {sent_words}."
    return Panel("rate", "Rate", "requests/s", alt, 84, 0.0, high, False, marks, tuple(lines))


def planned_per_s(source: Source, buckets: Buckets) -> Floats | None:
    """λ of the profile, bucket by bucket, as far as the load was meant to go; None for what has no schedule."""
    started = source.first(LoadStarted)
    plan = source.plan
    if started is None or started[1].loop != "open" or plan is None or plan.profile is None:
        return None
    if plan.experiment.load is None or not source.spans:
        return None
    demand, epoch_ms = Demand(plan.profile, plan.experiment.load.rate_per_s), started[1].epoch_mono_ms
    since_s = np.clip((buckets.edges_ms - epoch_ms) / 1000.0, 0.0, None)
    expected = np.array([demand.expected(float(at_s)) for at_s in since_s])
    return np.asarray(np.diff(expected) / np.maximum(buckets.widths_s, 1e-9), dtype=np.float64)


def _goodput(series: Series, source: Source) -> Panel:
    edges, middles = _edges(series.buckets), series.buckets.middles_ms
    high, marks = _linear(max(float(np.nanmax(g.asked_per_s)) for g in series.groups))
    lines: list[Line] = []
    for group in series.groups:
        lines.append(Line("l-asked", "asked", _points(middles, group.asked_per_s), group.name, edges))
        lines.append(Line("l-good", "good", _points(middles, group.good_per_s), group.name, edges))
    good = _by_phase(source, series.buckets, series.groups[0].good_per_s, _mean_rate)
    alt = f"Requests a second answered with 2xx within their deadline, by intended start. Mean: {good}."
    rules = _rules(source, ("goodput", "throughput"), 1.0, "")
    return Panel("goodput", "Goodput", "requests/s", alt, 84, 0.0, high, False, marks, tuple(lines), rules=rules)


def _latency(series: Series, source: Source) -> Panel | None:
    values = [quantile for group in series.groups for quantile in group.quantiles.values()]
    seen = np.concatenate(values)
    seen = seen[~np.isnan(seen)]
    if not len(seen):
        return None
    rules = _rules(source, tuple(name for _, name, _ in QUANTILES), 1000.0, "")
    limits = [value for rule in rules for value in (rule.limit, rule.low, rule.high) if value]
    low = max(0.1, min(float(seen.min()), *limits, math.inf) / 1.3)
    high = max(float(seen.max()), *limits, low * 10) * 1.3
    lines = [
        Line(f"l-{name}", name, _points(series.wide.middles_ms, group.quantiles[name]), group.name)
        for group in series.groups
        for _, name, _ in QUANTILES
    ]
    marks = tuple((value, show_duration(value / 1000.0)) for value in log_ticks(low, high))
    everyone = series.groups[0]
    told = "; ".join(
        f"{name}: {_by_phase(source, series.wide, everyone.quantiles[name], _highest)}" for _, name, _ in QUANTILES
    )
    width = show_duration(float(np.median(series.wide.widths_s)))
    alt = (
        f"Latency quantiles of admitted requests from their intended start, logarithmic, a point every {width}; a "
        f"quantile is left out where too few requests speak for it. The highest point of each phase: {told}."
    )
    return Panel(
        "latency", "Latency", "from intended start, log", alt, 150, low, high, True, marks, tuple(lines), rules=rules
    )


def _queue(source: Source) -> Panel | None:
    depth: dict[str, list[Point]] = {}
    limits: list[float] = []
    for recorded, reading in source.all(Reading):
        name = reading.metric.lower()
        if "queue" not in name or "age" in name or "oldest" in name:
            continue
        if "limit" in name or "capacity" in name:
            limits += [reading.value] if reading.value is not None else []
        else:
            depth.setdefault(_who(reading), []).append((recorded.mono_ms, reading.value))
    seen = [value for points in depth.values() for _, value in points if value is not None]
    if not seen:
        return None
    rules = list(_rules(source, ("queue_depth", "queue"), 1.0, ""))
    if limits:
        start, end = span_ms(source)
        rules.append(Rule(start, end, max(limits), f"limit {number(max(limits), 3)}"))
    high, marks = _linear(max([*seen, *limits, *(rule.limit for rule in rules), 1.0]))
    lines = tuple(
        Line(f"l-c{index % _COLOURS + 1}", name, _with_gaps(points))
        for index, (name, points) in enumerate(sorted(depth.items()))
    )
    worst = ", ".join(
        f"{name} at most {number(max(value for _, value in points if value is not None), 3)}"
        for name, points in sorted(depth.items())
        if any(value is not None for _, value in points)
    )
    bound = f" The limit is {number(max(limits), 3)}." if limits else " No limit was read."
    alt = f"Queue depth, one line an instance, broken where there was no fresh reading: {worst}.{bound}"
    return Panel("queue", "Queue depth", "jobs", alt, 84, 0.0, high, False, marks, lines, rules=tuple(rules))


def _who(reading: Reading) -> str:
    return reading.instance or ", ".join(f"{key}={value}" for key, value in sorted(reading.labels.items())) or "all"


def _with_gaps(points: Sequence[Point]) -> tuple[Point, ...]:
    """A break wherever readings stayed away for more than three of their usual intervals."""
    if len(points) < 3:
        return tuple(points)
    usual = float(np.median(np.diff([at for at, _ in points])))
    found = [points[0]]
    for before, point in pairwise(points):
        if point[0] - before[0] > 3 * usual > 0:
            found.append(((before[0] + point[0]) / 2, None))
        found.append(point)
    return tuple(found)


def _success(group: Group, series: Series, source: Source, index: int, floor: float) -> Panel:
    middles = series.buckets.middles_ms
    shades = tuple(
        (float(at), None if math.isnan(low) else float(low), None if math.isnan(high) else float(high))
        for at, low, high in zip(middles, group.success_low, group.success_high, strict=True)
    )
    label = source.requests.tier_label
    alone = group.name == ALL
    rank = min(index, 2) + 1
    title = "Success, all requests" if alone else f"Success, {label} {group.name}"
    alt = (
        "Requests answered with 2xx within their deadline, of all intended, with 95% Wilson intervals. "
        f"{_shares(source, group)}."
    )
    rules = _rules(source, ("success",), 1.0, "" if alone else group.name)
    return Panel(
        f"success-{index}",
        title,
        "% of intended",
        alt,
        92 if rules else 58,
        floor,
        100.0 + (100.0 - floor) * (0.16 if rules else 0.04),
        False,
        tuple((value, number(value)) for value in (floor, (floor + 100.0) / 2, 100.0)),
        (Line(f"l-tier{rank}", "" if alone else f"{label} {group.name}", _points(middles, group.success), group.name),),
        (Band(f"b-tier{rank}", shades, group.name),),
        rules,
        group.name,
    )


# --- objectives as lines ---------------------------------------------------------------------------------


def _rules(source: Source, metrics: Sequence[str], factor: float, tier: str) -> tuple[Rule, ...]:
    """The limits that were asked of these metrics, each over its window. `tier`: only those that ask about it."""
    found: list[Rule] = []
    for objective in source.plan.experiment.objectives if source.plan else ():
        asked = objective.expression
        if not isinstance(asked, Comparison) or asked.metric not in metrics or asked.relative:
            continue
        if tier and asked.labels.get(source.requests.tier_label, tier) != tier:
            continue
        start, end = _window(source, objective)
        if end <= start:
            continue
        judged = _judged(source.verdict.objectives if source.verdict else (), objective)
        drawn = judged if not told_as_time(asked) else None  # a time has no place on the metric's own axis
        labels = ",".join(f"{key}={value}" for key, value in sorted(asked.labels.items()) if not tier)
        what = f"{asked.metric}{{{labels}}} " if not tier else ""
        limit = show_duration(asked.limit) if factor == 1000.0 else f"{number(asked.limit, 3)}{asked.unit}"
        found.append(
            Rule(
                start,
                end,
                asked.limit * factor,
                f"{what.replace('{}', '')}{asked.op} {limit}",
                judged.verdict if judged else "",
                _drawn(drawn.value, drawn.unit) if drawn else None,
                _drawn(drawn.low, drawn.unit) if drawn else None,
                _drawn(drawn.high, drawn.unit) if drawn else None,
            )
        )
    return tuple(found)


def _drawn(value: float | None, unit: str) -> float | None:
    """A verdict's value in the panel's unit: times in ms, all else as it is."""
    return None if value is None or not math.isfinite(value) else value * (1000.0 if unit == "s" else 1.0)


def _judged(verdicts: Iterable[ObjectiveVerdict], objective: Objective) -> ObjectiveVerdict | None:
    for verdict in verdicts:
        if verdict.name == objective.expression.text and verdict.phase == objective.window.text:
            return verdict
    return None


def _window(source: Source, objective: Objective) -> tuple[float, float]:
    """Where the objective is judged, by the same rule as `judge`."""
    spans = {span.name: span for span in source.spans}
    if source.spans:
        judged = [span for span in source.spans if span.name != "warmup"] or list(source.spans)
        spans[WHOLE] = replace(judged[0], name=WHOLE, end_ms=judged[-1].end_ms)
    span = spans.get(objective.window.phase)
    if span is None:
        return 0.0, 0.0
    window = window_of(objective, span, source.inject)
    return window.start_ms, window.end_ms


def span_ms(source: Source) -> tuple[float, float]:
    """What the pictures show: the phases and what followed them, or the whole journal if none was reached."""
    if not source.spans:
        times = [recorded.mono_ms for recorded in source.events] or [0.0]
        return min(times), max(times)
    ended = [recorded.mono_ms for recorded, event in source.all(PhaseEntered) if event.phase == "end"]
    return source.spans[0].start_ms, max([source.spans[-1].end_ms, *ended])
