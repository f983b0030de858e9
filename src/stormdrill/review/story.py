"""The journal told: each event as one plain sentence, like events of one moment as one row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from msgspec import Struct

from stormdrill.model import event as ev
from stormdrill.model.units import show_duration
from stormdrill.review.chart import Mark, MarkKind
from stormdrill.review.clock import Clock
from stormdrill.review.source import Source
from stormdrill.review.words import count, listed, measured, plural, since

TOGETHER_MS = 2000.0
"""Events of one kind and one cause within this time are told in one row."""
QUIET: tuple[type[ev.Event], ...] = (ev.Reading, ev.HostSampled)
"""Measured all the time: drawn in pictures, counted in the appendix."""


class Row(Struct, frozen=True):
    seqs: tuple[int, ...]
    """Numbers of the events that it tells of; the first is its anchor."""
    at: str
    """UTC."""
    iso: str
    since: str
    """Since the first inject; empty when nothing was injected."""
    phase: str
    text: str
    kind: str
    """Of its mark; empty when it has none."""


class JournalRow(Struct, frozen=True):
    seq: int
    at: str
    type: str
    text: str


class _Told(Struct):
    """A row in the making."""

    first: ev.Recorded
    key: tuple[str, ...]
    seqs: list[int]
    who: list[str]
    events: list[ev.Event]


_E = TypeVar("_E", bound=ev.Event)
_SAY: dict[type[ev.Event], Callable[[Any, list[str], list[Any], Source], str]] = {}
_KIND: dict[type[ev.Event], MarkKind] = {
    ev.InjectStarted: "fault",
    ev.EffectObserved: "fault",
    ev.AlertChanged: "alert",
    ev.RunbookStarted: "runbook",
    ev.RunbookFinished: "runbook",
    ev.RevertVerified: "revert",
    ev.GuardTripped: "guard",
    ev.AbortRequested: "guard",
    ev.JournalTakenOver: "guard",
}
_SKIPPED: tuple[type[ev.Event], ...] = (*QUIET, ev.InstanceReady, ev.KeeperStarted, ev.RevertStarted, ev.Reverted)
"""Told by another row, or of interest only in the appendix."""


def timeline(source: Source, clock: Clock, zero_ms: float | None) -> tuple[Row, ...]:
    """Ordered by when it was observed, beginning with the start of the run, well before any trigger."""
    told: list[_Told] = []
    for recorded in source.events:
        event = recorded.event
        if isinstance(event, _SKIPPED) and not _went_wrong(event):
            continue
        key, who = _key(event, source), _who(event, source)
        open_row = next((row for row in reversed(told[-8:]) if row.key == key), None) if who else None
        if open_row is not None and recorded.mono_ms - open_row.first.mono_ms <= TOGETHER_MS:
            open_row.seqs.append(recorded.seq)
            open_row.who.append(who)
            open_row.events.append(event)
        else:
            told.append(_Told(recorded, key, [recorded.seq], [who] if who else [], [event]))
    return tuple(_row(row, source, clock, zero_ms) for row in told)


def marks(source: Source, rows: tuple[Row, ...]) -> tuple[Mark, ...]:
    """The rows that stand in the pictures too."""
    at_ms = {recorded.seq: recorded.mono_ms for recorded in source.events}
    return tuple(
        Mark(row.seqs[0], at_ms[row.seqs[0]], row.kind, row.text)  # type: ignore[arg-type]  # only marks' kinds are set
        for row in rows
        if row.kind
    )


def appendix(source: Source, clock: Clock, wanted: frozenset[int]) -> tuple[JournalRow, ...]:
    """Every event but the measurements; of those only the ones that a figure rests on."""
    return tuple(
        JournalRow(recorded.seq, clock.time(recorded.mono_ms), recorded.event.type, plainly(recorded.event))
        for recorded in sorted(source.events, key=lambda item: item.seq)
        if not isinstance(recorded.event, QUIET) or recorded.seq in wanted
    )


def plainly(event: ev.Event) -> str:
    """`field=value` for what is set, as recorded."""
    found = []
    for item in fields(event):  # type: ignore[arg-type]  # every event is a dataclass
        value = getattr(event, item.name)
        if value in ("", None, [], {}):
            continue
        if isinstance(value, dict):
            value = " ".join(f"{key}={value[key]}" for key in sorted(value))
        elif isinstance(value, list):
            value = " ".join(str(part) for part in value)
        elif isinstance(value, float):
            value = f"{value:.3f}".rstrip("0").rstrip(".")
        text = str(value)
        found.append(f"{item.name}={text if len(text) <= 200 else text[:199] + '…'}")
    return " · ".join(found)


def _row(told: _Told, source: Source, clock: Clock, zero_ms: float | None) -> Row:
    at_ms, event = told.first.mono_ms, told.first.event
    phase = next((name for name, start, end, _ in reversed(source.phases) if start <= at_ms <= end), "")
    return Row(
        seqs=tuple(told.seqs),
        at=clock.time(at_ms),
        iso=clock.iso(at_ms),
        since="" if zero_ms is None else since((at_ms - zero_ms) / 1000.0),
        phase=phase,
        text=_sentence(told, source),
        kind=_kind(event),
    )


def _kind(event: ev.Event) -> str:
    return _KIND.get(type(event), "")


def _sentence(told: _Told, source: Source) -> str:
    event = told.first.event
    say = _SAY.get(type(event))
    return say(event, told.who, told.events, source) if say else f"{event.type}: {plainly(event)}"


def _went_wrong(event: ev.Event) -> bool:
    return isinstance(event, ev.Reverted) and event.outcome != "done"


def _key(event: ev.Event, source: Source) -> tuple[str, ...]:
    """What two events must share to be told in one row."""
    match event:
        case ev.Armed():
            return (event.type, event.fault, event.mechanism)
        case ev.InjectStarted():
            return (event.type, fault_of(source, event.injection))
        case ev.Injected():
            return (event.type, fault_of(source, event.injection), event.outcome)
        case ev.EffectObserved():
            return (event.type, fault_of(source, event.injection), str(event.bit), event.witness)
        case ev.Reverted():
            return (event.type, fault_of(source, event.injection), event.outcome)
        case ev.RevertVerified():
            return (event.type, fault_of(source, event.injection), str(event.gone), event.witness)
        case ev.ProcessSpawned():
            return (event.type, event.role)
        case ev.ProcessExited():
            return (event.type, str(event.expected))
        case _:
            return (event.type,)


def _who(event: ev.Event, source: Source) -> str:
    """What is listed when events share a row; empty for those that never do."""
    match event:
        case ev.Armed() | ev.ProcessSpawned() | ev.ProcessExited():
            return event.instance
        case ev.InjectStarted() | ev.Injected() | ev.EffectObserved() | ev.Reverted() | ev.RevertVerified():
            return instance_of(source, event.injection)
        case _:
            return ""


def instance_of(source: Source, injection: str) -> str:
    for _, armed in source.all(ev.Armed):
        if armed.injection == injection:
            return armed.instance
    return injection.rpartition("/")[2]


def fault_of(source: Source, injection: str) -> str:
    for _, armed in source.all(ev.Armed):
        if armed.injection == injection:
            return armed.fault
    return injection.partition("/")[0]


def mechanism_of(source: Source, injection: str) -> str:
    for _, armed in source.all(ev.Armed):
        if armed.injection == injection:
            return armed.mechanism
    return ""


# --- sentences -------------------------------------------------------------------------------------------


def _says(kind: type[_E]) -> Callable[[Callable[[_E, list[str], list[_E], Source], str]], None]:
    def register(function: Callable[[_E, list[str], list[_E], Source], str]) -> None:
        _SAY[kind] = function

    return register


def _because(text: str) -> str:
    return f": {text}" if text else ""


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return (
        show_duration(low / 1000)
        if high - low < 0.05
        else f"{show_duration(low / 1000)} to {show_duration(high / 1000)}"
    )


@_says(ev.RunStarted)
def _(event: ev.RunStarted, who: list[str], events: list[ev.RunStarted], source: Source) -> str:
    fast = ", fast" if event.fast else ""
    return f"Run started: {event.experiment} on {event.system} ({event.target}), seed {event.seed}{fast}."


@_says(ev.JournalTakenOver)
def _(event: ev.JournalTakenOver, who: list[str], events: list[ev.JournalTakenOver], source: Source) -> str:
    return f"The journal was taken over by {event.by}; {plural(event.cut_bytes, 'byte')} of a torn line cut."


@_says(ev.PhaseEntered)
def _(event: ev.PhaseEntered, who: list[str], events: list[ev.PhaseEntered], source: Source) -> str:
    if event.phase == "end":
        return "The last phase ended."
    name = {"warmup": "Warm-up", "failback": "Fail-back"}.get(event.phase, event.phase.capitalize())
    return f"{name} began, {show_duration(event.planned_s)} planned."


@_says(ev.BaselineJudged)
def _(event: ev.BaselineJudged, who: list[str], events: list[ev.BaselineJudged], source: Source) -> str:
    return f"The baseline was {'healthy' if event.healthy else 'not healthy: nothing may be injected'}{_because(event.detail)}."


@_says(ev.ConditionHeld)
def _(event: ev.ConditionHeld, who: list[str], events: list[ev.ConditionHeld], source: Source) -> str:
    value = "" if event.value is None else f" ({measured(event.value, '')})"
    return f"The condition {event.condition} held{value}."


@_says(ev.AbortRequested)
def _(event: ev.AbortRequested, who: list[str], events: list[ev.AbortRequested], source: Source) -> str:
    return f"Abort requested by {event.by}{_because(event.reason)}."


@_says(ev.TornDown)
def _(event: ev.TornDown, who: list[str], events: list[ev.TornDown], source: Source) -> str:
    left = f"; still alive: {listed(event.left)}" if event.left else ""
    return f"{plural(event.ended, 'process', 'processes')} ended by {event.by} in {show_duration(event.took_ms / 1000)}{left}."


@_says(ev.RunEnded)
def _(event: ev.RunEnded, who: list[str], events: list[ev.RunEnded], source: Source) -> str:
    return f"Run ended: {event.status}{_because(event.reason)}."


@_says(ev.Warned)
def _(event: ev.Warned, who: list[str], events: list[ev.Warned], source: Source) -> str:
    return f"Warning: {event.text}"


@_says(ev.ProcessSpawned)
def _(event: ev.ProcessSpawned, who: list[str], events: list[ev.ProcessSpawned], source: Source) -> str:
    return f"Started {plural(len(who), f'{event.role} process', f'{event.role} processes')}: {listed(who)}."


@_says(ev.ProcessExited)
def _(event: ev.ProcessExited, who: list[str], events: list[ev.ProcessExited], source: Source) -> str:
    how = event.signal or f"exit code {event.code}"
    if event.expected:
        return f"Ended by stormdrill: {listed(who)}."
    return f"Ended by itself ({how}): {listed(who)}."


@_says(ev.SystemReady)
def _(event: ev.SystemReady, who: list[str], events: list[ev.SystemReady], source: Source) -> str:
    return f"{plural(event.instances, 'instance')} ready after {show_duration(event.after_ms / 1000)}."


@_says(ev.Restored)
def _(event: ev.Restored, who: list[str], events: list[ev.Restored], source: Source) -> str:
    return f"{'Restored' if event.ok else 'Not restored'}{_because(event.detail)}."


@_says(ev.LoadStarted)
def _(event: ev.LoadStarted, who: list[str], events: list[ev.LoadStarted], source: Source) -> str:
    load = source.plan.experiment.load if source.plan else None
    rate = f" at {load.rate_per_s:g}/s" if load else ""
    return f"Load ready: profile {event.profile}{rate}, {plural(event.workers, 'worker')}."


@_says(ev.LoadEnded)
def _(event: ev.LoadEnded, who: list[str], events: list[ev.LoadEnded], source: Source) -> str:
    lost = f", {plural(event.lost_workers, 'worker')} lost" if event.lost_workers else ""
    return (
        f"Load ended: {count(event.sent)} of {count(event.scheduled)} requests sent, {count(event.dropped)} dropped, "
        f"{count(event.unfinished)} unfinished, lag p99 {show_duration(event.lag_p99_ms / 1000)}{lost}{_because(event.detail)}."
    )


@_says(ev.RecordClosed)
def _(event: ev.RecordClosed, who: list[str], events: list[ev.RecordClosed], source: Source) -> str:
    torn = "" if event.complete else ", its writer died before closing it"
    return f"Records closed: {event.file}, {count(event.bytes)} bytes{torn}."


@_says(ev.Armed)
def _(event: ev.Armed, who: list[str], events: list[ev.Armed], source: Source) -> str:
    return (
        f"Undo of {event.fault} ({event.mechanism}) written down for {listed(who)}; expires {event.expires_at[11:19]}."
    )


@_says(ev.InjectStarted)
def _(event: ev.InjectStarted, who: list[str], events: list[ev.InjectStarted], source: Source) -> str:
    mechanism = mechanism_of(source, event.injection)
    return f"Injection of {fault_of(source, event.injection)}{f' ({mechanism})' if mechanism else ''} into {listed(who)} began."


@_says(ev.Injected)
def _(event: ev.Injected, who: list[str], events: list[ev.Injected], source: Source) -> str:
    took = _range([item.took_ms for item in events])
    return f"Inject call {event.outcome} on {listed(who)} after {took}{_because(event.detail)}."


@_says(ev.EffectObserved)
def _(event: ev.EffectObserved, who: list[str], events: list[ev.EffectObserved], source: Source) -> str:
    after = _range([item.after_ms for item in events])
    verb = "Bit" if event.bit else "Did not bite"
    return f"{verb}: {listed(who)}, seen by {event.witness} after {after}{_because(event.detail)}."


@_says(ev.Reverted)
def _(event: ev.Reverted, who: list[str], events: list[ev.Reverted], source: Source) -> str:
    return f"Revert {event.outcome} on {listed(who)}{_because(event.detail)}."


@_says(ev.RevertVerified)
def _(event: ev.RevertVerified, who: list[str], events: list[ev.RevertVerified], source: Source) -> str:
    after = _range([item.after_ms for item in events])
    verb = "Seen to be gone" if event.gone else "STILL THERE after the revert"
    return f"{verb}: {listed(who)}, by {event.witness}, {after} after the revert began{_because(event.detail)}."


@_says(ev.AlertChanged)
def _(event: ev.AlertChanged, who: list[str], events: list[ev.AlertChanged], source: Source) -> str:
    labels = ", ".join(f"{key}={event.labels[key]}" for key in sorted(event.labels))
    return f"Alert {event.alert}{f' ({labels})' if labels else ''} {'fired' if event.firing else 'cleared'}."


@_says(ev.GuardTripped)
def _(event: ev.GuardTripped, who: list[str], events: list[ev.GuardTripped], source: Source) -> str:
    return f"Guard tripped: {event.guard}{_because(event.detail)}."


@_says(ev.RunbookStarted)
def _(event: ev.RunbookStarted, who: list[str], events: list[ev.RunbookStarted], source: Source) -> str:
    how = "attended" if event.attended else "unattended"
    return f"Runbook {event.runbook} started by {event.trigger}, {how}."


@_says(ev.StepStarted)
def _(event: ev.StepStarted, who: list[str], events: list[ev.StepStarted], source: Source) -> str:
    again = f", attempt {event.attempt}" if event.attempt > 1 else ""
    return f"Step {event.step} ({event.kind}) started{again}."


@_says(ev.StepFinished)
def _(event: ev.StepFinished, who: list[str], events: list[ev.StepFinished], source: Source) -> str:
    goes = f", goes to {event.goes_to}" if event.goes_to else ""
    return (
        f"Step {event.step} {event.outcome} after {show_duration(event.took_ms / 1000)}{goes}{_because(event.detail)}."
    )


@_says(ev.Approval)
def _(event: ev.Approval, who: list[str], events: list[ev.Approval], source: Source) -> str:
    return f"Step {event.step} {'approved' if event.granted else 'refused'} by {event.by}."


@_says(ev.RunbookFinished)
def _(event: ev.RunbookFinished, who: list[str], events: list[ev.RunbookFinished], source: Source) -> str:
    return (
        f"Runbook {event.runbook} {event.outcome} after {show_duration(event.took_ms / 1000)}{_because(event.detail)}."
    )
