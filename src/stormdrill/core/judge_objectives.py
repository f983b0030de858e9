"""One objective, from its words to its verdict: window, validity, measure, interval, sentence."""

from __future__ import annotations

import math

from msgspec.structs import replace

from stormdrill.core.case import Case, Measured
from stormdrill.core.intervals import Interval, difference
from stormdrill.core.judge_alerts import judge_alert, tainted
from stormdrill.core.judge_jobs import measure_jobs
from stormdrill.core.judge_metrics import JOBS, QUANTILE, from_requests, limit_of, scale_of, told_as_time, unit_of
from stormdrill.core.judge_observed import measure_observed
from stormdrill.core.judge_readings import held_after, measure_readings
from stormdrill.core.judge_requests import measure_requests, word_of
from stormdrill.core.sentences import asked_text, interval_text, plural, quantity, where_text
from stormdrill.core.validity import Taint
from stormdrill.core.windows import Span, all_of, anchor_ms, narrowed, window_of
from stormdrill.model import event as ev
from stormdrill.model.experiment import Objective
from stormdrill.model.expression import AlertWithin, Comparison
from stormdrill.model.verdict import ObjectiveVerdict, Word

DIGITS = 6
"""Of every figure that is written down: what differs beyond them is the machine's, not the system's."""


def judge_objective(case: Case, objective: Objective) -> ObjectiveVerdict:
    """Never raises for what a run may leave behind: what can't be judged is INCONCLUSIVE and says why."""
    span = case.spans.get(objective.window.phase)
    if span is None:
        return _unreached(objective)
    if isinstance(objective.expression, AlertWithin):
        return judge_alert(case, objective, span)
    return _judge_comparison(case, objective, objective.expression, window_of(objective, span, case.inject))


def _unreached(objective: Objective) -> ObjectiveVerdict:
    expression = objective.expression
    sentence = f"not judged: the run never came to {objective.window.phase}"
    if isinstance(expression, AlertWithin):
        limit, unit = expression.within_s or 0.0, "s"
    else:
        limit, unit = limit_of(expression), unit_of(expression)
    return ObjectiveVerdict(
        expression.text, objective.window.text, "INCONCLUSIVE", None, None, None, limit, unit, 0, sentence
    )


def measure(case: Case, expression: Comparison, window: Span) -> Measured:
    """In base units."""
    if case.plan.experiment.observed and from_requests(expression.metric):
        return measure_observed(case, expression, window)
    if expression.metric in JOBS:
        return measure_jobs(case, expression, window)
    if from_requests(expression.metric):
        return measure_requests(case, expression, narrowed(window, case.unsure_ms))
    return measure_readings(case, expression, window)


def _judge_comparison(case: Case, objective: Objective, expression: Comparison, window: Span) -> ObjectiveVerdict:
    measured = measure(case, expression, window)
    shown = _shown(measured.interval, scale_of(expression))
    limit, word, doubt = _compare(case, expression, shown, half_open=measured.half_open)
    word, doubt = _weigh(measured, window, word, measured.doubt or doubt)
    n = shown.n
    if word == "INCONCLUSIVE" and not doubt:
        doubt = f"{measured.needs} are the fewest that can show it" if n < measured.needs else "the interval spans it"
    found = ObjectiveVerdict(
        name=expression.text,
        phase=objective.window.text,
        verdict=word,
        value=_finite(shown.value) if n else None,
        low=_finite(shown.low) if n and not measured.exact else None,
        high=_finite(shown.high) if n and not measured.exact else None,
        limit=limit if math.isfinite(limit) else 0.0,
        unit=unit_of(expression),
        n=n,
        sentence=_sentence(objective, expression, measured, shown, limit, doubt),
        events=_events(case, expression, measured, window),
    )
    if expression.metric in JOBS and word == "FAIL":
        return found  # one lost job is lost on any evidence
    found = _timed(case, objective, expression, window, found, doubt)
    return tainted(found, _taints(case, expression, window, found.limit))


def _taints(case: Case, expression: Comparison, window: Span, limit: float) -> tuple[Taint, ...]:
    """A limit relative to the baseline rests on the baseline's evidence as well: a late generator there would make it
    a limit that anything keeps."""
    found = case.validity.of(window, from_records=True)
    baseline = case.spans.get("baseline")
    if not expression.relative or baseline is None:
        return found
    spans = (window, baseline)
    found += case.validity.of(baseline, from_records=True)
    if QUANTILE.fullmatch(expression.metric) and limit > 0 and not case.plan.experiment.observed:
        limit_ms = limit / scale_of(expression) * 1000
        found += tuple(taint for span in spans for taint in case.validity.late(span, limit_ms))
    return found


def _timed(
    case: Case, objective: Objective, expression: Comparison, window: Span, found: ObjectiveVerdict, doubt: str
) -> ObjectiveVerdict:
    """What probes read and had to hold within a time is told as that time: the drain of a queue. The word stays."""
    span = case.spans[objective.window.phase]
    anchor = anchor_ms(span, case.inject)
    if not told_as_time(expression) or anchor is None or not found.n:
        return found
    within_s = expression.within_s or 0.0
    if window.start_ms != anchor + within_s * 1000:
        return found
    held = held_after(case, expression, anchor, window.end_ms)
    if held is None:
        return found
    unit, where = unit_of(expression), where_text(objective.window.phase, 0.0)
    worst = quantity(_rounded(held.worst * scale_of(expression)), unit)
    asked = f"{expression.metric} {expression.op} {quantity(limit_of(expression), unit)}"
    when = "all along" if not held.after_s else f"after {quantity(held.after_s, 's')}"
    text = f"{asked} held {when}" if held.at_end else f"{asked} did not hold at the end"
    due = f"within {quantity(within_s, 's')} was asked" + (f"; {doubt}" if doubt else "")
    return replace(
        found,
        value=held.after_s,
        limit=within_s,
        unit="s",
        sentence=f"{text} {where} (worst {worst}); {due}",
        events=tuple(sorted({*found.events, *held.events})),
    )


def _weigh(measured: Measured, window: Span, word: Word, doubt: str) -> tuple[Word, str]:
    """What was counted and seen broken stays broken; everything else needs the whole window."""
    if not measured.interval.n and not (measured.exact and word == "FAIL"):
        return "INCONCLUSIVE", doubt or "there were no samples"
    if word == "FAIL" and measured.exact:
        return word, ""
    if not window.complete:
        return "INCONCLUSIVE", "the run was stopped before the phase was over"
    if doubt:
        return "INCONCLUSIVE", doubt
    return word, ""


def _compare(case: Case, expression: Comparison, shown: Interval, *, half_open: bool) -> tuple[float, Word, str]:
    """The limit as shown, the word, and what stands in its way. A relative limit is itself an interval."""
    limit = limit_of(expression)
    if not expression.relative:
        return limit, _word(expression.op, shown, limit, half_open=half_open), ""
    baseline = case.spans.get("baseline")
    factor = expression.limit
    base = _shown(measure(case, expression, baseline).interval, scale_of(expression)) if baseline else None
    if base is None or not base.n or math.isnan(base.value):
        return math.nan, "INCONCLUSIVE", "there is no baseline to compare with"
    limit = _rounded(factor * base.value)
    if half_open:  # bounds that hold for certain: they must lie apart
        words = {_word(expression.op, shown, factor * end, half_open=True) for end in (base.low, base.high)}
        return limit, words.pop() if len(words) == 1 else "INCONCLUSIVE", ""
    apart = difference(shown, base, factor)
    word = _word(expression.op, apart, 0.0, half_open=False)
    if word != "INCONCLUSIVE":
        return limit, word, ""
    beyond = quantity(apart.value, unit_of(expression)) + interval_text(_finite(apart.low), _finite(apart.high))
    return limit, word, f"the difference is {beyond} and may be 0"


def _word(op: str, shown: Interval, limit: float, *, half_open: bool) -> Word:
    if half_open and shown.n and op != "=":
        below, above = shown.high <= limit, shown.low >= limit
        if not below and not above:
            return "INCONCLUSIVE"
        return "PASS" if below == (op in ("<", "<=")) else "FAIL"
    found = word_of(op, shown, limit)
    return "PASS" if found == "PASS" else "FAIL" if found == "FAIL" else "INCONCLUSIVE"


def _shown(interval: Interval, scale: float) -> Interval:
    return Interval(
        _rounded(interval.value * scale), _rounded(interval.low * scale), _rounded(interval.high * scale), interval.n
    )


def _rounded(value: float) -> float:
    if not math.isfinite(value) or value == 0:
        return value
    return round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _sentence(
    objective: Objective, expression: Comparison, measured: Measured, shown: Interval, limit: float, doubt: str
) -> str:
    unit = unit_of(expression)
    after_s = objective.window.after_s + (expression.after_s or 0.0)
    where = where_text(objective.window.phase, after_s)
    asked = asked_text(expression.op, limit, unit) if math.isfinite(limit) else f"{expression.text} was asked"
    if expression.relative and math.isfinite(limit):
        asked += f" ({expression.limit:g} times the baseline's)"
    if not measured.text or not shown.n:
        text = f"{expression.text} could not be measured {where}"
        return f"{text}: {doubt}" if doubt else text
    value = quantity(shown.value, unit)
    if not measured.exact:
        value += interval_text(_finite(shown.low), _finite(shown.high))
    text = measured.text.replace("{value}", value).replace("{n}", f"{shown.n:,}")
    return f"{text} {where}; {asked}" + (f"; {doubt}" if doubt else "")


def _events(case: Case, expression: Comparison, measured: Measured, window: Span) -> tuple[int, ...]:
    """The edges of the window, what was read, and where the records were opened and closed."""
    seqs = {*window.events, *measured.events}
    if case.inject is not None and window.name not in ("warmup", "baseline"):
        seqs.add(case.inject.seq)
    if from_requests(expression.metric):
        seqs.update(recorded.seq for recorded, _ in all_of(case.events, ev.LoadStarted))
        seqs.update(r.seq for r, event in all_of(case.events, ev.RecordClosed) if event.file.endswith(".records"))
    return tuple(sorted(seqs))


def held_text(found: tuple[ObjectiveVerdict, ...]) -> str:
    """`7 objectives held`."""
    return f"{plural(len(found), 'objective')} held"
