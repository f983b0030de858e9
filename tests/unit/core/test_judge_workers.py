"""What rests on several generators: each lost one is named, and a clock is believed as far as it was compared."""

from __future__ import annotations

from dataclasses import replace as replace_event
from pathlib import Path

import pytest
from judging import evidence, judged
from msgspec.structs import replace

from stormdrill.core.case import Case
from stormdrill.core.evidence import Evidence
from stormdrill.core.validity import CLOCK_ERROR_MS, clock_errors_ms
from stormdrill.core.windows import narrowed, phases
from stormdrill.model import event as ev

FILE = "load/worker-0.records"
ELSEWHERE = "00000000-0000-4000-8000-000000000000"


def _added(found: Evidence, event: ev.Event, at_ms: float | None = None) -> Evidence:
    last = found.events[-1]
    one = ev.Recorded(last.seq + 1, last.at, last.mono_ms if at_ms is None else at_ms, event)
    return replace(found, events=(*found.events, one))


def _compared(error_ms: float, when: str = "after") -> ev.LoadClockCompared:
    return ev.LoadClockCompared("alpha", FILE, when, ELSEWHERE, 5_000.0, error_ms, 2 * error_ms)


def _words(found: Evidence) -> dict[str, str]:
    return {f"{item.name} {item.phase}": item.verdict for item in judged(found).objectives}


def test_every_objective_that_rests_on_a_lost_workers_records_is_invalid_and_names_it(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    lost = _added(found, ev.LoadWorkerLost("generator-1", "load/worker-1.records", "killed by SIGKILL"))
    verdict = judged(lost)
    assert verdict.verdict == "INVALID"
    assert "load worker generator-1 was lost: killed by SIGKILL" in verdict.sentence
    before, after = _words(found), _words(lost)
    assert {word for name, word in after.items() if not name.startswith("alert")} == {"INVALID"}
    assert {name: word for name, word in after.items() if name.startswith("alert")} == {
        name: word for name, word in before.items() if name.startswith("alert")
    }


def test_a_lost_master_takes_every_workers_records_with_it(tmp_path: Path) -> None:
    verdict = judged(_added(evidence(tmp_path), ev.LoadWorkerLost("generator-master", "", "killed by SIGKILL")))
    assert verdict.verdict == "INVALID"
    assert "generator-master and with it every load worker were lost" in verdict.sentence


def test_a_load_that_was_led_through_something_is_for_looking_only(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    led = tuple(
        ev.Recorded(item.seq, item.at, item.mono_ms, replace_event(item.event, through="a port-forward"))
        if isinstance(item.event, ev.LoadStarted)
        else item
        for item in found.events
    )
    verdict = judged(replace(found, events=led))
    assert verdict.verdict == "INVALID"
    assert "the load was sent through a port-forward, for looking only" in verdict.sentence


def test_a_run_that_its_lost_load_ended_is_invalid_even_where_no_phase_was_judged(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    first_ms = phases(found.plan, found.events)["warmup"].start_ms
    kept = tuple(item for item in found.events if item.mono_ms <= first_ms)
    stopped = _added(replace(found, events=kept), ev.AbortRequested("load", "load worker alpha was lost: silent"))
    verdict = judged(stopped)
    assert verdict.verdict == "INVALID"
    assert "its load was lost (load worker alpha was lost: silent)" in verdict.sentence


def test_records_of_another_boot_are_believed_once_its_clock_was_compared(tmp_path: Path) -> None:
    found = evidence(tmp_path, boot_id=ELSEWHERE)
    assert judged(found).verdict == "INVALID"
    assert judged(_added(found, _compared(0.4))).verdict == "PASS"


@pytest.mark.parametrize(("error_ms", "word"), [(CLOCK_ERROR_MS + 10, "INVALID"), (35.0, "PASS")])
def test_a_clock_that_is_known_too_badly_makes_evidence_invalid_by_name(
    tmp_path: Path, error_ms: float, word: str
) -> None:
    found = evidence(tmp_path)  # p95 < 400 ms is asked: 40 ms is the most
    verdict = judged(_added(found, _compared(error_ms)))
    assert verdict.verdict == word
    assert (word == "PASS") or "the clock of load worker alpha is known to 60.0 ms only" in verdict.sentence


def test_the_worst_that_is_known_of_a_clock_counts(tmp_path: Path) -> None:
    found = _added(_added(evidence(tmp_path), _compared(3.0, "before")), _compared(7.0))
    records = tuple(replace(record, clock_error_ms=1.0) for record in found.records)
    assert clock_errors_ms(found.events, records) == {FILE: 7.0}
    assert clock_errors_ms((), records) == {FILE: 1.0}


def test_phases_shrink_by_what_the_clocks_are_not_sure_of_and_never_turn_over(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    spans = phases(found.plan, found.events)
    for span in spans.values():
        assert narrowed(span, 0.0) == span
        inner = narrowed(span, 20.0)
        assert (inner.start_ms, inner.end_ms) == (span.start_ms + 20.0, span.end_ms - 20.0)
        assert narrowed(span, 1e9).length_s == 0


def test_requests_near_to_an_edge_are_of_no_phase_where_a_clock_is_not_sure(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    unsure = _added(found, _compared(30.0))
    assert Case(unsure.plan, unsure.events, unsure.records, unsure.ledger).unsure_ms == 30.0
    before, after = (
        {f"{item.name} {item.phase}": item.n for item in judged(one).objectives if item.name.startswith("success")}
        for one in (found, unsure)
    )
    assert before
    for name, n in after.items():
        assert before[name] - 10 <= n < before[name]  # 60 ms of 60 a second, half of it this tier
