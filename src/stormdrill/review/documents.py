"""Renders a run's review: Markdown that stands alone, one HTML file that fetches nothing, and the pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

from msgspec import Struct

from stormdrill.errors import Problem
from stormdrill.model.event import HostSampled, Reading, RunbookStarted
from stormdrill.review import course, facts, impact, pictures, plots, pressure
from stormdrill.review.budget import budget
from stormdrill.review.clock import Clock, anchored, drift_ms
from stormdrill.review.judgement import carry_over, due
from stormdrill.review.lint import lint
from stormdrill.review.queue import queue
from stormdrill.review.source import Source, read
from stormdrill.review.story import appendix, marks, timeline
from stormdrill.review.templates import STYLE, html_of, markdown_of, settle
from stormdrill.review.view import Figure, Plotted, Review
from stormdrill.review.words import sentence

_WORTH_TELLING_MS = 250.0


class RenderedReview(Struct, frozen=True):
    markdown: Path
    html: Path
    pictures: tuple[Path, ...] = ()


class Published(Struct, frozen=True):
    """A review's copy, for people to work on."""

    markdown: Path
    html: Path
    problems: tuple[Problem, ...]
    """What the judgement text should lose: advice, never a reason to refuse."""


def render(run_dir: Path, templates: Path | None = None) -> RenderedReview:
    """Write `review.md`, `review.html` and `pictures/` into the run directory, the same bytes every time.

    `templates` may override any of the shipped templates, file by file; what was used is kept in the run directory's
    `templates/`, which wins from then on. Raises Refused when there is no journal or a template is wrong.
    """
    folder = settle(run_dir, templates)
    source = read(run_dir)
    clock = anchored(source.events)
    rows = timeline(source, clock)
    drawn = pictures.chart_of(source, clock, marks(source, rows))
    pressed = plots.plots(source)
    view = _view(source, clock, drawn, plots.plotted(source, pressed))
    style = (folder / STYLE).read_text(encoding="utf-8")
    svgs = (pictures.files(drawn.chart, style) if drawn.chart else {}) | plots.files(pressed, style)
    (run_dir / pictures.FOLDER).mkdir(exist_ok=True)
    written = [_write(run_dir / pictures.FOLDER / f"{name}.svg", text) for name, text in svgs.items()]
    markdown, html = markdown_of(folder, view), html_of(folder, view)
    return RenderedReview(
        _write(run_dir / "review.md", markdown),
        _write(run_dir / "review.html", html),
        tuple(written),
    )


def publish(rendered: RenderedReview, folder: Path) -> Published:
    """Copy a rendered review to `folder`, where people work on it; what they wrote there between the markers stays."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = rendered.markdown.read_text(encoding="utf-8")
    place = folder / rendered.markdown.name
    edited = place.read_text(encoding="utf-8") if place.is_file() else ""
    html = Path(shutil.copyfile(rendered.html, folder / rendered.html.name))
    (folder / pictures.FOLDER).mkdir(exist_ok=True)
    for path in rendered.pictures:
        shutil.copyfile(path, folder / pictures.FOLDER / path.name)
    text = carry_over(fresh, edited) if edited else fresh
    return Published(_write(place, text), html, tuple(lint(text, str(place))))


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


# --- the view --------------------------------------------------------------------------------------------


def _view(source: Source, clock: Clock, drawn: pictures.Drawn, pressed: tuple[Plotted, ...]) -> Review:
    verdict, plan, started = source.verdict, source.plan, source.started
    rows = timeline(source, clock)
    load, times = course.load(source), facts.times(source)
    ended_ms = max((recorded.mono_ms for recorded in source.events), default=0.0)
    runbook_started = source.first(RunbookStarted)
    experiment = plan.experiment if plan else None
    quiet = sum(isinstance(recorded.event, Reading | HostSampled) for recorded in source.events)
    view = Review(
        run=source.run,
        title=experiment.title if experiment else started.title if started else source.run,
        hypothesis=experiment.hypothesis if experiment else "",
        owner=experiment.owner if experiment else "not stated",
        state="draft",
        verdict=verdict.verdict if verdict else "NOT JUDGED",
        status=verdict.status if verdict else "unknown",
        sentence=sentence(verdict.sentence) if verdict else "This run has not been judged.",
        summary=facts.summary(source, clock),
        reasons=tuple(sentence(text) for text in verdict.reasons if text != verdict.sentence) if verdict else (),
        date=clock.date(source.events[0].mono_ms) if source.events else "",
        clock_note=_clock_note(source, clock),
        missing=source.missing,
        objectives=facts.objectives(source),
        checks=pressure.checks(source),
        plots=pressed,
        tiers=source.requests.tiers if source.requests.tier_label else (),
        tier_label=source.requests.tier_label,
        picture=pictures.picture(drawn.chart, source) if drawn.chart else None,
        read_out=pictures.read_out(drawn, source),
        timeline=rows,
        impact=(*impact.facts(source, clock), *queue(source, clock)),
        outcomes=impact.outcomes(source),
        budget=budget(source),
        severity=facts.severity(source),
        trigger=facts.trigger(source, clock),
        conditions=facts.conditions(source),
        times=times,
        attended=bool(runbook_started and runbook_started[1].attended),
        faults=course.faults(source, clock),
        runbook=course.runbook(source, clock),
        load=load,
        due=due(clock.moment(ended_ms).date()),
        reproduce=facts.reproduce(source),
        command=facts.command(source),
        journal=(),
        measurements=quiet,
    )
    return _with_journal(view, source, clock)


def _with_journal(view: Review, source: Source, clock: Clock) -> Review:
    """The appendix last: it must hold every event that any figure names."""
    rows = appendix(source, clock, frozenset(_events_of(view)))
    hidden = sum(isinstance(recorded.event, Reading | HostSampled) for recorded in source.events)
    shown = sum(row.type in ("reading", "host-sampled") for row in rows)
    changed = {name: getattr(view, name) for name in Review.__struct_fields__}
    return Review(**{**changed, "journal": rows, "measurements": hidden - shown})


def _events_of(value: object) -> set[int]:
    """Every event number that the view names, wherever it stands."""
    if isinstance(value, Figure):
        return set(value.events)
    if isinstance(value, tuple):
        return set().union(*(_events_of(item) for item in value)) if value else set()
    if isinstance(value, Struct):
        own = getattr(value, "events", ())
        inner = [_events_of(getattr(value, name)) for name in value.__struct_fields__]
        return set(own).union(*inner)
    return set()


def _clock_note(source: Source, clock: Clock) -> str:
    drift = drift_ms(source.events, clock)
    if drift < _WORTH_TELLING_MS:
        return ""
    return (
        f"The wall clock strayed by up to {drift / 1000:.1f} s from the monotonic clock during the run; times here "
        "follow the monotonic clock from the run's start."
    )
