"""Traffic that nobody here sends: judged by what the system counts of it, and by nothing that it doesn't tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from judging import asking, evidence, judged
from msgspec.structs import replace

from stormdrill.core.budget import budgets
from stormdrill.core.evidence import Evidence
from stormdrill.core.judge_observed import BUCKET, GOOD, TOTAL
from stormdrill.model import event as ev
from stormdrill.model.experiment import Objective
from stormdrill.model.system import Indicators, Traffic
from stormdrill.model.verdict import ObjectiveVerdict
from synthetic_run import START_MS, comparison, objective

KNOWN = Indicators("edge", good="ok_total", total="all_total", histogram="took_seconds", labels=("tier",))
END_MS = START_MS + 78_000
FAULT_MS, RECOVERY_MS = START_MS + 27_012.0, START_MS + 57_021.0
SUCCESS = objective("fault", comparison("success > 95%", "success", ">", 95.0, "%"))
EVERY_MS = 1000.0
Value = Callable[[float], float]
"""What a counter stands at, so many seconds after it began."""


def counter(metric: str, instance: str, value: Value, **labels: str) -> list[ev.Recorded]:
    """A look each second, from before the warm-up to after the end."""
    times = [START_MS + index * EVERY_MS for index in range(int((END_MS - START_MS) / EVERY_MS))]
    return [look(metric, instance, at_ms, value((at_ms - START_MS) / 1000), **labels) for at_ms in times]


def look(metric: str, instance: str, at_ms: float, value: float | None, detail: str = "", **labels: str) -> ev.Recorded:
    return ev.Recorded(10_000, "", at_ms, ev.Reading(metric, instance, value, labels, detail))


def steady(per_s: float, begun: float = 0.0) -> Value:
    return lambda at_s: begun + round(per_s * at_s)


def observed(tmp_path: Path, readings: Iterable[ev.Recorded], known: Indicators | None = KNOWN) -> Evidence:
    found = evidence(tmp_path)
    experiment = replace(found.plan.experiment, load=None, observed=True)
    plan = replace(found.plan, experiment=experiment, system=replace(found.plan.system, indicators=known))
    return replace(found, plan=plan, records=(), ledger=None, events=(*found.events, *readings))


def one(found: Evidence, asked: Objective) -> ObjectiveVerdict:
    return judged(asking(found, asked)).objectives[0]


def served(good_per_s: float, per_s: float, *instances: str, begun: float = 0.0) -> list[ev.Recorded]:
    return [
        reading
        for instance in instances or ("edge-1", "edge-2")
        for reading in (
            *counter(TOTAL, instance, steady(per_s, begun)),
            *counter(GOOD, instance, steady(good_per_s, begun)),
        )
    ]


@pytest.mark.parametrize("begun", [0.0, 1e9])
def test_success_is_the_share_of_what_was_added_in_the_window(begun: float, tmp_path: Path) -> None:
    found = one(observed(tmp_path, served(29.7, 30.0, begun=begun)), SUCCESS)
    assert found.verdict == "PASS"
    assert found.value == pytest.approx(99.0, abs=0.1)
    assert found.n == pytest.approx(1800, abs=61), "30 s of both instances, and at the edges what most of it lies in"
    assert found.low is not None
    assert "requests that edge counted were served well during the fault; > 95% was asked" in found.sentence


def test_what_fails_in_the_window_fails_and_what_fails_outside_does_not(tmp_path: Path) -> None:
    def broken_between(start_ms: float, end_ms: float) -> Value:
        first, last = (start_ms - START_MS) / 1000, (end_ms - START_MS) / 1000
        return lambda at_s: round(30 * at_s - 10 * max(0.0, min(at_s, last) - first))

    def with_good(good: Value) -> Evidence:
        return observed(tmp_path, counter(TOTAL, "edge-1", steady(30)) + counter(GOOD, "edge-1", good))

    assert one(with_good(broken_between(FAULT_MS, RECOVERY_MS)), SUCCESS).verdict == "FAIL"
    assert one(with_good(broken_between(START_MS, FAULT_MS - 2000)), SUCCESS).verdict == "PASS"
    assert one(with_good(broken_between(RECOVERY_MS + 2000, END_MS)), SUCCESS).verdict == "PASS"


def test_a_restart_counts_from_nothing_and_is_told(tmp_path: Path) -> None:
    def restarted(per_s: float) -> Value:
        return lambda at_s: round(per_s * (at_s if at_s < 40 else at_s - 40))

    readings = counter(TOTAL, "edge-1", restarted(30)) + counter(GOOD, "edge-1", restarted(29.7))
    found = one(observed(tmp_path, readings), SUCCESS)
    assert (found.verdict, found.n) == ("PASS", pytest.approx(900, abs=61))
    assert "(1 restart of counters)" in found.sentence


def test_of_one_process_no_counter_outlives_a_restart(tmp_path: Path) -> None:
    """The failures have passed what they stood at before it when they are looked at again."""
    fails = counter(TOTAL, "edge-1", lambda at_s: 2.0 if at_s < 40 else 102.0, tier="2")
    whole = counter(TOTAL, "edge-1", lambda at_s: round(30 * (at_s if at_s < 40 else at_s - 40)), tier="1")
    good = counter(GOOD, "edge-1", lambda at_s: round(30 * (at_s if at_s < 40 else at_s - 40)), tier="1")
    readings = fails + whole + good
    asked = objective("fault", comparison("success{tier=2} > 95%", "success", ">", 95.0, "%", labels={"tier": "2"}))
    assert one(observed(tmp_path, readings), asked).n == 102


def test_a_series_that_appears_with_its_first_request_began_at_nothing(tmp_path: Path) -> None:
    errors = [item for item in counter(TOTAL, "edge-1", steady(10), tier="2") if item.mono_ms > FAULT_MS + 2000]
    first = next(item.event.value for item in errors if isinstance(item.event, ev.Reading))
    assert first
    readings = counter(TOTAL, "edge-1", steady(30), tier="1") + counter(GOOD, "edge-1", steady(30), tier="1") + errors
    found = one(observed(tmp_path, readings), SUCCESS)
    assert found.verdict == "FAIL"
    assert found.value == pytest.approx(900 / (900 + first + 270) * 100, abs=1)


def test_labels_choose_series_and_instances(tmp_path: Path) -> None:
    readings = [
        *counter(TOTAL, "edge-1", steady(30), tier="1"),
        *counter(GOOD, "edge-1", steady(30), tier="1"),
        *counter(TOTAL, "edge-1", steady(10), tier="3"),
        *counter(GOOD, "edge-1", steady(1), tier="3"),
    ]

    def of(**labels: str) -> ObjectiveVerdict:
        asked = comparison("success{…} > 95%", "success", ">", 95.0, "%", labels=labels)
        return one(observed(tmp_path, readings), objective("fault", asked))

    assert of(tier="1").verdict == "PASS"
    assert "tier-1 requests that edge counted" in of(tier="1").sentence
    assert of(tier="3").verdict == "FAIL"
    assert of(instance="edge-1", tier="1").verdict == "PASS"
    assert of(instance="edge-2").verdict == "INCONCLUSIVE"


def test_a_gap_between_looks_is_inconclusive_and_named(tmp_path: Path) -> None:
    readings = served(30, 30)
    silent = [
        look(item.event.metric, "edge-1", item.mono_ms, None, "127.0.0.1:1: connection refused")
        if isinstance(item.event, ev.Reading)
        and item.event.instance == "edge-1"
        and FAULT_MS + 5000 < item.mono_ms < FAULT_MS + 9000
        else item
        for item in readings
    ]
    found = one(observed(tmp_path, silent), SUCCESS)
    assert found.verdict == "INCONCLUSIVE"
    assert "edge-1 gave no fresh reading for 5.0 s" in found.sentence


def test_an_instance_that_the_fault_keeps_from_telling_leaves_no_gap(tmp_path: Path) -> None:
    known = replace(KNOWN, service="gateway")
    readings = served(30, 30, "gateway-eu", "gateway-us")
    silent = [
        item
        for item in readings
        if not (
            isinstance(item.event, ev.Reading)
            and item.event.instance == "gateway-eu"
            and FAULT_MS < item.mono_ms < RECOVERY_MS
        )
    ]
    assert one(observed(tmp_path, silent, known), SUCCESS).verdict == "PASS"


@pytest.mark.parametrize(
    ("readings", "said"),
    [
        ([], "nobody read what platform counts"),
        (counter(TOTAL, "edge-1", steady(0)) + counter(GOOD, "edge-1", steady(0)), "could not be measured"),
        (
            [look(TOTAL, "edge-1", START_MS + at * 1000, None, "line 1 is not a sample: '<html>'") for at in range(70)],
            "there were no two looks at its counters: line 1 is not a sample: '<html>'",
        ),
        (served(36, 30), "the counters don't speak of the same requests"),
    ],
)
def test_what_nobody_counted_passes_nothing(readings: list[ev.Recorded], said: str, tmp_path: Path) -> None:
    found = one(observed(tmp_path, readings), SUCCESS)
    assert found.verdict == "INCONCLUSIVE"
    assert said in found.sentence


def test_rates_are_those_of_the_counters(tmp_path: Path) -> None:
    readings = served(24, 30)
    goodput = one(observed(tmp_path, readings), objective("fault", comparison("g", "goodput", ">", 45.0, "/s")))
    assert (goodput.verdict, goodput.value) == ("PASS", pytest.approx(48, rel=0.02))
    throughput = one(observed(tmp_path, readings), objective("fault", comparison("t", "throughput", ">", 55.0, "/s")))
    assert (throughput.verdict, throughput.value) == ("PASS", pytest.approx(60, rel=0.02))
    few = one(observed(tmp_path, readings), objective("fault", comparison("t", "throughput", ">", 70.0, "/s")))
    assert few.verdict == "FAIL"


def histogram(per_s: float, *below: tuple[str, float]) -> list[ev.Recorded]:
    """Of one instance, the share of requests up to each bound."""
    return [
        reading
        for bound, share in (*below, ("+Inf", 1.0))
        for reading in counter(BUCKET, "edge-1", steady(per_s * share), le=bound)
    ]


def p95(tmp_path: Path, limit_s: float, readings: list[ev.Recorded], op: str = "<") -> ObjectiveVerdict:
    asked = comparison(f"p95 {op} {limit_s}s", "p95", op, limit_s, "ms")
    return one(observed(tmp_path, readings), objective("fault", asked))


def test_a_limit_that_is_a_bound_is_judged_exactly(tmp_path: Path) -> None:
    fast, slow = histogram(100, ("0.1", 0.5), ("0.4", 0.98), ("1.0", 1)), histogram(100, ("0.1", 0.5), ("0.4", 0.9))
    met = p95(tmp_path, 0.4, fast)
    assert (met.verdict, met.value, met.high) == ("PASS", 400.0, 400.0)
    assert "p95 was at most 400 ms [100, 400] over 3,0" in met.sentence
    assert "the histogram knows" not in met.sentence
    assert p95(tmp_path, 0.4, slow).verdict == "FAIL"
    assert p95(tmp_path, 0.4, slow, ">").verdict == "PASS"


@pytest.mark.parametrize(
    ("below", "verdict"),
    [((0.98, 0.99), "PASS"), ((0.90, 0.99), "INCONCLUSIVE"), ((0.85, 0.90), "FAIL")],
)
def test_a_limit_between_two_bounds_passes_by_the_lower_and_fails_by_the_upper(
    below: tuple[float, float], verdict: str, tmp_path: Path
) -> None:
    found = p95(tmp_path, 0.5, histogram(100, ("0.4", below[0]), ("1.0", below[1])))
    assert found.verdict == verdict
    assert "(the histogram knows 0.4 s and 1 s, not 0.5 s)" in found.sentence


def test_beyond_the_last_bound_nothing_is_known(tmp_path: Path) -> None:
    found = p95(tmp_path, 5.0, histogram(100, ("0.4", 0.5), ("1.0", 0.9)))
    assert (found.verdict, found.value, found.high) == ("INCONCLUSIVE", None, None)
    assert "knows 1 s and nothing beyond, not 5 s" in found.sentence


def test_the_fewest_samples_are_those_of_any_quantile(tmp_path: Path) -> None:
    found = p95(tmp_path, 0.4, histogram(1.8, ("0.4", 1.0)))
    assert found.verdict == "INCONCLUSIVE"
    assert "72 are the fewest that can show it" in found.sentence
    assert p95(tmp_path, 0.4, histogram(4, ("0.4", 1.0))).verdict == "PASS"


def test_a_latency_may_be_compared_with_the_baselines_bounds(tmp_path: Path) -> None:
    asked = comparison("p95 < 3 x baseline", "p95", "<", 3.0, relative=True)
    readings = histogram(100, ("0.1", 0.9), ("0.2", 0.99), ("0.25", 1.0))
    found = one(observed(tmp_path, readings), objective("fault", asked))
    assert found.verdict == "PASS", "0.2 s at most, and more than 0.1 s before"
    twice = comparison("p95 < 1.5 x baseline", "p95", "<", 1.5, relative=True)
    assert one(observed(tmp_path, readings), objective("fault", twice)).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("readings", "said"),
    [
        (counter(BUCKET, "edge-1", steady(50), le="0.4"), "lacks its last bucket, le=+Inf"),
        (histogram(100, ("0.4", 0.9), ("1.0", 0.5)), "the histogram counts fewer up to 1.0 than below it"),
    ],
)
def test_what_is_no_histogram_tells_no_latency(readings: list[ev.Recorded], said: str, tmp_path: Path) -> None:
    found = p95(tmp_path, 0.4, readings)
    assert found.verdict == "INCONCLUSIVE"
    assert said in found.sentence


@pytest.mark.parametrize("metric", ["jobs_lost", "completion_p95", "p95", "goodput", "success"])
def test_what_the_indicators_do_not_tell_is_not_measured(metric: str, tmp_path: Path) -> None:
    known = Indicators("edge", total="all_total")
    asked = objective("fault", comparison(metric, metric, "<", 1.0))
    found = one(observed(tmp_path, served(30, 30), known), asked)
    assert found.verdict == "INCONCLUSIVE"
    assert f"nothing counts {metric} of observed traffic" in found.sentence


def test_without_indicators_nothing_is_measured(tmp_path: Path) -> None:
    assert "names no indicators" in one(observed(tmp_path, served(30, 30), None), SUCCESS).sentence


def test_what_the_counters_tell_has_an_error_budget_too(tmp_path: Path) -> None:
    histogram = [
        reading
        for bound, per_s in (("0.1", 27.0), ("0.5", 29.0), ("+Inf", 30.0))
        for reading in counter(BUCKET, "edge-1", steady(per_s), le=bound)
    ]
    found = observed(tmp_path, [*served(29.4, 30.0, "edge-1"), *histogram])
    system = replace(found.plan.system, traffic=Traffic(40.0, 30 * 86400.0))
    for asked, allowed, share in (
        (SUCCESS, 0.05, 0.02),
        (objective("fault", comparison("p95 < 500ms", "p95", "<", 0.5, "ms")), 0.05, 1 / 30),
        (objective("fault", comparison("p95 < 400ms", "p95", "<", 0.4, "ms")), 0.05, 3 / 30),
    ):
        plan = replace(asking(found, asked).plan, system=system)
        (row,) = budgets(plan, found.events, found.records)
        assert (row.allowed, row.bad / row.n) == (allowed, pytest.approx(share, abs=0.005))
        assert row.spending is not None
        assert row.spending.burn == pytest.approx(share / allowed, abs=0.1)
        assert row.spending.rate_per_s == 40.0


def test_counters_in_doubt_have_no_budget(tmp_path: Path) -> None:
    gap = [item for item in served(29.4, 30.0, "edge-1") if not FAULT_MS + 5000 < item.mono_ms < FAULT_MS + 15_000]
    found = asking(observed(tmp_path, gap), SUCCESS)
    assert budgets(found.plan, found.events, found.records) == ()
