"""recovery: with the same load as before the trigger, it serves as before: G ≥ 0.95 of that within R, and stays so.

What doesn't come back although its trigger is gone, and does at a lower load, is *metastable*: it carried that load
before, and holds itself down now. The sentence then says below which part of the capacity it recovers (hysteresis).
G is taken as the share of what was asked, so that the luck of the arrivals doesn't count.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from msgspec import Struct

from stormdrill.core.backpressure.asked import Recovery
from stormdrill.core.backpressure.carried import Carried, carried
from stormdrill.core.backpressure.checking import check
from stormdrill.core.backpressure.figures import at_least, figure, percent, plain, ratio, share_of, told
from stormdrill.core.backpressure.finding import MOST_TOLD, Answer, conclude, unknown
from stormdrill.core.backpressure.stages import Stretch, served_share
from stormdrill.core.backpressure.surges import Surge, surges
from stormdrill.core.case import Case
from stormdrill.core.intervals import Interval
from stormdrill.core.sentences import number, plural, quantity
from stormdrill.core.windows import Span
from stormdrill.model.units import parse_duration
from stormdrill.model.verdict import WORST_FIRST, CheckVerdict, Figure

WORD = "recovery"
WELL = 0.9
"""Of what was asked before the trigger, served in time: below this there is nothing to come back to."""
STAYS_S = 5.0
"""Stretches of the judged time, none of which may surely be below what is asked."""
LOOK_S, STEP_S = 2.0, 0.5
"""For the time of recovery, which is told and not judged: a stretch that slides in steps."""


class Recovered(Struct, frozen=True):
    """What followed one trigger."""

    surge: Surge
    before: Interval
    after: Interval
    """Served in time, as shares of what was asked; after: from R on."""
    compared: Interval
    """The one over the other."""
    relapse_s: float | None
    """From the trigger's end to the stretch in which it surely served too little; None: in none."""
    took_s: float | None
    """From the trigger's end until it served as before, to the end; None: not while it was looked at."""
    at: Stretch | None
    """The highest lower load, of those that were tried, at which it served as before."""
    above_per_s: float
    """The lowest load above that, of those that were tried, at which it did not."""


def recovered(case: Case, surge: Surge, least: float, within_s: float) -> Recovered:
    before = served_share(case, surge.before)
    judged = _from(surge.after, within_s)
    after = served_share(case, judged) if judged.length_s > 0 else Interval(float("nan"), 0.0, 1.0, 0)
    relapse = None
    for part in _stretches(judged):
        if ratio(served_share(case, part), before).high < least:
            relapse = (part.start_ms - surge.after.start_ms) / 1000
            break
    well = [down for down in surge.downs if down.n and _end_served(case, down) >= least * before.value]
    highest = max(well, key=lambda down: down.factor, default=None)
    ill = [down.asked_per_s for down in surge.downs if down not in well and highest and down.factor > highest.factor]
    took = took_s(case, surge.after, least * before.value)
    above_per_s = min([surge.after_per_s, *ill])
    return Recovered(surge, before, after, ratio(after, before), relapse, took, highest, above_per_s)


def _end_served(case: Case, down: Stretch) -> float:
    """In its second half: where the load went down, what waited is done first. 0 without a request."""
    half = _from(down.settled, down.settled.length_s / 2)
    return served_share(case, half).value if len(case.requests.between(half.start_ms, half.end_ms)) else 0.0


def _from(span: Span, after_s: float) -> Span:
    start_ms = min(span.start_ms + after_s * 1000, span.end_ms)
    return Span(span.name, start_ms, span.end_ms, span.complete, span.events)


def _stretches(span: Span) -> list[Span]:
    parts = int(span.length_s // STAYS_S)
    if parts < 2:
        return []
    width_ms = (span.end_ms - span.start_ms) / parts
    edges = [span.start_ms + index * width_ms for index in range(parts)] + [span.end_ms]
    return [Span(span.name, edges[k], edges[k + 1], span.complete, span.events) for k in range(parts)]


def took_s(case: Case, after: Span, least: float) -> float | None:
    """Until a stretch served enough, and all that followed it did together: a point estimate."""
    requests = case.requests.between(after.start_ms, after.end_ms)
    steps = int(after.length_s // STEP_S)
    look = round(LOOK_S / STEP_S)
    if not len(requests) or steps < look:
        return None
    step = np.minimum(((requests.at_ms - after.start_ms) / 1000 / STEP_S).astype(np.int64), steps - 1)
    good = np.concatenate([[0], np.cumsum(np.bincount(step[requests.good], minlength=steps))])
    total = np.concatenate([[0], np.cumsum(np.bincount(step, minlength=steps))])
    for first in range(steps - look + 1):
        near = total[first + look] - total[first]
        rest = total[-1] - total[first]
        if not near or not rest:
            continue
        if good[first + look] - good[first] >= least * near and good[-1] - good[first] >= least * rest:
            return first * STEP_S
    return None


def judge(case: Case, asked: Recovery) -> CheckVerdict:
    found = surges(case)
    if not found:
        return conclude(case, WORD, [unknown("the run never came to the end of a surge or of a fault")], ())
    least, within_s = share_of(asked.least), parse_duration(asked.within)
    capacity = carried(case, asked.capacity)
    seen = [recovered(case, surge, least, within_s) for surge in found]
    answers = [_answer(one, least, within_s, capacity) for one in seen]
    if len(seen) > 1:
        answers.insert(0, _boundary(seen, answers))
    if all(surge.trigger_s and _harmless(case, surge, least) for surge in found):
        highest = max(found, key=lambda surge: surge.excess)
        text = (
            f"{highest.text} was served like the load before it: there was nothing to recover from; raise the trigger"
        )
        answers.append(unknown(text))
    spans = [span for surge in found for span in surge.spans]
    return conclude(case, WORD, answers, spans, most_told=MOST_TOLD if len(seen) < MOST_TOLD else 2)


def _harmless(case: Case, surge: Surge, least: float) -> bool:
    """Whether as much of it was served as is asked for afterwards, surely."""
    return ratio(served_share(case, surge.during), served_share(case, surge.before)).low >= least


def _answer(one: Recovered, least: float, within_s: float, capacity: Carried | None) -> Answer:
    surge, shown = one.surge, _figures(one, least, within_s)
    if not one.before.n or one.before.high < WELL:
        why = f"before {surge.text} only {told(percent(one.before), '%')} was served in time: nothing to come back to"
        return unknown(why, shown)
    if surge.after.length_s <= within_s:
        text = f"what followed {surge.text} was looked at for {quantity(surge.after.length_s, 's')}, and it has"
        return unknown(f"{text} {quantity(within_s, 's')} to recover: lengthen it", shown)
    compared = f"{told(percent(one.compared), '%')} of the goodput before"
    due = f"{quantity(least * 100, '%')} within {quantity(within_s, 's')} was asked"
    word = at_least(one.compared, least)
    if one.relapse_s is not None and word != "FAIL":
        if one.relapse_s > within_s:
            text = f"after {surge.text} it fell back {quantity(one.relapse_s, 's')} later ({compared})"
            return Answer("FAIL", f"{text}; {due}", shown)
        word = "FAIL"
    if word == "FAIL":
        return Answer(word, f"{_ill(one, compared, capacity)}; {due}", shown)
    took = "" if one.took_s is None else f" after {quantity(one.took_s, 's')}" if one.took_s else " at once"
    if word == "PASS":
        return Answer(word, f"recovered{took} from {surge.text}: {compared}; {due}", shown)
    return unknown(f"whether it recovered from {surge.text} isn't certain: {compared}; {due}", shown)


def _ill(one: Recovered, compared: str, capacity: Carried | None) -> str:
    """How it did not recover: late, only at a lower load, or not at all."""
    surge, watched = one.surge, quantity(one.surge.after.length_s, "s")
    if one.took_s is not None:
        return f"recovered from {surge.text} only after {quantity(one.took_s, 's')} ({compared})"
    load = _load(surge.after_per_s, capacity)
    if one.at is not None:
        text = f"metastable: after {surge.text} it stayed down for {watched} under a load that it had carried, {load}:"
        below, at = _load(one.above_per_s, capacity), _load(one.at.asked_per_s, capacity)
        return f"{text} {compared}; it recovers only below {below}, at {at}"
    text = f"after {surge.text} it did not recover in {watched} under a load that it had carried, {load}: {compared}"
    if surge.downs:
        lowest = min(surge.downs, key=lambda down: down.factor)
        return f"{text}; nor at any lower load, down to {_load(lowest.asked_per_s, capacity)}"
    return text


def _load(per_s: float, capacity: Carried | None) -> str:
    if capacity is None:
        return quantity(per_s, "/s")
    what = "capacity" if capacity.sure else "the most that was served"
    return f"{quantity(per_s, '/s')} ({number(per_s / capacity.per_s)} of {what})"


def _figures(one: Recovered, least: float, within_s: float) -> tuple[Figure, ...]:
    name = one.surge.name
    found = [
        figure(f"served before {name}", percent(one.before), "%"),
        figure(f"served after {name}", percent(one.after), "%"),
        figure(f"goodput after {name}, of before", percent(one.compared), "%", least * 100),
        plain(f"time to recover from {name}", one.took_s, "s", within_s, one.after.n),
    ]
    if one.took_s is None and one.at is not None:
        found.append(plain(f"load at which it recovers from {name}", one.at.asked_per_s, "/s", None, one.at.n))
    return tuple(found)


def _boundary(seen: Sequence[Recovered], answers: Sequence[Answer]) -> Answer:
    """Over a sweep: by load, the largest surge that it surely recovered from and the smallest that it surely didn't."""
    pairs = sorted(zip(seen, answers, strict=True), key=lambda pair: (pair[0].surge.before_per_s, pair[0].surge.excess))
    healthy = sum(answer.word == "PASS" for answer in answers)
    lines = []
    for per_s, group in groupby(pairs, key=lambda pair: pair[0].surge.before_per_s):
        known = list(group)
        held = [one.surge for one, answer in known if answer.word == "PASS"]
        broke = [one.surge for one, answer in known if answer.word == "FAIL"]
        said = [f"recovers from {_size(held[-1])}"] if held else []
        said += [f"{'not' if held else 'does not recover'} from {_size(broke[0])}"] if broke else []
        if said:
            lines.append(f"at {quantity(per_s, '/s')} it {', '.join(said)}")
    word = min((answer.word for answer in answers), key=WORST_FIRST.index)
    return Answer(word, "; ".join([f"recovered from {healthy} of {plural(len(seen), 'trigger')}", *lines]))


def _size(surge: Surge) -> str:
    return f"{quantity(surge.trigger_per_s, '/s')} for {number(surge.trigger_s)} s"


CHECK = check(WORD, judge)
