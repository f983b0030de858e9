"""Pictures of what the backpressure checks were judged by: goodput over load, who was let in, queues, retries, drains.

Every point comes from `core.backpressure.curves`, and so from the functions that the checks judge by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from markupsafe import Markup

from stormdrill.core.backpressure import curves
from stormdrill.core.case import Case
from stormdrill.core.sentences import quantity
from stormdrill.review.impact import record_events
from stormdrill.review.plot import Bar, Bars, Curve, Mark, Plot, draw, draw_bars
from stormdrill.review.source import Source
from stormdrill.review.svg import Point, Range
from stormdrill.review.view import Plotted
from stormdrill.review.words import listed

FOLDER = "pictures"
_COLOURS = 6
_MOST_CURVES = 12
"""In one picture; what is left out is said."""
_MOST_TOGETHER = 6
"""Surges in one picture that can be told apart."""
_TIERS = 3
_ASKED = "l-asked"
_SHOWS = {
    "goodput": ("capacity", "goodput-plateau", "admitted-latency", "cheap-rejection"),
    "admission": ("priority",),
    "queues": ("bounded-queue", "littles-law"),
    "retries": ("retry-amplification",),
    "drain": ("drain",),
    "hysteresis": ("recovery",),
}
"""Which picture belongs to which checks."""


def plots(source: Source) -> tuple[Plot | Bars, ...]:
    """One for each kind of picture that a judged check belongs to, and for which there is something to draw."""
    asked = {check.name for check in source.verdict.backpressure} if source.verdict else set()
    if source.plan is None or not asked:
        return ()
    case = Case(source.plan, source.events, source.records, None)
    makers: dict[str, Callable[[Case], Plot | Bars | None]] = {
        "goodput": _goodput,
        "admission": _admission,
        "queues": _queues,
        "retries": _retries,
        "drain": _drain,
        "hysteresis": _hysteresis,
    }
    wanted = (make(case) for name, make in makers.items() if asked & set(_SHOWS[name]))
    return tuple(plot for plot in wanted if plot is not None)


def plotted(source: Source, found: Sequence[Plot | Bars]) -> tuple[Plotted, ...]:
    """As the HTML review shows them."""
    events = record_events(source)
    return tuple(
        Plotted(
            file=f"{FOLDER}/{plot.name}.svg",
            title=plot.title,
            alt=plot.alt,
            drawing=Markup(_drawn(plot, f"bp-{plot.name}")),  # noqa: S704  # every text in it was escaped
            events=tuple(dict.fromkeys(events)),
        )
        for plot in found
    )


def files(found: Sequence[Plot | Bars], style: str) -> dict[str, str]:
    """Name → SVG that stands alone."""
    return {plot.name: _drawn(plot, "s", style) for plot in found}


def _drawn(plot: Plot | Bars, prefix: str, style: str = "") -> str:
    return draw(plot, prefix=prefix, style=style) if isinstance(plot, Plot) else draw_bars(plot, prefix, style)


def _points(points: Sequence[curves.Point]) -> tuple[Point, ...]:
    return tuple((point.across, point.up) for point in points)


def _interval(points: Sequence[curves.Point]) -> tuple[Range, ...]:
    return tuple((point.across, point.low, point.high) for point in points)


def _rate(value: float) -> str:
    return quantity(value, "/s")


def _goodput(case: Case) -> Plot | None:
    found = curves.goodput_curve(case)
    if not found.points:
        return None
    marks, told = [], []
    if found.carried_per_s is not None:
        marks.append(Mark(found.carried_per_s, f"carries {_rate(found.carried_per_s)}", upright=True))
        told.append(f"{_rate(found.carried_per_s)} is the most that is surely carried")
    if found.broke_per_s is not None:
        told.append(f"{_rate(found.broke_per_s)} is surely not")
    highest = max(found.points, key=lambda point: point.across)
    told.append(f"of {_rate(highest.across)} that were asked at the most, {_rate(highest.up)} were served in time")
    return Plot(
        name="goodput",
        title="Goodput over load",
        across="asked, requests/s",
        up="served in time, requests/s",
        curves=(Curve("l-good", "served", _points(found.points), _interval(found.points)),),
        marks=tuple(marks),
        diagonal="all of it",
        alt=f"Goodput over offered load, a point a step with its 95% interval: {'; '.join(told)}.",
    )


def _admission(case: Case) -> Plot | None:
    tiers = curves.admission_curves(case)
    if not tiers:
        return None
    last = "; ".join(f"tier {one.tier} {quantity(one.points[-1].up, '%')}" for one in tiers)
    return Plot(
        name="admission",
        title="Admission by tier",
        across="asked by all tiers, requests/s",
        up="let in, %",
        curves=tuple(
            Curve(_of_tier(index), f"tier {one.tier}", _points(one.points), _interval(one.points))
            for index, one in enumerate(tiers)
        ),
        top=105.0,
        alt=f"Share of each tier that was let in, over what all tiers asked together. At the highest load: {last}.",
    )


def _of_tier(index: int) -> str:
    return f"l-tier{index + 1}" if index < _TIERS else _colour(index)


def _colour(index: int) -> str:
    return f"l-c{index % _COLOURS + 1}"


def _queues(case: Case) -> Plot | None:
    """In percent of each one's limit, so that a short queue is seen beside a long one; one without a limit is told."""
    found = [one for one in curves.queue_curves(case) if one.points]
    full = {one.name: max((point.up for point in one.limit), default=0.0) for one in found}
    bounded = [one for one in found if full[one.name] > 0]
    if not bounded:
        return None
    shown = sorted(bounded, key=lambda one: (-_deepest(one) / full[one.name], one.name))[:_MOST_CURVES]
    told = "; ".join(f"{one.name} {_deepest(one):g} of {full[one.name]:g}" for one in shown)
    left = f" {len(bounded) - len(shown)} emptier ones are left out." if len(bounded) > len(shown) else ""
    unbounded = [one.name for one in found if full[one.name] <= 0]
    lacks = f" No limit was told of {listed(unbounded)}." if unbounded else ""
    lines = []
    for index, one in enumerate(shown):
        points = tuple((point.across, 100 * point.up / full[one.name]) for point in one.points)
        lines.append(Curve(_colour(index), one.name, points, dots=False))
    return Plot(
        name="queues",
        title="Queues against their limits",
        across="since the load began, s",
        up="waiting, % of its limit",
        curves=tuple(lines),
        marks=(Mark(100.0, "limit", upright=False),),
        alt=f"Depth of each queue over time, in percent of its limit. Deepest: {told}.{left}{lacks}",
    )


def _deepest(queue: curves.Queue) -> float:
    return max(point.up for point in queue.points)


def _retries(case: Case) -> Bars | None:
    hops = curves.retry_curve(case)
    if not hops:
        return None
    told = "; ".join(f"{hop.place} {hop.attempts:.3g} [{hop.low:.3g}, {hop.high:.3g}]" for hop in hops)
    return Bars(
        name="retries",
        title="Attempts per request, hop by hop",
        bars=tuple(
            Bar(hop.place, hop.attempts, hop.low, hop.high, f"{hop.attempts:.3g}, in all {hop.product:.3g}")
            for hop in hops
        ),
        base=1.0,
        alt=f"Attempts that each hop makes of one request that reaches it: {told}. In all {hops[-1].product:.3g}.",
    )


def _drain(case: Case) -> Plot | None:
    drains = [one for one in curves.drain_curves(case) if one.points]
    if not drains:
        return None
    shown = sorted(sorted(drains, key=_slowness, reverse=True)[:_MOST_TOGETHER], key=drains.index)
    earliest, latest = (pick(point.across for one in shown for point in one.points) for pick in (min, max))
    lines: list[Curve] = []
    for index, one in enumerate(shown):
        lines.append(Curve(_colour(index), one.name, _points(one.points), dots=False))
    for one in shown:
        if one.bound is not None:
            name = "" if any(line.class_ == _ASKED for line in lines) else "as slow as may be"
            lines.append(Curve(_ASKED, name, _until(one.bound, latest), dots=False))
    told = "; ".join(_drained(one) for one in shown)
    left = f" {len(drains) - len(shown)} that were gone sooner are left out." if len(drains) > len(shown) else ""
    return Plot(
        name="drain",
        title="The drain",
        across="since the trigger's end, s",
        up="waiting",
        curves=tuple(lines),
        start=min(earliest, 0.0),
        alt=f"What waited, over the time since the trigger's end: {told}.{left}",
    )


def _slowness(one: curves.Drain) -> tuple[float, float]:
    """What was never gone comes first, and of that what was highest."""
    return (float("inf") if one.gone_s is None else one.gone_s, max(point.up for point in one.points))


def _until(bound: Sequence[curves.Point], latest: float) -> tuple[Point, ...]:
    """A line, as far as anybody looked: what would have been allowed beyond that makes the rest small."""
    first, last = bound[0], bound[-1]
    if last.across <= latest or last.across <= first.across:
        return _points(bound)
    part = (latest - first.across) / (last.across - first.across)
    return (first.across, first.up), (latest, first.up + part * (last.up - first.up))


def _drained(one: curves.Drain) -> str:
    gone = f"gone after {quantity(one.gone_s, 's')}" if one.gone_s is not None else "not gone while it was watched"
    by = f", {quantity(one.bound[1].across, 's')} was allowed" if one.bound is not None else ""
    return f"{one.name}: {gone}{by}"


def _hysteresis(case: Case) -> Plot | None:
    """Of many those that came back least, for these are looked for, and those that came back best."""
    loops = list(curves.hysteresis_curves(case))
    if not loops:
        return None
    ranked, half = sorted(loops, key=_came_back), _MOST_TOGETHER // 2
    chosen = loops if len(loops) <= _MOST_TOGETHER else [*ranked[:half], *ranked[-half:]]
    shown = [one for one in loops if one in chosen]
    left = f" {len(loops) - len(shown)} between these are left out." if len(loops) > len(shown) else ""
    return Plot(
        name="hysteresis",
        title="Up and down again",
        across="asked, requests/s",
        up="served in time, requests/s",
        curves=tuple(
            Curve(_colour(index), one.name, _points(one.points), arrows=True) for index, one in enumerate(shown)
        ),
        diagonal="all of it",
        alt=f"Goodput over offered load in the order of time. {' '.join(_told(shown))}{left}",
    )


def _came_back(one: curves.Loop) -> float:
    """What was served of what was asked after the trigger, over the same before it."""
    share = {role: point.up / point.across for role, point in zip(one.roles, one.points, strict=True) if point.across}
    return share.get("after", 0.0) / (share.get("base") or 1.0)


def _told(loops: Sequence[curves.Loop]) -> Iterator[str]:
    for one in loops:
        stages = ", ".join(
            f"{role} {_rate(point.up)} of {_rate(point.across)}"
            for role, point in zip(one.roles, one.points, strict=True)
        )
        yield f"{one.name}: {stages}."
