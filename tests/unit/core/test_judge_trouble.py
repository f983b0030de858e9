"""What can go wrong with a load: each trouble has its verdict, which is never PASS, and its sentence.

A lost worker and clocks that differ are in `test_judge_workers.py`, a starved host in `test_judge_verdicts.py`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from judging import asking, evidence, judged, one, with_events
from msgspec.structs import replace
from numpy.typing import NDArray

from stormdrill.core.evidence import REFUSED, TIMED_OUT, Evidence, requests_of
from stormdrill.core.rows import Rows
from stormdrill.core.validity import Validity
from stormdrill.model import event as ev
from stormdrill.model.experiment import Objective
from stormdrill.store.records import DTYPE
from synthetic_run import comparison, objective

SUCCESS = objective("fault", comparison("success > 10%", "success", ">", 10.0, "%"))
P95 = objective("fault", comparison("p95 < 9s", "p95", "<", 9.0, "s"))
"""A limit beyond the patience of every client."""
GOODPUT = objective("fault", comparison("goodput > 0.1/s", "goodput", ">", 0.1, "/s"))
THROUGHPUT = objective("fault", comparison("throughput > 0.1/s", "throughput", ">", 0.1, "/s"))
RELATIVE = objective("fault", comparison("p95 < 2 x baseline", "p95", "<", 2.0, relative=True))
EVERY = (SUCCESS, P95, GOODPUT, THROUGHPUT, RELATIVE)


def _rows(found: Evidence) -> NDArray[np.void]:
    rows = Rows.of(found.records[0].rows)
    made = np.zeros(len(rows), dtype=np.dtype(DTYPE))
    for name, _ in DTYPE:
        made[name] = rows[name]
    return made


def _with(found: Evidence, rows: NDArray[np.void]) -> Evidence:
    return replace(found, records=(replace(found.records[0], rows=rows),))


def _ended_with(found: Evidence, scheduled: int) -> Evidence:
    def change(recorded: ev.Recorded) -> ev.Recorded:
        if not isinstance(recorded.event, ev.LoadEnded):
            return recorded
        return dataclasses.replace(
            recorded, event=dataclasses.replace(recorded.event, scheduled=scheduled, sent=scheduled)
        )

    return with_events(found, change)


@pytest.mark.parametrize("asked", EVERY)
def test_nothing_is_shown_by_no_request(tmp_path: Path, asked: Objective) -> None:
    found = evidence(tmp_path)
    verdict = one(_ended_with(_with(found, _rows(found)[:0]), 0), asked)
    assert verdict.verdict == "INCONCLUSIVE"
    assert any(why in verdict.sentence for why in ("no samples", "no such request", "no baseline to compare with"))


@pytest.mark.parametrize("asked", EVERY)
@pytest.mark.parametrize(
    ("outcome", "status", "latency_us"), [(REFUSED, 0, 900), (0, 500, 900), (0, 503, 900), (TIMED_OUT, 0, 3_250_000)]
)
def test_requests_that_all_fail_pass_no_objective(
    tmp_path: Path, asked: Objective, outcome: int, status: int, latency_us: int
) -> None:
    found = evidence(tmp_path)
    rows = _rows(found)
    during = rows["intended_us"] > 20_000_000
    rows["outcome"][during], rows["status"][during], rows["latency_us"][during] = outcome, status, latency_us
    verdict = one(_with(found, rows), asked)
    assert verdict.verdict == ("FAIL" if asked is SUCCESS else verdict.verdict)
    assert verdict.verdict != "PASS"
    if asked in (GOODPUT, THROUGHPUT):
        assert "were answered" in verdict.sentence
        assert ": none of 1,722 " in verdict.sentence


def test_nothing_served_of_all_that_was_asked_fails_a_rate_and_keeps_no_upper_limit(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    rows = _rows(found)
    during = rows["intended_us"] > 20_000_000
    rows["status"][during] = 503
    asked = objective("fault", comparison("goodput > 1/s", "goodput", ">", 1.0, "/s"))
    assert one(_with(found, rows), asked).verdict == "FAIL"
    below = objective("fault", comparison("goodput < 9/s", "goodput", "<", 9.0, "/s"))
    assert one(_with(found, rows), below).verdict == "INCONCLUSIVE"


def test_a_target_that_never_answers_keeps_no_limit_that_nobody_waited_for(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    rows = _rows(found)
    rows["outcome"], rows["status"], rows["latency_us"] = TIMED_OUT, 0, 3_250_000
    verdict = one(_with(found, rows), P95)
    assert verdict.verdict == "FAIL"
    assert "p95 was ∞ s over 1,722 admitted requests" in verdict.sentence


def test_a_few_time_outs_change_no_quantile_that_lies_below_them(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    rows = _rows(found)
    rows["outcome"], rows["status"], rows["latency_us"] = 0, 200, 50_000
    rows["outcome"][::100], rows["latency_us"][::100] = TIMED_OUT, 3_250_000
    assert one(_with(found, rows), P95).verdict == "PASS"


def test_a_request_that_is_recorded_twice_makes_the_records_invalid(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    rows = _rows(found)
    verdict = one(_with(found, np.concatenate([rows, rows[-10:]])), SUCCESS)
    assert verdict.verdict == "INVALID"
    assert "4,446 requests are recorded and 4,436 were scheduled" in verdict.sentence


def test_a_deadline_is_a_latency_that_is_asked_for(tmp_path: Path) -> None:
    found = asking(evidence(tmp_path), SUCCESS, P95)
    rows = _rows(found)
    rows["lag_us"] = 150_000  # a tenth of 1 s, the tightest deadline, is the most
    assert judged(_with(found, rows)).verdict == "INVALID"
    assert "lag p99 150.0 ms, 100.0 ms is the most" in one(_with(found, rows), P95).sentence


def test_without_a_record_the_deadlines_of_every_part_of_the_profile_say_how_late_a_generator_may_be(
    tmp_path: Path,
) -> None:
    found = asking(evidence(tmp_path), P95)
    empty = Validity(found.plan, (), (), requests_of(()), live=True)
    assert empty.lag_limit_ms == 100.0


def test_a_baseline_that_the_generator_made_slow_is_no_limit_to_hold_to(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    rows = _rows(found)
    first_s, fault_s = 6e6, 25e6  # within warm-up and before the first injection
    baseline = (rows["intended_us"] > first_s) & (rows["intended_us"] < fault_s)
    calm = one(_with(found, rows), RELATIVE)
    assert "late" not in calm.sentence
    rows["lag_us"][baseline] = 90_000
    rows["latency_us"][baseline] += 90_000
    late = one(_with(found, rows), RELATIVE)
    assert late.verdict == "INVALID"
    assert "the generator was late in the baseline: lag p99 90.0 ms" in late.sentence or "lag p99 90.0" in late.sentence


def test_lag_is_held_to_a_relative_limit_in_the_window_too(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    rows = _rows(found)
    rows["lag_us"][rows["intended_us"] > 25_000_000] = 20_000
    verdict = one(_with(found, rows), RELATIVE)
    assert verdict.verdict == "INVALID"
    assert "the generator was late" in verdict.sentence
