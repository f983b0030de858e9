"""Work that must stay in its region: counted one by one, wherever it was done."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import asking, evidence, judged, one
from msgspec.structs import replace

from stormdrill.core.evidence import Evidence
from stormdrill.model import event as ev
from stormdrill.ports import LedgerRow
from synthetic_run import comparison, objective

STRAYED = objective("whole run", comparison("jobs_strayed = 0", "jobs_strayed", "=", 0.0))
FOLDER = TemporaryDirectory(prefix="residency-")
"""Removed when the interpreter ends."""


def bound(found: Evidence, residency: str) -> Evidence:
    """The same run, had its batch jobs named a residency. The ledger says that all were done in us."""
    record = found.records[0]
    kinds = tuple(
        replace(kind, labels={**kind.labels, "residency": residency}) if kind.labels["kind"] == "batch" else kind
        for kind in record.kinds
    )
    return replace(found, records=(replace(record, kinds=kinds),))


def batch_jobs(found: Evidence) -> list[int]:
    rows = found.records[0].rows
    return [int(job) for job in rows["job"][rows["labels"] == 1]]


def done_in(found: Evidence, region: str, jobs: set[int]) -> Evidence:
    assert found.ledger is not None
    return replace(found, ledger=tuple(replace(row, region=region) if row.job in jobs else row for row in found.ledger))


def test_jobs_done_where_they_must_be_pass_and_are_counted(tmp_path: Path) -> None:
    verdict = one(bound(evidence(tmp_path), "us"), STRAYED)
    assert (verdict.verdict, verdict.value, verdict.low) == ("PASS", 0.0, None)
    assert verdict.n > 300
    assert f"0 jobs of {verdict.n:,} bound to a region were done in another" in verdict.sentence


def test_one_job_done_elsewhere_fails_on_any_evidence(tmp_path: Path) -> None:
    found = bound(evidence(tmp_path, "hogs"), "us")
    settled = {row.job for row in found.ledger or () if row.done}
    strayed = done_in(found, "eu", {next(job for job in batch_jobs(found) if job in settled)})
    verdict = one(strayed, STRAYED)
    assert (verdict.verdict, verdict.value) == ("FAIL", 1.0)
    assert judged(asking(strayed, STRAYED)).verdict == "FAIL"


def test_a_job_done_elsewhere_although_it_was_never_accepted_has_strayed(tmp_path: Path) -> None:
    found = bound(evidence(tmp_path), "us")
    known = {row.job for row in found.ledger or ()}
    late = next(job for job in batch_jobs(found) if job not in known)
    more = LedgerRow(late, "done", 1, 20.0, "eu")
    assert one(replace(found, ledger=(*(found.ledger or ()), more)), STRAYED).verdict == "FAIL"


def test_without_a_job_that_must_stay_nothing_is_shown(tmp_path: Path) -> None:
    verdict = one(evidence(tmp_path), STRAYED)
    assert (verdict.verdict, verdict.n, verdict.value) == ("INCONCLUSIVE", 0, None)
    assert "no accepted job was bound to a region" in verdict.sentence


def test_a_residency_that_names_no_region_of_the_system_binds_nothing(tmp_path: Path) -> None:
    assert one(bound(evidence(tmp_path), "anywhere"), STRAYED).n == 0


def test_where_it_is_not_told_where_a_job_was_done_it_is_a_doubt(tmp_path: Path) -> None:
    found = bound(evidence(tmp_path), "us")
    verdict = one(done_in(found, "", set(batch_jobs(found)[:40])), STRAYED)
    assert verdict.verdict == "INCONCLUSIVE"
    assert "the ledger doesn't say where" in verdict.sentence


def test_an_instance_without_a_ledger_may_have_done_one_elsewhere(tmp_path: Path) -> None:
    found = bound(evidence(tmp_path), "us")
    end = next(r for r in found.events if isinstance(r.event, ev.PhaseEntered) and r.event.phase == "end")
    silent = ev.Recorded(99_999, end.at, end.mono_ms + 500, ev.Reading("ledger", "gateway-eu", None, {}, "no answer"))
    assert one(replace(found, events=(*found.events, silent)), STRAYED).verdict == "INCONCLUSIVE"


@cache
def passing() -> Evidence:
    return bound(evidence(Path(FOLDER.name)), "us")


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(0, 40))
def test_each_strayed_job_counts_once_whoever_knows_it_and_the_unbound_never(seed: int, stray: int, roam: int) -> None:
    found, random = passing(), Random(seed)
    assert found.ledger is not None
    must = set(batch_jobs(found))
    done = [row.job for row in found.ledger if row.done]
    strayed = set(random.sample([job for job in done if job in must], stray))
    roaming = set(random.sample([job for job in done if job not in must], roam))
    moved = done_in(found, "eu", strayed | roaming)
    assert moved.ledger is not None
    again = tuple(row for row in moved.ledger if row.job in strayed)
    shuffled = tuple(random.sample([*moved.ledger, *again], len(moved.ledger) + len(again)))
    verdict = one(replace(moved, ledger=shuffled), STRAYED)
    assert verdict.value == stray
    assert verdict.verdict == ("FAIL" if stray else "PASS")


@pytest.mark.parametrize("phase", ["baseline", "fault"])
def test_a_window_counts_the_jobs_of_its_own_requests(tmp_path: Path, phase: str) -> None:
    found = bound(evidence(tmp_path), "us")
    asked = objective(phase, comparison("jobs_strayed = 0", "jobs_strayed", "=", 0.0))
    inject_ms = next(r.mono_ms for r in found.events if isinstance(r.event, ev.InjectStarted))
    record = found.records[0]
    at_ms = record.epoch_mono_ns / 1e6 + record.rows["intended_us"] / 1000
    after = {int(job) for job in record.rows["job"][at_ms > inject_ms]}
    moved = done_in(found, "eu", after & set(batch_jobs(found)))
    assert one(moved, asked).verdict == ("PASS" if phase == "baseline" else "FAIL")
