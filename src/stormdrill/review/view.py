"""What the templates are given: finished text, each figure with the numbers of the events that it rests on."""

from __future__ import annotations

from markupsafe import Markup
from msgspec import Struct

from stormdrill.review.story import JournalRow, Row


class Figure(Struct, frozen=True):
    """A fact as written, and where it comes from. Every number in `events` is a row of the appendix."""

    text: str
    events: tuple[int, ...] = ()


class Fact(Struct, frozen=True):
    name: str
    figure: Figure
    note: str = ""
    """What the figure means: its definition or its limit."""


class ObjectiveRow(Struct, frozen=True):
    name: str
    window: str
    tier: str
    asked: str
    measured: Figure
    interval: str
    n: str
    verdict: str
    sentence: str


class CheckFigure(Struct, frozen=True):
    """One number of a backpressure check."""

    name: str
    value: str
    interval: str
    limit: str
    n: str


class CheckRow(Struct, frozen=True):
    """One backpressure check."""

    name: str
    verdict: str
    sentence: str
    figures: tuple[CheckFigure, ...]
    events: tuple[int, ...]


class Plotted(Struct, frozen=True):
    """A picture whose axis isn't time."""

    file: str
    """Relative to the run directory."""
    title: str
    alt: str
    drawing: Markup
    events: tuple[int, ...]


class Outcomes(Struct, frozen=True):
    """What became of the requests of one tier in one phase."""

    tier: str
    phase: str
    asked: str
    failed: str
    share: str
    turned_away: str
    timed_out: str
    late: str
    broken: str
    events: tuple[int, ...]


class BudgetRow(Struct, frozen=True):
    objective: str
    where: str
    allowed: str
    bad: str
    spent: Figure
    """Of the window's budget; 100% is all of it."""
    earnest: str = ""
    """The same of the window of the service's declared traffic; empty without one."""


class FaultRow(Struct, frozen=True):
    name: str
    instance: str
    mechanism: str
    started: Figure
    bit: Figure
    reverted: Figure
    gone: Figure
    exposed: str


class StepRow(Struct, frozen=True):
    step: str
    kind: str
    started: str
    took: str
    outcome: str
    detail: str
    events: tuple[int, ...]


class RunbookView(Struct, frozen=True):
    name: str
    title: str
    verdict: str
    sentence: str
    started_by: Figure
    steps: tuple[StepRow, ...]
    before: Fact | None
    """Success between the first inject and the runbook's start."""
    after: Fact | None
    """Success between the runbook's end and the end of the fault."""


class Picture(Struct, frozen=True):
    file: str
    """Relative to the run directory."""
    title: str
    alt: str
    panels: tuple[tuple[str, str], ...]
    """Each panel's title, and in words what it shows."""
    events: tuple[int, ...]
    """What it was drawn from, apart from readings: the records, and the phases' edges."""
    wide: Markup
    narrow: Markup


class Review(Struct, frozen=True):
    run: str
    title: str
    hypothesis: str
    owner: str
    state: str
    """draft: people take it further, in review, reviewed, closed."""
    verdict: str
    status: str
    sentence: str
    summary: str
    """The second sentence: what was done to the system, and what users saw."""
    reasons: tuple[str, ...]
    date: str
    clock_note: str
    missing: tuple[str, ...]
    objectives: tuple[ObjectiveRow, ...]
    checks: tuple[CheckRow, ...]
    plots: tuple[Plotted, ...]
    """What the checks were judged by, drawn."""
    tiers: tuple[str, ...]
    tier_label: str
    picture: Picture | None
    read_out: Markup
    """The drawn values as JSON, for the script; text that is safe inside a script element."""
    timeline: tuple[Row, ...]
    impact: tuple[Fact, ...]
    outcomes: tuple[Outcomes, ...]
    budget: tuple[BudgetRow, ...]
    severity: tuple[Fact, ...]
    trigger: Figure
    conditions: tuple[Fact, ...]
    times: tuple[Fact, ...]
    attended: bool
    faults: tuple[FaultRow, ...]
    runbook: RunbookView | None
    load: tuple[Fact, ...]
    due: str
    reproduce: tuple[Fact, ...]
    command: str
    journal: tuple[JournalRow, ...]
    measurements: int
    """Readings and host samples that the appendix leaves out."""
