"""When users felt a fault: told apart from when it bit, and never part of the verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from judging import evidence, judged, run
from msgspec.structs import replace

from stormdrill.core.evidence import Evidence
from stormdrill.model import event as ev
from stormdrill.store.records import Outcome

QUIET = {"outage_s": 0.0, "fault_latency_ms": 0.0, "bit": False}
"""Nothing reaches users."""


def harmed(found: Evidence, from_ms: float, to_ms: float, share: float, **spoilt: int) -> Evidence:
    """The same run, had a share of its requests fared otherwise, in ms from the first inject call."""
    record = found.records[0]
    rows = record.rows.copy()
    inject_ms = next(r.mono_ms for r in found.events if isinstance(r.event, ev.InjectStarted))
    after_ms = record.epoch_mono_ns / 1e6 + rows["intended_us"] / 1000 - inject_ms
    inside = np.flatnonzero((after_ms >= from_ms) & (after_ms < to_ms))
    chosen = inside[: max(1, round(share * len(inside)))] if share < 1 else inside
    for column, value in spoilt.items():
        rows[column][chosen] = value
    return replace(found, records=(replace(record, rows=rows),))


def users_ms(found: Evidence) -> float | None:
    (moment,) = {fault.users_ms for fault in judged(found).faults}
    return moment


def test_a_fault_that_nobody_felt_says_so(tmp_path: Path) -> None:
    for fault in run(tmp_path, **QUIET).faults:
        assert fault.users_ms is None
        assert fault.users.startswith("users felt nothing: no second was worse than before")


@pytest.mark.parametrize("at_s", [0, 3, 11])
def test_failures_are_felt_from_the_first_of_the_first_second_that_was_worse(tmp_path: Path, at_s: int) -> None:
    found = harmed(evidence(tmp_path, **QUIET), at_s * 1000, at_s * 1000 + 5_000, 1.0, outcome=Outcome.TIMED_OUT)
    moment = users_ms(found)
    assert moment is not None
    assert at_s * 1000 <= moment < at_s * 1000 + 200
    assert "requests of that second succeeded" in judged(found).faults[0].users


def test_slowness_is_felt_although_every_request_succeeds(tmp_path: Path) -> None:
    found = harmed(evidence(tmp_path, **QUIET), 4_000, 9_000, 1.0, latency_us=400_000)
    moment = users_ms(found)
    assert moment is not None
    assert 4_000 <= moment < 4_200
    assert "p95 was 400 ms in that second" in judged(found).faults[0].users


def test_one_failure_alone_is_not_taken_for_the_fault(tmp_path: Path) -> None:
    found = evidence(tmp_path, **QUIET)
    assert users_ms(harmed(found, 3_000, 3_500, 0.01, outcome=Outcome.REFUSED)) is None


def test_what_was_as_bad_before_is_not_the_faults_doing(tmp_path: Path) -> None:
    found = evidence(tmp_path, **QUIET)
    before = harmed(found, -15_000, -13_000, 1.0, outcome=Outcome.TIMED_OUT)
    assert users_ms(harmed(before, 5_000, 5_800, 0.2, outcome=Outcome.TIMED_OUT)) is None


def test_harm_after_the_revert_is_not_felt_of_the_fault(tmp_path: Path) -> None:
    found = evidence(tmp_path, **QUIET)
    assert users_ms(harmed(found, 32_000, 40_000, 1.0, outcome=Outcome.TIMED_OUT)) is None


def test_with_few_requests_a_longer_stretch_is_looked_at(tmp_path: Path) -> None:
    found = evidence(tmp_path, "few-samples", **QUIET)
    assert "no 5 s was worse" in judged(found).faults[0].users


def test_it_never_weighs_on_the_verdict(tmp_path: Path) -> None:
    felt, unfelt = run(tmp_path / "a"), run(tmp_path / "b", outage_s=0.0, fault_latency_ms=0.0)
    assert felt.faults[0].users_ms is not None
    assert (felt.verdict, unfelt.verdict) == ("PASS", "PASS")


def test_where_nothing_was_injected_nothing_is_said(tmp_path: Path) -> None:
    assert {(fault.users_ms, fault.users) for fault in run(tmp_path, "unhealthy-baseline").faults} == {(None, "")}


def test_on_evidence_that_cannot_be_believed_it_says_so(tmp_path: Path) -> None:
    assert "on evidence that can't be believed" in run(tmp_path, "hogs").faults[0].users
