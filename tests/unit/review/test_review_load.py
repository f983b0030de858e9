"""What the review says of the load: what was asked against what was sent, by whom, and what a closed loop means."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec.structs import replace

from stormdrill.core.demand import Demand
from stormdrill.core.judge import judge
from stormdrill.model import event as ev
from stormdrill.model.experiment import LoadUse
from stormdrill.review.course import CLOSED_LOOP, load
from stormdrill.review.panels import planned_per_s
from stormdrill.review.series import series
from stormdrill.review.source import Source, read
from stormdrill.store.evidence import load as evidence
from synthetic_overload import simulate, write


def overloaded(directory: Path) -> Source:
    write(directory, simulate())
    found = evidence(directory)
    verdict = judge(found.plan, found.events, found.records, found.ledger)
    (directory / "verdict.json").write_bytes(msgspec.json.encode(verdict))
    return read(directory)


def retold(source: Source, event: ev.LoadStarted, **changes: object) -> Source:
    rows = tuple(
        ev.Recorded(row.seq, row.at, row.mono_ms, event) if isinstance(row.event, ev.LoadStarted) else row
        for row in source.events
    )
    by_type = {**source.by_type, ev.LoadStarted: tuple(row for row in rows if isinstance(row.event, ev.LoadStarted))}
    return replace(source, events=rows, by_type=by_type, **changes)


def test_what_was_asked_is_the_demand_as_planned(tmp_path) -> None:
    source = overloaded(tmp_path)
    assert source.plan is not None
    assert source.plan.profile is not None
    assert source.plan.experiment.load is not None
    started = source.first(ev.LoadStarted)
    assert started is not None
    epoch_ms = started[1].epoch_mono_ms
    end_ms = source.spans[-1].end_ms
    drawn = series(source.requests, [epoch_ms, end_ms])
    assert drawn is not None
    planned = planned_per_s(source, drawn.buckets)
    assert planned is not None
    demand = Demand(source.plan.profile, source.plan.experiment.load.rate_per_s)
    total = float((planned * drawn.buckets.widths_s).sum())
    assert abs(total - demand.expected((end_ms - epoch_ms) / 1000)) < 1e-6 * total


def test_a_closed_loop_has_no_schedule_and_says_what_that_means(tmp_path) -> None:
    source = overloaded(tmp_path)
    assert source.plan is not None
    users = LoadUse("", 0.0, locustfile="mine.py", users=50, spawn_per_s=10.0, deadline_s=1.0)
    plan = replace(source.plan, experiment=replace(source.plan.experiment, load=users))
    closed = retold(source, ev.LoadStarted("mine", 1, 0.0, loop="closed"), plan=plan)
    demand = next(fact for fact in load(closed) if fact.name == "Demand")
    assert demand.figure.text == "50 users of mine.py, closed loop"
    assert demand.note == CLOSED_LOOP
    drawn = series(source.requests, [source.spans[0].start_ms, source.spans[-1].end_ms])
    assert drawn is not None
    assert planned_per_s(closed, drawn.buckets) is None


def test_several_generators_are_named_with_what_one_of_them_can_send(tmp_path) -> None:
    source = overloaded(tmp_path)
    event = ev.LoadStarted("peak + spike", 2, 0.0, ceiling_per_s=3000.0, names=["generator-0", "alpha"])
    sent_by = next(fact for fact in load(retold(source, event)) if fact.name == "Sent by")
    assert sent_by.figure.text == "2 generators; one sends 3,000/s on time"
    assert sent_by.note == "generator-0, alpha"
