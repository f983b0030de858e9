"""Pictures are drawn from what the checks judge by, and from nothing else."""

from __future__ import annotations

import pytest

from pressing import checked, named, retold
from stormdrill.core.backpressure.curves import (
    MOST_POINTS,
    admission_curves,
    drain_curves,
    goodput_curve,
    hysteresis_curves,
    queue_curves,
    retry_curve,
)
from stormdrill.core.case import Case
from synthetic_overload import GATEWAY, case_of, simulate
from synthetic_run import make_run


def test_goodput_has_a_point_a_step_and_the_capacity_between_two() -> None:
    found = goodput_curve(case_of(simulate()))
    assert [point.across for point in found.points] == sorted(point.across for point in found.points)
    assert found.carried_per_s is not None
    assert found.broke_per_s is not None
    assert found.carried_per_s < found.broke_per_s
    assert all(point.up <= 1.1 * point.across for point in found.points)  # a little was asked before its step


def test_each_tier_has_a_line_in_percent() -> None:
    found = admission_curves(case_of(simulate()))
    assert [one.tier for one in found] == ["1", "2", "3"]
    assert all(0 <= point.up <= 100 for one in found for point in one.points)
    assert found[0].points[-1].up > found[2].points[-1].up
    assert admission_curves(case_of(simulate(steps=())))[0].points


def test_a_queue_is_drawn_with_its_limit_and_its_highest_point() -> None:
    simulated = simulate(every_s=0.1)
    found = {one.name: one for one in queue_curves(case_of(simulated))}
    gateway = found[GATEWAY]
    assert len(gateway.points) <= MOST_POINTS
    highest = named(checked(simulated, "bounded-queue"), f"depth of {GATEWAY}")
    assert max(point.up for point in gateway.points) == highest.value
    assert {point.up for point in gateway.limit} == {highest.limit}


def test_hops_multiply_up_to_the_figure_of_the_check() -> None:
    simulated = simulate(hop_tries=1.4)
    found = retry_curve(case_of(simulated))
    assert [one.place for one in found] == ["the client", "edge", "gateway"]
    product = named(checked(simulated, "retry-amplification"), "attempts per request, all hops together").value
    assert found[-1].product == pytest.approx(product, rel=1e-5)


def test_the_drain_is_drawn_with_what_was_allowed() -> None:
    simulated = simulate(slow_drain=0.2)
    (found,) = drain_curves(case_of(simulated))
    assert found.bound is not None
    assert found.bound[1].across == pytest.approx(
        named(checked(simulated, "drain"), "time to drain after surge 1").limit, rel=1e-5
    )
    assert found.gone_s is None
    assert drain_curves(case_of(simulate()))[0].gone_s is not None


def test_the_hysteresis_goes_up_and_comes_down() -> None:
    (found,) = hysteresis_curves(case_of(simulate(metastable=True)))
    assert found.roles == ("base", "trigger", "after", "down")
    base, _, after, _ = found.points
    assert after.up < 0.9 * base.up


def test_a_run_without_any_of_it_draws_nothing(tmp_path: object) -> None:
    from stormdrill.store.evidence import load

    evidence = load(make_run(tmp_path / "run"))  # type: ignore[operator]
    case = Case(evidence.plan, evidence.events, evidence.records, evidence.ledger)
    assert goodput_curve(case).points == ()
    assert admission_curves(case) == ()
    assert queue_curves(case) == ()
    assert hysteresis_curves(case) == ()


def test_without_readings_only_the_queues_are_missing() -> None:
    evidence = retold(simulate().evidence, (), without=["queue_depth"])
    case = Case(evidence.plan, evidence.events, evidence.records, evidence.ledger)
    assert queue_curves(case) == ()
    assert drain_curves(case) == ()
    assert goodput_curve(case).points
