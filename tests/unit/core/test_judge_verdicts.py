"""Each verdict, and each reason for it, on whole run directories."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from judging import evidence, judged, named, run, with_events
from msgspec.structs import replace

from stormdrill.core.evidence import ANSWERED, DROPPED, REFUSED, TIMED_OUT, UNFINISHED
from stormdrill.model import event as ev
from stormdrill.model.verdict import Verdict
from stormdrill.store.records import Outcome
from synthetic_run import SCENARIOS

EXPECTED = {
    "pass": ("completed", "PASS", "7 objectives held"),
    "fail": ("completed", "FAIL", "succeeded during the fault"),
    "slow": ("completed", "FAIL", "during the fault"),
    "few-samples": ("completed", "INCONCLUSIVE", "183 are the fewest"),
    "dropped": ("completed", "INVALID", "dropped 3 of"),
    "late-generator": ("completed", "INVALID", "lag p99"),
    "lost-worker": ("completed", "INVALID", "workers were lost"),
    "missing-records": ("completed", "INVALID", "have no record"),
    "unclosed-records": ("completed", "INVALID", "incomplete"),
    "other-boot": ("completed", "INVALID", "another boot"),
    "hogs": ("completed", "INVALID", "other programs starved this machine"),
    "lost-jobs": ("completed", "FAIL", "2 jobs of"),
    "lost-jobs-tainted": ("completed", "FAIL", "2 jobs of"),
    "doubled-jobs": ("completed", "FAIL", "done more than once"),
    "no-ledger": ("completed", "INCONCLUSIVE", "ledger was not read"),
    "unhealthy-baseline": ("aborted", "INCONCLUSIVE", "no healthy baseline"),
    "not-exposed": ("completed", "INCONCLUSIVE", "hit what nobody used"),
    "not-bitten": ("completed", "INCONCLUSIVE", "not seen to bite"),
    "dirty": ("dirty", "INCONCLUSIVE", "could not be shown"),
    "unverified": ("dirty", "INCONCLUSIVE", "could not be shown"),
    "guard": ("aborted", "FAIL", "a guard tripped"),
    "aborted": ("aborted", "INCONCLUSIVE", "a person stopped it"),
    "no-alert": ("completed", "FAIL", "did not fire within 10 s"),
    "alert-before": ("completed", "INCONCLUSIVE", "was firing before"),
    "runbook-late": ("completed", "FAIL", "fired 11.5 s"),
    "runbook-failed": ("completed", "FAIL", "did not meet its exit"),
    "no-runbook-start": ("completed", "FAIL", "never started"),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_kind_of_run_gets_its_status_its_word_and_its_reason(tmp_path: Path, scenario: str) -> None:
    verdict = run(tmp_path, scenario)
    status, word, why = EXPECTED[scenario]
    assert (verdict.status, verdict.verdict) == (status, word), verdict.sentence
    assert why in verdict.sentence


def test_the_words_for_outcomes_are_those_of_the_record_files() -> None:
    assert [item.value for item in Outcome] == [ANSWERED, TIMED_OUT, REFUSED, UNFINISHED, DROPPED]


def test_a_passing_run_says_what_it_rests_on(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    verdict = judged(found)
    kinds = {recorded.seq: type(recorded.event) for recorded in found.events}
    for objective in verdict.objectives:
        assert objective.verdict == "PASS"
        assert ev.PhaseEntered in {kinds[seq] for seq in objective.events}
    alert = named(verdict, "alert(")
    assert ev.AlertChanged in {kinds[seq] for seq in alert.events}
    assert (alert.value, alert.unit, alert.low, alert.high) == (2.4, "s", None, None)
    p95 = named(verdict, "p95")
    assert (p95.limit, p95.unit) == (400.0, "ms")
    assert p95.low is not None
    assert p95.high is not None
    assert p95.value is not None
    assert p95.low < p95.value < p95.high < 400.0


def test_unfinished_and_refused_requests_count_against_success(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    rows = found.records[0].rows.copy()
    tier1 = np.flatnonzero(rows["labels"] == 0)
    for outcome in (Outcome.REFUSED, Outcome.UNFINISHED, Outcome.TIMED_OUT):
        worse = rows.copy()
        worse["outcome"][tier1[::5]] = outcome
        worse["status"][tier1[::5]] = 0
        verdict = judged(replace(found, records=(replace(found.records[0], rows=worse),)))
        assert named(verdict, "success", "recovery").verdict == "FAIL"


def test_a_late_answer_is_no_success(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    rows = found.records[0].rows.copy()
    late = np.flatnonzero(rows["labels"] == 0)[::5]
    rows["latency_us"][late] = 1_000_001
    verdict = judged(replace(found, records=(replace(found.records[0], rows=rows),)))
    assert named(verdict, "success", "recovery").verdict == "FAIL"
    rows["latency_us"][late] = 1_000_000
    verdict = judged(replace(found, records=(replace(found.records[0], rows=rows),)))
    assert named(verdict, "success", "recovery").verdict == "PASS"


def test_quick_rejections_do_not_flatter_latency(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    before = named(judged(found), "p95")
    rows = found.records[0].rows.copy()
    rejected = np.flatnonzero(rows["labels"] == 0)[::2]
    rows["status"][rejected] = 429
    rows["latency_us"][rejected] = 1500
    after = named(judged(replace(found, records=(replace(found.records[0], rows=rows),))), "p95")
    assert before.value is not None
    assert after.value is not None
    assert after.n < 0.6 * before.n
    assert after.value > 0.8 * before.value
    assert "judged by success" in after.sentence


def test_a_time_out_is_at_least_as_slow_as_its_deadline(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    rows = found.records[0].rows.copy()
    silent = np.flatnonzero(rows["labels"] == 0)[::8]
    rows["outcome"][silent] = Outcome.TIMED_OUT
    rows["latency_us"][silent] = 5
    p95 = named(judged(replace(found, records=(replace(found.records[0], rows=rows),))), "p95")
    assert p95.verdict == "FAIL"
    assert p95.value == pytest.approx(1000.0)


def test_a_changed_record_file_taints_everything_that_rests_on_it(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    verdict = judged(replace(found, records=(replace(found.records[0], intact=False),)))
    assert verdict.verdict == "INVALID"
    assert "changed after it was closed" in verdict.sentence
    assert verdict.load is not None
    assert not verdict.load.valid
    assert named(verdict, "alert(").verdict == "PASS"


def test_no_records_at_all_is_invalid_and_not_a_pass(tmp_path: Path) -> None:
    verdict = judged(replace(evidence(tmp_path), records=()))
    assert verdict.verdict == "INVALID"
    assert {item.verdict for item in verdict.objectives} == {"INVALID", "PASS"}


def test_what_the_fault_itself_starves_is_no_reason(tmp_path: Path) -> None:
    """Run delay without strangers' CPU: an overloaded system is what was asked about."""

    def overload(recorded: ev.Recorded) -> ev.Recorded:
        if not isinstance(recorded.event, ev.HostSampled):
            return recorded
        sample = ev.HostSampled(1000.0, 0.1, 0.9, 0.5, 0.4, 7.0)
        return ev.Recorded(recorded.seq, recorded.at, recorded.mono_ms, sample)

    assert judged(with_events(evidence(tmp_path), overload)).verdict == "PASS"


def test_one_busy_second_of_a_stranger_is_no_reason_and_two_are(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    samples = [item.seq for item in found.events if isinstance(item.event, ev.HostSampled)]

    def busy(seqs: list[int]) -> Verdict:
        def change(recorded: ev.Recorded) -> ev.Recorded:
            if recorded.seq not in seqs:
                return recorded
            sample = ev.HostSampled(1000.0, 1.5, 0.8, 0.5, 0.4, 7.0)
            return ev.Recorded(recorded.seq, recorded.at, recorded.mono_ms, sample)

        return judged(with_events(found, change))

    assert busy(samples[40:41]).verdict == "PASS"
    assert named(busy(samples[40:44]), "success", "fault").verdict == "INVALID"
    assert named(busy(samples[40:44]), "success", "baseline").verdict == "PASS"


@pytest.mark.parametrize(("run_delay", "word"), [(0.33, "PASS"), (0.75, "INVALID")])
def test_the_generators_own_waiting_is_a_witness_too(tmp_path: Path, run_delay: float, word: str) -> None:
    """A generator that ran 4% of the time and waited 2%, as on a quiet machine, or 12%, as beside four hogs."""

    def beside(recorded: ev.Recorded) -> ev.Recorded:
        if not isinstance(recorded.event, ev.HostSampled):
            return recorded
        sample = ev.HostSampled(1000.0, 1.75, 0.15, run_delay, 0.04, 7.0)
        return ev.Recorded(recorded.seq, recorded.at, recorded.mono_ms, sample)

    assert judged(with_events(evidence(tmp_path), beside)).verdict == word


def test_a_kernel_without_run_delay_is_judged_by_foreign_cpu_alone(tmp_path: Path) -> None:
    def blind(recorded: ev.Recorded) -> ev.Recorded:
        if not isinstance(recorded.event, ev.HostSampled):
            return recorded
        sample = ev.HostSampled(1000.0, 1.8, 0.0, 0.0, 0.4, 7.0, schedstat=False)
        return ev.Recorded(recorded.seq, recorded.at, recorded.mono_ms, sample)

    assert judged(with_events(evidence(tmp_path), blind)).verdict == "INVALID"


@pytest.mark.parametrize(("cores", "word"), [(2, "PASS"), (1, "INVALID")])
def test_what_strangers_take_is_compared_with_the_cores_that_the_run_may_use(
    tmp_path: Path, cores: int, word: str
) -> None:
    def beside(recorded: ev.Recorded) -> ev.Recorded:
        if not isinstance(recorded.event, ev.HostSampled):
            return recorded
        sample = ev.HostSampled(1000.0, 0.8, 0.8, 0.5, 0.4, 7.0, cores=cores)
        return ev.Recorded(recorded.seq, recorded.at, recorded.mono_ms, sample)

    assert judged(with_events(evidence(tmp_path), beside)).verdict == word


def test_a_system_that_never_waits_is_not_starved_however_busy_the_strangers_are(tmp_path: Path) -> None:
    def beside(recorded: ev.Recorded) -> ev.Recorded:
        if not isinstance(recorded.event, ev.HostSampled):
            return recorded
        sample = ev.HostSampled(1000.0, 1.8, 0.0, 0.0, 0.4, 7.0)
        return ev.Recorded(recorded.seq, recorded.at, recorded.mono_ms, sample)

    assert judged(with_events(evidence(tmp_path), beside)).verdict == "PASS"


def test_a_guard_that_trips_on_tainted_evidence_is_invalid(tmp_path: Path) -> None:
    verdict = run(tmp_path, "guard", hogs=True)
    assert (verdict.status, verdict.verdict) == ("aborted", "INVALID")


def test_an_ill_baseline_on_a_starved_host_is_invalid_and_not_inconclusive(tmp_path: Path) -> None:
    assert run(tmp_path, "unhealthy-baseline", hogs=True).verdict == "INVALID"


def test_a_lost_job_fails_a_run_that_a_person_stopped(tmp_path: Path) -> None:
    assert run(tmp_path, "aborted", lost=1).verdict == "FAIL"


def test_a_stopped_run_passes_nothing_that_it_did_not_finish(tmp_path: Path) -> None:
    verdict = run(tmp_path, "aborted")
    words = {(item.phase, item.name): item.verdict for item in verdict.objectives}
    assert words["baseline", "success{tier=1} > 98%"] == "PASS"
    assert words["recovery", "success{tier=1} > 98%"] == "INCONCLUSIVE"
    assert words["whole run", "jobs_lost = 0"] == "INCONCLUSIVE"
    assert words["whole run", "alert(RegionDown) within 10s"] == "PASS"


def test_jobs_still_queued_before_their_deadline_are_neither_lost_nor_a_pass(tmp_path: Path) -> None:
    found = evidence(tmp_path, "pass", open_jobs=1)
    late = [
        ev.Recorded(r.seq, r.at, r.mono_ms - 2_000, r.event)
        if isinstance(r.event, ev.PhaseEntered) and r.event.phase == "end"
        else r
        for r in found.events
    ]
    verdict = judged(replace(found, events=tuple(late)))
    assert named(verdict, "jobs_lost").verdict == "INCONCLUSIVE"
    assert "had not reached its deadline" in named(verdict, "jobs_lost").sentence


def test_a_job_still_queued_after_its_deadline_is_lost(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    assert found.ledger is not None
    early = replace(found.ledger[5], state="queued", done=0, took_ms=None)
    verdict = judged(replace(found, ledger=(*found.ledger[:5], early, *found.ledger[6:])))
    assert named(verdict, "jobs_lost").verdict == "FAIL"


def test_a_job_that_nobody_knows_is_lost_and_a_refused_one_is_not(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    assert found.ledger is not None
    unknown = found.ledger[1:]
    refused = (replace(found.ledger[0], state="refused", done=0, took_ms=None), *unknown)
    assert named(judged(replace(found, ledger=unknown)), "jobs_lost").value == 1.0
    assert named(judged(replace(found, ledger=refused)), "jobs_lost").value == 0.0


def test_one_job_done_in_two_regions_is_doubled(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    assert found.ledger is not None
    twice = (*found.ledger, replace(found.ledger[5], region="eu"))
    superseded = (*found.ledger, replace(found.ledger[5], region="eu", state="superseded", done=0, took_ms=None))
    assert named(judged(replace(found, ledger=twice)), "jobs_doubled").verdict == "FAIL"
    assert judged(replace(found, ledger=superseded)).verdict == "PASS"


def test_a_runbook_started_by_the_clock_has_failed_detection(tmp_path: Path) -> None:
    verdict = run(tmp_path, "no-alert")
    assert verdict.runbook is not None
    assert (verdict.runbook.verdict, verdict.runbook.started_by) == ("FAIL", "else_after")
    assert "detection failed" in verdict.runbook.sentence


def test_a_runbook_on_a_starved_host_is_invalid(tmp_path: Path) -> None:
    verdict = run(tmp_path, "runbook-failed", hogs=True)
    assert verdict.runbook is not None
    assert verdict.runbook.verdict == "INVALID"
    assert verdict.verdict == "INVALID"


def test_a_runbooks_action_that_was_not_undone_makes_the_run_dirty(tmp_path: Path) -> None:
    def forget(recorded: ev.Recorded) -> ev.Recorded | None:
        event = recorded.event
        return None if isinstance(event, ev.Reverted) and event.injection == "runbook/drain" else recorded

    assert judged(with_events(evidence(tmp_path), forget)).status == "dirty"


def test_a_revert_seen_on_the_second_look_counts(tmp_path: Path) -> None:
    found = evidence(tmp_path, "dirty")
    last = found.events[-1]
    again = ev.Recorded(
        last.seq + 1, last.at, last.mono_ms, ev.RevertVerified("region-loss/gateway-eu", True, "state", "S", 900.0)
    )
    ended = [r for r in found.events if not isinstance(r.event, ev.RunEnded)]
    verdict = judged(replace(found, events=(*ended, again)))
    assert (verdict.status, verdict.verdict) == ("completed", "PASS")


def test_exposure_is_that_of_all_instances_of_one_fault_together(tmp_path: Path) -> None:
    """Workers serve nobody by themselves; the group of a region does."""

    def gateway_only(recorded: ev.Recorded) -> ev.Recorded | None:
        event = recorded.event
        hidden = isinstance(event, ev.Reading) and event.metric == "served" and event.instance in ("cpu-eu", "gpu-eu")
        return None if hidden else recorded

    verdict = judged(with_events(evidence(tmp_path), gateway_only))
    assert all(fault.exposed for fault in verdict.faults)


def test_nothing_that_counts_is_no_exposure(tmp_path: Path) -> None:
    def uncounted(recorded: ev.Recorded) -> ev.Recorded | None:
        event = recorded.event
        return None if isinstance(event, ev.Reading) and event.metric == "served" else recorded

    verdict = judged(with_events(evidence(tmp_path), uncounted))
    assert verdict.verdict == "INCONCLUSIVE"
    assert "nothing counts" in verdict.faults[0].detail


def test_an_entry_is_exposed_by_its_share_of_the_answers(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    hit = tuple(
        replace(item, instance="edge-1") if item.instance == "gateway-eu" else item
        for item in found.plan.injections[:1]
    )

    def uncounted(recorded: ev.Recorded) -> ev.Recorded | None:
        event = recorded.event
        return None if isinstance(event, ev.Reading) and event.metric == "served" else recorded

    verdict = judged(with_events(replace(found, plan=replace(found.plan, injections=hit)), uncounted))
    assert verdict.faults[0].exposed


def test_a_journal_that_ends_too_soon_is_no_verdict(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    fault = next(r.seq for r in found.events if isinstance(r.event, ev.PhaseEntered) and r.event.phase == "fault")
    verdict = judged(replace(found, events=found.events[: fault + 60]))
    assert verdict.verdict not in ("PASS", "FAIL")
    assert verdict.status == "dirty"


def test_an_empty_journal_is_judged_without_an_error(tmp_path: Path) -> None:
    verdict = judged(replace(evidence(tmp_path), events=(), records=(), ledger=None))
    assert verdict.verdict == "INCONCLUSIVE"
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict
