"""Renders a run's review: Markdown that stands alone, one HTML file that fetches nothing, and the pictures."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from pathlib import Path

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup
from msgspec import Struct

from stormdrill.errors import Refused
from stormdrill.model.event import HostSampled, Reading, RunbookStarted
from stormdrill.review import course, facts, impact, pictures
from stormdrill.review.budget import budget
from stormdrill.review.clock import Clock, anchored, drift_ms
from stormdrill.review.judgement import PROMPTS, due
from stormdrill.review.source import Source, read
from stormdrill.review.story import appendix, marks, timeline
from stormdrill.review.view import Figure, Review
from stormdrill.review.words import sentence

FILES = ("review.md.j2", "review.html.j2", "review.css", "chart.css", "review.js")
_WORTH_TELLING_MS = 250.0
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


class RenderedReview(Struct, frozen=True):
    markdown: Path
    html: Path
    pictures: tuple[Path, ...] = ()


def render(run_dir: Path, templates: Path | None = None) -> RenderedReview:
    """Write `review.md`, `review.html` and `pictures/` into the run directory, the same bytes every time.

    `templates` may override any of the shipped templates, file by file; what was used is kept in the run directory's
    `templates/`, which wins from then on. Raises Refused when there is no journal or a template is wrong.
    """
    folder = _settle_templates(run_dir, templates)
    source = read(run_dir)
    clock = anchored(source.events)
    rows = timeline(source, clock)
    drawn = pictures.chart_of(source, clock, marks(source, rows))
    view = _view(source, clock, drawn)
    style = (folder / "chart.css").read_text(encoding="utf-8")
    svgs = pictures.files(drawn.chart, style) if drawn.chart else {}
    (run_dir / pictures.FOLDER).mkdir(exist_ok=True)
    written = [_write(run_dir / pictures.FOLDER / f"{name}.svg", text) for name, text in svgs.items()]
    try:
        markdown = _markdown(folder).get_template("review.md.j2").render(review=view, prompts=PROMPTS)
        html = _html(folder, view)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        where = f"{getattr(error, 'name', None) or 'template'}{f':{line}' if line else ''}"
        raise Refused(f"{folder}: {where}: {error}; mend the template or remove it to get the shipped one") from error
    return RenderedReview(
        _write(run_dir / "review.md", re.sub(r"\n{3,}", "\n\n", markdown)),
        _write(run_dir / "review.html", html),
        tuple(written),
    )


def shipped_templates() -> Path:
    """Where the shipped templates are: in the wheel's catalogue, else in the repository. Raises Refused."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "catalogue" / "reviews" / "templates", package.parents[1] / "reviews" / "templates"):
        if (folder / FILES[0]).is_file():
            return folder
    raise Refused("the review's templates are not installed; install stormdrill again")


def _settle_templates(run_dir: Path, given: Path | None) -> Path:
    """The run directory's templates, completed from what was given and from what ships."""
    folder = run_dir / "templates"
    wanted = [name for name in FILES if not (folder / name).is_file()]
    if wanted:
        folder.mkdir(exist_ok=True)
        shipped = shipped_templates()
        for name in wanted:
            own = given / name if given else None
            shutil.copyfile(own if own is not None and own.is_file() else shipped / name, folder / name)
    return folder


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


# --- the view --------------------------------------------------------------------------------------------


def _view(source: Source, clock: Clock, drawn: pictures.Drawn) -> Review:
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
        tiers=source.requests.tiers if source.requests.tier_label else (),
        tier_label=source.requests.tier_label,
        picture=pictures.picture(drawn.chart) if drawn.chart else None,
        read_out=pictures.read_out(drawn, source),
        timeline=rows,
        impact=impact.facts(source, clock),
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


# --- templates -------------------------------------------------------------------------------------------


def _environment(folder: Path) -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=True,
    )  # fmt: skip


def _markdown(folder: Path) -> ImmutableSandboxedEnvironment:
    """Escapes each value for Markdown, and for the HTML that Markdown may hold."""
    environment = _environment(folder)
    environment.finalize = lambda value: value if isinstance(value, Markup) else markdown_text(str(value))
    environment.filters["code"] = code_text
    environment.filters["fenced"] = lambda text: Markup(" ".join(text.split()).replace("`", "'"))  # noqa: S704
    return environment


def markdown_text(text: str) -> Markup:
    """Text that Markdown shows as it is, on one line."""
    escaped = _SPECIAL.sub(r"\\\1", " ".join(text.split()).replace("&", "&amp;"))
    return Markup(escaped.replace("\\<", "&lt;").replace("\\>", "&gt;"))  # noqa: S704  # escaped on the line above


def code_text(text: str) -> Markup:
    """A code span that holds the text as it is, pipes included."""
    one_line = " ".join(text.split())
    longest = max((len(run) for run in re.findall(r"`+", one_line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if one_line.startswith("`") or one_line.endswith("`") else ""
    return Markup(f"{fence}{pad}{one_line}{pad}{fence}".replace("|", "\\|"))  # noqa: S704  # a code span shows, not runs


def _html(folder: Path, view: Review) -> str:
    environment = _environment(folder)
    style = Markup(environment.get_template("review.css").render(review=view))  # noqa: S704  # templates, not data
    script = Markup(environment.get_template("review.js").render(review=view))  # noqa: S704
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    template = environment.get_template("review.html.j2")
    return template.render(review=view, prompts=PROMPTS, style=style, script=script, policy=policy)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
