"""The error budget: what each objective allowed to fail, and how much of that this run spent."""

from __future__ import annotations

from stormdrill.core import telling
from stormdrill.core.budget import Budget, budgets
from stormdrill.review.impact import record_events
from stormdrill.review.source import Source
from stormdrill.review.view import BudgetRow, Figure
from stormdrill.review.words import count, percent


def budget(source: Source) -> tuple[BudgetRow, ...]:
    """A row for each objective that has one, in the plan's order."""
    if source.plan is None or not source.records:
        return ()
    return tuple(_row(source, found) for found in budgets(source.plan, source.events, source.records))


def _row(source: Source, found: Budget) -> BudgetRow:
    spans = {span.name: span.events for span in source.spans}
    phase = found.phase.partition(" after ")[0]
    spent = f"{percent(100 * found.spent) if found.spent <= 1 else format(100 * found.spent, ',.0f')}%"
    return BudgetRow(
        objective=found.name,
        where=telling.phase(found.phase),
        allowed=f"{100 * found.allowed:g}% of {count(found.n)}",
        bad=count(found.bad),
        spent=Figure(spent, (*spans.get(phase, ()), *record_events(source))),
    )
