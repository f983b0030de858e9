"""One plain, short, exact sentence for each type of event, with its figures and their units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct

from stormdrill.core import telling
from stormdrill.model import event as ev
from stormdrill.model.units import show_duration
from stormdrill.review.source import Source
from stormdrill.review.words import count, listed, measured, plural


class Told(Struct):
    """Events that are told together, in one sentence."""

    first: ev.Recorded
    key: tuple[str, ...]
    """What they share."""
    seqs: list[int]
    who: list[str]
    """The instances that they are about."""
    events: list[ev.Event]
    source: Source

    @property
    def names(self) -> list[str]:
        """Each instance once."""
        return list(dict.fromkeys(self.who))


_E = TypeVar("_E", bound=ev.Event)
_SAY: dict[type[ev.Event], Callable[[Any, Told], str]] = {}


def sentence(row: Told) -> str | None:
    """None for a type that has no sentence of its own yet."""
    say = _SAY.get(type(row.first.event))
    return say(row.first.event, row) if say else None


def _says(kind: type[_E]) -> Callable[[Callable[[_E, Told], str]], None]:
    def register(function: Callable[[_E, Told], str]) -> None:
        _SAY[kind] = function

    return register


def _because(text: str) -> str:
    return f": {text}" if text else ""


def _at(row: Told, word: str = "on") -> str:
    return f" {word} {listed(row.names)}" if row.names else ""


def _shared(row: Told) -> str:
    """The detail that all events of the row have; empty where they differ."""
    details = {getattr(event, "detail", "") for event in row.events}
    return details.pop() if len(details) == 1 else ""


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return (
        show_duration(low / 1000)
        if high - low < 0.05
        else f"{show_duration(low / 1000)} to {show_duration(high / 1000)}"
    )


@_says(ev.RunStarted)
def _(event: ev.RunStarted, row: Told) -> str:
    fast = ", fast" if event.fast else ""
    return f"Run started: {event.experiment} on {event.system} ({event.target}), seed {event.seed}{fast}."


@_says(ev.JournalTakenOver)
def _(event: ev.JournalTakenOver, row: Told) -> str:
    return f"The journal was taken over by {event.by}; {plural(event.cut_bytes, 'byte')} of a torn line cut."


@_says(ev.PhaseEntered)
def _(event: ev.PhaseEntered, row: Told) -> str:
    if event.phase == "end":
        return "The last phase ended."
    return f"{telling.phase(event.phase).capitalize()} began, {show_duration(event.planned_s)} planned."


@_says(ev.BaselineJudged)
def _(event: ev.BaselineJudged, row: Told) -> str:
    found = "healthy" if event.healthy else "not healthy, so nothing may be injected"
    return f"The baseline was {found}{_because(event.detail)}."


@_says(ev.ConditionHeld)
def _(event: ev.ConditionHeld, row: Told) -> str:
    value = "" if event.value is None else f" ({measured(event.value, '')})"
    return f"The condition {event.condition} held{value}."


@_says(ev.AbortRequested)
def _(event: ev.AbortRequested, row: Told) -> str:
    return f"Abort requested by {event.by}{_because(event.reason)}."


@_says(ev.TornDown)
def _(event: ev.TornDown, row: Told) -> str:
    left = f"; still alive: {listed(event.left)}" if event.left else ""
    target = row.source.plan.target if row.source.plan else "process"
    if target == "kubernetes" and not event.ended:
        return f"Nothing of the system was ended: it runs on{left}."
    proxied = any(started.role == "proxy" for _, started in row.source.all(ev.ProcessSpawned))
    ended = telling.ended_text(event.ended, target, proxied)
    return f"{ended} ended by {event.by} in {show_duration(event.took_ms / 1000)}{left}."


@_says(ev.RunEnded)
def _(event: ev.RunEnded, row: Told) -> str:
    return f"Run ended: {event.status}{_because(event.reason)}."


@_says(ev.Warned)
def _(event: ev.Warned, row: Told) -> str:
    return f"Warning: {event.text}"


@_says(ev.ProcessSpawned)
def _(event: ev.ProcessSpawned, row: Told) -> str:
    return f"Started {plural(len(row.names), f'{event.role} process', f'{event.role} processes')}: {listed(row.names)}."


@_says(ev.ProcessExited)
def _(event: ev.ProcessExited, row: Told) -> str:
    return f"Ended by stormdrill: {listed(row.names)}." if event.expected else _befell(row)


def _befell(row: Told) -> str:
    """What happened to an instance that stormdrill did not do; empty where it did."""
    told = row.source.endings.get(row.first.seq)
    return f"{told.sentence[0].upper()}{told.sentence[1:]}." if told else ""


@_says(ev.ResourcesClaimed)
def _(event: ev.ResourcesClaimed, row: Told) -> str:
    if not event.containers:
        return f"Containers that were there already are the system, on {event.engine}: none is started or removed."
    networks = plural(len(event.networks), "network")
    return f"{plural(len(event.containers), 'container')} and {networks} claimed on {event.engine}, before any is made."


@_says(ev.ContainerStarted)
def _(event: ev.ContainerStarted, row: Told) -> str:
    which = "Started" if event.owned else "Found running:"
    kind = f"{event.role} container"
    return f"{which} {plural(len(row.names), kind)}: {listed(row.names)}."


@_says(ev.ContainerEvent)
def _(event: ev.ContainerEvent, row: Told) -> str:
    who = " by stormdrill" if event.expected else ""
    return _befell(row) or f"The engine told {event.action} of {listed(row.names)}{who}{_because(event.detail)}."


@_says(ev.ClusterHeld)
def _(event: ev.ClusterHeld, row: Told) -> str:
    return (
        f"{_cluster(event.cluster)} is held for the run: ledger {event.ledger} and watchdog {event.watchdog} in "
        f"{event.suite}; without a sign of the runner for {event.lease_s:g} s everything is reverted."
    )


@_says(ev.ClusterLost)
def _(event: ev.ClusterLost, row: Told) -> str:
    return f"The API server of {_cluster(event.cluster, 'the cluster')} no longer answers{_because(event.detail)}."


@_says(ev.ClusterBack)
def _(event: ev.ClusterBack, row: Told) -> str:
    away = show_duration(event.away_ms / 1000)
    where = _cluster(event.cluster, "the cluster")
    return f"The API server of {where} answers again after {away}{_because(event.detail)}."


@_says(ev.PodBound)
def _(event: ev.PodBound, row: Told) -> str:
    if not event.instead_of:
        return f"Found running: {plural(len(row.names), 'pod')}: {listed(row.names)}."
    return (
        f"{event.instance} is pod {event.pod} now{f', on {event.node}' if event.node else ''}: the one before has gone."
    )


def _cluster(name: str, otherwise: str = "The cluster") -> str:
    return f"cluster {name}" if name else otherwise


@_says(ev.SystemReady)
def _(event: ev.SystemReady, row: Told) -> str:
    return f"{plural(event.instances, 'instance')} ready after {show_duration(event.after_ms / 1000)}."


@_says(ev.Restored)
def _(event: ev.Restored, row: Told) -> str:
    return f"{'Restored' if event.ok else 'Not restored'}{_because(event.detail)}."


@_says(ev.LoadStarted)
def _(event: ev.LoadStarted, row: Told) -> str:
    load = row.source.plan.experiment.load if row.source.plan else None
    rate = f" at {load.rate_per_s:g}/s" if load else ""
    what = f"profile {event.profile}{rate}" if event.loop == "open" else "a closed loop of users"
    return f"Load ready: {what}, {plural(event.workers, 'worker')}."


@_says(ev.LoadWorkerLost)
def _(event: ev.LoadWorkerLost, row: Told) -> str:
    return f"Load worker {event.worker} lost{_because(event.detail)}. The others stopped."


@_says(ev.LoadClockCompared)
def _(event: ev.LoadClockCompared, row: Told) -> str:
    return (
        f"Clock of load worker {event.worker} {event.when} the load: {event.offset_ms:,.1f} ms ahead, known to "
        f"{event.error_ms:.1f} ms."
    )


@_says(ev.LoadEnded)
def _(event: ev.LoadEnded, row: Told) -> str:
    lost = f", {plural(event.lost_workers, 'worker')} lost" if event.lost_workers else ""
    return (
        f"Load ended: {count(event.sent)} of {count(event.scheduled)} requests sent, {count(event.dropped)} dropped, "
        f"{count(event.unfinished)} unfinished, lag p99 {show_duration(event.lag_p99_ms / 1000)}{lost}"
        f"{_because(event.detail)}."
    )


@_says(ev.RecordClosed)
def _(event: ev.RecordClosed, row: Told) -> str:
    torn = "" if event.complete else ", its writer died before closing it"
    return f"Records closed: {event.file}, {count(event.bytes)} bytes{torn}."


@_says(ev.Armed)
def _(event: ev.Armed, row: Told) -> str:
    what = f"the runbook's {event.mechanism}" if event.fault == "runbook" else f"{event.fault} ({event.mechanism})"
    return f"Undo of {what} written down{_at(row, 'for')}; expires {event.expires_at[11:19]}."


@_says(ev.InjectStarted)
def _(event: ev.InjectStarted, row: Told) -> str:
    mechanism = row.source.mechanism_of(event.injection)
    how = f" ({mechanism})" if mechanism else ""
    return f"Injection of {row.source.fault_of(event.injection)}{how} into {listed(row.names)} began."


@_says(ev.Injected)
def _(event: ev.Injected, row: Told) -> str:
    took = _range([item.took_ms for item in row.events if isinstance(item, type(event))])
    return f"Inject call {event.outcome} on {listed(row.names)} after {took}{_because(_shared(row))}."


@_says(ev.EffectObserved)
def _(event: ev.EffectObserved, row: Told) -> str:
    after = _range([item.after_ms for item in row.events if isinstance(item, type(event))])
    if event.bit:
        how = telling.done(row.source.mechanism_of(event.injection))
        seen = f"seen by {event.witness} after {after}{_because(_shared(row))}"
        return f"Bit: {listed(row.names)} {how}, {seen}."
    return f"Did not bite: {listed(row.names)}, seen by {event.witness} after {after}{_because(_shared(row))}."


@_says(ev.CauseChanged)
def _(event: ev.CauseChanged, row: Told) -> str:
    after = _range([item.after_ms for item in row.events if isinstance(item, type(event))])
    what = "Edited" if event.edited else "Taken away" if event.gone else "Changed"
    details = "; ".join(dict.fromkeys(item.detail for item in row.events if isinstance(item, type(event))))
    return f"{what} by somebody else than the revert: {listed(row.names)}, after {after}{_because(details)}."


@_says(ev.Reverted)
def _(event: ev.Reverted, row: Told) -> str:
    if row.source.fault_of(event.injection) == "runbook":
        done = [row.source.mechanism_of(item.injection) for item in row.events if isinstance(item, ev.Reverted)]
        return f"The runbook's {listed(done)} taken back{_at(row)}, {event.outcome}{_because(event.detail)}."
    return f"Revert {event.outcome} on {listed(row.names)}{_because(event.detail)}."


@_says(ev.RevertVerified)
def _(event: ev.RevertVerified, row: Told) -> str:
    how = f" {telling.undone(row.source.mechanism_of(event.injection))}" if event.gone else ""
    verb = "Seen to be gone" if event.gone else "STILL THERE after the revert"
    came = dict.fromkeys(item.came_to for item in row.events if isinstance(item, type(event)) and item.came_to)
    told = "; ".join(text for text in (_shared(row), *came) if text)
    since = [item.after_ms for item in row.events if isinstance(item, ev.RevertVerified) and item.after_ms is not None]
    after = f", {_range(since)} after the revert began" if since else ""
    whose = f", the time is by the {event.clock}'s clock" if event.clock else ""
    return f"{verb}: {listed(row.names)}{how}, by {event.witness}{after}{whose}{_because(told)}."


@_says(ev.AlertChanged)
def _(event: ev.AlertChanged, row: Told) -> str:
    labels = ", ".join(f"{key}={event.labels[key]}" for key in sorted(event.labels))
    return f"Alert {event.alert}{f' ({labels})' if labels else ''} {'fired' if event.firing else 'cleared'}."


@_says(ev.GuardTripped)
def _(event: ev.GuardTripped, row: Told) -> str:
    return f"Guard tripped: {event.guard}{_because(event.detail)}."


@_says(ev.RunbookStarted)
def _(event: ev.RunbookStarted, row: Told) -> str:
    how = "attended" if event.attended else "unattended"
    return f"Runbook {event.runbook} started by {event.trigger}, {how}."


@_says(ev.StepStarted)
def _(event: ev.StepStarted, row: Told) -> str:
    again = f", attempt {event.attempt}" if event.attempt > 1 else ""
    end = row.events[-1]
    if isinstance(end, ev.StepFinished):
        return f"Step {event.step} ({event.kind}{again}): {_ended(end)}"
    return f"Step {event.step} ({event.kind}) started{again}."


@_says(ev.StepFinished)
def _(event: ev.StepFinished, row: Told) -> str:
    return f"Step {event.step}: {_ended(event)}"


def _ended(event: ev.StepFinished) -> str:
    goes = f", goes to {event.goes_to}" if event.goes_to else ""
    return f"{event.outcome} after {show_duration(event.took_ms / 1000)}{goes}{_because(event.detail)}."


@_says(ev.Approval)
def _(event: ev.Approval, row: Told) -> str:
    return f"Step {event.step} {'approved' if event.granted else 'refused'} by {event.by}."


@_says(ev.RunbookFinished)
def _(event: ev.RunbookFinished, row: Told) -> str:
    return (
        f"Runbook {event.runbook} {event.outcome} after {show_duration(event.took_ms / 1000)}{_because(event.detail)}."
    )
