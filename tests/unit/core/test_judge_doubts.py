"""What nobody saw is never taken for good, and what nobody knows is never held against a system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from judging import asking, evidence, judged, named, one, with_events
from msgspec.structs import replace

from stormdrill.core.evidence import Evidence
from stormdrill.core.validity import watched_ms
from stormdrill.core.windows import Span, all_of, first_inject, phases
from stormdrill.model import event as ev
from stormdrill.model.expression import AlertWithin
from stormdrill.ports import LedgerRow
from synthetic_run import comparison, objective

CPU = "cpu-us"


def _at(found: Evidence, phase: str) -> float:
    return phases(found.plan, found.events)[phase].start_ms


def _added(found: Evidence, *more: tuple[float, ev.Event]) -> Evidence:
    """With these events written last, in this order."""
    last = found.events[-1]
    new = tuple(ev.Recorded(last.seq + n, last.at, mono_ms, event) for n, (mono_ms, event) in enumerate(more, 1))
    return replace(found, events=(*found.events, *new))


def _without(found: Evidence, *kinds: type[ev.Event]) -> Evidence:
    return with_events(found, lambda recorded: None if isinstance(recorded.event, kinds) else recorded)


# --- the host ---


def test_a_host_that_nobody_watched_makes_a_pass_impossible(tmp_path: Path) -> None:
    verdict = judged(_without(evidence(tmp_path), ev.HostSampled))
    assert verdict.verdict == "INVALID"
    assert "nobody watched the host for" in verdict.sentence
    assert verdict.runbook is not None
    assert verdict.runbook.verdict == "INVALID"


def test_a_run_without_load_needs_a_watched_host_too(tmp_path: Path) -> None:
    found = asking(evidence(tmp_path), objective("fault", comparison("queue_age < 30s", "queue_age", "<", 30.0, "s")))
    idle = replace(found, plan=replace(found.plan, experiment=replace(found.plan.experiment, load=None)), records=())
    assert judged(idle).verdict == "PASS"
    assert judged(_without(idle, ev.HostSampled)).verdict == "INVALID"


@pytest.mark.parametrize(("gap_s", "word"), [(4.0, "PASS"), (9.0, "INVALID")])
def test_a_fifth_of_a_window_may_be_unwatched(tmp_path: Path, gap_s: float, word: str) -> None:
    found = evidence(tmp_path)
    start_ms = _at(found, "fault") + 10_000

    def gap(recorded: ev.Recorded) -> ev.Recorded | None:
        inside = start_ms + 5_000 <= recorded.mono_ms < start_ms + 5_000 + gap_s * 1000
        return None if inside and isinstance(recorded.event, ev.HostSampled) else recorded

    seen = judged(with_events(found, gap))
    assert named(seen, "success{tier=1} > 95%", "fault").verdict == word
    assert named(seen, "success{tier=1} > 98%", "recovery").verdict == "PASS"


def _samples(*ends_s: float, interval_s: float = 1.0) -> list[tuple[ev.Recorded, ev.HostSampled]]:
    sample = ev.HostSampled(interval_s * 1000, 0.0, 0.0, 0.0, 0.0, 0.0)
    return [(ev.Recorded(n, "", end_s * 1000, sample), sample) for n, end_s in enumerate(ends_s, 1)]


@pytest.mark.parametrize(
    ("ends_s", "watched_s"),
    [
        ((), 0.0),
        ((1.0,), 2.0),  # one interval of slack on each side
        ((2.9,), 1.1),
        ((0.0,), 1.0),
        ((-1.5,), 0.0),
        ((0.5, 1.5, 2.5), 2.0),
    ],
)
def test_a_window_of_two_seconds_is_watched_by_the_samples_around_it(ends_s: Sequence[float], watched_s: float) -> None:
    span = Span("fault", 0.0, 2_000.0, True, ())
    assert watched_ms(_samples(*ends_s), span) == pytest.approx(watched_s * 1000)


def test_nothing_is_forgiven_between_two_samples_and_a_late_one_speaks_of_its_whole_interval() -> None:
    span = Span("fault", 0.0, 10_000.0, True, ())
    assert watched_ms(_samples(1.0, 4.0, 7.0, 10.0), span) == pytest.approx(4_000)
    assert watched_ms(_samples(5.0, 10.0, interval_s=5.0), span) == pytest.approx(10_000)


def test_a_run_whose_runner_died_is_not_blamed_on_the_alert_that_nobody_could_see(tmp_path: Path) -> None:
    """Someone recovers it an hour later: the journal's last phase seems to last until then."""
    found = evidence(tmp_path)
    died_ms = _at(found, "fault") + 1_000
    left = replace(found, events=tuple(r for r in found.events if r.mono_ms <= died_ms))
    late = _added(left, (died_ms + 3.6e6, ev.AbortRequested("runner-gone", "the runner was gone")))
    alert = AlertWithin("alert(RegionDown) within 10s", "RegionDown", {}, 10.0)
    assert one(late, objective("whole run", alert)).verdict == "INVALID"


# --- reverts that the end of the system made moot ---


def _torn_down(found: Evidence, outcome: str, left: list[str], by: str = "runner-gone") -> Evidence:
    """Stopped in the fault; its undos were found moot because the system was ending."""
    cut = next(r.mono_ms for r in found.events if isinstance(r.event, ev.AbortRequested))
    early = tuple(r for r in found.events if r.mono_ms <= cut and not isinstance(r.event, ev.AbortRequested))
    reverts: list[tuple[float, ev.Event]] = []
    for item in found.plan.injections:
        reverts.append((cut + 10, ev.RevertStarted(item.id, "runner-gone", "keeper")))
        reverts.append((cut + 11, ev.Reverted(item.id, outcome, "the system is ending", 0.4)))
    for name in ("runbook/drain", "runbook/shed"):
        reverts.append((cut + 12, ev.Reverted(name, "superseded", "the system is ending", 0.1)))
    status = "dirty" if left else "aborted"
    return _added(
        replace(found, events=early),
        (cut, ev.AbortRequested(by, "the runner was gone")),
        *reverts,
        (cut + 300, ev.TornDown("keeper", 9, left, 280.0)),
        (cut + 310, ev.RunEnded(status, "the runner was gone")),
    )


@pytest.mark.parametrize("outcome", ["superseded", "done"])
def test_what_ended_with_its_system_is_not_left_behind(tmp_path: Path, outcome: str) -> None:
    verdict = judged(_torn_down(evidence(tmp_path, "aborted"), outcome, []))
    assert verdict.status == "aborted"
    assert verdict.verdict != "PASS"
    assert all(fault.reverted and fault.revert_ms is None for fault in verdict.faults)
    assert "ended with the system" in verdict.faults[0].detail


def test_a_failed_undo_or_a_process_left_is_still_dirty(tmp_path: Path) -> None:
    assert judged(_torn_down(evidence(tmp_path / "a", "aborted"), "failed", [])).status == "dirty"
    assert judged(_torn_down(evidence(tmp_path / "b", "aborted"), "superseded", ["cpu-eu"])).status == "dirty"


def test_a_look_that_saw_the_cause_after_the_revert_outweighs_the_tear_down(tmp_path: Path) -> None:
    found = _torn_down(evidence(tmp_path, "aborted"), "done", [])
    name = found.plan.injections[0].id
    at = next(r for r in found.events if isinstance(r.event, ev.Reverted) and r.event.injection == name)
    look = ev.Recorded(at.seq, at.at, at.mono_ms, ev.RevertVerified(name, False, "process state", "T", 5.0))
    index = found.events.index(at)
    events = (*found.events[: index + 1], look, *found.events[index + 1 :])
    renumbered = tuple(ev.Recorded(n, r.at, r.mono_ms, r.event) for n, r in enumerate(events, 1))
    assert judged(replace(found, events=renumbered)).status == "dirty"


# --- the ledger ---


def _asked(found: Evidence, late_ms: float = 0.0, **silent: str) -> Evidence:
    at_ms = max(r.mono_ms for r, e in all_of(found.events, ev.PhaseEntered) if e.phase == "end") + 500 - late_ms
    looks = [("gateway-eu", silent.get("eu", "")), ("gateway-us", silent.get("us", ""))]
    return _added(
        found,
        *((at_ms, ev.Reading("ledger", name, None if why else 1.0, {}, why)) for name, why in looks),
    )


def _without_rows(found: Evidence, jobs: int) -> Evidence:
    assert found.ledger is not None
    return replace(found, ledger=found.ledger[jobs:])


def test_a_job_in_no_ledger_is_a_doubt_while_an_instance_is_silent(tmp_path: Path) -> None:
    found = _without_rows(evidence(tmp_path), 3)
    assert named(judged(_asked(found)), "jobs_lost").verdict == "FAIL"
    verdict = judged(_asked(found, eu="no answer within 5 s"))
    lost, doubled = named(verdict, "jobs_lost"), named(verdict, "jobs_doubled")
    assert (lost.verdict, lost.value) == ("INCONCLUSIVE", 0.0)
    assert "gateway-eu did not give its ledger (no answer within 5 s): what became of 3 jobs" in lost.sentence
    assert doubled.verdict == "INCONCLUSIVE"  # the silent one may have done one again
    assert verdict.verdict == "INCONCLUSIVE"


def test_a_silent_instance_changes_nothing_where_the_others_settled_every_job(tmp_path: Path) -> None:
    assert named(judged(_asked(evidence(tmp_path), eu="refused")), "jobs_lost").verdict == "PASS"


def test_a_job_done_twice_is_done_twice_whoever_is_silent(tmp_path: Path) -> None:
    assert judged(_asked(evidence(tmp_path, "doubled-jobs"), eu="refused")).verdict == "FAIL"


def test_a_completion_time_is_not_failed_by_a_ledger_that_is_missing(tmp_path: Path) -> None:
    slow = objective("fault", comparison("completion_p95 < 2s", "completion_p95", "<", 2.0, "s"))
    found = evidence(tmp_path)
    assert found.ledger is not None
    few = replace(found, ledger=tuple(row for row in found.ledger if row.job % 3))
    assert one(_asked(few), slow).verdict == "FAIL"
    assert one(_asked(few, us="no answer"), slow).verdict == "INCONCLUSIVE"


def test_a_job_in_the_system_when_a_run_was_stopped_is_open_and_not_lost(tmp_path: Path) -> None:
    found = evidence(tmp_path, "aborted")
    assert found.ledger is not None
    queued = replace(found.ledger[5], state="queued", done=0, took_ms=None)
    held = replace(found, ledger=(*found.ledger[:5], queued, *found.ledger[6:]))
    assert named(judged(held), "jobs_lost").verdict == "FAIL"  # here its record says that it came to its end
    stopped = with_events(
        held, lambda r: None if isinstance(r.event, ev.PhaseEntered) and r.event.phase == "end" else r
    )
    lost = named(judged(stopped), "jobs_lost")
    assert (lost.verdict, lost.value) == ("INCONCLUSIVE", 0.0)


def test_deadlines_are_compared_with_when_the_ledger_was_read(tmp_path: Path) -> None:
    """Not with when its file was closed: a deadline that passed in between is not known to be missed."""
    found = evidence(tmp_path, open_jobs=1)
    assert named(judged(_asked(found, late_ms=-8_000)), "jobs_lost").verdict == "FAIL"
    assert named(judged(_asked(found, late_ms=2_500)), "jobs_lost").verdict == "INCONCLUSIVE"


def test_a_number_beyond_the_records_is_somebody_elses_job(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    assert found.ledger is not None
    strange = LedgerRow(4_000_000_000, "done", 2, 5.0)
    assert judged(replace(found, ledger=(*found.ledger, strange))) == judged(found)


# --- what ended by itself ---


def _died(found: Evidence, instance: str, at_ms: float, *, role: str = "system", pid: int = 9) -> Evidence:
    spawned = ev.ProcessSpawned(instance, "cpu", role, pid, 1, [], {}, ".", "", "", {})
    exited = ev.ProcessExited(instance, pid, 1, None, False)
    return _added(found, (_at(found, "warmup") - 1_000, spawned), (at_ms, exited))


def test_an_instance_that_died_by_itself_is_no_pass(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    verdict = judged(_died(found, CPU, _at(found, "recovery") + 3_000))
    assert verdict.verdict == "INCONCLUSIVE"
    assert "cpu-us ended by itself (exit code 1)" in verdict.sentence
    assert judged(_died(found, CPU, _at(found, "warmup") + 10)).verdict == "PASS"
    assert judged(_died(found, "generator-0", _at(found, "fault"), role="generator")).verdict == "PASS"


def test_a_crash_explains_the_end_of_its_instance_and_a_freeze_does_not(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    ended = _died(found, "cpu-eu", _at(found, "fault") + 500)
    assert "cpu-eu ended by itself" in judged(ended).sentence
    crashes = tuple(replace(item, mechanism="crash") for item in found.plan.injections)
    assert judged(replace(ended, plan=replace(ended.plan, injections=crashes))).verdict == "PASS"


def test_a_system_that_was_not_restored_is_no_pass(tmp_path: Path) -> None:
    def short(recorded: ev.Recorded) -> ev.Recorded:
        if not isinstance(recorded.event, ev.Restored):
            return recorded
        return ev.Recorded(recorded.seq, recorded.at, recorded.mono_ms, ev.Restored(False, "gpu-eu is missing"))

    verdict = judged(with_events(evidence(tmp_path), short))
    assert verdict.verdict == "INCONCLUSIVE"
    assert "not restored: gpu-eu is missing" in verdict.sentence


def test_what_was_dead_already_cannot_be_bitten(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    crashes = tuple(replace(item, mechanism="crash") for item in found.plan.injections)
    found = replace(found, plan=replace(found.plan, injections=crashes))
    inject = first_inject(found.plan, found.events)
    assert inject is not None
    dead = _died(found, "gpu-eu", inject.mono_ms - 5)
    bitten = {fault.target: fault.bit for fault in judged(dead).faults}
    assert bitten == {"gateway-eu": True, "cpu-eu": True, "gpu-eu": False}
    back = ev.ProcessSpawned("gpu-eu", "gpu", "system", 10, 2, [], {}, ".", "", "", {})
    assert all(fault.bit for fault in judged(_added(dead, (inject.mono_ms - 2, back))).faults)


# --- the runbook ---


def test_a_runbook_started_by_an_alert_that_fired_before_the_harm_is_no_detection(tmp_path: Path) -> None:
    found = evidence(tmp_path, "alert-before")
    verdict = judged(found)
    assert verdict.runbook is not None
    assert verdict.runbook.verdict == "INCONCLUSIVE"
    assert "held before any fault was in force" in verdict.runbook.sentence
    labels = {"region": "eu", "severity": "page"}
    at_ms = _at(found, "fault")
    again = _added(
        found,
        (at_ms - 500, ev.AlertChanged("RegionDown", False, labels, "edge")),
        (at_ms + 900, ev.AlertChanged("RegionDown", True, labels, "edge")),
    )
    anew = judged(again).runbook
    assert anew is not None
    assert anew.verdict == "PASS"


def test_a_runbook_started_by_a_condition_that_held_before_the_harm_is_no_detection(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    use = found.plan.experiment.runbook
    assert use is not None
    start = comparison("queue_age > 5s", "queue_age", ">", 5.0, "s")
    experiment = replace(found.plan.experiment, runbook=replace(use, start=start))
    asked = replace(found, plan=replace(found.plan, experiment=experiment))

    def word(at_ms: float) -> str:
        runbook = judged(_added(asked, (at_ms, ev.ConditionHeld("queue_age > 5s", 7.0)))).runbook
        assert runbook is not None
        return runbook.verdict

    assert word(_at(found, "fault") + 700) == "PASS"
    assert word(_at(found, "fault") - 700) == "INCONCLUSIVE"
