"""The region is back, and takes its part again: the phase in which an old lease may do its harm."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import evidence, judged, one
from msgspec.structs import replace

from stormdrill.core.evidence import Evidence
from stormdrill.model import event as ev
from stormdrill.model.experiment import Phases
from synthetic_run import SUCCESS_98, comparison, objective

BACK = {"phases": Phases(5.0, 20.0, 30.0, 20.0, 15.0)}
DOUBLED = comparison("jobs_doubled = 0", "jobs_doubled", "=", 0.0)
LOST = comparison("jobs_lost = 0", "jobs_lost", "=", 0.0)


def accepted_in(found: Evidence, phase: str) -> set[int]:
    edges = [(e.phase, r.mono_ms) for r in found.events if isinstance(e := r.event, ev.PhaseEntered)]
    start_ms, end_ms = next((at_ms, edges[index + 1][1]) for index, (name, at_ms) in enumerate(edges) if name == phase)
    record = found.records[0]
    at_ms = record.epoch_mono_ns / 1e6 + record.rows["intended_us"] / 1000
    return {int(job) for job in record.rows["job"][(at_ms >= start_ms) & (at_ms < end_ms)]}


def doubled(found: Evidence, phase: str) -> Evidence:
    """The first job of the phase that was done, done once more."""
    assert found.ledger is not None
    jobs = accepted_in(found, phase)
    chosen = next(row for row in found.ledger if row.job in jobs and row.done)
    return replace(found, ledger=(*found.ledger, replace(chosen, region="eu")))


def test_its_objectives_are_judged_over_it_alone(tmp_path: Path) -> None:
    found = evidence(tmp_path, **BACK)
    verdict = one(found, objective("failback", SUCCESS_98))
    assert verdict.verdict == "PASS"
    assert verdict.n == pytest.approx(15 * 30, rel=0.2)
    assert "during the fail-back" in verdict.sentence
    assert judged(found).verdict == "PASS"


@pytest.mark.parametrize("phase", ["warmup", "fault", "recovery", "failback"])
def test_a_job_that_a_thawed_region_did_again_fails_it_whenever_it_was_accepted(tmp_path: Path, phase: str) -> None:
    found = doubled(evidence(tmp_path, **BACK), phase)
    assert one(found, objective("failback", DOUBLED)).verdict == "FAIL"
    assert judged(found).verdict == "FAIL"


def test_the_phases_before_do_not_answer_for_jobs_that_came_later(tmp_path: Path) -> None:
    found = doubled(evidence(tmp_path, **BACK), "failback")
    assert one(found, objective("recovery", DOUBLED)).verdict == "PASS"
    assert one(found, objective("fault", DOUBLED)).verdict == "PASS"


def test_lost_jobs_stay_with_the_phase_that_accepted_them(tmp_path: Path) -> None:
    found = evidence(tmp_path, lost=2, **BACK)
    assert one(found, objective("whole run", LOST)).verdict == "FAIL"
    assert one(found, objective("failback", LOST)).verdict == "PASS"


def test_a_run_that_is_stopped_before_it_shows_nothing_of_it(tmp_path: Path) -> None:
    verdict = one(evidence(tmp_path, "aborted", **BACK), objective("failback", SUCCESS_98))
    assert verdict.verdict == "INCONCLUSIVE"
