"""goodput-plateau: with two and three times the work, as much is done in time as at capacity: G(kC)/G(C) ≥ 0.9."""

from __future__ import annotations

from stormdrill.core.backpressure.asked import GoodputPlateau
from stormdrill.core.backpressure.capacity import capacity_of, overloads, rate
from stormdrill.core.backpressure.checking import check
from stormdrill.core.backpressure.finding import Part, at_least, concluded, figure, percent, ratio, scaled, told, unseen
from stormdrill.core.backpressure.stages import goodput
from stormdrill.core.case import Case
from stormdrill.core.sentences import quantity
from stormdrill.model.verdict import CheckVerdict

WORD = "goodput-plateau"


def judge(case: Case, asked: GoodputPlateau) -> CheckVerdict:
    """Each multiple is a part of its own; one that the staircase doesn't reach is INCONCLUSIVE."""
    found, (windows, missing) = capacity_of(case), overloads(case, asked.up_to)
    if found.held is None or not windows:
        return unseen(WORD, missing or "the capacity isn't known")
    least = float(asked.least.rstrip("%"))
    # what was asked there is known, so that only the share of it that was served is uncertain
    base = scaled(found.held.served, found.held.stretch.asked_per_s)
    parts = [Part("INCONCLUSIVE", missing)] if missing else []
    figures = [figure("goodput at capacity", base, "/s")]
    for window in windows:
        there = goodput(case, window.span)
        share = percent(ratio(there, base))
        text = f"goodput {window.text} was {told(share, '%')} of that at capacity ({rate(found.held)})"
        parts.append(Part(at_least(share, least), f"{text}; {quantity(least, '%')} was asked"))
        figures.append(figure(f"goodput at {window.name}", there, "/s"))
        figures.append(figure(f"kept at {window.name}", share, "%", least))
    spans = [found.held.stretch.settled, *(window.span for window in windows)]
    return concluded(case, WORD, parts, figures, spans)


CHECK = check(WORD, judge)
