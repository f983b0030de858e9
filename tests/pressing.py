"""Shorthands for tests of backpressure checks: a simulated run, changed a little, asked by one check."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import convert
from msgspec.structs import replace

from stormdrill.core.backpressure.asked import ASKED
from stormdrill.core.backpressure.registry import check_of
from stormdrill.core.case import Case
from stormdrill.core.evidence import Evidence
from stormdrill.model import event as ev
from stormdrill.model.plan import Injection
from stormdrill.model.system import Pressure
from stormdrill.model.verdict import CheckVerdict, Figure
from synthetic_overload import EDGE, PRESSURE, Simulated
from synthetic_run import START_MS

EPOCH_MS = START_MS + 2_000.0
GOODNESS = {"FAIL": 0, "INVALID": 0, "INCONCLUSIVE": 1, "PASS": 2}
Told = tuple[float, str, str, float | None]
"""Seconds since the load's epoch, metric, instance, value."""


def checked(found: Simulated | Evidence, word: str, **parameters: object) -> CheckVerdict:
    evidence = found.evidence if isinstance(found, Simulated) else found
    case = Case(evidence.plan, evidence.events, evidence.records, evidence.ledger)
    return check_of(word).judge(case, convert(parameters, ASKED[word].parameters))


def named(verdict: CheckVerdict, name: str) -> Figure:
    return next(figure for figure in verdict.figures if figure.name == name)


def retold(found: Evidence, told: Iterable[Told], *, without: Iterable[str] = ()) -> Evidence:
    """The same run with other readings: all of the metrics `without` and of those that are told now are left out."""
    rows = list(told)
    gone = {*without, *(metric for _, metric, _, _ in rows)}
    kept = [one for one in found.events if not (isinstance(one.event, ev.Reading) and one.event.metric in gone)]
    more = [
        ev.Recorded(1_000_000 + index, "", EPOCH_MS + at_s * 1000, ev.Reading(metric, instance, value))
        for index, (at_s, metric, instance, value) in enumerate(rows)
    ]
    return replace(found, events=tuple(sorted([*kept, *more], key=lambda one: one.mono_ms)))


def with_fault(found: Evidence, start_s: float, end_s: float | None, instance: str = EDGE) -> Evidence:
    """The same run with one fault in it; without `end_s` it was never seen to be gone."""
    injection = Injection(f"late-dependency/{instance}", "late-dependency", 0, instance, "delay", "let", 0.0, 5.0)
    events = [(start_s, ev.InjectStarted(injection.id))]
    more = [ev.Recorded(2_000_000, "", EPOCH_MS + start_s * 1000, events[0][1])]
    if end_s is not None:
        seen = ev.RevertVerified(injection.id, True, "hop", "", 3.0)
        more.append(ev.Recorded(2_000_001, "", EPOCH_MS + end_s * 1000, seen))
    merged = tuple(sorted([*found.events, *more], key=lambda one: one.mono_ms))
    return replace(found, plan=replace(found.plan, injections=(injection,)), events=merged)


def seeing(found: Evidence, **named: object) -> Evidence:
    """With other metrics named in the system file."""
    pressure = Pressure(**{**{name: getattr(PRESSURE, name) for name in PRESSURE.__struct_fields__}, **named})  # type: ignore[arg-type]
    return replace(found, plan=replace(found.plan, system=replace(found.plan.system, pressure=pressure)))
