"""From the run directory to the view: verdict, times, faults, runbook, load, and how to do it again."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stormdrill.model import event as ev
from stormdrill.model.expression import Comparison
from stormdrill.model.units import show_duration
from stormdrill.model.verdict import FaultVerdict, ObjectiveVerdict
from stormdrill.review import impact
from stormdrill.review.clock import Clock
from stormdrill.review.source import Source
from stormdrill.review.story import mechanism_of
from stormdrill.review.view import Fact, FaultRow, Figure, ObjectiveRow, RunbookView, StepRow
from stormdrill.review.words import NOTHING, count, interval, listed, measured, percent, plural

_TIER = re.compile(r"\{[^}]*?\b(?P<label>\w+)=(?P<value>[\w.-]+)")


def zero_ms(source: Source) -> float | None:
    """When the first inject call began: the trigger, from which times count."""
    return min((recorded.mono_ms for recorded in _injects(source)), default=None)


def _injects(source: Source) -> list[ev.Recorded]:
    ours = {armed.injection for _, armed in source.all(ev.Armed) if armed.fault != "runbook"}
    return [recorded for recorded, event in source.all(ev.InjectStarted) if event.injection in ours or not ours]


# --- asked and measured ----------------------------------------------------------------------------------


def objectives(source: Source) -> tuple[ObjectiveRow, ...]:
    return tuple(_objective(source, judged) for judged in (source.verdict.objectives if source.verdict else ()))


def _objective(source: Source, judged: ObjectiveVerdict) -> ObjectiveRow:
    return ObjectiveRow(
        name=judged.name,
        window=judged.phase,
        tier=_tier(judged.name, source.requests.tier_label),
        asked=_asked(source, judged),
        measured=Figure(measured(judged.value, judged.unit), judged.events),
        interval=interval(judged.low, judged.high, judged.unit),
        n=count(judged.n) if judged.n else NOTHING,
        verdict=judged.verdict,
        sentence=judged.sentence,
    )


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
            limit = measured(judged.limit, judged.unit)
            return f"{asked.op} {limit}" + (f" ({asked.limit:g} x baseline)" if asked.relative else "")
        return f"within {measured(judged.limit, judged.unit)}"
    return measured(judged.limit, judged.unit)


def summary(source: Source, clock: Clock) -> str:
    """The summary's second sentence: what was done to which instances, when, and what users met."""
    injects = _injects(source)
    if not injects:
        return "Nothing was injected."
    start = injects[0].mono_ms
    rows = [armed for _, armed in source.all(ev.Armed) if armed.fault != "runbook"]
    what = listed(sorted({f"{armed.fault} ({armed.mechanism})" for armed in rows}))
    names = [armed.instance for armed in rows]
    ends = [recorded.mono_ms for recorded, event in source.all(ev.RevertVerified) if event.gone]
    lasted = f" for {show_duration((max(ends) - start) / 1000)}" if ends else ""
    text = f"At {clock.time(start)} UTC {what} hit {listed(names)}{lasted}"
    requests = source.requests
    fault = next((phase for phase in source.phases if phase[0] == "fault"), None)
    if fault is None or not len(requests):
        return f"{text}."
    inside = impact.within(source, fault[1], fault[2])
    label = "requests"
    if requests.tier_label:
        inside = inside & (requests.tier == 0)
        label = f"{requests.tier_label}-{requests.tiers[0]} requests"
    n, bad = int(inside.sum()), int((inside & ~requests.good).sum())
    return f"{text}; {count(bad)} of {count(n)} {label} failed during the fault."


# --- times -----------------------------------------------------------------------------------------------


def times(source: Source) -> tuple[Fact, ...]:
    """TTD, TTA, TTM, TTR and what lies between, each with its definition."""
    found = source.verdict.times if source.verdict else None
    injects = _injects(source)
    zero = injects[0] if injects else None
    start = (zero.seq,) if zero else ()
    acknowledged = source.first(ev.RunbookStarted)
    tta = (acknowledged[0].mono_ms - zero.mono_ms) / 1000 if acknowledged and zero else None
    bit = _first_seqs(source.all(ev.EffectObserved), lambda event: event.bit)
    alert = _alert_seqs(source, zero.mono_ms if zero else None)
    gone = _first_seqs(reversed(source.all(ev.RevertVerified)), lambda event: event.gone)
    started = (acknowledged[0].seq,) if acknowledged else ()
    held = impact.record_events(source)
    return (
        _time("Bit", found and found.bit_s, start + bit, "the first witness other than the inject call saw it."),
        _time(
            "TTD, to detect",
            found and found.detect_s,
            start + alert,
            "the first alert that the experiment names fired.",
        ),
        _time("TTA, to acknowledge", tta, start + started, "the runbook started; nobody was paged."),
        _time(
            "TTM, to mitigate",
            found and found.mitigate_s,
            start + held,
            "the fault's objectives held from then on, while the cause was still there.",
        ),
        _time("Reverted", found and found.reverted_s, start + gone, "the last cause was seen to be gone."),
        _time(
            "TTR, to recover",
            found and found.recover_s,
            start + held,
            "the recovery objectives held again from then on.",
        ),
    )


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
    rows += [Fact("Owner team", Figure(front.owner))] if front.owner else []
    rows += [Fact("Escalation", Figure(front.escalation))] if front.escalation else []
    fault = next((phase for phase in source.phases if phase[0] == "fault"), None)
    if fault is not None:
        name = "Measured during the fault"
        success = impact.success_between(source, fault[1], fault[2], name, (fault[3],))
        rows += [success] if success else []
    return tuple(rows)


def trigger(source: Source, clock: Clock) -> Figure:
    injects = _injects(source)
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


# --- faults ----------------------------------------------------------------------------------------------


def faults(source: Source, clock: Clock) -> tuple[FaultRow, ...]:
    judged = {(item.name, item.target): item for item in (source.verdict.faults if source.verdict else ())}
    rows = []
    for recorded, armed in source.all(ev.Armed):
        if armed.fault != "runbook":
            rows.append(_fault(source, clock, recorded, armed, judged.get((armed.fault, armed.instance))))
    return tuple(rows)


def _fault(
    source: Source, clock: Clock, recorded: ev.Recorded, armed: ev.Armed, judged: FaultVerdict | None
) -> FaultRow:
    def last(kind: type[ev.Event]) -> tuple[ev.Recorded, ev.Event] | None:
        rows = [row for row in source.all(kind) if getattr(row[1], "injection", "") == armed.injection]
        return rows[-1] if rows else None

    inject, reverted = last(ev.InjectStarted), last(ev.Reverted)
    effects = [row for row in source.all(ev.EffectObserved) if row[1].injection == armed.injection]
    effect = next((row for row in effects if row[1].bit), effects[-1] if effects else None)
    checks = [row for row in source.all(ev.RevertVerified) if row[1].injection == armed.injection]
    bit, undone, gone = Figure("not seen"), Figure("not reverted"), Figure("not looked at")
    if effect is not None:
        after = show_duration(effect[1].after_ms / 1000)
        text = f"after {after}, {effect[1].witness}" if effect[1].bit else f"no, {effect[1].witness}"
        bit = Figure(text, (effect[0].seq,))
    if reverted is not None and isinstance(reverted[1], ev.Reverted):
        undone = Figure(f"{reverted[1].outcome} at {clock.time(reverted[0].mono_ms)}", (reverted[0].seq,))
    if checks:
        seen, event = checks[-1]
        after = show_duration(event.after_ms / 1000)
        gone = Figure(
            f"gone after {after}, {event.witness}" if event.gone else f"STILL THERE, {event.witness}", (seen.seq,)
        )
    return FaultRow(
        name=armed.fault,
        instance=armed.instance,
        mechanism=armed.mechanism or mechanism_of(source, armed.injection),
        started=Figure(clock.time(inject[0].mono_ms), (inject[0].seq,)) if inject else Figure("never", (recorded.seq,)),
        bit=bit,
        reverted=undone,
        gone=gone,
        exposed=NOTHING if judged is None else "yes" if judged.exposed else "no",
    )


# --- the runbook -----------------------------------------------------------------------------------------


def runbook(source: Source, clock: Clock) -> RunbookView | None:
    judged = source.verdict.runbook if source.verdict else None
    started = source.first(ev.RunbookStarted)
    if judged is None and started is None:
        return None
    finished = source.first(ev.RunbookFinished)
    zero = zero_ms(source)
    fault_end = next((end for name, _, end, _ in source.phases if name == "fault"), None)
    before = after = None
    if started and zero is not None:
        seqs = (started[0].seq,)
        before = impact.success_between(source, zero, started[0].mono_ms, "Before it started", seqs)
    if finished and fault_end is not None and finished[0].mono_ms < fault_end:
        seqs = (finished[0].seq,)
        after = impact.success_between(
            source, finished[0].mono_ms, fault_end, "After it ended, fault still there", seqs
        )
    name = judged.name if judged else started[1].runbook if started else ""
    return RunbookView(
        name=name,
        title=source.front.title if source.front else "",
        verdict=judged.verdict if judged else NOTHING,
        sentence=judged.sentence if judged else (finished[1].detail if finished else "It did not finish."),
        started_by=Figure(f"{started[1].trigger} at {clock.time(started[0].mono_ms)}", (started[0].seq,))
        if started
        else Figure("never started"),
        steps=_steps(source, clock),
        before=before,
        after=after,
    )


def _steps(source: Source, clock: Clock) -> tuple[StepRow, ...]:
    ends = list(source.all(ev.StepFinished))
    rows = []
    for recorded, event in source.all(ev.StepStarted):
        end = next((row for row in ends if row[1].step == event.step and row[0].seq > recorded.seq), None)
        if end:
            ends.remove(end)
        rows.append(
            StepRow(
                step=event.step,
                kind=event.kind,
                started=clock.time(recorded.mono_ms),
                took=show_duration(end[1].took_ms / 1000) if end else NOTHING,
                outcome=end[1].outcome if end else "unknown",
                detail=" → ".join(text for text in (end[1].detail, end[1].goes_to) if text) if end else "",
                events=(recorded.seq, end[0].seq) if end else (recorded.seq,),
            )
        )
    return tuple(rows)


# --- the load's honesty ----------------------------------------------------------------------------------


def load(source: Source) -> tuple[Fact, ...]:
    judged = source.verdict.load if source.verdict else None
    ended = source.first(ev.LoadEnded)
    seqs = (ended[0].seq,) if ended else ()
    if judged is None:
        return (Fact("Load", Figure("none was driven, or none was recorded", seqs)),)
    rate = f" ({percent(100 * judged.sent / judged.scheduled)}%)" if judged.scheduled else ""
    found = [
        Fact("Evidence", Figure("valid" if judged.valid else "INVALID", seqs), judged.reason),
        Fact("Sent of scheduled", Figure(f"{count(judged.sent)} of {count(judged.scheduled)}{rate}", seqs)),
        Fact("Dropped, never sent", Figure(count(judged.dropped), seqs)),
        Fact("Unfinished at the end", Figure(count(judged.unfinished), seqs), "Counted as time-outs."),
        Fact("Lag p99", Figure(show_duration(judged.lag_p99_ms / 1000), seqs), "Sent minus intended."),
    ]
    return tuple([*found, *_host(source)])


def _host(source: Source) -> list[Fact]:
    samples = source.all(ev.HostSampled)
    if not samples:
        return [Fact("Host", Figure("not sampled"), "Whether strangers starved the system is not known.")]
    rows = (
        ("Foreign CPU, most", "foreign_cpu", "cores", "Used by processes that are not of this run."),
        ("System's run delay, most", "platform_run_delay", "share", "Of the time in which it wanted a core."),
        ("Generator's run delay, most", "generator_run_delay", "share", ""),
        ("Generator's CPU, most", "generator_cpu", "cores", ""),
        ("Load average, most", "load1", "", "Over one minute."),
    )
    found = []
    for name, field, unit, note in rows:
        recorded, sample = max(samples, key=lambda row: (getattr(row[1], field), -row[0].seq))
        value = float(getattr(sample, field))
        text = f"{percent(100 * value)}%" if unit == "share" else f"{value:.2f} {unit}".strip()
        found.append(Fact(name, Figure(text, (recorded.seq,)), note))
    started = source.first(ev.RunStarted)
    if started:
        text = f"{plural(started[1].cores, 'core')}, {started[1].kernel}"
        found.append(Fact("Machine", Figure(text, (started[0].seq,))))
    return found


# --- doing it again --------------------------------------------------------------------------------------


def command(source: Source) -> str:
    started = source.started
    if started is None:
        return "stormdrill run EXPERIMENT"
    words = ["stormdrill run", f"experiments/{started.experiment}.yaml", f"--target {started.target}"]
    words += [f"--set {key}={started.settings[key]}" for key in sorted(started.settings)]
    words += ["--fast"] if started.fast else []
    return " ".join(words)


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
    if source.plan and source.plan.digest:
        found.append(Fact("Plan", Figure(source.plan.digest), "Digest over experiment, selectors, counts, mechanisms."))
    found += [
        Fact(f"SHA-256 of {event.file}", Figure(event.sha256, (row.seq,))) for row, event in source.all(ev.RecordClosed)
    ]
    found.append(Fact("Head of the journal", Figure(source.head), "stormdrill verify checks it and all the above."))
    return tuple(found)
