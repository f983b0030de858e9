"""What a check says in the end: its answers, the worst of which is its word; taints; what the run never came to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from stormdrill.core.backpressure.stages import planned_stages, stages_of
from stormdrill.core.case import Case
from stormdrill.core.sentences import plural
from stormdrill.core.validity import Taint, distrusted
from stormdrill.core.windows import Span
from stormdrill.model.verdict import WORST_FIRST, CheckVerdict, Figure, Word

CUT_SHORT = "the run was stopped before that was over"
MOST_TOLD = 3
"""Answers in one sentence; how many more there are is said."""


class Answer(Struct, frozen=True):
    """One thing that a check asks, of one place or in one window, and what came out."""

    word: Word
    text: str
    figures: tuple[Figure, ...] = ()
    events: tuple[int, ...] = ()
    exact: bool = False
    """Read or counted: seen broken it stays broken, whether or not the run went on."""


def unknown(text: str, figures: tuple[Figure, ...] = (), events: tuple[int, ...] = ()) -> Answer:
    return Answer("INCONCLUSIVE", text, figures, events)


def worst(words: Iterable[Word]) -> Word:
    """INCONCLUSIVE for none: nothing was asked of anything."""
    found = set(words)
    return next((word for word in WORST_FIRST if word in found), "INCONCLUSIVE")


def taints_of(case: Case, spans: Sequence[Span]) -> tuple[Taint, ...]:
    """Each reason once, over all windows that were looked at."""
    found: dict[tuple[str, str], Taint] = {}
    for span in spans:
        for taint in case.validity.of(span, from_records=True):
            found.setdefault((taint.source, taint.reason), taint)
    return tuple(found.values())


def unreached(case: Case) -> Answer | None:
    """What was planned and never came says nothing: a run that was stopped has not passed."""
    planned = planned_stages(case.plan.profile)
    missing = len(planned) - len(stages_of(case))
    if missing <= 0:
        return None
    return unknown(f"the run ended before {missing} of the {plural(len(planned), 'stage')} of its load")


def conclude(
    case: Case,
    check: str,
    answers: Sequence[Answer],
    looked_at: Iterable[Span],
    *,
    praise: str = "",
    figures: Sequence[Figure] = (),
    most_told: int = MOST_TOLD,
) -> CheckVerdict:
    """The worst answer's word, told by the answers that have it, or by `praise` where all are PASS. All figures:
    `figures` first, then those of the worst answers. Tainted evidence is INVALID whatever it shows; of a window that
    was cut short nothing is said for sure."""
    missing = unreached(case)
    answers = [*answers, missing] if missing is not None else answers
    spans = list(looked_at)
    word = worst(answer.word for answer in answers)
    telling = [answer for answer in answers if answer.word == word]
    sentence = praise if praise and word == "PASS" else _sentence(telling, most_told)
    sure = word == "FAIL" and any(answer.exact for answer in telling)
    if word in ("PASS", "FAIL") and not sure and not all(span.complete for span in spans):
        word, sentence = "INCONCLUSIVE", f"{CUT_SHORT}: {sentence}"
    taints = taints_of(case, [replace(span, complete=True) for span in spans] if sure else spans)
    if taints:
        word, sentence = "INVALID", distrusted(taints[0], sentence)
    ranked = sorted(answers, key=lambda answer: WORST_FIRST.index(answer.word))
    shown = [*figures, *(figure for answer in ranked for figure in answer.figures)]
    told = [*(one.events for one in answers), *(one.events for one in spans), *(one.events for one in taints)]
    seqs = {seq for events in told for seq in events}
    return CheckVerdict(check, word, sentence, tuple(shown), tuple(sorted(seqs)))


def _sentence(telling: Sequence[Answer], most_told: int) -> str:
    texts = list(dict.fromkeys(answer.text for answer in telling if answer.text))
    more = [f"and {len(texts) - most_told} more"] if len(texts) > most_told else []
    return "; ".join([*texts[:most_told], *more])
