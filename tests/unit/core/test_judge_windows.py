"""What an objective speaks of: phases, `after`, `within`, `for`, relative limits, readings, alerts."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import asking, evidence, judged, one, with_events
from msgspec.structs import replace

from stormdrill.core.evidence import Evidence
from stormdrill.core.windows import WHOLE, first_inject, phases
from stormdrill.model import event as ev
from stormdrill.model.expression import AlertWithin
from synthetic_run import BOOT_ID, TIER1, comparison, objective

QUEUE_AGE = comparison("queue_age < 30s", "queue_age", "<", 30.0, "s")


def test_the_fault_lasts_from_the_first_inject_to_the_last_verified_revert(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    spans = phases(found.plan, found.events)
    inject = first_inject(found.plan, found.events)
    looks = [r.mono_ms for r in found.events if isinstance(r.event, ev.RevertVerified)]
    assert inject is not None
    assert spans["fault"].start_ms == spans["baseline"].end_ms == inject.mono_ms
    assert spans["fault"].end_ms == spans["recovery"].start_ms == max(looks)
    assert spans[WHOLE].start_ms == spans["baseline"].start_ms
    assert spans[WHOLE].end_ms == spans["recovery"].end_ms
    assert all(span.complete for span in spans.values())


def test_the_fault_begins_with_the_call_even_when_its_phase_was_entered_earlier(tmp_path: Path) -> None:
    def earlier(recorded: ev.Recorded) -> ev.Recorded:
        if isinstance(recorded.event, ev.PhaseEntered) and recorded.event.phase == "fault":
            return ev.Recorded(recorded.seq, recorded.at, recorded.mono_ms - 300, recorded.event)
        return recorded

    found = evidence(tmp_path)
    spans = phases(found.plan, with_events(found, earlier).events)
    assert spans["baseline"].end_ms == spans["fault"].start_ms == phases(found.plan, found.events)["fault"].start_ms


def test_a_fault_that_is_shorter_than_its_phase_is_complete_when_it_lasted_as_long_as_was_planned(
    tmp_path: Path,
) -> None:
    """`for: 5s` where the experiment declares 30 s: the journal says how long was planned."""
    found = evidence(tmp_path, fault_for_s=5.0)
    assert found.plan.experiment.phases.fault_s == 30.0
    spans = phases(found.plan, found.events)
    assert spans["fault"].length_s == pytest.approx(5.0, abs=0.1)
    assert spans["recovery"].length_s == pytest.approx(20.0, abs=0.1)
    assert all(span.complete for span in spans.values())
    success = comparison("success > 40%", "success", ">", 40.0, "%")
    assert one(found, objective("fault", success)).verdict == "PASS"
    assert one(found, objective(WHOLE, success)).verdict == "PASS"
    assert one(found, objective("recovery", success)).verdict == "PASS"

    def cut_short(recorded: ev.Recorded) -> ev.Recorded:
        if isinstance(recorded.event, ev.PhaseEntered) and recorded.event.phase == "fault":
            return ev.Recorded(recorded.seq, recorded.at, recorded.mono_ms, ev.PhaseEntered("fault", 30.0))
        return recorded

    assert one(with_events(found, cut_short), objective("fault", success)).verdict == "INCONCLUSIVE"


def test_a_request_belongs_to_the_phase_of_its_intended_start(tmp_path: Path) -> None:
    """All requests of the fault's last second end after it; they are still the fault's."""
    found = evidence(tmp_path)
    rows = found.records[0].rows.copy()
    span = phases(found.plan, found.events)["fault"]
    at_ms = found.records[0].epoch_mono_ns / 1e6 + rows["intended_us"] / 1000
    last = (at_ms >= span.end_ms - 1000) & (at_ms < span.end_ms)
    rows["status"][last] = 500
    rows["latency_us"][last] = 2_500_000
    bad = replace(found, records=(replace(found.records[0], rows=rows),))
    success = comparison("success > 99%", "success", ">", 99.0, "%")
    assert one(bad, objective("recovery", success)).value == 100.0
    in_fault = one(bad, objective("fault", comparison("success > 1%", "success", ">", 1.0, "%"), 29.5))
    assert in_fault.value is not None
    assert in_fault.value < 30


def _in_flight(found: Evidence, since_ms: float, latency_us: int) -> Evidence:
    """The requests of the `since_ms` before the first inject time out after `latency_us`."""
    rows = found.records[0].rows.copy()
    inject = first_inject(found.plan, found.events)
    assert inject is not None
    at_ms = found.records[0].epoch_mono_ns / 1e6 + rows["intended_us"] / 1000
    caught = (at_ms >= inject.mono_ms - since_ms) & (at_ms < inject.mono_ms)
    rows["status"][caught] = 0
    rows["outcome"][caught] = 1
    rows["latency_us"][caught] = latency_us
    return replace(found, records=(replace(found.records[0], rows=rows),))


def test_what_the_fault_caught_in_flight_is_no_evidence_against_the_baseline(tmp_path: Path) -> None:
    """As met on the platform: 4 of 618 were in flight when a region froze, and the baseline was at 99.4%."""
    found = _in_flight(evidence(tmp_path), since_ms=150.0, latency_us=2_500_000)
    success = comparison("success > 99%", "success", ">", 99.0, "%")
    slow = comparison("p99 < 400ms", "p99", "<", 0.4, "ms")
    assert one(found, objective("baseline", success)).value == 100.0
    assert one(found, objective("baseline", slow)).verdict == "PASS"
    assert one(found, objective(WHOLE, success)).value < 100.0  # nothing is forgotten


def test_what_was_overdue_before_the_fault_came_counts_against_the_baseline(tmp_path: Path) -> None:
    found = _in_flight(evidence(tmp_path), since_ms=6_000.0, latency_us=9_000_000)
    success = comparison("success > 99%", "success", ">", 99.0, "%")
    slow = comparison("p95 < 400ms", "p95", "<", 0.4, "ms")
    assert one(found, objective("baseline", success)).verdict != "PASS"
    assert one(found, objective("baseline", slow)).verdict != "PASS"


def test_after_within_and_for_choose_the_stretch(tmp_path: Path) -> None:
    found = evidence(tmp_path)

    def n(**more: object) -> int:
        text = comparison("success{tier=1} > 50%", "success", ">", 50.0, "%", labels=TIER1, **more)
        return one(found, objective("fault", text)).n

    whole = n()
    assert n(after_s=10.0) == pytest.approx(whole * 2 / 3, rel=0.1)
    assert n(within_s=15.0) == pytest.approx(whole / 2, rel=0.1)
    assert n(for_s=3.0) == pytest.approx(whole / 10, rel=0.4)


def test_within_counts_from_the_phases_start_outside_of_the_fault(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    late = comparison("success > 98% within 15s", "success", ">", 98.0, "%", within_s=15.0)
    assert one(found, objective("recovery", late)).n == pytest.approx(5 * 60, rel=0.2)
    never = comparison("success > 98% within 40s", "success", ">", 98.0, "%", within_s=40.0)
    judged_never = one(found, objective("recovery", never))
    assert (judged_never.verdict, judged_never.n) == ("INCONCLUSIVE", 0)


def test_a_limit_relative_to_the_baseline_knows_that_the_baseline_is_measured_too(tmp_path: Path) -> None:
    found = evidence(tmp_path)

    def word(factor: float) -> str:
        text = f"p50{{tier=1}} < {factor:g} x baseline"
        return one(found, objective("fault", comparison(text, "p50", "<", factor, relative=True, labels=TIER1))).verdict

    assert [word(factor) for factor in (1.5, 12.0)] == ["FAIL", "PASS"]
    exact = one(found, objective("fault", comparison("p50 < 3 x", "p50", "<", 3.0, relative=True, labels=TIER1)))
    assert exact.value is not None
    factor = exact.value / (exact.limit / 3)
    assert word(round(factor, 3)) == "INCONCLUSIVE"


def test_throughput_and_goodput_count_what_was_answered(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    goodput = one(found, objective("baseline", comparison("goodput > 50/s", "goodput", ">", 50.0, "/s")))
    assert goodput.verdict == "PASS"
    assert goodput.value == pytest.approx(60, rel=0.1)
    assert goodput.unit == "/s"
    shed = one(found, objective("fault", comparison("throughput > 55/s", "throughput", ">", 55.0, "/s")))
    assert shed.value is not None
    assert shed.value < goodput.value


def test_completion_time_comes_from_the_ledger_by_acceptance(tmp_path: Path) -> None:
    text = comparison("completion_p95 < 2s", "completion_p95", "<", 2.0, "s", labels={"kind": "batch"})
    found = evidence(tmp_path)
    held = one(found, objective("fault", text))
    assert (held.verdict, held.limit, held.unit) == ("PASS", 2.0, "s")
    assert found.ledger is not None
    stuck = tuple(
        replace(row, state="queued", done=0, took_ms=None) if row.job % 4 == 0 else row for row in found.ledger
    )
    broken = one(replace(found, ledger=stuck), objective("fault", text))
    assert (broken.verdict, broken.value) == ("FAIL", None)
    assert one(replace(found, ledger=None), objective("fault", text)).verdict == "INCONCLUSIVE"


def test_the_worst_fresh_reading_decides(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    held = one(found, objective("fault", QUEUE_AGE))
    assert (held.verdict, held.value, held.limit, held.low) == ("PASS", 2.0, 30.0, None)
    broken = one(evidence(tmp_path / "old", queue_age_s=31.0), objective("fault", QUEUE_AGE))
    assert (broken.verdict, broken.value) == ("FAIL", 31.0)
    assert "gateway-us" in broken.sentence


def test_readings_can_be_chosen_by_the_instances_labels(tmp_path: Path) -> None:
    found = evidence(tmp_path, queue_age_s=31.0)
    of_us = comparison("queue_age{region=us} < 30s", "queue_age", "<", 30.0, "s", labels={"region": "us"})
    of_eu = comparison("queue_age{region=eu} < 30s", "queue_age", "<", 30.0, "s", labels={"region": "eu"})
    assert one(found, objective("fault", of_us)).verdict == "FAIL"
    assert one(found, objective("recovery", of_eu)).verdict == "PASS"


def test_without_a_fresh_reading_for_two_intervals_nothing_passes(tmp_path: Path) -> None:
    silent = evidence(tmp_path, reading_gap=True)
    found = one(silent, objective("fault", QUEUE_AGE))
    assert found.verdict == "INCONCLUSIVE"
    assert "gave no fresh reading for" in found.sentence
    assert one(silent, objective("recovery", QUEUE_AGE)).verdict == "PASS"
    broken = one(evidence(tmp_path / "old", reading_gap=True, queue_age_s=31.0), objective("fault", QUEUE_AGE))
    assert broken.verdict == "FAIL"


def test_only_a_frozen_instance_may_be_silent_and_never_all_of_them(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    of_eu = comparison("queue_age{region=eu} < 30s", "queue_age", "<", 30.0, "s", labels={"region": "eu"})
    assert one(found, objective("fault", QUEUE_AGE)).verdict == "PASS"
    assert one(found, objective("fault", of_eu)).verdict == "INCONCLUSIVE"


def test_a_metric_that_nobody_read_is_inconclusive(tmp_path: Path) -> None:
    text = comparison("freshness < 10s", "freshness", "<", 10.0, "s")
    assert one(evidence(tmp_path), objective("recovery", text)).verdict == "INCONCLUSIVE"


def _alert(found: Evidence, window: str, within_s: float | None, **labels: str) -> tuple[str, float | None]:
    text = AlertWithin(f"alert(RegionDown) within {within_s}s", "RegionDown", labels, within_s)
    verdict = one(found, objective(window, text))
    return verdict.verdict, verdict.value


def test_an_alert_counts_from_the_harm_and_by_its_labels(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    assert _alert(found, "fault", 10.0) == ("PASS", 2.4)
    assert _alert(found, "whole run", 2.0) == ("FAIL", 2.4)
    assert _alert(found, "fault", 10.0, region="eu") == ("PASS", 2.4)
    assert _alert(found, "fault", 10.0, region="us") == ("FAIL", None)
    assert _alert(found, "fault", 500.0, region="us") == ("INCONCLUSIVE", None)


def test_an_alert_that_fired_before_counts_once_it_was_over_and_began_again(tmp_path: Path) -> None:
    found = evidence(tmp_path, alert_before=True)
    assert _alert(found, "fault", 10.0) == ("INCONCLUSIVE", None)
    inject = first_inject(found.plan, found.events)
    assert inject is not None
    over = ev.AlertChanged("RegionDown", False, {"region": "eu", "severity": "page"}, "edge")
    between = ev.Recorded(9001, inject.at, inject.mono_ms - 1_000, over)
    assert _alert(replace(found, events=(*found.events, between)), "fault", 10.0) == ("PASS", 2.4)


def test_an_alert_on_a_starved_host_is_invalid_even_when_it_came_too_late(tmp_path: Path) -> None:
    assert _alert(evidence(tmp_path, hogs=True), "fault", 2.0)[0] == "INVALID"


def test_records_of_another_boot_are_told_from_those_of_this_one(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    assert found.records[0].boot_id == BOOT_ID
    both = replace(found, records=(*found.records, replace(found.records[0], file="x.records", boot_id="other")))
    assert "x.records" in judged(asking(both, *found.plan.experiment.objectives)).sentence
