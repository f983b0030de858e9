"""The journal told: each event as one plain sentence, like events of one moment as one row."""

from __future__ import annotations

from dataclasses import fields

from msgspec import Struct

from stormdrill.model import event as ev
from stormdrill.review.chart import Mark, MarkKind
from stormdrill.review.clock import Clock
from stormdrill.review.sentences import Told, sentence
from stormdrill.review.source import Source
from stormdrill.review.words import since

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


_KIND: dict[type[ev.Event], MarkKind] = {
    ev.InjectStarted: "fault",
    ev.EffectObserved: "fault",
    ev.AlertChanged: "alert",
    ev.RunbookStarted: "runbook",
    ev.RunbookFinished: "runbook",
    ev.RevertVerified: "revert",
    ev.CauseChanged: "guard",
    ev.GuardTripped: "guard",
    ev.AbortRequested: "guard",
    ev.JournalTakenOver: "guard",
    ev.ContainerEvent: "fault",
    ev.ClusterLost: "guard",
}
_SKIPPED: tuple[type[ev.Event], ...] = (*QUIET, ev.InstanceReady, ev.KeeperStarted, ev.RevertStarted, ev.Reverted,
                                      ev.ContainerEvent)  # fmt: skip
"""Told by another row, or of interest only in the appendix."""


def timeline(source: Source, clock: Clock) -> tuple[Row, ...]:
    """Ordered by when it was observed, beginning with the start of the run, well before any trigger."""
    told: list[Told] = []
    for recorded in source.events:
        event = recorded.event
        if isinstance(event, _SKIPPED) and not _worth_a_row(recorded, source):
            continue
        key, who = _key(event, source), _who(event, source)
        if isinstance(event, ev.StepFinished) and _joins(told, recorded, event):
            continue
        open_row = next((row for row in reversed(told[-8:]) if row.key == key), None) if who else None
        if open_row is not None and recorded.mono_ms - open_row.first.mono_ms <= TOGETHER_MS:
            open_row.seqs.append(recorded.seq)
            open_row.who.append(who)
            open_row.events.append(event)
        else:
            told.append(Told(recorded, key, [recorded.seq], [who] if who else [], [event], source))
    return tuple(_row(row, clock) for row in told)


def _joins(told: list[Told], recorded: ev.Recorded, event: ev.StepFinished) -> bool:
    """A step that took less than a moment is told in one row, from its start."""
    for row in reversed(told[-8:]):
        begun = row.events[0]
        if isinstance(begun, ev.StepStarted) and begun.step == event.step and len(row.events) == 1:
            if recorded.mono_ms - row.first.mono_ms > TOGETHER_MS:
                return False
            row.seqs.append(recorded.seq)
            row.events.append(event)
            return True
    return False


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


def _row(told: Told, clock: Clock) -> Row:
    at_ms, event = told.first.mono_ms, told.first.event
    spans, zero = told.source.spans, told.source.inject
    phase = next((span.name for span in reversed(spans) if span.start_ms <= at_ms <= span.end_ms), "")
    return Row(
        seqs=tuple(told.seqs),
        at=clock.time(at_ms),
        iso=clock.iso(at_ms),
        since="" if zero is None else since((at_ms - zero.mono_ms) / 1000.0),
        phase=phase,
        text=sentence(told) or f"{event.type}: {plainly(event)}",
        kind=_KIND.get(type(event), ""),
    )


def _worth_a_row(recorded: ev.Recorded, source: Source) -> bool:
    """A revert is told by whoever saw the cause gone; unless it went wrong, or nobody looks: a runbook's undo. Of a
    container what befell it is told; what stormdrill did to it is told by who did it.
    """
    event = recorded.event
    if isinstance(event, ev.ContainerEvent):
        return recorded.seq in source.endings
    return isinstance(event, ev.Reverted) and (event.outcome != "done" or source.fault_of(event.injection) == "runbook")


def _key(event: ev.Event, source: Source) -> tuple[str, ...]:
    """What two events must share to be told in one row."""
    match event:
        case ev.Armed():
            return (event.type, event.fault, event.mechanism)
        case ev.InjectStarted():
            return (event.type, source.fault_of(event.injection), source.mechanism_of(event.injection))
        case ev.Injected() | ev.Reverted():
            return (event.type, source.fault_of(event.injection), event.outcome)
        case ev.EffectObserved():
            mechanism = source.mechanism_of(event.injection)
            return (event.type, source.fault_of(event.injection), mechanism, str(event.bit), event.witness)
        case ev.CauseChanged():
            return (event.type, source.fault_of(event.injection), str(event.gone), str(event.edited))
        case ev.RevertVerified():
            mechanism = source.mechanism_of(event.injection)
            said = (str(event.gone), event.witness, event.clock)
            return (event.type, source.fault_of(event.injection), mechanism, *said)
        case ev.ProcessSpawned():
            return (event.type, event.role)
        case ev.ContainerStarted():
            return (event.type, event.role, str(event.owned))
        case ev.PodBound():
            return (event.type, event.uid if event.instead_of else "")
        case ev.ProcessExited() if event.expected:
            return (event.type, "expected")
        case ev.ProcessExited() | ev.ContainerEvent():
            return (event.type, event.instance, plainly(event))
        case _:
            return (event.type,)


def _who(event: ev.Event, source: Source) -> str:
    """What is listed when events share a row; empty for those that never do."""
    match event:
        case ev.Armed() | ev.ProcessSpawned() | ev.ProcessExited() | ev.ContainerStarted() | ev.ContainerEvent():
            return event.instance
        case ev.PodBound():
            return event.instance
        case ev.InjectStarted() | ev.Injected() | ev.EffectObserved() | ev.Reverted() | ev.RevertVerified():
            return source.instance_of(event.injection)
        case ev.CauseChanged():
            return source.instance_of(event.injection)
        case _:
            return ""
