"""capacity: the most that the system carries, found on a staircase: the largest λ with G/λ ≥ 0.99.

A step is carried when the whole interval of its served share is at or above what is asked, and not when it is wholly
below. What lies between the highest step that is carried and the lowest that isn't, isn't known. A step above one that
isn't carried proves nothing: it found the ruins of the one before.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from msgspec import Struct, convert

from stormdrill.core.backpressure.asked import Capacity
from stormdrill.core.backpressure.checking import check
from stormdrill.core.backpressure.figures import figure, percent, plain, told
from stormdrill.core.backpressure.finding import Answer, conclude, unknown
from stormdrill.core.backpressure.stages import (
    Stretch,
    planned_stages,
    pressed,
    role_of,
    served_share,
    stages_of,
    steps_of,
    summed,
)
from stormdrill.core.case import Case
from stormdrill.core.intervals import Interval
from stormdrill.core.sentences import number, quantity
from stormdrill.core.statistics import minimum_samples
from stormdrill.core.windows import Span
from stormdrill.model.units import parse_rate
from stormdrill.model.verdict import CheckVerdict, Figure

WORD = "capacity"
STAIRS = 1e-9
"""By which loads may differ, as a share, and be the same."""
MOVING = 0.05
"""The same where demands are added up: what the others ask for moves."""


class Step(Struct, frozen=True):
    """One step, and how much of it was served."""

    stretch: Stretch
    served: Interval


class Found(Struct, frozen=True):
    """What the staircase says."""

    steps: tuple[Step, ...]
    """All that the run came to, lowest first."""
    held: Step | None
    """The highest step that is surely carried, below any that surely isn't."""
    broke: Step | None
    """The lowest step that is surely not carried."""
    share: float
    """0 to 1: served as this, a step is carried."""

    @property
    def known(self) -> bool:
        """Both sides are: the capacity lies between them."""
        return self.held is not None and self.broke is not None

    @property
    def unsure(self) -> tuple[Step, ...]:
        """Steps of which it isn't known, above the one that is carried and below the one that isn't."""
        low = self.held.stretch.asked_per_s if self.held else 0.0
        high = self.broke.stretch.asked_per_s if self.broke else float("inf")
        return tuple(step for step in self.steps if low < step.stretch.asked_per_s < high)


_KNOWN: WeakKeyDictionary[Case, dict[float, Found]] = WeakKeyDictionary()
"""Several checks ask for it; a case doesn't change."""


def share_asked(case: Case) -> float:
    """What counts as carried, 0 to 1: as the experiment says under `capacity`, for all checks alike."""
    uses = [use for use in case.plan.experiment.backpressure if use.word == WORD]
    asked = convert(uses[0].parameters, Capacity) if uses else Capacity()
    return float(asked.served.rstrip("%")) / 100


def capacity_of(case: Case) -> Found:
    """Never raises; without steps nothing is held and nothing broke."""
    share = share_asked(case)
    known = _KNOWN.setdefault(case, {})
    if share not in known:
        known[share] = _climb(case, share)
    return known[share]


def _climb(case: Case, share: float) -> Found:
    steps = tuple(Step(one, served_share(case, one.settled)) for one in steps_of(case) if one.n)
    held, broke = None, None
    for step in steps:
        if step.served.high < share:
            broke = step
            break
        if step.served.low >= share:
            held = step
    return Found(steps, held, broke, share)


def judge(case: Case, asked: Capacity) -> CheckVerdict:
    """PASS when it is known, and as much as is asked; without `least` it only has to be found."""
    found, least = capacity_of(case), parse_rate(asked.least)
    if not found.steps:
        return conclude(case, WORD, [unknown("the run never came to a step of its staircase")], ())
    return conclude(case, WORD, [_part(found, least)], climbed(case), figures=_figures(found, least))


def climbed(case: Case) -> tuple[Span, ...]:
    """The steps by which the capacity is known: whoever goes by it rests on them too. What is beyond the one that
    isn't carried proves nothing. Empty without a staircase."""
    found = capacity_of(case)
    top = found.broke.stretch.asked_per_s if found.broke else float("inf")
    return tuple(step.stretch.settled for step in found.steps if step.stretch.asked_per_s <= top)


def _part(found: Found, least: float) -> Answer:
    held, broke = found.held, found.broke
    wanted = f"; at least {quantity(least, '/s')} was asked" if least else ""
    doubts = "".join(f"; at {rate(step)} it isn't certain ({_served(step)})" for step in found.unsure)
    if held is not None and broke is not None:
        text = f"the capacity lies between {rate(held)} ({_served(held)}) and {rate(broke)} ({_served(broke)})"
    elif held is not None:
        text = f"the capacity was not reached: {rate(held)} was carried ({_served(held)})"
    elif broke is not None:
        text = f"the capacity is below the lowest step that can be judged: {rate(broke)} was not carried"
        text += f" ({_served(broke)})"
    else:
        text = f"it isn't known of any step whether it was carried: {minimum_samples(found.share)} requests each are"
        text += " the fewest that can show it"
    carried = held.stretch.asked_per_s if held else 0.0
    if least and broke is not None and broke.stretch.asked_per_s <= least * (1 + STAIRS):
        return Answer("FAIL", text + doubts + wanted)
    if least and carried >= least * (1 - STAIRS):
        return Answer("PASS", text + doubts + wanted)
    if found.known and not least:
        return Answer("PASS", text + doubts)
    return unknown(text + doubts + wanted + _advice(found))


def _advice(found: Found) -> str:
    if found.held is not None and found.broke is None:
        top = found.steps[-1].stretch
        return f"; raise the rate so that the staircase reaches {quantity(2 * top.asked_per_s, '/s')}"
    if found.held is None and found.broke is not None:
        return "; begin the staircase lower, or lengthen its steps"
    return ""


def _served(step: Step) -> str:
    return f"{told(percent(step.served), '%')} served in time"


def rate(step: Step) -> str:
    return quantity(step.stretch.asked_per_s, "/s")


def _figures(found: Found, least: float) -> tuple[Figure, ...]:
    held, broke = found.held, found.broke
    figures = [
        Figure(
            "capacity",
            held.stretch.asked_per_s if held else None,
            held.stretch.asked_per_s if held else None,
            broke.stretch.asked_per_s if broke else None,
            least or None,
            "/s",
            held.served.n if held else 0,
        )
    ]
    for step in found.steps:
        figures.append(
            plain(f"offered in the step of {rate(step)}", step.stretch.offered_per_s, "/s", n=step.stretch.n)
        )
        figures.append(figure(f"served at {rate(step)}", percent(step.served), "%"))
    return tuple(figures)


class Overload(Struct, frozen=True):
    """A window with more work than there is room for, and how it is spoken of."""

    text: str
    """`at 3 x capacity (192/s)`, `in the surge (180/s)`, `during the fault`."""
    name: str
    """For figures: `3 x capacity`."""
    span: Span
    stretch: Stretch | None = None


def multiples(up_to: float) -> tuple[float, ...]:
    """2, and as far as is asked."""
    return tuple(sorted({min(2.0, up_to), up_to}))


def overloads(case: Case, up_to: float) -> tuple[tuple[Overload, ...], str]:
    """The nearest steps at or above the multiples of the capacity; without a staircase the surges; without stages the
    fault phase. And what is missing, in words: empty when nothing is."""
    planned = planned_stages(case.plan.profile)
    if any(stage.role == "step" for stage in planned):
        return _steps_above(capacity_of(case), up_to, MOVING if summed(case.plan.profile) else STAIRS)
    if planned:
        surges = role_of(stages_of(case), "trigger")
        found = tuple(
            Overload(f"in the surge ({quantity(one.asked_per_s, '/s')})", f"surge {one.episode}", one.settled, one)
            for one in surges
        )
        return found, "" if found else "the run never came to a surge"
    spans = pressed(case)
    found = tuple(Overload(f"during the {span.name}", span.name, span) for span in spans)
    return found, "" if found else "the run never came to the fault phase"


def _steps_above(found: Found, up_to: float, slack: float) -> tuple[tuple[Overload, ...], str]:
    if not found.steps:
        return (), "the run never came to a step of its staircase"
    held = found.held
    if held is None:
        return (), "the capacity isn't known: no step was surely carried"
    if found.broke is None:
        top = found.steps[-1].stretch
        why = f"the capacity was not reached at {quantity(top.asked_per_s, '/s')}, the highest step"
        return (), f"{why}; raise the rate so that the staircase reaches at least {quantity(2 * top.asked_per_s, '/s')}"
    chosen: dict[float, Overload] = {}
    for multiple in multiples(up_to):
        target = multiple * held.stretch.asked_per_s
        step = next((step for step in found.steps if step.stretch.asked_per_s >= target * (1 - slack)), None)
        if step is None:
            top = found.steps[-1].stretch
            times = number(top.asked_per_s / held.stretch.asked_per_s)
            why = (
                f"the highest step, {quantity(top.asked_per_s, '/s')}, is {times} x capacity, and {number(multiple)} x"
            )
            why += f" is judged; raise the rate {number(target / top.asked_per_s)} times"
            return tuple(chosen.values()), why
        times = f"{number(step.stretch.asked_per_s / held.stretch.asked_per_s)} x capacity"
        chosen[step.stretch.asked_per_s] = Overload(
            f"at {times} ({rate(step)})", times, step.stretch.settled, step.stretch
        )
    return tuple(chosen.values()), ""


CHECK = check(WORD, judge)
