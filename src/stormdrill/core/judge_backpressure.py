"""The backpressure checks that an experiment asks for, judged one by one. Each counts like an objective."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import ValidationError, convert

from stormdrill.core.backpressure.registry import check_of
from stormdrill.core.case import Case
from stormdrill.core.sentences import plural
from stormdrill.core.validity import Taint, distrusted
from stormdrill.model.experiment import CheckUse
from stormdrill.model.verdict import CheckVerdict


def judge_checks(case: Case) -> tuple[CheckVerdict, ...]:
    """In the order in which they were asked for. Never raises for what a run, or a plan of another version, left."""
    return tuple(_judge(case, use) for use in case.plan.experiment.backpressure)


def _judge(case: Case, use: CheckUse) -> CheckVerdict:
    try:
        check = check_of(use.word)
        asked = convert(use.parameters, check.parameters)
    except KeyError:
        return CheckVerdict(use.word, "INCONCLUSIVE", "this version of stormdrill has no such check")
    except ValidationError as error:
        return CheckVerdict(use.word, "INCONCLUSIVE", f"what was asked of it can't be read: {error}")
    found = check.judge(case, asked)
    records: tuple[Taint, ...] = case.validity.records if "load" in check.needs else ()
    if found.verdict != "INVALID" and records:  # a worker that was lost may be the reason why nothing was seen
        sentence = distrusted(records[0], found.sentence)
        events = tuple(sorted({*found.events, *(seq for taint in records for seq in taint.events)}))
        return CheckVerdict(found.name, "INVALID", sentence, found.figures, events)
    return found


def checks_text(found: Sequence[CheckVerdict]) -> str:
    """`5 backpressure checks held`."""
    return f"{plural(len(found), 'backpressure check')} held"
