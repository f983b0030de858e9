"""The journal as rows for people: what happened, when, in one line each. Readings and samples are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from stormdrill.core.sentences import number, plural
from stormdrill.model import event as ev
from stormdrill.model.units import show_duration


class Row(Struct, frozen=True):
    seq: int
    at_ms: float
    """Relative to the first inject call; to the journal's first event when nothing was injected."""
    at: str
    """UTC with offset."""
    kind: str
    """run, system, load, phase, fault, alert, guard, runbook"""
    text: str


def timeline(events: Sequence[ev.Recorded]) -> tuple[Row, ...]:
    """Ordered by when things were observed."""
    ordered = sorted(events, key=lambda recorded: (recorded.mono_ms, recorded.seq))
    if not ordered:
        return ()
    injects = [recorded.mono_ms for recorded in ordered if isinstance(recorded.event, ev.InjectStarted)]
    zero_ms = injects[0] if injects else ordered[0].mono_ms
    rows = []
    for recorded in ordered:
        told = _TOLD.get(type(recorded.event))
        if told is None:
            continue
        kind, tell = told
        text = tell(recorded.event)
        if text:
            rows.append(Row(recorded.seq, round(recorded.mono_ms - zero_ms, 3), recorded.at, kind, text))
    return tuple(rows)


def _phase(event: ev.PhaseEntered) -> str:
    if event.phase == "end":
        return "the phases are over"
    return f"{event.phase} begins" + (f", {show_duration(event.planned_s)} planned" if event.planned_s else "")


def _exited(event: ev.ProcessExited) -> str:
    if event.expected:
        return ""
    how = f"by {event.signal}" if event.signal else f"with exit code {event.code}"
    return f"{event.instance} ended {how}, unexpected"


def _injected(event: ev.Injected) -> str:
    detail = f": {event.detail}" if event.detail else ""
    return f"{event.injection} injected, {event.outcome}{detail}"


def _effect(event: ev.EffectObserved) -> str:
    word = "bit" if event.bit else "did not bite"
    return f"{event.injection} {word}: {event.witness} saw {event.detail} after {show_duration(event.after_ms / 1000)}"


def _verified(event: ev.RevertVerified) -> str:
    word = "is gone" if event.gone else "is NOT gone"
    return f"{event.injection} {word}: {event.witness} saw {event.detail} after {show_duration(event.after_ms / 1000)}"


def _reverted(event: ev.Reverted) -> str:
    detail = f" ({event.detail})" if event.detail else ""
    return f"{event.injection} reverted, {event.outcome}{detail}"


def _alert(event: ev.AlertChanged) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in sorted(event.labels.items()))
    return f"{event.alert} {'fires' if event.firing else 'is over'}" + (f" ({labels})" if labels else "")


def _finished(event: ev.StepFinished) -> str:
    goes = f" → {event.goes_to}" if event.goes_to else ""
    detail = f": {event.detail}" if event.detail else ""
    return f"{event.step} {event.outcome}{goes} after {show_duration(event.took_ms / 1000)}{detail}"


def _load_ended(event: ev.LoadEnded) -> str:
    text = f"load ended: {event.sent:,} of {event.scheduled:,} sent, lag p99 {number(event.lag_p99_ms)} ms"
    return text + (f", {plural(event.dropped, 'arrival')} dropped" if event.dropped else "")


def _torn_down(event: ev.TornDown) -> str:
    left = f", left: {', '.join(event.left)}" if event.left else ""
    return f"torn down by the {event.by}: {plural(event.ended, 'process').replace('processs', 'processes')} ended{left}"


_TOLD: dict[type[ev.Event], tuple[str, Callable[..., str]]] = {
    ev.RunStarted: ("run", lambda e: f"run {e.run} started: {e.title}"),
    ev.JournalTakenOver: ("run", lambda e: f"journal taken over by {e.by}, {e.cut_bytes} torn bytes cut"),
    ev.AbortRequested: ("run", lambda e: f"stop asked for by {e.by}: {e.reason}"),
    ev.TornDown: ("run", _torn_down),
    ev.RunEnded: ("run", lambda e: f"run ended, {e.status}" + (f": {e.reason}" if e.reason else "")),
    ev.Warned: ("run", lambda e: e.text),
    ev.PhaseEntered: ("phase", _phase),
    ev.BaselineJudged: ("phase", lambda e: "baseline healthy" if e.healthy else f"baseline not healthy: {e.detail}"),
    ev.ProcessExited: ("system", _exited),
    ev.SystemReady: ("system", lambda e: f"{e.instances} instances ready after {show_duration(e.after_ms / 1000)}"),
    ev.Restored: ("system", lambda e: ("restored: " if e.ok else "NOT restored: ") + e.detail),
    ev.LoadStarted: ("load", lambda e: f"load {e.profile} starts, {plural(e.workers, 'worker')}"),
    ev.LoadEnded: ("load", _load_ended),
    ev.Armed: ("fault", lambda e: f"{e.injection} armed: its undo is written down" if e.fault != "runbook" else ""),
    ev.InjectStarted: ("fault", lambda e: f"{e.injection} inject call"),
    ev.Injected: ("fault", _injected),
    ev.EffectObserved: ("fault", _effect),
    ev.RevertStarted: ("fault", lambda e: f"{e.injection} revert begins ({e.cause}, by the {e.by})"),
    ev.Reverted: ("fault", _reverted),
    ev.RevertVerified: ("fault", _verified),
    ev.AlertChanged: ("alert", _alert),
    ev.GuardTripped: ("guard", lambda e: f"guard tripped: {e.guard}" + (f" ({e.detail})" if e.detail else "")),
    ev.ConditionHeld: ("runbook", lambda e: f"{e.condition} holds"),
    ev.RunbookStarted: ("runbook", lambda e: f"runbook {e.runbook} started by {e.trigger}"),
    ev.StepStarted: ("runbook", lambda e: f"{e.step} ({e.kind}) begins"),
    ev.StepFinished: ("runbook", _finished),
    ev.Approval: ("runbook", lambda e: f"{e.step} {'approved' if e.granted else 'refused'} by {e.by}"),
    ev.RunbookFinished: (
        "runbook",
        lambda e: f"runbook {e.runbook} {e.outcome}" + (f": {e.detail}" if e.detail else ""),
    ),
}
