"""What nobody could look at is neither over nor begun, and what was told once and is told no more is missed."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import asking, evidence, judged, one, with_events
from test_judge_observed import SUCCESS, counter, observed, steady

from stormdrill.core.budget import budgets
from stormdrill.core.combine import repeat_of
from stormdrill.core.evidence import Evidence
from stormdrill.core.judge_observed import GOOD, TOTAL
from stormdrill.model import event as ev
from stormdrill.model.expression import AlertWithin
from synthetic_run import START_MS, comparison, objective

INJECTED_MS = START_MS + 27_012.0
Told = tuple[float, str, bool]
ASKED = objective("fault", AlertWithin("alert(RegionDown) within 30s", "RegionDown", {}, 30.0))


def told(tmp_path: Path, *said: Told) -> Evidence:
    """`alert` or `read`, so many seconds after the inject: it fires or is over, the source can be read or can't."""
    more = []
    for after_s, what, flag in said:
        event: ev.Event = ev.AlertChanged("RegionDown", flag, {"region": "eu"}, "edge-1")
        if what == "read":
            event = ev.Reading("alerts", "edge-1", 1.0 if flag else None, {}, "" if flag else "no answer")
        more.append(ev.Recorded(20_000 + len(more), "", INJECTED_MS + after_s * 1000, event))
    others = (ev.AlertChanged, ev.Reading)
    return with_events(evidence(tmp_path), lambda item: None if isinstance(item.event, others) else item, more)


def test_an_alert_that_fired_before_does_not_begin_again_because_nobody_could_look(tmp_path: Path) -> None:
    blind: list[Told] = [(3.0, "read", False), (4.0, "alert", False), (6.0, "read", True), (6.0, "alert", True)]
    found = one(told(tmp_path, (-20.0, "read", True), (-15.0, "alert", True), *blind), ASKED)
    assert found.verdict == "INCONCLUSIVE"
    assert "was firing before, and did not begin again" in found.sentence


def test_one_that_is_seen_over_and_begins_again_did_begin(tmp_path: Path) -> None:
    seen: list[Told] = [(-20.0, "read", True), (-15.0, "alert", True), (3.0, "alert", False), (6.0, "alert", True)]
    assert one(told(tmp_path, *seen), ASKED).verdict == "PASS"


def test_an_alert_first_seen_when_its_source_is_read_again_may_be_an_old_one(tmp_path: Path) -> None:
    found = one(told(tmp_path, (-2.0, "read", False), (5.0, "read", True), (5.0, "alert", True)), ASKED)
    assert found.verdict == "INCONCLUSIVE"
    assert "was firing when it could be read again, 5 s after the first inject" in found.sentence


def test_a_series_that_vanishes_is_missed_though_another_is_still_told(tmp_path: Path) -> None:
    def readings(until_s: float) -> list[ev.Recorded]:
        return [
            ev.Recorded(
                30_000 + second, "", START_MS + second * 1000, ev.Reading("depth", "", 3.0, {"region": region}, "")
            )
            for second in range(78)
            for region in ("eu", "us")
            if region == "us" or second < until_s
        ]

    asked = objective("fault", comparison("depth < 50", "depth", "<", 50.0, ""))
    sound, gone = (with_events(evidence(tmp_path / f"{end}"), lambda item: item, readings(end)) for end in (99, 40))
    assert one(sound, asked).verdict == "PASS"
    found = one(gone, asked)
    assert found.verdict == "INCONCLUSIVE"
    assert "region=eu gave no fresh reading" in found.sentence


def test_a_counter_that_expires_is_no_restart_of_its_process(tmp_path: Path) -> None:
    busy = counter(TOTAL, "edge-1", steady(30, 1e6), tier="1") + counter(GOOD, "edge-1", steady(30, 1e6), tier="1")
    idle = [item for item in counter(TOTAL, "edge-1", steady(0, 5.0), tier="3") if item.mono_ms < START_MS + 40_000]
    found = one(observed(tmp_path, busy + idle), SUCCESS)
    assert found.verdict == "INCONCLUSIVE"
    assert "tier=3 gave no fresh reading" in found.sentence
    assert found.n < 2000


@pytest.mark.parametrize(("unit", "limit_s"), [("m", 300.0), ("h", 18_000.0)])
def test_limits_in_minutes_and_hours_are_shown_in_seconds(unit: str, limit_s: float, tmp_path: Path) -> None:
    text = comparison(f"queue_age < 5{unit}", "queue_age", "<", limit_s, unit)
    found = one(evidence(tmp_path), objective("fault", text))
    assert (found.verdict, found.limit, found.unit) == ("PASS", limit_s, "s")


def test_what_a_single_run_leaves_out_at_its_edges_repeats_leave_out_too(tmp_path: Path) -> None:
    """Where clocks are known within some milliseconds only."""
    found = evidence(tmp_path)
    clock = ev.LoadClockCompared("alpha", found.records[0].file, "before", "", 0.0, 40.0, 80.0)
    unsure = with_events(found, lambda item: item, [ev.Recorded(40_000, "", START_MS, clock)])
    asked = objective("fault", comparison("success > 50%", "success", ">", 50.0, "%"))
    of_all, of_sure = (asking(one, asked) for one in (found, unsure))
    repeat = repeat_of(of_sure.plan, of_sure.events, of_sure.records, of_sure.ledger)
    (drawn,), alone = repeat.drawn, judged(of_sure).objectives[0].n
    assert drawn is not None
    assert int(drawn.fault.total.sum()) == alone < judged(of_all).objectives[0].n
    assert budgets(of_sure.plan, of_sure.events, of_sure.records)[0].n == alone
