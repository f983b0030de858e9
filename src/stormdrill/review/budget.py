"""The error budget: what each objective allowed to fail, and how much of that this run spent."""

from __future__ import annotations

from stormdrill.core import telling
from stormdrill.core.budget import Budget, Spending, budgets
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
    return BudgetRow(
        objective=found.name,
        where=telling.phase(found.phase),
        allowed=f"{100 * found.allowed:g}% of {count(found.n)}",
        bad=count(found.bad),
        spent=Figure(_share(found.spent), (*spans.get(phase, ()), *record_events(source))),
        earnest=_earnest(found) if found.spending is not None else "",
    )


def _share(share: float) -> str:
    return f"{percent(100 * share) if share <= 1 else format(100 * share, ',.0f')}%"


def _earnest(found: Budget) -> str:
    """What it would be of the window of the service's own traffic."""
    spending = found.spending
    assert spending is not None
    text = f"{_requests(spending.budget)} may be bad in {_span(spending.window_s)}"
    if spending.lasts_s is None:
        return f"{text}; none was"
    here = f"{_span(found.length_s)} of this cost {_requests(spending.cost)}, {_small(spending.share)} of them"
    return f"{text}; {here}; a minute costs {_small(spending.minute)}; burn rate {_burn(spending)}"


def _burn(spending: Spending) -> str:
    assert spending.lasts_s is not None
    if spending.burn > 1:
        return f"{spending.burn:.3g}, all is gone after {_span(spending.lasts_s)}"
    return f"{spending.burn:.2g}, it lasts the window"


def _small(share: float) -> str:
    return f"{100 * share:.2g}%" if share < 1 else f"{100 * share:,.0f}%"


def _span(seconds: float) -> str:
    """`30 days`, `3.2 days`, `5.5 hours`, `20 s`."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def _requests(number: float) -> str:
    return f"{number:,.0f} requests" if number >= 10 or number == 0 else f"{number:.2g} requests"
