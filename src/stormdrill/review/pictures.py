"""The pictures of a run: the story for the review, and the same panels as files that stand alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

from markupsafe import Markup
from msgspec import Struct

from stormdrill.core import telling
from stormdrill.review.chart import NARROW, WIDE, Chart, Mark, Panel, Phase, draw
from stormdrill.review.clock import Clock, anchored
from stormdrill.review.impact import record_events
from stormdrill.review.panels import panels, span_ms
from stormdrill.review.series import Floats, Series, series
from stormdrill.review.source import Source, read
from stormdrill.review.story import marks, timeline
from stormdrill.review.templates import STYLE, shipped_templates
from stormdrill.review.view import Picture
from stormdrill.review.words import plural

FOLDER = "pictures"
STORY = "story"
_MOST_MARKS = 24


class Drawn(Struct, frozen=True):
    """What the pictures are drawn from, computed once."""

    chart: Chart | None
    """None when there is nothing to draw."""
    series: Series | None


def chart_of(source: Source, clock: Clock, events: tuple[Mark, ...]) -> Drawn:
    start, end = span_ms(source)
    phases = tuple(Phase(span.name, span.start_ms, span.end_ms) for span in source.spans)
    asked = source.requests.intended_ms
    last = min(end, float(asked[-1]) + 1.0) if len(asked) else end  # beyond the last arrival nothing was asked: a gap
    edges = {start, *(edge for phase in phases for edge in (phase.start_ms, phase.end_ms) if edge < last), last}
    found = series(source.requests, sorted(edges))
    drawn = panels(source, found)
    if not drawn or end <= start:
        return Drawn(None, found)
    shown = tuple(mark for mark in events if start <= mark.at_ms <= end)[:_MOST_MARKS]
    told = ", ".join(telling.phase(phase.name) for phase in phases)
    words = " ".join(f"{panel.title}: {panel.alt}" for panel in drawn)
    alt = f"{plural(len(drawn), 'panel')} over one time axis in UTC; phases: {told or 'not reached'}; "
    alt += f"{plural(len(shown), 'numbered event')}. {words}"
    title = f"{source.run}: what happened, over time"
    return Drawn(Chart(title, alt, drawn, phases, shown, start, end, clock), found)


def picture(chart: Chart, source: Source) -> Picture:
    """The story as the HTML review shows it: one drawing for wide screens and paper, one for narrow screens."""
    return Picture(
        file=f"{FOLDER}/{STORY}.svg",
        title=chart.title,
        alt=chart.alt.partition(". ")[0] + ".",
        panels=tuple((panel.title, panel.alt) for panel in chart.panels),
        events=tuple(dict.fromkeys([*(seq for span in source.spans for seq in span.events), *record_events(source)])),
        wide=Markup(draw(chart, WIDE, prefix="w")),  # noqa: S704  # every text in it was escaped by svg.text and svg.tag
        narrow=Markup(draw(chart, NARROW, prefix="n")),  # noqa: S704
    )


def files(chart: Chart, style: str) -> dict[str, str]:
    """Name → SVG that stands alone and follows light and dark: the story, and each panel by itself."""
    found = {STORY: draw(chart, WIDE, prefix="s", style=style, links=False, filters=False)}
    for panel in chart.panels:
        alone = _alone(chart, panel)
        found[panel.name] = draw(alone, WIDE, prefix="s", style=style, links=False, filters=False)
    return found


def _alone(chart: Chart, panel: Panel) -> Chart:
    title = f"{panel.title}, {panel.unit}"
    return Chart(title, panel.alt, (panel,), chart.phases, chart.marks, chart.start_ms, chart.end_ms, chart.clock)


def write(run_dir: Path, folder: Path, names: Iterable[str] = ()) -> list[Path]:
    """Write pictures of a run into `folder`, all or those named; returns their paths. For READMEs and pages.

    Raises Refused when the directory holds no journal, KeyError for a picture that this run doesn't have.
    """
    source = read(run_dir)
    clock = anchored(source.events)
    rows = timeline(source, clock)
    chart = chart_of(source, clock, marks(source, rows)).chart
    style = (shipped_templates() / STYLE).read_text(encoding="utf-8")
    drawn = files(chart, style) if chart else {}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names or sorted(drawn):
        path = folder / f"{name}.svg"
        path.write_text(drawn[name], encoding="utf-8")
        paths.append(path)
    return paths


def read_out(drawn: Drawn, source: Source) -> Markup:
    """The drawn values for the script's read-out, as JSON that is safe inside a script element."""
    found: dict[str, object] = {}
    if drawn.chart is not None:
        found["queue"] = {
            line.label: [[_short(at), _short(value)] for at, value in line.points]
            for panel in drawn.chart.panels
            if panel.name == "queue"
            for line in panel.lines
        }
        found["phases"] = [[p.name, _short(p.start_ms), _short(p.end_ms)] for p in drawn.chart.phases]
    if drawn.series is not None:
        values = drawn.series
        found["edges"] = [_short(edge) for edge in values.buckets.edges_ms]
        found["wide"] = [_short(edge) for edge in values.wide.edges_ms]
        found["label"] = source.requests.tier_label
        found["groups"] = {
            group.name: {
                "asked": _list(group.asked_per_s),
                "sent": _list(group.sent_per_s),
                "good": _list(group.good_per_s),
                "n": [int(n) for n in group.n],
                "success": _list(group.success),
                "low": _list(group.success_low),
                "high": _list(group.success_high),
                **{name: _list(numbers) for name, numbers in group.quantiles.items()},
            }
            for group in values.groups
        }
    text = json.dumps(found, separators=(",", ":"), sort_keys=True)
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))  # noqa: S704  # nothing left that could end it


def _list(values: Floats) -> list[float | None]:
    return [_short(float(value)) for value in values]


def _short(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(float(value), 2)
