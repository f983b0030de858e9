"""goodput-plateau: with two and three times the work, as much is done in time as at capacity: G(kC)/G(C) ≥ 0.9."""

from __future__ import annotations

from msgspec.structs import replace

from stormdrill.core.backpressure.asked import GoodputPlateau
from stormdrill.core.backpressure.capacity import Found, Step, capacity_of, climbed, overloads, rate
from stormdrill.core.backpressure.checking import check
from stormdrill.core.backpressure.figures import at_least, figure, percent, ratio, scaled, told
from stormdrill.core.backpressure.finding import Answer, conclude, unknown, worst
from stormdrill.core.backpressure.stages import goodput
from stormdrill.core.case import Case
from stormdrill.core.intervals import Interval
from stormdrill.core.sentences import quantity
from stormdrill.model.verdict import CheckVerdict

WORD = "goodput-plateau"
FINE = 1.3
"""The most by which a step may be above the one before, for what lies between them not to matter."""
WIDE = 1.5
"""As many times what was surely done, the lowest step that isn't carried leaves too much unknown for a PASS."""


def judge(case: Case, asked: GoodputPlateau) -> CheckVerdict:
    """Each multiple is a part of its own; one that the staircase doesn't reach is INCONCLUSIVE."""
    found, (windows, missing) = capacity_of(case), overloads(case, asked.up_to)
    if found.held is None or not windows:
        return conclude(case, WORD, [unknown(missing or "the capacity isn't known")], ())
    least = float(asked.least.rstrip("%"))
    # what was asked there is known, so that only the share of it that was served is uncertain
    held = scaled(found.held.served, found.held.stretch.asked_per_s)
    broke = goodput(case, found.broke.stretch.settled) if found.broke is not None else None
    parts = [unknown(missing)] if missing else []
    figures = [figure("goodput at capacity", held, "/s")]
    for window in windows:
        there = goodput(case, window.span)
        share = percent(ratio(there, held))
        text = f"goodput {window.text} was {told(share, '%')} of that at capacity ({rate(found.held)})"
        word = at_least(share, least)
        figures.append(figure(f"goodput at {window.name}", there, "/s"))
        figures.append(figure(f"goodput kept at {window.name}", share, "%", least))
        if found.broke is not None and broke is not None and window.span != found.broke.stretch.settled:
            # a coarse staircase finds less than the capacity: what was done one step on speaks against a PASS as well
            since = percent(ratio(there, broke))
            if since.value < least:
                word = worst((word, "FAIL" if since.high < least else "INCONCLUSIVE"))
                text += f" and {told(since, '%')} of that at {rate(found.broke)}, where more was asked than it carries"
        if word == "PASS" and not _known_well(found, broke.value if broke is not None else 0.0, there, least):
            word = "INCONCLUSIVE"
        parts.append(Answer(word, f"{text}; {quantity(least, '%')} was asked"))
    word = worst(part.word for part in parts)
    last = max(index for index, part in enumerate(parts) if part.word == word)
    parts[last] = replace(parts[last], text=parts[last].text + _coarse(found))  # said once, where it is told
    spans = [*climbed(case), *(window.span for window in windows)]
    return conclude(case, WORD, parts, spans, figures=figures)


def _known_well(found: Found, done_per_s: float, there: Interval, least: float) -> bool:
    """Whether enough is done there wherever the capacity lies: it may be anything from what was seen to be done up to
    the step that isn't carried."""
    if found.held is None or found.broke is None:
        return True
    whole = _asked(found.broke)
    if whole <= WIDE * max(done_per_s, _asked(found.held)):
        return True
    share = Interval(there.value / whole, there.low / whole, there.high / whole, there.n)
    return at_least(percent(share), least) == "PASS"


def _coarse(found: Found) -> str:
    """A collapse that begins between two steps far apart is not seen: the sentence says so."""
    if found.held is None or found.broke is None or _asked(found.broke) <= FINE * _asked(found.held):
        return ""
    return f" (the capacity may be anywhere up to {rate(found.broke)}: finer steps would tell)"


def _asked(step: Step) -> float:
    return step.stretch.asked_per_s


CHECK = check(WORD, judge)
