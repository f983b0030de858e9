"""Several runs of one plan, judged together. Pure; the order in which the runs are named doesn't matter.

A run shows how its seconds differ; only several show how runs do. What is estimated has an interval that respects both
(`core.pooling`). What is counted, read or fired is exact: one run that broke it has broken it.

Runs that can't be believed, were stopped, or never came to be judged are left out, and named. A lost job counts there
too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from stormdrill.core.case import Case
from stormdrill.core.digest import changes, facts
from stormdrill.core.evidence import RecordFile
from stormdrill.core.intervals import Interval, difference
from stormdrill.core.judge import judge
from stormdrill.core.judge_metrics import (
    COMPLETION,
    JOBS,
    RATES,
    from_requests,
    limit_of,
    scale_of,
    unit_of,
)
from stormdrill.core.judge_requests import Sample, sample_of, word_of
from stormdrill.core.pooling import over_runs
from stormdrill.core.sentences import (
    asked_text,
    interval_text,
    number,
    plural,
    quantity,
    requests_text,
    rounded,
    where_text,
)
from stormdrill.core.validity import DISTRUST
from stormdrill.core.windows import narrowed, window_of
from stormdrill.errors import Refused
from stormdrill.model.event import Recorded
from stormdrill.model.experiment import Objective
from stormdrill.model.expression import AlertWithin, Comparison
from stormdrill.model.plan import Plan
from stormdrill.model.verdict import WORST_FIRST, ObjectiveVerdict, Verdict, Word
from stormdrill.ports import LedgerRow

FEWEST = 2
"""Fewer runs that count are no repeat."""


class Drawn(Struct, frozen=True):
    """What one run has to say on one objective that is estimated."""

    fault: Sample
    baseline: Sample | None = None
    """For a limit relative to the baseline."""


class Repeat(Struct, frozen=True):
    """One run, as far as others are put beside it."""

    run: str
    plan: Plan
    verdict: Verdict
    drawn: tuple[Drawn | None, ...]
    """An objective each; None: it is exact, or was not measured."""


class Counted(Struct, frozen=True):
    """A run that was named, and whether it counts."""

    run: str
    status: str
    verdict: Word
    left_out: str
    """Why it doesn't; empty: it does."""


class CombinedObjective(Struct, frozen=True):
    """One objective over all runs that count. As `ObjectiveVerdict`, and how it went run by run."""

    name: str
    phase: str
    verdict: Word
    value: float | None
    low: float | None
    high: float | None
    limit: float
    unit: str
    n: int
    sentence: str
    runs: int
    """In which it was measured."""
    passed: int
    failed: int
    values: tuple[float | None, ...]
    """One a run that counts, in their order."""


class Combined(Struct, frozen=True):
    """`verdict` is of all runs together."""

    experiment: str
    plan: str
    """The digest that all have."""
    verdict: Word
    sentence: str
    runs: tuple[Counted, ...]
    objectives: tuple[CombinedObjective, ...]
    reasons: tuple[str, ...] = ()


def repeat_of(
    plan: Plan, events: Sequence[Recorded], records: Sequence[RecordFile], ledger: Sequence[LedgerRow] | None
) -> Repeat:
    """Judges one run, and keeps what the others need; the records themselves may go."""
    verdict = judge(plan, events, records, ledger)
    case = Case(plan, events, records, ledger)
    asked = zip(plan.experiment.objectives, verdict.objectives, strict=True)
    return Repeat(verdict.run, plan, verdict, tuple(_draw(case, one, found) for one, found in asked))


def _draw(case: Case, objective: Objective, found: ObjectiveVerdict) -> Drawn | None:
    expression, span = objective.expression, case.spans.get(objective.window.phase)
    if span is None or not _estimated(case.plan, objective) or found.verdict == "INVALID" or not found.n:
        return None
    assert isinstance(expression, Comparison)
    window = narrowed(window_of(objective, span, case.inject), case.unsure_ms)
    sample = sample_of(case, expression, window) if window.complete else None
    baseline = case.spans.get("baseline")
    if sample is None or not expression.relative:
        return None if sample is None else Drawn(sample)
    base = sample_of(case, expression, narrowed(baseline, case.unsure_ms)) if baseline is not None else None
    return None if base is None else Drawn(sample, base)


def _estimated(plan: Plan, objective: Objective) -> bool:
    expression = objective.expression
    if not isinstance(expression, Comparison) or plan.experiment.observed:
        return False
    return from_requests(expression.metric) and expression.metric not in JOBS


def combine(repeats: Sequence[Repeat]) -> Combined:
    """Raises Refused for runs of different plans, for one that is named twice, and for fewer than two."""
    _refuse_others(repeats)
    repeats = sorted(repeats, key=lambda item: item.run)
    plan = repeats[0].plan
    why = [_left_out(repeat.verdict) for repeat in repeats]
    kept = [repeat for repeat, reason in zip(repeats, why, strict=True) if not reason]
    found = tuple(
        _objective(plan, objective, index, kept, repeats) for index, objective in enumerate(plan.experiment.objectives)
    )
    rulings = _rulings(kept)
    if len(kept) < FEWEST:
        can = f"only {len(kept)} of {plural(len(repeats), 'run')} can be judged"
        rulings.append(("INCONCLUSIVE", f"{can}: {next(reason for reason in why if reason)}"))
    word, sentence = _overall(found, rulings, kept)
    missing = [f"{repeat.run} is left out: {reason}" for repeat, reason in zip(repeats, why, strict=True) if reason]
    if missing and len(kept) >= FEWEST:
        sentence += f"; {plural(len(missing), 'run')} of {len(repeats)} left out"
    return Combined(
        experiment=plan.experiment.name,
        plan=plan.digest,
        verdict=word,
        sentence=sentence,
        runs=tuple(
            Counted(repeat.run, repeat.verdict.status, repeat.verdict.verdict, reason)
            for repeat, reason in zip(repeats, why, strict=True)
        ),
        objectives=found,
        reasons=tuple(dict.fromkeys([*(text for _, text in rulings), *missing])),
    )


def _refuse_others(repeats: Sequence[Repeat]) -> None:
    if len(repeats) < FEWEST:
        raise Refused("name two runs of one experiment at least; one alone: stormdrill judge RUN")
    first, names = repeats[0], [repeat.run for repeat in repeats]
    for name in names:
        if names.count(name) > 1:
            raise Refused(f"{name} is named twice: it is one run, not two")
    for other in repeats[1:]:
        if other.plan.digest == first.plan.digest:
            continue
        differs = changes(facts(first.plan), facts(other.plan)) or ["the version of stormdrill that planned them"]
        if other.plan.experiment.name != first.plan.experiment.name:
            differs = [f"one is of {other.plan.experiment.name}, the other of {first.plan.experiment.name}"]
        what = f"{other.run} (plan {other.plan.digest}) is no repeat of {first.run} (plan {first.plan.digest})"
        raise Refused(f"{what}: {'; '.join(differs)}. Combine runs of one plan only")


def _left_out(verdict: Verdict) -> str:
    """Why a run says nothing beside others; empty: it does. One that FAILed because of a guard has said enough."""
    if verdict.status in ("dirty", "failed") or (verdict.verdict == "INVALID" and not _own_finding(verdict)):
        return verdict.sentence
    if verdict.verdict == "FAIL":
        return ""
    if verdict.status == "aborted":
        return verdict.sentence
    ill = [one for one in verdict.objectives if one.phase.startswith("baseline") and one.verdict == "FAIL"]
    if ill:
        return f"no healthy baseline: {ill[0].sentence}"
    own = verdict.runbook.sentence if verdict.runbook is not None else ""
    return next((reason for reason in verdict.reasons if reason != own), "")


def _own_finding(verdict: Verdict) -> bool:
    """Whether it is INVALID by nothing but what a check found out about the system's own figures: that is no accident
    of this run, and counts."""
    words = [one.verdict for one in verdict.objectives]
    words += [verdict.runbook.verdict] if verdict.runbook is not None else []
    checks = [check for check in verdict.backpressure if check.verdict == "INVALID"]
    known = any(check.sentence in verdict.sentence for check in checks)
    return known and "INVALID" not in words and not any(check.sentence.startswith(DISTRUST) for check in checks)


def _rulings(kept: Sequence[Repeat]) -> list[tuple[Word, str]]:
    """What runs broke besides their objectives: guards, runbooks, backpressure checks. Once is enough."""
    rulings: list[tuple[Word, str]] = []
    for told in _checks(kept):
        rulings += told
    for repeat in kept:
        verdict = repeat.verdict
        words = [one.verdict for one in verdict.objectives] + [one.verdict for one in verdict.backpressure]
        words += [verdict.runbook.verdict] if verdict.runbook else []
        if verdict.verdict == "FAIL" and "FAIL" not in words:
            rulings.append(("FAIL", f"in {repeat.run}: {verdict.sentence}"))
    return rulings


def _checks(kept: Sequence[Repeat]) -> list[list[tuple[Word, str]]]:
    """The runbook and each backpressure check, where it did not pass in every run."""
    told: dict[str, list[tuple[Word, str]]] = {}
    for repeat in kept:
        parts = [(check.name, check.verdict, check.sentence) for check in repeat.verdict.backpressure]
        book = repeat.verdict.runbook
        if book is not None:
            parts.append((f"runbook {book.name}", book.verdict, book.sentence))
        for name, word, sentence in parts:
            told.setdefault(name, []).append((word, sentence))
    found = []
    for name, seen in told.items():
        passed = sum(word == "PASS" for word, _ in seen)
        for word in WORST_FIRST[:-1]:
            whys = [sentence for one, sentence in seen if one == word]
            if whys:
                found.append([(word, f"{name} passed in {passed} of {plural(len(seen), 'run')}: {whys[0]}")])
                break
    return found


def _overall(
    found: Sequence[CombinedObjective], rulings: Sequence[tuple[Word, str]], kept: Sequence[Repeat]
) -> tuple[Word, str]:
    lost = [one for one in found if one.verdict == "FAIL" and one.name.startswith(JOBS)]
    words = [(one.verdict, one.sentence) for one in (*lost, *found)]
    words = [*words, *rulings] if len(kept) >= FEWEST else [*rulings, *words]
    for word in WORST_FIRST[:-1]:
        whys = list(dict.fromkeys(sentence for one, sentence in words if one == word))
        if whys:
            return word, whys[0] + (f" (and {len(whys) - 1} more)" if len(whys) > 1 else "")
    return "PASS", f"{plural(len(found), 'objective')} held over {plural(len(kept), 'run')}"


# --- one objective -----------------------------------------------------------------------------------------


def _objective(
    plan: Plan, objective: Objective, index: int, kept: Sequence[Repeat], every: Sequence[Repeat]
) -> CombinedObjective:
    seen = [repeat.verdict.objectives[index] for repeat in kept]
    if _estimated(plan, objective):
        return _estimate(objective, [repeat.drawn[index] for repeat in kept], seen, plan.seed)
    expression = objective.expression
    if isinstance(expression, Comparison) and expression.metric in JOBS:
        out = [repeat.verdict.objectives[index] for repeat in every if repeat not in kept]
        seen += [one for one in out if one.verdict == "FAIL"]  # a lost job is lost on any evidence
    return _exact(objective, seen)


def _exact(objective: Objective, seen: Sequence[ObjectiveVerdict]) -> CombinedObjective:
    """Counted, read or fired: broken once is broken, and one run that doesn't know leaves it open."""
    expression = objective.expression
    passed, failed = (sum(one.verdict == word for one in seen) for word in ("PASS", "FAIL"))
    word: Word = "FAIL" if failed else "PASS" if passed == len(seen) and seen else "INCONCLUSIVE"
    values = tuple(one.value for one in seen)
    known = [value for value in values if value is not None]
    if isinstance(expression, Comparison) and expression.metric in JOBS:
        value: float | None = sum(known) if known else None
    else:
        high_is_bad = isinstance(expression, AlertWithin) or expression.op in ("<", "<=", "=")
        by_time = isinstance(expression, Comparison) and expression.within_s is not None
        value = (max if high_is_bad or by_time else min)(known, default=None)
    first = seen[0] if seen else None
    n = sum(one.n for one in seen)
    return CombinedObjective(
        name=expression.text, phase=objective.window.text, verdict=word, value=value, low=None, high=None,
        limit=first.limit if first else 0.0, unit=first.unit if first else "", n=n,
        sentence=_exact_sentence(objective, seen, word, value, passed), runs=len(seen), passed=passed, failed=failed,
        values=values,
    )  # fmt: skip


def _exact_sentence(
    objective: Objective, seen: Sequence[ObjectiveVerdict], word: Word, value: float | None, passed: int
) -> str:
    expression = objective.expression
    in_runs = f"in {passed} of {plural(len(seen), 'run')}"
    where = where_text(objective.window.phase, objective.window.after_s)
    text = f"{expression.text} held {where} {in_runs}"
    if isinstance(expression, Comparison) and expression.metric in JOBS:
        if value is not None:
            what = expression.metric.removeprefix("jobs_")
            text += f"; {plural(round(value), 'job')} of {sum(one.n for one in seen):,} {what} in all"
    elif value is not None and seen:
        text += f"; at worst {quantity(value, seen[0].unit)}"
    doubts = [one.sentence for one in seen if one.verdict == word]
    return text if word == "PASS" or not doubts else f"{text}: {doubts[0]}"


def _estimate(
    objective: Objective, drawn: Sequence[Drawn | None], seen: Sequence[ObjectiveVerdict], seed: int
) -> CombinedObjective:
    expression = objective.expression
    assert isinstance(expression, Comparison)
    parts = [one for one in drawn if one is not None]
    scale, unit = scale_of(expression), unit_of(expression)
    shown = _scaled(over_runs([one.fault for one in parts], expression, seed), scale)
    limit, apart = limit_of(expression), shown
    if expression.relative:
        base = _scaled(over_runs([one.baseline for one in parts if one.baseline is not None], expression, seed), scale)
        limit, apart = rounded(expression.limit * base.value), difference(shown, base, expression.limit)
    word = _word(expression, apart, 0.0 if expression.relative else limit)
    passed, failed = (sum(one.verdict == verdict for one in seen) for verdict in ("PASS", "FAIL"))
    doubt = ""
    if len(parts) < len(seen):
        doubt = f"it was not measured in {len(seen) - len(parts)} of {plural(len(seen), 'run')}"
    elif word == "PASS" and failed:
        doubt = f"{plural(failed, 'run')} failed it alone: the runs differ more than their mean tells"
    elif word == "INCONCLUSIVE" and shown.n:
        doubt = "the interval spans it"
    if doubt and word == "PASS":
        word = "INCONCLUSIVE"
    values = tuple(one.value for one in seen)
    return CombinedObjective(
        name=expression.text, phase=objective.window.text, verdict=word,
        value=_finite(shown.value),
        low=_finite(shown.low) if shown.n else None,
        high=_finite(shown.high) if shown.n else None,
        limit=limit if math.isfinite(limit) else 0.0, unit=unit, n=shown.n,
        sentence=_sentence(objective, expression, shown, limit, values, doubt),
        runs=len(parts), passed=passed, failed=failed, values=values,
    )  # fmt: skip


def _word(expression: Comparison, shown: Interval, limit: float) -> Word:
    if not shown.n or math.isnan(shown.value) or math.isnan(limit):
        return "INCONCLUSIVE"
    found = word_of(expression.op, shown, limit)
    return "PASS" if found == "PASS" else "FAIL" if found == "FAIL" else "INCONCLUSIVE"


def _sentence(
    objective: Objective,
    expression: Comparison,
    shown: Interval,
    limit: float,
    values: Sequence[float | None],
    doubt: str,
) -> str:
    unit = unit_of(expression)
    where = where_text(objective.window.phase, objective.window.after_s + (expression.after_s or 0.0))
    if not shown.n:
        return f"{expression.text} could not be measured {where}" + (f": {doubt}" if doubt else "")
    value = quantity(shown.value, unit) + interval_text(_finite(shown.low), _finite(shown.high))
    of = requests_text(expression.labels)
    if expression.metric == "success":
        text = f"{value} of {shown.n:,} {of} succeeded {where}"
    elif expression.metric in RATES:
        text = f"{value} of {of} were answered{' in time' if expression.metric == 'goodput' else ''} {where}"
    else:
        what = expression.metric.removeprefix("completion_")
        over = "accepted jobs' completion" if COMPLETION.fullmatch(expression.metric) else f"admitted {of}"
        text = f"{what} was {value} over {shown.n:,} {over} {where}"
    known = [value for value in values if value is not None]
    spread = f" ({number(min(known))} to {quantity(max(known), unit)})" if len(set(known)) > 1 else ""
    asked = asked_text(expression.op, limit, unit) if math.isfinite(limit) else f"{expression.text} was asked"
    if expression.relative:
        asked += f" ({expression.limit:g} times the baseline's)"
    return f"{text}, in {plural(len(values), 'run')}{spread}; {asked}" + (f"; {doubt}" if doubt else "")


def _scaled(interval: Interval, scale: float) -> Interval:
    value, low, high = (rounded(end * scale) for end in (interval.value, interval.low, interval.high))
    return Interval(value, low, high, interval.n)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
