"""What was done to the system: each fault on each instance, the runbook's steps, the load and the host under it."""

from __future__ import annotations

from stormdrill.core.sentences import quantity
from stormdrill.model import event as ev
from stormdrill.model.units import show_duration
from stormdrill.model.verdict import FaultVerdict
from stormdrill.review import impact
from stormdrill.review.clock import Clock
from stormdrill.review.source import Source
from stormdrill.review.view import Fact, FaultRow, Figure, RunbookView, StepRow
from stormdrill.review.words import NOTHING, count, percent, plural, sentence

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
        when = "before" if event.after_ms is None else f"after {show_duration(event.after_ms / 1000)}"
        if event.clock:
            when = f"at {clock.time(seen.mono_ms)} by the {event.clock}'s clock"
        gone = Figure(f"gone {when}, {event.witness}" if event.gone else f"STILL THERE, {event.witness}", (seen.seq,))
    return FaultRow(
        name=armed.fault,
        instance=armed.instance,
        mechanism=armed.mechanism,
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
    fault_end = next((span.end_ms for span in source.spans if span.name == "fault"), None)
    before = after = None
    if started and source.inject is not None:
        seqs = (started[0].seq,)
        before = impact.success_between(source, source.inject.mono_ms, started[0].mono_ms, "Before it started", seqs)
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
        sentence=sentence(judged.sentence) if judged else (finished[1].detail if finished else "It did not finish."),
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
        *_made_by(source),
        Fact("Sent of scheduled", Figure(f"{count(judged.sent)} of {count(judged.scheduled)}{rate}", seqs)),
        Fact("Dropped, never sent", Figure(count(judged.dropped), seqs)),
        Fact("Unfinished at the end", Figure(count(judged.unfinished), seqs), "Counted as time-outs."),
        Fact("Lag p99", Figure(show_duration(judged.lag_p99_ms / 1000), seqs), "Sent minus intended."),
    ]
    return tuple([*found, *_host(source)])


CLOSED_LOOP = (
    "Each user waits for its answer before it asks again: what is slow is asked less, and requests that nobody sent "
    "meanwhile are missing from the latencies. Figures can't be compared with those of an open loop."
)


def _made_by(source: Source) -> list[Fact]:
    """Which demand, by how many generators, how sure of their clocks, and who of them was lost."""
    started = source.first(ev.LoadStarted)
    if started is None:
        return []
    recorded, event = started
    seqs = (recorded.seq,)
    use = source.plan.experiment.load if source.plan else None
    if event.loop == "closed":
        users = f"{plural(use.users, 'user')} of {use.locustfile}" if use else event.profile
        found = [Fact("Demand", Figure(f"{users}, closed loop", seqs), CLOSED_LOOP)]
    else:
        rate = f" at {quantity(use.rate_per_s, '/s')}" if use and use.rate_per_s else ""
        found = [
            Fact("Demand", Figure(f"{event.profile}{rate}, open loop", seqs), "Latency counts from when it was due.")
        ]
    workers = plural(event.workers, "generator")
    ceiling = f"; one sends {quantity(event.ceiling_per_s, '/s')} on time" if event.ceiling_per_s else ""
    found.append(Fact("Sent by", Figure(f"{workers}{ceiling}", seqs), ", ".join(event.names)))
    for row, compared in source.all(ev.LoadClockCompared):
        if compared.when == "after":
            text = f"± {show_duration(compared.error_ms / 1000)}"
            note = "Its machine's clock against the journal's; the phases' edges shrink by it."
            found.append(Fact(f"Clock of {compared.worker}", Figure(text, (row.seq,)), note))
    for row, lost in source.all(ev.LoadWorkerLost):
        found.append(Fact(f"Lost: {lost.worker}", Figure(lost.detail, (row.seq,)), "Nothing that it sent is known."))
    return found


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
