"""TTD, TTM, TTR by definition; the error budget."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import evidence, judged, run, with_events
from msgspec.structs import replace

from stormdrill.core.budget import budgets
from stormdrill.model.system import Traffic
from stormdrill.model.verdict import Times


def test_times_count_from_the_first_inject_call(tmp_path: Path) -> None:
    times = run(tmp_path).times
    assert times.bit_s == 0.002
    assert times.detect_s == 2.4
    assert times.reverted_s == pytest.approx(30.0, abs=0.05)


@pytest.mark.parametrize("outage_s", [2.0, 6.0])
def test_mitigated_is_when_the_fault_objectives_held_for_good(tmp_path: Path, outage_s: float) -> None:
    times = run(tmp_path, outage_s=outage_s).times
    assert times.mitigate_s == pytest.approx(outage_s, abs=0.6)
    assert times.recover_s == pytest.approx(outage_s, abs=0.6)


def test_harm_until_the_revert_was_recovered_from_but_never_mitigated(tmp_path: Path) -> None:
    times = run(tmp_path, "fail").times
    assert times.mitigate_s is None
    assert times.recover_s == pytest.approx(30.0, abs=0.6)


def test_what_did_not_happen_has_no_time(tmp_path: Path) -> None:
    assert run(tmp_path, "unhealthy-baseline").times == Times()
    assert run(tmp_path / "silent", "no-alert").times.detect_s is None
    assert run(tmp_path / "dull", "not-bitten").times.bit_s is None


def test_the_budget_is_what_the_objective_allows_to_fail(tmp_path: Path) -> None:
    found = evidence(tmp_path, "fail")
    rows = {(item.phase, item.name): item for item in budgets(found.plan, found.events, found.records)}
    spent = rows["fault after 10s", "success{tier=1} > 95%"]
    assert spent.allowed == 0.05
    assert spent.spent == pytest.approx(spent.bad / (0.05 * spent.n), abs=1e-3)
    assert spent.spent > 5
    assert rows["baseline", "success{tier=1} > 98%"].spent == 0.0
    assert rows["fault after 10s", "p95{tier=1} < 400ms"].spent > 1
    assert len(rows) == 4


def test_a_declared_traffic_tells_what_the_failure_costs_of_a_month(tmp_path: Path) -> None:
    found = evidence(tmp_path, "fail")
    system = replace(found.plan.system, traffic=Traffic(1000.0))
    rows = budgets(replace(found.plan, system=system), found.events, found.records)
    row = next(item for item in rows if item.name == "success{tier=1} > 95%")
    month = row.spending
    assert month is not None
    assert month.window_s == 30 * 86400
    assert month.rate_per_s == pytest.approx(500, rel=0.1)  # half of the load is tier 1
    assert month.budget == pytest.approx(month.rate_per_s * month.window_s * 0.05)
    assert month.cost == pytest.approx(month.rate_per_s * row.length_s * row.bad / row.n, rel=1e-3)
    assert month.share == pytest.approx(month.cost / month.budget, rel=1e-3)
    assert month.burn == pytest.approx(row.spent, abs=1e-3)
    assert month.lasts_s == pytest.approx(month.window_s / month.burn, rel=1e-3)
    assert month.minute * (month.lasts_s or 0) / 60 == pytest.approx(1.0, rel=1e-3)
    idle = next(item for item in rows if item.phase == "baseline")
    assert idle.spending is not None
    assert (idle.spending.burn, idle.spending.lasts_s, idle.spending.cost) == (0.0, None, 0.0)


def test_a_declared_traffic_changes_no_verdict(tmp_path: Path) -> None:
    found = evidence(tmp_path, "fail")
    declared = replace(found, plan=replace(found.plan, system=replace(found.plan.system, traffic=Traffic(9.0))))
    assert judged(declared) == judged(found)


def test_a_phase_never_reached_has_no_budget(tmp_path: Path) -> None:
    found = evidence(tmp_path, "unhealthy-baseline")
    assert {item.phase for item in budgets(found.plan, found.events, found.records)} == {"baseline"}


def test_ttr_of_a_run_without_requests_is_unknown(tmp_path: Path) -> None:
    found = with_events(evidence(tmp_path), lambda recorded: recorded)
    assert judged(replace(found, records=())).times.recover_s is None
