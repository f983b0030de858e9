"""What has to be started first is in force when it is answered to be done: everything that answers a fault counts from
there, and how long a start takes changes no verdict."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import evidence, judged, one, with_events
from msgspec.structs import replace

from stormdrill.core.case import Case
from stormdrill.core.decide import StartRunbook, decide
from stormdrill.core.evidence import Evidence
from stormdrill.core.fold import fold
from stormdrill.core.windows import WHOLE, first_call, first_inject, in_force_since, phases
from stormdrill.model import event as ev
from stormdrill.model.experiment import Objective, RunbookUse
from stormdrill.model.expression import AlertWithin
from stormdrill.model.verdict import ObjectiveVerdict
from synthetic_run import comparison, objective

START_UP_S = 12.0
ALERT = AlertWithin("alert(RegionDown) within 10s", "RegionDown", {}, 10.0)


def starting(found: Evidence, start_up_s: float = START_UP_S) -> Evidence:
    """The same harm at the same time, but what does it was called that much sooner, and answers when it is in force."""
    late = tuple(replace(item, starts_up=True, inject_timeout_s=120.0) for item in found.plan.injections)
    first = first_inject(found.plan, found.events)
    assert first is not None

    def sooner(recorded: ev.Recorded) -> ev.Recorded:
        event, at_ms = recorded.event, recorded.mono_ms
        if isinstance(event, ev.InjectStarted) or (isinstance(event, ev.PhaseEntered) and event.phase == "fault"):
            at_ms -= start_up_s * 1000
        if isinstance(event, ev.Injected):
            at_ms = first.mono_ms
        return ev.Recorded(recorded.seq, recorded.at, at_ms, event)

    return replace(with_events(found, sooner), plan=replace(found.plan, injections=late))


def both(tmp_path: Path, asked: Objective, **knobs: object) -> tuple[ObjectiveVerdict, ObjectiveVerdict]:
    plain = evidence(tmp_path, **knobs)
    return one(plain, asked), one(starting(plain), asked)


def test_the_baseline_ends_with_the_call_and_the_fault_begins_when_it_is_in_force(tmp_path: Path) -> None:
    plain = evidence(tmp_path)
    late = starting(plain)
    before, spans = phases(plain.plan, plain.events), phases(late.plan, late.events)
    assert spans["fault"].start_ms == before["fault"].start_ms
    assert spans["fault"].end_ms == before["fault"].end_ms
    assert spans["baseline"].end_ms == before["baseline"].end_ms - START_UP_S * 1000
    call = first_call(late.plan, late.events)
    assert call is not None
    assert spans["baseline"].end_ms == call.mono_ms


@pytest.mark.parametrize("window", ["fault", WHOLE])
def test_an_alert_is_asked_for_from_when_there_is_anything_to_detect(tmp_path: Path, window: str) -> None:
    plain, late = both(tmp_path, objective(window, ALERT))
    assert (late.verdict, late.value) == (plain.verdict, plain.value) == ("PASS", 2.4)
    assert "2.4 s after the first inject" in plain.sentence
    assert "2.4 s after the first fault was in force" in late.sentence


@pytest.mark.parametrize("limit", [10.0, 60.0, 95.0])
def test_a_start_dilutes_no_harm(tmp_path: Path, limit: float) -> None:
    """Law 4: requests of a time without harm show nothing of a fault."""
    text = comparison(f"success > {limit}%", "success", ">", limit, "%")
    plain, late = both(tmp_path, objective("fault", text), fault_for_s=5.0)
    assert (late.verdict, late.value, late.n) == (plain.verdict, plain.value, plain.n)


def test_within_and_times_count_from_when_it_is_in_force(tmp_path: Path) -> None:
    plain = evidence(tmp_path, outage_s=6.0)
    late = starting(plain)
    assert judged(late).times == judged(plain).times
    assert judged(plain).times.detect_s == 2.4
    held = replace(comparison("success > 90% within 8s", "success", ">", 90.0, "%"), within_s=8.0)
    before, then = one(plain, objective("fault", held)), one(late, objective("fault", held))
    assert (then.verdict, then.value, then.n) == (before.verdict, before.value, before.n)


def test_users_feel_a_fault_that_is_in_force_and_nothing_of_its_start(tmp_path: Path) -> None:
    plain = evidence(tmp_path, "fail")
    felt, late = judged(plain).faults[0], judged(starting(plain)).faults[0]
    assert felt.users_ms is not None
    # cut into seconds from another moment, if any
    assert late.users_ms == pytest.approx(felt.users_ms, abs=50.0)
    assert "after the first inject" in felt.users
    assert "after it was in force" in late.users


@pytest.mark.parametrize("outcome", ["failed", "doubtful"])
def test_a_call_that_is_not_answered_to_be_done_buys_no_time(tmp_path: Path, outcome: str) -> None:
    late = starting(evidence(tmp_path))

    def unsure(recorded: ev.Recorded) -> ev.Recorded:
        event = recorded.event
        if isinstance(event, ev.Injected):
            event = ev.Injected(event.injection, outcome, "", event.took_ms)  # type: ignore[arg-type]
        return ev.Recorded(recorded.seq, recorded.at, recorded.mono_ms, event)

    told = with_events(late, unsure)
    assert first_inject(told.plan, told.events) == first_call(told.plan, told.events)


def test_an_answer_that_comes_once_its_revert_has_begun_buys_no_time(tmp_path: Path) -> None:
    late = starting(evidence(tmp_path))
    item = late.plan.injections[0]
    reverts = [r.mono_ms for r in late.events if isinstance(e := r.event, ev.RevertStarted) and e.injection == item.id]

    def too_late(recorded: ev.Recorded) -> ev.Recorded:
        at_ms = reverts[0] + 1.0 if isinstance(recorded.event, ev.Injected) else recorded.mono_ms
        return ev.Recorded(recorded.seq, recorded.at, at_ms, recorded.event)

    since = in_force_since(item, with_events(late, too_late).events)
    assert since is not None
    assert isinstance(since.event, ev.InjectStarted)


def test_a_guard_that_trips_while_it_is_being_started_is_harm_all_the_same(tmp_path: Path) -> None:
    late = starting(evidence(tmp_path))
    call = first_call(late.plan, late.events)
    assert call is not None
    tripped = ev.Recorded(99_001, call.at, call.mono_ms + 1000.0, ev.GuardTripped("success < 50% for 2s", 40.0, ""))
    verdict = judged(replace(late, events=(*late.events, tripped)))
    assert verdict.verdict == "FAIL"
    assert any("a guard tripped" in why for why in verdict.reasons)


def test_what_was_in_flight_at_the_call_says_nothing_of_the_baseline(tmp_path: Path) -> None:
    late = starting(evidence(tmp_path), start_up_s=0.2)
    case = Case(late.plan, late.events, late.records, late.ledger)
    assert case.called is not None
    assert case.inject is not None
    assert case.called.mono_ms == case.inject.mono_ms - 200.0
    baseline = phases(late.plan, late.events)["baseline"]
    rows = late.records[0].rows.copy()
    at_ms = late.records[0].epoch_mono_ns / 1e6 + rows["intended_us"] / 1000
    last = (at_ms >= baseline.end_ms - 100) & (at_ms < baseline.end_ms)
    assert last.any()
    rows["status"][last], rows["latency_us"][last] = 500, 200_000
    harmed = replace(late, records=(replace(late.records[0], rows=rows),))
    success = comparison("success > 99%", "success", ">", 99.0, "%")
    assert one(harmed, objective("baseline", success)).value == 100.0


def with_book(found: Evidence) -> Evidence:
    book = RunbookUse("book", AlertWithin("alert(RegionDown)", "RegionDown"), else_after_s=5.0)
    return replace(found, plan=replace(found.plan, experiment=replace(found.plan.experiment, runbook=book)))


def starts_runbook(found: Evidence, told: list[ev.Recorded], now_ms: float) -> list[StartRunbook]:
    commands = decide(found.plan, fold(found.plan, told), now_ms)
    return [item for item in commands if isinstance(item, StartRunbook)]


def test_neither_the_clock_nor_an_alert_starts_the_runbook_before_it_is_in_force(tmp_path: Path) -> None:
    late = with_book(starting(evidence(tmp_path)))
    call, since = first_call(late.plan, late.events), next(r for r in late.events if isinstance(r.event, ev.Injected))
    assert call is not None
    early = ev.AlertChanged("RegionDown", True, {"region": "eu"}, "edge")
    done = {ev.Injected, ev.RevertStarted, ev.Reverted, ev.RevertVerified, ev.EffectObserved, ev.AlertChanged}
    done |= {ev.RunbookStarted, ev.RunbookFinished, ev.StepStarted, ev.StepFinished}
    told = [
        item
        for item in late.events
        if type(item.event) not in done
        and not (isinstance(item.event, ev.PhaseEntered) and item.event.phase not in ("warmup", "baseline", "fault"))
        and item.mono_ms <= since.mono_ms
    ]
    alert = ev.Recorded(90_000, call.at, since.mono_ms - 1000.0, early)
    assert starts_runbook(late, told, since.mono_ms) == []
    assert starts_runbook(late, [*told, alert], since.mono_ms) == []
    answered = [item for item in late.events if isinstance(item.event, ev.Injected)]
    assert starts_runbook(late, [*told, *answered], since.mono_ms + 4999.0) == []
    assert starts_runbook(late, [*told, alert, *answered], since.mono_ms + 4999.0) == []
    assert starts_runbook(late, [*told, *answered], since.mono_ms + 5000.0) == [StartRunbook("else_after")]
    later = ev.Recorded(90_000, call.at, since.mono_ms + 1.0, early)
    (begun,) = starts_runbook(late, [*told, *answered, later], since.mono_ms + 2.0)
    assert begun.trigger == "alert(RegionDown)"
