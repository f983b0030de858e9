"""What befell the system, and what followed: surges of the profile's episodes, else the faults themselves."""

from __future__ import annotations

from msgspec import Struct

from stormdrill.core.backpressure.stages import Stretch, episodes_of, planned_stages, role_of
from stormdrill.core.case import Case
from stormdrill.core.sentences import number, quantity
from stormdrill.core.windows import Span


class Surge(Struct, frozen=True):
    """One trigger, with the same load before and after it."""

    name: str
    """For figures: `surge 1`, `the fault`."""
    text: str
    """`a surge to 192/s for 10 s on 64/s`."""
    before: Span
    """Its judged part."""
    during: Span
    """The trigger itself."""
    after: Span
    """From the trigger's end on."""
    before_per_s: float
    after_per_s: float
    """λ as it was asked for, or as it was measured where nobody asked."""
    trigger_per_s: float = 0.0
    trigger_s: float = 0.0
    downs: tuple[Stretch, ...] = ()
    """Lower loads that were tried afterwards, in the order of time."""

    @property
    def spans(self) -> tuple[Span, ...]:
        """What a verdict on it rests on: also that it came as it was asked for."""
        return (self.before, self.during, self.after)

    @property
    def excess(self) -> float:
        """How much more than usual the trigger asked for, in requests: by this surges are put in order."""
        return (self.trigger_per_s - self.before_per_s) * self.trigger_s


def surges(case: Case) -> tuple[Surge, ...]:
    """Those of which the run has seen what followed; in the order of time."""
    if any(stage.role == "trigger" for stage in planned_stages(case.plan.profile)):
        return tuple(found for number, one in episodes_of(case).items() if (found := _of_episode(number, one)))
    before, fault, after = (case.spans.get(name) for name in ("baseline", "fault", "recovery"))
    if before is None or fault is None or after is None:
        return ()
    name = "the fault" if case.plan.injections else "the fault phase"
    return (Surge(name, name, before, fault, after, _rate(case, before), _rate(case, after), _rate(case, fault)),)


def _of_episode(episode: int, stages: tuple[Stretch, ...]) -> Surge | None:
    base, trigger, after = (role_of(stages, role) for role in ("base", "trigger", "after"))
    if not base or not trigger or not after:
        return None
    first, peak, last = base[0], trigger[-1], after[-1]
    seen = Span("after", peak.whole.end_ms, last.whole.end_ms, last.whole.complete, last.whole.events)
    length_s = peak.whole.length_s
    text = f"a surge to {quantity(peak.asked_per_s, '/s')} for {number(length_s)} s"
    return Surge(
        name=f"surge {episode}",
        text=f"{text} on {quantity(first.asked_per_s, '/s')}",
        before=first.settled,
        during=peak.whole,
        after=seen,
        before_per_s=first.asked_per_s,
        after_per_s=last.asked_per_s,
        trigger_per_s=peak.asked_per_s,
        trigger_s=length_s,
        downs=role_of(stages, "down"),
    )


def _rate(case: Case, span: Span) -> float:
    return len(case.requests.between(span.start_ms, span.end_ms)) / span.length_s if span.length_s > 0 else 0.0
