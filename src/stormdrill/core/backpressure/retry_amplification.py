"""retry-amplification: trying again must not become a load of its own: attempts per request ≤ 1.1, at every hop.

At the client attempts are counted in the records; between services by the counters of what each has received and has
sent on. Hops multiply: three layers of three tries make 27. What a service made of a request in the baseline is told
beside it, and changes nothing: where one request needs several calls, the counters must be those of one kind of call.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from msgspec import Struct

from stormdrill.core.backpressure.asked import RetryAmplification
from stormdrill.core.backpressure.checking import check
from stormdrill.core.backpressure.figures import at_most, figure, plain
from stormdrill.core.backpressure.finding import Answer, conclude, unknown
from stormdrill.core.backpressure.series import Series, grown_by_block, mute, series_of, silence
from stormdrill.core.backpressure.stages import pressed
from stormdrill.core.case import Case
from stormdrill.core.evidence import DROPPED
from stormdrill.core.intervals import Blocks, Interval, Ints, block_count, block_of
from stormdrill.core.sentences import interval_text, number, quantity
from stormdrill.core.windows import Span
from stormdrill.model.system import HopCounters
from stormdrill.model.verdict import WORST_FIRST, CheckVerdict

WORD = "retry-amplification"
FEWEST = 100
"""Requests of a stretch: fewer may try again by chance."""
CLIENT = "the client"


class Tries(Struct, frozen=True):
    """Attempts per request at one place, in one stretch."""

    place: str
    ratio: Interval
    span: Span
    before: float = 1.0
    """The same in the baseline; 1 where that isn't known."""
    doubt: str = ""


def places(case: Case, spans: Sequence[Span]) -> list[list[Tries]]:
    """The client, then each hop from the entry inwards, in every stretch."""
    found = [[_client(case, span) for span in spans]]
    return found + [_hop(case, hop, spans) for hop in case.plan.system.pressure.hops]


def hottest(case: Case) -> tuple[Tries, ...]:
    """All places in the stretch in which all together made most of one request; empty where nothing was looked at."""
    rows = list(zip(*places(case, pressed(case)), strict=True))
    return max(rows, key=lambda row: together(row)) if rows else ()


def judge(case: Case, asked: RetryAmplification) -> CheckVerdict:
    spans = pressed(case)
    if not spans:
        return conclude(case, WORD, [unknown("the run never came to where the load is judged")], spans)
    looked = [[(one, _answer(one, asked.most)) for one in tries] for tries in places(case, spans)]
    answers = [_worst(found) for found in looked]
    return conclude(case, WORD, [*answers, _product(case, answers)], spans, praise=_praise(case, asked.most))


def _praise(case: Case, most: float) -> str:
    known = [one for one in hottest(case) if one.ratio.n]
    said = ", ".join(f"{one.place} {number(one.ratio.value)}" for one in known)
    product = f", {number(together(known))} all together" if len(known) > 1 else ""
    return f"attempts a request: {said}{product}; at most {number(most)} each was asked"


def together(tries: Sequence[Tries]) -> float:
    """What becomes of one request on its way through all of them. A place that sheds makes no attempt undone."""
    return prod(max(1.0, _height(one)) for one in tries)


def _height(tries: Tries) -> float:
    return tries.ratio.value if tries.ratio.n else -1.0


def _worst(found: Sequence[tuple[Tries, Answer]]) -> Answer:
    """Of one place: the stretch with the worst word, and among those the one with most attempts."""
    return min(found, key=lambda item: (WORST_FIRST.index(item[1].word), -_height(item[0])))[1]


def ratio_of(of_block: Ints, total: Ints, seed: int) -> Interval:
    """The sum of the one over the sum of the other, by blocks of time; of one block the spread isn't known."""
    n = int(total.sum())
    if not n:
        return Interval(float("nan"), 0.0, float("inf"), 0)
    value, ends = float(of_block.sum()) / n, Blocks(total, seed).ends(of_block)
    if not ends:
        return Interval(value, 0.0, float("inf"), n)
    return Interval(value, min(value, *(low for low, _ in ends)), max(value, *(high for _, high in ends)), n)


def _client(case: Case, span: Span) -> Tries:
    """Of the requests that were intended in the stretch, all attempts, whenever those came."""
    blocks = block_count(span.length_s)
    attempts = case.attempts.between(span.start_ms, span.end_ms)
    attempts = attempts.where(attempts.outcome != DROPPED)
    block = block_of(attempts.at_ms, span.start_ms, span.end_ms, blocks)
    first = attempts.attempt == 0
    tried, asked = np.bincount(block, minlength=blocks), np.bincount(block[first], minlength=blocks)
    return Tries(CLIENT, ratio_of(tried, asked, case.seed), span)


def _hop(case: Case, hop: HopCounters, spans: Sequence[Span]) -> list[Tries]:
    """By counters: exact, but read at moments; what is in flight between the two is lost in the interval."""
    received, sent = series_of(case, hop.received), series_of(case, hop.sent)
    missing = hop.received if not received else hop.sent if not sent else ""
    baseline, before = case.spans.get("baseline"), 1.0
    if baseline is not None and not missing:
        calm = _counted(received, sent, baseline, case.seed)
        before = calm.value if calm.n >= FEWEST else 1.0
    found = []
    for span in spans:
        ratio = _counted(received, sent, span, case.seed)
        quiet = [why for one in (*received, *sent) if (why := silence(case, one, span))]
        quiet += [*mute(case, hop.received), *mute(case, hop.sent)]
        doubt = f"{missing} was never read" if missing else quiet[0] if quiet else ""
        found.append(Tries(hop.service, ratio, span, before, doubt))
    return found


def _counted(received: Sequence[Series], sent: Sequence[Series], span: Span, seed: int) -> Interval:
    every_s = max((one.every_ms for one in (*received, *sent)), default=1000.0) / 1000
    blocks = max(1, min(block_count(span.length_s), int(span.length_s / every_s)))
    return ratio_of(grown_by_block(sent, span, blocks), grown_by_block(received, span, blocks), seed)


def _answer(tries: Tries, most: float) -> Answer:
    found = tries.ratio
    name = f"attempts per request at {tries.place}"
    if not found.n:
        return unknown(f"at {tries.place} nothing was counted: {tries.doubt or 'no request came'}")
    shown = (figure(name, found, "", most),)
    text = f"{tries.place} made {number(found.value)}{interval_text(found.low, found.high)} attempts a request"
    text += f" ({found.n:,} requests in {quantity(tries.span.length_s, 's')}"
    text += f"; {number(tries.before)} in the baseline already)" if tries.before > most else ")"
    text += f"; at most {number(most)} was asked"
    if found.n < FEWEST:
        return unknown(f"{text}; {FEWEST} requests are the fewest", shown)
    word = at_most(found, most)
    if tries.doubt and word != "FAIL":
        return unknown(f"{text}; {tries.doubt}", shown)
    return Answer(word, text, shown)


def _product(case: Case, answers: Sequence[Answer]) -> Answer:
    """What reaches the innermost service for one request of a client, in the stretch where it is most; asked of nobody,
    because each place has its own limit."""
    known = [one for one in hottest(case) if one.ratio.n]
    if not known:
        return unknown("no attempts were counted anywhere")
    product = together(known)
    shown = (plain("attempts per request, all hops together", product, n=min(one.ratio.n for one in known)),)
    text = f"all hops together make {number(product)} of one"
    if any(answer.word == "FAIL" for answer in answers):
        return Answer("FAIL", f"{text}; most of it at {max(known, key=_height).place}", shown)
    return Answer("PASS", text, shown)


CHECK = check(WORD, judge)
