"""breaker: it opens soon after the dependency failed, lets little through while it is open, and closes soon after the
dependency is back; hedged requests stay few.

All by readings, which come at intervals: each time lies between two of them, and is shown so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from stormdrill.core.backpressure.asked import Breaker
from stormdrill.core.backpressure.checking import check
from stormdrill.core.backpressure.figures import at_most, figure, plain, share_of
from stormdrill.core.backpressure.finding import Answer, conclude, unknown
from stormdrill.core.backpressure.series import Series, counted, mute, series_of, silence
from stormdrill.core.case import SILENCES, Case
from stormdrill.core.intervals import Interval
from stormdrill.core.reach import who
from stormdrill.core.sentences import interval_text, number, plural, quantity
from stormdrill.core.windows import WHOLE, Span, all_of
from stormdrill.model import event as ev
from stormdrill.model.mechanism import Toxic, ToxicKind
from stormdrill.model.plan import Injection
from stormdrill.model.units import parse_duration, parse_rate
from stormdrill.model.verdict import CheckVerdict

WORD = "breaker"
SHUT: tuple[ToxicKind, ...] = ("stall", "refuse", "cut")
"""Toxics that nothing passes."""
SLACK = 2.0
"""Readings before a fault's end in which a breaker may be seen to close: it ends a moment before it is seen to."""
FEWEST = 100
"""Requests, to say which share of them was hedged."""


class Outage(Struct, frozen=True):
    """From when the first fault is in force to the last verified revert."""

    start_ms: float
    end_ms: float
    """Infinite: it was never seen to be gone."""
    end_of_watch_ms: float
    events: tuple[int, ...]


def outage_of(case: Case) -> Outage | None:
    """None where nothing was injected."""
    windows = case.in_force(case.plan.injections)
    whole = case.spans.get(WHOLE)
    if not windows or whole is None:
        return None
    planned = {item.id for item in case.plan.injections}
    begun = [since for item in case.plan.injections if (since := case.since(item)) is not None]
    seqs = [r.seq for r in begun]
    seqs += [r.seq for r, e in all_of(case.events, ev.RevertVerified) if e.injection in planned]
    return Outage(min(r.mono_ms for r in begun), max(end for _, end in windows), whole.end_ms, tuple(seqs))


def judge(case: Case, asked: Breaker) -> CheckVerdict:
    outage, pressure = outage_of(case), case.plan.system.pressure
    spans = [span for name in ("fault", "recovery") if (span := case.spans.get(name)) is not None]
    answers = [_hedges(case, asked)] if pressure.hedges else []
    if outage is None:
        answers.append(unknown("nothing was injected: no breaker had a reason to open; add a fault on a dependency"))
        return conclude(case, WORD, answers, spans)
    answers += [unknown(why) for metric in (pressure.breaker, pressure.probes) for why in mute(case, metric)]
    breakers = series_of(case, pressure.breaker)
    if not breakers:
        answers.append(unknown(f"no breaker told its state ({pressure.breaker or 'no metric'} was never read)"))
        return conclude(case, WORD, answers, spans)
    meant, named = _concerned(case, breakers, asked.of)
    if not meant:
        answers.append(
            unknown(f"{asked.of} was not hit, or no breaker has it in its labels; of: one of {_known(breakers)}")
        )
    # who is taken away has no breaker meanwhile, and a new one afterwards that knows nothing of the fault
    concerned = [one for one in meant if not case.halted(one.instance)]
    if meant and not concerned:
        gone = ", ".join(dict.fromkeys(one.instance for one in meant))
        answers.append(unknown(f"{gone} was hit as well, and nobody else told of a breaker for what was"))
    opened = [one for one in concerned if _opened_ms(one, outage) is not None]
    # without a name in its labels nobody knows which breaker the fault is for: one must open, others may
    for one in concerned if named else opened:
        answers.append(_opens(case, one, outage, asked))
    if concerned and not named and not opened:
        answers.append(_none_opened(case, concerned, outage, asked))
    for one in opened:
        answers.append(_held(case, one))
        answers.append(_vouched(case, one, (outage.end_ms, outage.end_of_watch_ms), _closes(case, one, outage, asked)))
        if pressure.probes:
            answers.append(_probes(case, one, outage, asked))
    return conclude(case, WORD, answers, spans, praise=_praise(answers, len(opened)))


def _praise(answers: Sequence[Answer], opened: int) -> str:
    """All breakers in one sentence, by the slowest of them and the one that let most through."""
    figures = [figure for answer in answers for figure in answer.figures]

    def most(part: str, of: str) -> str:
        found = [item.value for item in figures if part in item.name and item.value is not None]
        return of.replace("{}", number(max(found))) if found else ""

    said = [
        most(" to open", "opened within {} s of the fault"),
        most("probes of", "let through at most {}/s meanwhile"),
    ]
    said += [most(" to close", "closed within {} s of its end"), most("hedged", "{}% of the requests were hedged")]
    return f"{plural(opened, 'breaker')} {', '.join(text for text in said if text)}"


def _concerned(case: Case, breakers: Sequence[Series], of: str) -> tuple[list[Series], bool]:
    """Those whose labels name what was hit (its instance, its service, a hop to it), else those that have a label of
    its own such as its region, and True; all, and False, where there are none. With `of` those that it names, if that
    was hit."""
    hit = {name for item in case.plan.injections for name in who(item)}
    names, pairs = set(hit), set()
    for item in case.plan.system.instances:
        if item.name in hit:
            names.add(item.service)
            pairs |= set(item.labels.items())
    for injection in case.plan.injections:
        names |= set(injection.how.hops) if isinstance(injection.how, Toxic) else set()
    if of:
        return [one for one in breakers if of in names and of in one.labels.values()], True
    found = [one for one in breakers if names & set(one.labels.values())]
    found = found or [one for one in breakers if pairs & set(one.labels.items())]
    return (found, True) if found else (list(breakers), False)


def _known(breakers: Sequence[Series]) -> str:
    return (
        ", ".join(dict.fromkeys(value for one in breakers for value in one.labels.values()))
        or "none: they have no labels"
    )


def _back(case: Case, series: Series, outage: Outage) -> tuple[str, float] | None:
    """Whom it leads to, and when the last of them answered again while the fault went on: what was on a lost node a
    cluster starts on another one."""
    hit = {name for item in case.plan.injections for name in who(item)}
    meant = set(series.labels.values())
    mine = [one.name for one in case.plan.system.instances if one.name in hit and {one.name, one.service} & meant]
    back_ms = []
    for name in mine:
        moved = [r.mono_ms for r, e in all_of(case.events, ev.PodBound) if e.instance == name and e.instead_of]
        moved = [at_ms for at_ms in moved if outage.start_ms <= at_ms < outage.end_ms]
        told = [r.mono_ms for r, e in all_of(case.events, ev.Reading) if e.instance == name and e.value is not None]
        told = [at_ms for at_ms in told if moved and moved[-1] <= at_ms < outage.end_ms]
        if not told:
            return None
        back_ms.append(min(told))
    return (", ".join(mine), max(back_ms)) if mine else None


def _opened_ms(series: Series, outage: Outage) -> int | None:
    """The place of the first reading that shows it open, from the inject call until the watch ends."""
    end_ms = outage.end_ms if np.isfinite(outage.end_ms) else outage.end_of_watch_ms
    inside = (series.at_ms >= outage.start_ms) & (series.at_ms <= end_ms + series.every_ms) & (series.values > 0)
    return int(np.flatnonzero(inside)[0]) if inside.any() else None


def _between(series: Series, place: int, since_ms: float) -> Interval:
    """The time of a change that a reading shows: between the one before it and itself."""
    high = (float(series.at_ms[place]) - since_ms) / 1000
    before = (float(series.at_ms[place - 1]) - since_ms) / 1000 if place else 0.0
    return Interval(high, max(0.0, min(before, high)), high, 1)


def _took(found: Interval) -> str:
    return f"{quantity(found.value, 's')}{interval_text(found.low, found.high)}"


def _opens(case: Case, series: Series, outage: Outage, asked: Breaker) -> Answer:
    within_s, place = parse_duration(asked.opens), _opened_ms(series, outage)
    name = f"time for {series.name} to open"
    before = series.values[series.at_ms < outage.start_ms]
    if len(before) and before[-1] > 0:
        return unknown(f"the breaker of {series.name} was open before any fault was in force", events=outage.events)
    if place is None:
        return _none_opened(case, [series], outage, asked)
    found = _between(series, place, outage.start_ms)
    text = f"the breaker of {series.name} opened {_took(found)} after the fault; {quantity(within_s, 's')} was asked"
    return _timed(name, text, series, found, within_s, (*outage.events, int(series.seqs[place])))


def _timed(name: str, text: str, series: Series, found: Interval, within_s: float, events: tuple[int, ...]) -> Answer:
    word = at_most(found, within_s)
    if word == "INCONCLUSIVE":
        text += f"; a reading every {quantity(series.every_ms / 1000, 's')} is too seldom to tell"
    return Answer(word, text, (figure(name, found, "s", within_s),), events)


def _vouched(case: Case, series: Series, between_ms: tuple[float, float], answer: Answer) -> Answer:
    """What a breaker that fell silent told last is no evidence of what it does now."""
    start_ms, end_ms = between_ms
    quiet = silence(case, series, Span("", start_ms, end_ms, True, ())) if start_ms < end_ms < np.inf else ""
    return (
        unknown(f"{answer.text}; {quiet}", answer.figures, answer.events) if quiet and answer.word == "PASS" else answer
    )


def _held(case: Case, series: Series) -> Answer:
    """It stays open while nothing passes: one that closes sends everybody into the fault again. Of a fault that lets
    some through nobody knows when it should."""
    shut = case.in_force(item for item in case.plan.injections if _lets_nothing_through(item))
    for start_ms, end_ms in shut:
        until_ms = min(end_ms, float(series.at_ms[-1])) - SLACK * series.every_ms
        inside = np.flatnonzero((series.at_ms >= start_ms) & (series.at_ms <= until_ms))
        is_open = series.values[inside] > 0
        first = int(is_open.argmax()) if is_open.any() else len(inside)
        closed = inside[first:][~is_open[first:]]
        if len(closed):
            place = int(closed[0])
            open_s, left_s = ((series.at_ms[place] - at_ms) / 1000 for at_ms in (series.at_ms[inside[first]], until_ms))
            text = (
                f"the breaker of {series.name} was closed again {quantity(open_s, 's')} after it opened, and the fault"
            )
            text += f" went on for at least {quantity(-left_s, 's')}: either it let something through, or the breaker"
            return unknown(f"{text} closed too soon", events=(int(series.seqs[place]),))
    return Answer("PASS", "")


def _lets_nothing_through(injection: Injection) -> bool:
    """On a Service open connections go on past the proxy, and its proxy is there only a while after the call."""
    how = injection.how
    return injection.mechanism in SILENCES or (isinstance(how, Toxic) and how.kind in SHUT and not how.service)


def _none_opened(case: Case, breakers: Sequence[Series], outage: Outage, asked: Breaker) -> Answer:
    within_s = parse_duration(asked.opens)
    back = [found for one in breakers if (found := _back(case, one, outage)) is not None]
    end_ms = min(outage.end_ms, outage.end_of_watch_ms, *(at_ms for _, at_ms in back))
    lasted_s = (end_ms - outage.start_ms) / 1000
    names = ", ".join(one.name for one in breakers)
    subject = (
        f"the breaker of {names}" if len(breakers) == 1 else f"none of {plural(len(breakers), 'breaker')} ({names})"
    )
    verb = "did not open" if len(breakers) == 1 else "opened"
    text = f"{subject} {verb} in the {quantity(lasted_s, 's')} of the fault; {quantity(within_s, 's')} was asked"
    shown = tuple(plain(f"time for {one.name} to open", None, "s", within_s) for one in breakers)
    span = Span("fault", outage.start_ms, end_ms, True, ())
    quiet = [why for one in breakers if (why := silence(case, one, span))]
    if quiet:
        return unknown(f"{text}; {quiet[0]}", shown, outage.events)
    slowest_s = max(one.every_ms for one in breakers) / 1000
    if lasted_s <= within_s + slowest_s:
        why = f"{back[0][0]} was back elsewhere" if back else "the fault has to last longer than that to tell"
        return unknown(f"{text}; {why}", shown, outage.events)
    return Answer("FAIL", text, shown, outage.events)


def _closes(case: Case, series: Series, outage: Outage, asked: Breaker) -> Answer:
    within_s, name = parse_duration(asked.closes), f"time for {series.name} to close"
    if not np.isfinite(outage.end_ms):
        return unknown("the fault was never seen to be gone: nobody knows by when a breaker should have closed")
    later = np.flatnonzero(series.at_ms >= outage.end_ms)
    due = f"{quantity(within_s, 's')} was asked"
    if not len(later):
        return unknown(f"{series.name} told nothing after the fault; {due}", events=outage.events)
    still = later[series.values[later] > 0]
    if not len(still):
        found = _between(series, int(later[0]), outage.end_ms)
        text = f"the breaker of {series.name} was closed {_took(found)} after the fault was gone; {due}"
        return _timed(name, text, series, found, within_s, (*outage.events, int(series.seqs[later[0]])))
    last = int(still[-1])
    if last + 1 < len(series):
        found = _between(series, last + 1, outage.end_ms)
        text = f"the breaker of {series.name} closed for good {_took(found)} after the fault was gone; {due}"
        return _timed(name, text, series, found, within_s, (*outage.events, int(series.seqs[last + 1])))
    watched_s = (float(series.at_ms[last]) - outage.end_ms) / 1000
    text = f"the breaker of {series.name} was still open {quantity(watched_s, 's')} after the fault was gone; {due}"
    shown = (plain(name, None, "s", within_s),)
    if watched_s <= within_s:
        return unknown(f"{text}; lengthen the recovery", shown, outage.events)
    return Answer("FAIL", text, shown, (*outage.events, int(series.seqs[last])))


def _probes(case: Case, series: Series, outage: Outage, asked: Breaker) -> Answer:
    """What was counted between the first and the last reading that show it open; half-open is open."""
    most, metric = parse_rate(asked.probes), case.plan.system.pressure.probes
    counters = [one for one in series_of(case, metric) if one.instance == series.instance and _same(one, series)]
    if not counters:
        return unknown(f"{series.name} told of no requests that it let through while open ({metric} was never read)")
    place = _opened_ms(series, outage)
    open_ms = series.at_ms[(series.values > 0) & (series.at_ms >= (series.at_ms[place] if place is not None else 0))]
    start_ms, end_ms = float(open_ms[0]), float(open_ms[-1])
    grown = [counted(one, start_ms, end_ms) for one in counters]
    spans = [float(one.to_ms[-1] - one.from_ms[0]) / 1000 for one in grown if len(one.to_ms)]
    if not spans or min(spans) <= 0:
        why = f"the breaker of {series.name} was open for less than two readings: what it let through can't be told"
        return unknown(why)
    count = sum(float(one.grown.sum()) for one in grown)
    rate = count / max(spans)
    # one more or one less may have fallen between two readings; none at all is an answer too
    read = min(len(one.to_ms) for one in grown if len(one.to_ms))
    found = Interval(rate, max(0.0, count - 1) / max(spans), (count + 1) / max(spans), read)
    text = f"{series.name} let {number(count)} through in {quantity(max(spans), 's')} while open"
    text += f" ({quantity(rate, '/s')}); at most {quantity(most, '/s')} was asked"
    answer = Answer(at_most(found, most), text, (figure(f"probes of {series.name}", found, "/s", most),))
    for one in counters:
        answer = _vouched(case, one, (start_ms, end_ms), answer)
    return answer


def _same(one: Series, other: Series) -> bool:
    return all(other.labels.get(key, value) == value for key, value in one.labels.items())


def _hedges(case: Case, asked: Breaker) -> Answer:
    """Of what the entry received, by its counters; of the requests in the records where it has none."""
    pressure, whole, most = case.plan.system.pressure, case.spans.get(WHOLE), share_of(asked.hedges)
    hedges = series_of(case, pressure.hedges)
    if whole is None or not hedges:
        return unknown(f"nothing told of hedged requests ({pressure.hedges} was never read)")
    entry = [hop for hop in pressure.hops if hop.service == case.plan.system.entry]
    received = series_of(case, entry[0].received) if entry else ()
    sent = sum(float(counted(one, whole.start_ms, whole.end_ms).grown.sum()) for one in hedges)
    asked_for = sum(float(counted(one, whole.start_ms, whole.end_ms).grown.sum()) for one in received)
    total = asked_for if received else float(len(case.requests.between(whole.start_ms, whole.end_ms)))
    if total < FEWEST:
        return unknown(f"only {plural(int(total), 'request')} to be hedged: {FEWEST} are the fewest")
    quiet = [why for metric in {pressure.hedges, entry[0].received if entry else ""} for why in mute(case, metric)]
    quiet += [why for one in (*hedges, *received) if (why := silence(case, one, whole))]
    share = sent / total
    text = f"{number(sent)} of {plural(int(total), 'request')} were hedged ({quantity(share * 100, '%')})"
    text += f"; at most {quantity(most * 100, '%')} was asked"
    shown = (plain("hedged", share * 100, "%", most * 100, int(total)),)
    if share <= most and quiet:
        return unknown(f"{text}; {sorted(quiet)[0]}", shown)
    return Answer("PASS" if share <= most else "FAIL", text, shown, exact=True)


CHECK = check(WORD, judge)
