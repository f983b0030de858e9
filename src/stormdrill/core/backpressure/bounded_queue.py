"""bounded-queue: no queue holds more than its limit, and neither queues nor memory grow while the demand is level.

The limit is compared reading by reading, exactly, over the whole run. Growth is a slope with an interval over the
highest plateau: a queue that goes on filling for so long bounds nothing, whatever limit it names.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from stormdrill.core.backpressure.asked import BoundedQueue
from stormdrill.core.backpressure.checking import check
from stormdrill.core.backpressure.figures import figure, plain, share_of
from stormdrill.core.backpressure.finding import Answer, conclude, unknown
from stormdrill.core.backpressure.series import Series, mute, series_of, silence
from stormdrill.core.backpressure.slope import fewest, theil_sen
from stormdrill.core.backpressure.stages import episodes_of, pressed, role_of, steps_of
from stormdrill.core.case import Case
from stormdrill.core.intervals import Interval
from stormdrill.core.sentences import number, plural, quantity
from stormdrill.core.windows import WHOLE, Span
from stormdrill.model.units import parse_duration
from stormdrill.model.verdict import CheckVerdict

WORD = "bounded-queue"
MB = 1024.0**2
LEAST_ITEM = 1.0
"""By less than one piece of work no queue grows."""
LEAST_MEMORY = 8 * MB
"""By less than this no memory is said to grow: interpreters take pages in such lots."""


def plateau(case: Case) -> Span | None:
    """The highest step; without steps the highest trigger, of equal ones the longest; else the fault phase."""
    steps = steps_of(case)
    if steps:
        return steps[-1].settled
    triggers = [one for episode in episodes_of(case).values() for one in role_of(episode, "trigger")]
    if triggers:
        return max(triggers, key=lambda one: (one.asked_per_s, one.settled.length_s)).settled
    return case.spans.get("fault")


def judge(case: Case, asked: BoundedQueue) -> CheckVerdict:
    pressure = case.plan.system.pressure
    depths, limits = series_of(case, pressure.depth), series_of(case, pressure.limit)
    whole, level = case.spans.get(WHOLE), plateau(case)
    looked_at = [*pressed(case), *([level] if level is not None else [])]
    if not depths:
        why = f"no instance told how long its queue was ({pressure.depth or 'no metric is named'} was never read)"
        return conclude(case, WORD, [unknown(why)], looked_at)
    parts = [_bounded(case, one, limits, whole) for one in depths]
    told = {(one.instance, tuple(one.labels.items())) for one in depths}
    parts += [
        unknown(f"{one.name} told its queue's limit and never its depth")
        for one in limits
        if (one.instance, tuple(one.labels.items())) not in told
    ]
    parts += [unknown(why) for metric in (pressure.depth, pressure.memory) for why in mute(case, metric)]
    if pressure.memory and not series_of(case, pressure.memory):
        parts.append(unknown(f"no instance told how much memory it held ({pressure.memory} was never read)"))
    if level is None:
        parts.append(unknown("the run never came to the plateau on which growth is looked for"))
    else:
        share, memory_s = share_of(asked.growth), parse_duration(asked.remembers)
        for one in depths:
            limit = max(_limit_on(one, limits, level), LEAST_ITEM)
            how = _Growing("queue", "", 1.0, max(share * limit, LEAST_ITEM), limit, memory_s)
            parts.append(_growth(case, one, level, how))
        for one in series_of(case, pressure.memory):
            inside = one.within(level.start_ms, level.end_ms)
            held = max(float(inside.values[0]) if len(inside) else 0.0, LEAST_MEMORY)
            how = _Growing("memory", "MB", MB, max(share * held, LEAST_MEMORY), held, memory_s)
            parts.append(_growth(case, one, level, how))
    return conclude(case, WORD, parts, looked_at, praise=_praise(depths, limits, level))


def _praise(depths: tuple[Series, ...], limits: tuple[Series, ...], level: Span | None) -> str:
    """All queues in one sentence, by the one that came closest to its limit."""
    fullest, most = "", -1.0
    for depth in depths:
        for limit in limits:
            if (limit.instance, limit.labels) == (depth.instance, depth.labels):
                deepest, allowed = float(depth.values.max()), float(limit.values.max())
                share = deepest / allowed if allowed > 0 else 0.0
                if share > most:
                    fullest, most = f"{number(deepest)} of {number(allowed)} on {depth.name}", share
    where = f" in {quantity(level.length_s, 's')} of level demand" if level is not None else ""
    queues = "no queue was" if len(depths) > 1 else "the queue was never"
    return f"{queues} above its limit (at most {fullest}), and nothing was seen to grow{where}"


def _bounded(case: Case, depth: Series, limits: tuple[Series, ...], whole: Span | None) -> Answer:
    """Each reading against the limit that was last read of the same instance; exact."""
    limit = next((one for one in limits if (one.instance, one.labels) == (depth.instance, depth.labels)), None)
    deepest = int(np.argmax(depth.values))
    if limit is None:
        return unknown(f"{depth.name} told its queue's depth ({number(depth.values[deepest])}) and no limit of it")
    allowed = _held(limit, depth)
    worst = int(np.argmax(depth.values - allowed))
    value, most = float(depth.values[worst]), float(allowed[worst])
    shown = (plain(f"depth of {depth.name}", value, "", most, len(depth)),)
    seqs = (int(depth.seqs[worst]),)
    if value > most:
        over = int(np.count_nonzero(depth.values > allowed))
        text = (
            f"the queue of {depth.name} held {number(value)}, and its limit is {number(most)}"
            f" ({plural(over, 'reading')} of {len(depth):,} above it)"
        )
        return Answer("FAIL", text, shown, seqs, exact=True)
    text = (
        f"the queue of {depth.name} held at most {number(value)} of {number(most)} in {plural(len(depth), 'reading')}"
    )
    quiet = silence(case, depth, whole) if whole is not None else "the run never came to its baseline"
    return Answer("INCONCLUSIVE" if quiet else "PASS", f"{text}; {quiet}" if quiet else text, shown, seqs)


def _held(limit: Series, depth: Series) -> np.ndarray:
    """The limit at each reading of the depth: what was last read of it, or the next if that is more, for it may have
    been raised between the two."""
    place = np.searchsorted(limit.at_ms, depth.at_ms, side="right")
    last, following = np.maximum(place - 1, 0), np.minimum(place, len(limit) - 1)
    found: np.ndarray = np.maximum(limit.values[last], limit.values[following])
    return found


def _limit_on(depth: Series, limits: tuple[Series, ...], level: Span) -> float:
    """What growth is a share of: the limit, which the growth itself can't move. 0 where it isn't known."""
    for one in limits:
        if (one.instance, one.labels) == (depth.instance, depth.labels):
            inside = one.within(level.start_ms, level.end_ms)
            return float(np.median((inside if len(inside) else one).values))
    return 0.0


class _Growing(Struct, frozen=True):
    """What is looked at, in which unit it is shown, and how much of it over the whole plateau is no growth."""

    what: str
    unit: str
    scale: float
    tolerated: float
    excluded: float
    """An interval that doesn't exclude so much says nothing: the limit of a queue, what memory there was at first."""
    memory_s: float


def _growth(case: Case, series: Series, level: Span, how: _Growing) -> Answer:
    """What it grew by over the plateau: FAIL when that is surely more than tolerated, PASS when it may well be none and
    is surely less than would fill the queue once over."""
    inside = series.within(level.start_ms, level.end_ms)
    what, length_s = f"the {how.what} of {series.name}", level.length_s
    needed = fewest(inside.every_ms / 1000, how.memory_s)
    if len(inside) < needed:
        every = quantity(inside.every_ms / 1000, "s")
        text = (
            f"whether {what} grows can't be told from {plural(len(inside), 'reading')} in {quantity(length_s, 's')}:"
            f" {needed} are the fewest, a reading every {every}; lengthen the plateau or read more often"
        )
        return unknown(text)
    slope = theil_sen(inside.at_ms / 1000, inside.values, how.memory_s)
    value, low, high = (end * length_s / how.scale for end in (slope.value, slope.low, slope.high))
    most = how.tolerated / how.scale
    grown = Interval(value, low, high, len(inside))
    shown = (figure(f"growth, {how.what} of {series.name}", grown, how.unit, most),)
    told = f"{quantity(value, how.unit)} [{number(low)}, {number(high)}]"
    where = f"in {quantity(length_s, 's')} of level demand"
    if low > most:
        found = Answer("FAIL", f"{what} grew by {told} {where}; up to {quantity(most, how.unit)} is none", shown)
    elif high <= most or (low <= 0 and high <= how.excluded / how.scale):
        found = Answer("PASS", f"{what} was not seen to grow: {told} {where}", shown)
    elif low <= 0:
        text = f"whether {what} grew {where} can't be told: {told}; {quantity(most, how.unit)} is the most."
        found = Answer("INCONCLUSIVE", f"{text} Lengthen the plateau, or read more often", shown)
    else:
        text = f"{what} grew by {told} {where}: more than nothing, and not surely more than {quantity(most, how.unit)}"
        found = Answer("INCONCLUSIVE", text, shown)
    quiet = silence(case, series, level)
    if quiet and found.word == "PASS":
        found = unknown(f"{found.text}; {quiet}", found.figures)
    return found


CHECK = check(WORD, judge)
