"""What the backpressure checks found, as rows; the pictures of what they were judged by are in `plots`."""

from __future__ import annotations

from stormdrill.model.verdict import CheckVerdict, Figure
from stormdrill.review.source import Source
from stormdrill.review.view import CheckFigure, CheckRow
from stormdrill.review.words import NOTHING, count, interval, measured, sentence


def checks(source: Source) -> tuple[CheckRow, ...]:
    """In the order in which the experiment asked for them."""
    found = source.verdict.backpressure if source.verdict else ()
    return tuple(_row(check) for check in found)


def _row(check: CheckVerdict) -> CheckRow:
    return CheckRow(
        name=check.name,
        verdict=check.verdict,
        sentence=sentence(check.sentence),
        figures=tuple(_figure(figure) for figure in check.figures),
        events=check.events,
    )


def _figure(figure: Figure) -> CheckFigure:
    return CheckFigure(
        name=figure.name,
        value=measured(figure.value, figure.unit),
        interval=interval(figure.low, figure.high, figure.unit),
        limit=NOTHING if figure.limit is None else measured(figure.limit, figure.unit),
        n=count(figure.n) if figure.n else "",
    )
