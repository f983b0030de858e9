"""Checks that ask several things of several instances or episodes: each answer has its word, figures and events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from stormdrill.core.backpressure.finding import Part, concluded, worst
from stormdrill.core.backpressure.stages import planned_stages, stages_of
from stormdrill.core.case import Case
from stormdrill.core.sentences import plural
from stormdrill.core.windows import Span
from stormdrill.model.verdict import CheckVerdict, Figure, Word


class Answer(Struct, frozen=True):
    word: Word
    text: str
    figures: tuple[Figure, ...] = ()
    events: tuple[int, ...] = ()
    exact: bool = False
    """Read or counted: seen broken it stays broken, whether or not the run went on."""


def share_of(text: str) -> float:
    """`90%` as 0.9; the parameter's pattern has been checked."""
    return float(text.removesuffix("%")) / 100


def unknown(text: str, figures: tuple[Figure, ...] = (), events: tuple[int, ...] = ()) -> Answer:
    return Answer("INCONCLUSIVE", text, figures, events)


MOST_TOLD = 3
"""Answers in one sentence; how many more there are is said."""


def unreached(case: Case) -> Answer | None:
    """What was planned and never came says nothing: a run that was stopped has not passed."""
    planned = planned_stages(case.plan.profile)
    missing = len(planned) - len(stages_of(case))
    if missing <= 0:
        return None
    return unknown(f"the run ended before {missing} of the {plural(len(planned), 'stage')} of its load")


def conclude(
    case: Case, check: str, answers: Sequence[Answer], looked_at: Iterable[Span], praise: str = ""
) -> CheckVerdict:
    """The worst answer's word, told by the answers that have it, or by `praise` where all are PASS; all figures."""
    missing = unreached(case)
    answers = [*answers, missing] if missing is not None else answers
    word = worst(answer.word for answer in answers)
    telling = [answer for answer in answers if answer.word == word]
    spans = list(looked_at)
    if word == "FAIL" and any(answer.exact for answer in telling):
        spans = [replace(span, complete=True) for span in spans]
    parts = [Part(word, answer.text) for answer in telling[:MOST_TOLD]]
    if len(telling) > MOST_TOLD:
        parts.append(Part(word, f"and {len(telling) - MOST_TOLD} more"))
    return concluded(
        case,
        check,
        [Part(word, praise)] if praise and word == "PASS" else parts,
        [figure for answer in answers for figure in answer.figures],
        spans,
        events=(seq for answer in answers for seq in answer.events),
    )
