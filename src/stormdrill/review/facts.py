"""From the run directory to the view: verdict, times, faults, runbook, load, and how to do it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from msgspec.structs import replace

from stormdrill.core import telling
from stormdrill.core.judge_metrics import limit_of, told_as_time, unit_of
from stormdrill.core.sentences import quantity
from stormdrill.core.windows import Span
from stormdrill.model import event as ev
from stormdrill.model.expression import Comparison
from stormdrill.model.units import show_duration
from stormdrill.model.verdict import ObjectiveVerdict, Times
from stormdrill.review import impact
from stormdrill.review.clock import Clock
from stormdrill.review.source import Source
from stormdrill.review.view import Fact, Figure, ObjectiveRow
from stormdrill.review.words import NOTHING, count, interval, listed, measured, sentence

OF_FAULTS = ("Bit", "Reverted")
"""Times of which nothing can be said where nothing is injected."""
_TIER = re.compile(r"\{[^}]*?\b(?P<label>\w+)=(?P<value>[\w.-]+)")


def _last_gone(source: Source) -> tuple[ev.Recorded, ev.RevertVerified] | None:
    """The look, or somebody else's word, by which the last cause was gone."""
    rows = [row for row in source.all(ev.RevertVerified) if row[1].gone]
    return max(rows, key=lambda row: row[0].mono_ms, default=None)


def _whose_end(source: Source, last: ev.RevertVerified, lasted: str) -> str:
    """Where somebody else had ended it: by whose clock, or how late this machine can only have seen that."""
    if last.clock:
        return f"{lasted} (its end by the {last.clock}'s clock)"
    undone = [event for _, event in source.all(ev.Reverted) if event.injection == last.injection and event.by]
    if not undone:
        return lasted
    when = f"{undone[-1].undone_at[11:23]} by its clock"
    return f"{lasted.replace(' for ', ' for at most ')} (the {undone[-1].by} had undone it at {when}, seen later)"


def _injects(source: Source) -> list[ev.Recorded]:
    """Inject calls of the plan's faults; what a runbook did is none."""
    ours = {armed.injection for _, armed in source.all(ev.Armed) if armed.fault != "runbook"}
    return [recorded for recorded, event in source.all(ev.InjectStarted) if event.injection in ours]


def _fault_span(source: Source) -> Span | None:
    return next((span for span in source.spans if span.name == "fault"), None)


# --- asked and measured ----------------------------------------------------------------------------------


def objectives(source: Source) -> tuple[ObjectiveRow, ...]:
    return tuple(_objective(source, judged) for judged in (source.verdict.objectives if source.verdict else ()))


def _objective(source: Source, judged: ObjectiveVerdict) -> ObjectiveRow:
    return ObjectiveRow(
        name=judged.name,
        window=telling.phase(judged.phase),
        tier=_tier(judged.name, source.requests.tier_label),
        asked=_asked(source, judged),
        measured=Figure(_measured(source, judged), judged.events),
        interval=interval(judged.low, judged.high, judged.unit),
        n=count(judged.n) if judged.n else NOTHING,
        verdict=judged.verdict,
        sentence=sentence(judged.sentence),
    )


def _held_from(asked: Comparison, judged: ObjectiveVerdict) -> bool:
    """Whether it is told as the time from which on it held, and not as a reading."""
    return told_as_time(asked) and asked.within_s == judged.limit and judged.unit == "s"


def _measured(source: Source, judged: ObjectiveVerdict) -> str:
    asked = (one.expression for one in (source.plan.experiment.objectives if source.plan else ()))
    mine = next((one for one in asked if one.text == judged.name), None)
    held = isinstance(mine, Comparison) and _held_from(mine, judged) and judged.value
    return f"{'after ' if held else ''}{measured(judged.value, judged.unit)}"


def _tier(name: str, label: str) -> str:
    match = _TIER.search(name)
    return match["value"] if match and match["label"] == label else ""


def _asked(source: Source, judged: ObjectiveVerdict) -> str:
    """ "< 400 ms": from the plan, which knows the operator; a relative limit says what it comes to."""
    for objective in source.plan.experiment.objectives if source.plan else ():
        asked = objective.expression
        if asked.text != judged.name:
            continue
        if isinstance(asked, Comparison):
            if _held_from(asked, judged):
                limit = quantity(limit_of(asked), unit_of(asked))
                return f"{asked.op} {limit} within {quantity(judged.limit, judged.unit)}"
            relative = f" ({asked.limit:g} x baseline)" if asked.relative else ""
            return f"{asked.op} {quantity(judged.limit, judged.unit)}{relative}"
        return f"within {quantity(judged.limit, judged.unit)}"
    return quantity(judged.limit, judged.unit)


def summary(source: Source, clock: Clock) -> str:
    """The summary's second sentence: what was done to which instances, when, and what users met."""
    if source.inject is None:
        return "Nothing was injected."
    start = source.inject.mono_ms
    if not source.injects:
        return _load_alone(source, clock.time(start))
    rows = [armed for _, armed in source.all(ev.Armed) if armed.fault != "runbook"]
    what = listed(sorted({f"{armed.fault} ({armed.mechanism})" for armed in rows}))
    last = _last_gone(source)
    left = [fault.target for fault in source.verdict.faults if not fault.reverted] if source.verdict else []
    lasted = f" for {show_duration((last[0].mono_ms - start) / 1000)}" if last and not left else ""
    lasted = _whose_end(source, last[1], lasted) if last and lasted else lasted
    text = f"At {clock.time(start)} UTC {what} hit {listed([armed.instance for armed in rows])}{lasted}"
    if left:
        text += f" and was not seen to be gone from {listed(left)}"
    requests, fault = source.requests, _fault_span(source)
    if fault is None or not len(requests):
        return f"{text}."
    inside = impact.within(source, fault.start_ms, fault.end_ms)
    label = "requests"
    if requests.tier_label:
        inside = inside & (requests.tier == 0)
        label = f"{requests.tier_label}-{requests.tiers[0]} requests"
    n, bad = int(inside.sum()), int((inside & ~requests.good).sum())
    return f"{text}; {count(bad)} of {count(n)} {label} failed during the fault."


def _load_alone(source: Source, at: str) -> str:
    """Of a run that injects nothing: the load is what came."""
    text = f"Nothing was injected: from {at} UTC on the load alone was the trigger"
    fault = _fault_span(source)
    if fault is None or not len(source.requests):
        return f"{text}."
    inside = impact.within(source, fault.start_ms, fault.end_ms)
    n, bad = int(inside.sum()), int((inside & ~source.requests.good).sum())
    return f"{text}; {count(bad)} of {count(n)} requests failed meanwhile, those that were turned away included."


# --- times -----------------------------------------------------------------------------------------------


def times(source: Source) -> tuple[Fact, ...]:
    """TTD, TTA, TTM, TTR and what lies between, each with its definition."""
    found = source.verdict.times if source.verdict else Times()
    zero = source.inject
    start = (zero.seq,) if zero else ()
    acknowledged = source.first(ev.RunbookStarted)
    tta = (acknowledged[0].mono_ms - zero.mono_ms) / 1000 if acknowledged and zero else None
    bit = _first_seqs(source.all(ev.EffectObserved), lambda event: event.bit)
    alert = _alert_seqs(source, zero.mono_ms if zero else None)
    last = _last_gone(source)
    gone = (last[0].seq,) if last else ()
    whose = f" Its end is by the {last[1].clock}'s clock." if last and last[1].clock else ""
    started = (acknowledged[0].seq,) if acknowledged else ()
    held = impact.record_events(source)
    found_all = (
        _time("Bit", found.bit_s, start + bit, "the first witness other than the inject call saw it."),
        _time(
            "TTD, to detect",
            found.detect_s,
            start + alert,
            "the first alert that the experiment names fired.",
        ),
        _time("TTA, to acknowledge", tta, start + started, "the runbook started."),
        _time(
            "TTM, to mitigate",
            found.mitigate_s,
            start + held,
            "the fault's objectives held from then on, while the cause was still there.",
        ),
        _time("Reverted", found.reverted_s, start + gone, f"the last cause was seen to be gone.{whose}"),
        _time(
            "TTR, to recover",
            found.recover_s,
            start + held,
            "the recovery objectives held again from then on.",
        ),
        *_guarded(source),
    )
    asked = (fact for fact in found_all if source.injects or fact.name not in OF_FAULTS)
    return tuple(replace(one, note=one.note.replace("From the first inject", f"From {source.since}")) for one in asked)


def _guarded(source: Source) -> tuple[Fact, ...]:
    """How long harm went on once a guard had tripped; nothing where none did."""
    tripped = source.first(ev.GuardTripped)
    if tripped is None:
        return ()
    reverts = [recorded for recorded, event in source.all(ev.RevertStarted) if event.cause == "guard"]
    note = "From the look in which the guard tripped to the start of the first revert."
    if not reverts:
        return (Fact("Guard to revert", Figure("no revert was due", (tripped[0].seq,)), note),)
    first = reverts[0]
    took = show_duration(max(0.0, first.mono_ms - tripped[0].mono_ms) / 1000)
    return (Fact("Guard to revert", Figure(took, (tripped[0].seq, first.seq)), note),)


def _time(name: str, value: float | None, events: tuple[int, ...], meaning: str) -> Fact:
    text = NOTHING if value is None else f"{value:.3f} s" if value < 10 else f"{value:.1f} s"
    until = f"From the first inject until {meaning}"
    return Fact(
        name, Figure(text, () if value is None else events), until if value is not None else f"{until} It didn't."
    )


def _first_seqs(rows: Iterable[tuple[ev.Recorded, ev.Event]], wanted: object) -> tuple[int, ...]:
    assert callable(wanted)
    return next(((recorded.seq,) for recorded, event in rows if wanted(event)), ())


def _alert_seqs(source: Source, zero: float | None) -> tuple[int, ...]:
    named = _alerts(source)
    rows = source.all(ev.AlertChanged)
    return next(
        (
            (recorded.seq,)
            for recorded, event in rows
            if event.firing and (not named or event.alert in named) and recorded.mono_ms >= (zero or 0.0)
        ),
        (),
    )


def _alerts(source: Source) -> set[str]:
    found = set()
    for objective in source.plan.experiment.objectives if source.plan else ():
        if not isinstance(objective.expression, Comparison):
            found.add(objective.expression.alert)
    return found


# --- severity, trigger and conditions --------------------------------------------------------------------


def severity(source: Source) -> tuple[Fact, ...]:
    front = source.front
    if front is None:
        return (Fact("Severity", Figure("not stated"), "No runbook, so no criteria: people decide."),)
    rows = [Fact("Severity and criteria", Figure(front.severity or "not stated"), "From the runbook's front matter.")]
    rows += _severity_said(source)
    rows += [Fact("Owner team", Figure(front.owner))] if front.owner else []
    rows += [Fact("Escalation", Figure(front.escalation))] if front.escalation else []
    fault = _fault_span(source)
    if fault is not None:
        name = "Measured during the fault"
        success = impact.success_between(source, fault.start_ms, fault.end_ms, name, fault.events)
        rows += [success] if success else []
    return tuple(rows)


def _severity_said(source: Source) -> list[Fact]:
    """What the first alert after the trigger carried."""
    seqs = _alert_seqs(source, source.inject.mono_ms if source.inject else None)
    said = [event.labels.get("severity", "") for recorded, event in source.all(ev.AlertChanged) if recorded.seq in seqs]
    return [Fact("Severity that the alert carried", Figure(text, seqs)) for text in said if text]


def trigger(source: Source, clock: Clock) -> Figure:
    injects = _injects(source)
    if not injects and not source.injects and source.inject is not None:
        came = clock.time(source.inject.mono_ms)
        return Figure(f"The load of this experiment, from {came} UTC on; nothing was injected.", (source.inject.seq,))
    if not injects:
        return Figure("None: nothing was injected.")
    rows = [armed for _, armed in source.all(ev.Armed) if armed.fault != "runbook"]
    what = listed(sorted({armed.fault for armed in rows})) or "the fault"
    text = f"{what}, injected on purpose by this experiment at {clock.time(injects[0].mono_ms)} UTC."
    return Figure(text, tuple(recorded.seq for recorded in injects))


def conditions(source: Source) -> tuple[Fact, ...]:
    """What is known of the state in which the trigger met the system."""
    found: list[Fact] = []
    plan = source.plan
    started = source.first(ev.RunStarted)
    if plan and plan.experiment.load:
        seqs = tuple(recorded.seq for recorded, _ in source.all(ev.LoadStarted))
        load = plan.experiment.load
        found.append(Fact("Demand", Figure(f"profile {load.profile}, mean {load.rate_per_s:g} requests/s", seqs)))
    if plan and plan.system.capacity:
        text = ", ".join(f"{key} {value}" for key, value in sorted(plan.system.capacity.items()))
        found.append(Fact("Declared capacity", Figure(text)))
    if plan:
        values = {**plan.system.parameters, **plan.experiment.parameters}
        text = ", ".join(f"{key}={value}" for key, value in sorted(values.items()))
        found += [Fact("Parameters", Figure(text, (started[0].seq,) if started else ()))] if text else []
        found += [Fact("Worst case, as planned", Figure(plan.worst_case))] if plan.worst_case else []
        found += [Fact("Irreversible", Figure(text)) for text in plan.irreversible]
    baseline = source.first(ev.BaselineJudged)
    if baseline:
        healthy = "healthy" if baseline[1].healthy else "not healthy"
        found.append(Fact("Baseline", Figure(healthy, (baseline[0].seq,)), baseline[1].detail))
    return tuple(found)


# --- doing it again --------------------------------------------------------------------------------------


def command(source: Source) -> str:
    started = source.started
    if started is None:
        return "stormdrill run EXPERIMENT"
    words = ["stormdrill", "run", f"experiments/{started.experiment}.yaml", "--target", started.target]
    words += [word for key in sorted(started.settings) for word in ("--set", f"{key}={started.settings[key]}")]
    words += ["--fast"] if started.fast else []
    return shlex.join([*words, "--seed", str(started.seed)])


def reproduce(source: Source) -> tuple[Fact, ...]:
    started = source.first(ev.RunStarted)
    found = [Fact("Run", Figure(source.run))]
    if started:
        seqs = (started[0].seq,)
        found.append(Fact("stormdrill", Figure(started[1].version, seqs)))
        found.append(Fact("Seed", Figure(str(started[1].seed), seqs)))
        found += [
            Fact(f"SHA-256 of {name}", Figure(started[1].inputs[name], seqs)) for name in sorted(started[1].inputs)
        ]
    found += [Fact("Cluster", Figure(str(at))) for at in (source.plan.clusters if source.plan else ())]
    if source.plan and source.plan.digest:
        found.append(Fact("Plan", Figure(source.plan.digest), "Digest over experiment, selectors, counts, mechanisms."))
    found += [
        Fact(f"SHA-256 of {event.file}", Figure(event.sha256, (row.seq,))) for row, event in source.all(ev.RecordClosed)
    ]
    found.append(Fact("Head of the journal", Figure(source.head), "stormdrill verify checks it and all the above."))
    return tuple(found)
