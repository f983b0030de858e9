"""drain: what piled up is done as fast as the room that is left allows: B gone within 1.5 · B/(C − λ) of the trigger's
end.

B is what waits at the trigger's end beyond what usually waits: by the queues' own readings where the system file names
them, else by the requests that clients have in flight. C − λ is the room: what the system carries, less the load that
goes on. Readings come at intervals, so that the moment when it was gone lies between two of them.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct, convert

from stormdrill.core.backpressure.asked import Drain
from stormdrill.core.backpressure.capacity import climbed
from stormdrill.core.backpressure.carried import Carried, carried
from stormdrill.core.backpressure.checking import check
from stormdrill.core.backpressure.figures import at_most, figure, plain
from stormdrill.core.backpressure.finding import Answer, conclude, unknown
from stormdrill.core.backpressure.series import Series, Total, mute, series_of, silence, total_of
from stormdrill.core.backpressure.surges import Surge, surges
from stormdrill.core.case import Case
from stormdrill.core.evidence import DROPPED
from stormdrill.core.intervals import Interval
from stormdrill.core.sentences import interval_text, number, quantity
from stormdrill.core.windows import Span
from stormdrill.model.units import parse_duration
from stormdrill.model.verdict import CheckVerdict, Figure

WORD = "drain"
GRID_MS = 100.0
"""How often requests in flight are counted."""


class Backlog(Struct, frozen=True):
    """What waits, over time."""

    total: Total
    every_ms: float
    """How far apart two looks are, at the slowest of the series."""
    what: str
    series: tuple[Series, ...] = ()


class Drained(Struct, frozen=True):
    """One trigger's backlog, and what became of it."""

    usual: float
    """The most that waited before."""
    built: float
    """What waited at the trigger's end beyond that; 0 or less: nothing."""
    after_s: Interval | None
    """From the trigger's end until no more than usual waited; None: not while it was looked at."""
    watched_s: float


def backlog_of(case: Case) -> Backlog | None:
    """None where a depth is named and was never read."""
    depth = case.plan.system.pressure.depth
    if depth:
        series = series_of(case, depth)
        if not series:
            return None
        return Backlog(total_of(series), max(one.every_ms for one in series), "waiting in the queues", series)
    return Backlog(in_flight(case), GRID_MS, "in flight at the clients")


def in_flight(case: Case) -> Total:
    """Attempts that were sent and not answered, given up or cut yet, as clients see it."""
    attempts = case.attempts.where(case.attempts.outcome != DROPPED)
    if not len(attempts):
        return Total(np.zeros(0), np.zeros(0))
    began, ended = attempts.at_ms + attempts.sent_us / 1000, attempts.at_ms + attempts.latency_us / 1000
    ended = np.maximum(began, ended)
    first_ms = float(began.min())
    looks = int((float(ended.max()) - first_ms) // GRID_MS) + 2
    # each counts from the first look after it was sent to the last before it ended
    came, went = (np.ceil((at_ms - first_ms) / GRID_MS).astype(np.int64) for at_ms in (began, ended))
    inside = np.cumsum(np.bincount(came, minlength=looks) - np.bincount(went, minlength=looks))
    return Total(first_ms + GRID_MS * np.arange(looks, dtype=np.float64), inside.astype(np.float64))


def drained(backlog: Backlog, surge: Surge) -> Drained | None:
    """None where nothing was read before or at the trigger's end."""
    total, end_ms = backlog.total, surge.after.start_ms
    before, last = total.within(surge.before.start_ms, surge.before.end_ms), total.at(end_ms)
    if not len(before) or last is None:
        return None
    usual = float(before.max())
    # its height may lie between two readings: the higher of the two is still no more than it was
    built = max(last, *total.within(end_ms, end_ms + backlog.every_ms).tolist()) - usual
    later = (total.at_ms > end_ms) & (total.at_ms <= surge.after.end_ms)
    gone = np.flatnonzero(later & (total.values <= usual))
    watched_s = surge.after.length_s
    if built <= 0:
        return Drained(usual, built, Interval(0.0, 0.0, 0.0, len(before)), watched_s)
    if not len(gone):
        return Drained(usual, built, None, watched_s)
    high = (float(total.at_ms[gone[0]]) - end_ms) / 1000
    low = max(0.0, high - backlog.every_ms / 1000)
    return Drained(usual, built, Interval(high, low, high, int(np.count_nonzero(later))), watched_s)


def allowed_s(built: float, room_per_s: float, asked: Drain) -> float:
    """B in requests, room in requests a second. Infinite where there is no room."""
    if room_per_s <= 0:
        return float("inf")
    return max(parse_duration(asked.least), asked.times * max(0.0, built) / room_per_s)


def asked_of(case: Case) -> Drain:
    """As the experiment says, else the defaults: for pictures."""
    uses = [use for use in case.plan.experiment.backpressure if use.word == WORD]
    return convert(uses[0].parameters, Drain) if uses else Drain()


def judge(case: Case, asked: Drain) -> CheckVerdict:
    found = surges(case)
    if not found:
        return conclude(case, WORD, [unknown("the run never came to the end of a surge or of a fault")], ())
    spans = [*climbed(case), *(span for surge in found for span in surge.spans)]
    backlog, capacity = backlog_of(case), carried(case, asked.capacity)
    if backlog is None:
        why = f"no instance told how long its queue was ({case.plan.system.pressure.depth} was never read)"
        return conclude(case, WORD, [unknown(why)], spans)
    answers = [_answer(case, backlog, surge, capacity, asked) for surge in found]
    return conclude(case, WORD, answers, spans)


def _answer(case: Case, backlog: Backlog, surge: Surge, capacity: Carried | None, asked: Drain) -> Answer:
    seen = drained(backlog, surge)
    if seen is None:
        return unknown(f"nothing told what was {backlog.what} before and after {surge.text}")
    shown: tuple[Figure, ...] = (
        plain(f"backlog after {surge.name}", max(0.0, seen.built), n=len(backlog.total.at_ms)),
    )
    if capacity is None:
        return unknown("nothing was served: how much the system carries isn't known", shown)
    if 0 < surge.trigger_per_s <= capacity.per_s and surge.trigger_s:
        return unknown(f"{surge.text} asked for no more than the system carries ({capacity.text})", shown)
    room = capacity.per_s - surge.after_per_s
    if room <= 0:
        load = quantity(surge.after_per_s, "/s")
        left = f"{number(max(0.0, seen.built))} more {backlog.what} than usual after {surge.text}"
        return unknown(f"{left}, and {load} afterwards leaves no room in {capacity.text}: nothing can drain", shown)
    if seen.built <= 0:
        at_end = number(seen.usual + seen.built)
        text = f"{surge.text} left nothing behind: {at_end} {backlog.what}, {number(seen.usual)} is usual"
        return _vouched(case, backlog, surge, Answer("PASS", text, shown), 0.0)
    most = allowed_s(seen.built, room, asked)
    sum_text = f"{number(seen.built)} more {backlog.what} than usual after {surge.text}"
    due = f"{quantity(most, 's')} was asked (room {quantity(room, '/s')}, of {capacity.text})"
    if seen.after_s is None:
        shown = (*shown, plain(f"time to drain after {surge.name}", None, "s", most))
        word_text = f"{sum_text}: not gone after {quantity(seen.watched_s, 's')}; {due}"
        if seen.watched_s < most:
            return unknown(f"{word_text}; the load went on for less than that", shown)
        return _vouched(case, backlog, surge, Answer("FAIL", word_text, shown), seen.watched_s)
    shown = (*shown, figure(f"time to drain after {surge.name}", seen.after_s, "s", most))
    took = f"{quantity(seen.after_s.value, 's')}{interval_text(seen.after_s.low, seen.after_s.high)}"
    word, text = at_most(seen.after_s, most), f"{sum_text}: gone after {took}; {due}"
    if word == "PASS" and not capacity.sure and most > parse_duration(asked.least):
        text += "; more room would ask for less: name the capacity, or find it with a staircase"
    if word == "INCONCLUSIVE":
        text += f"; a look every {quantity(backlog.every_ms / 1000, 's')} is too seldom to tell"
    return _vouched(case, backlog, surge, Answer(word, text, shown), seen.after_s.high)


def _vouched(case: Case, backlog: Backlog, surge: Surge, answer: Answer, until_s: float) -> Answer:
    """What instances that fell silent last said is no evidence of what waits now."""
    start_ms = surge.after.start_ms
    until_ms = start_ms + max(until_s * 1000, backlog.every_ms)
    span = Span("after", start_ms, min(until_ms, surge.after.end_ms), True, ())
    quiet = [why for one in backlog.series if (why := silence(case, one, span))]
    quiet += mute(case, case.plan.system.pressure.depth) if backlog.series else ()
    return unknown(f"{answer.text}; {quiet[0]}", answer.figures) if quiet else answer


CHECK = check(WORD, judge)
