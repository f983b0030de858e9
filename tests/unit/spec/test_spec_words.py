"""What expressions may name: labels of metrics and alerts, and what is counted where the load is observed."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from stormdrill.model.expression import Expression
from stormdrill.model.system import AlertSource, Indicators, MetricSource, ServiceInstance, System
from stormdrill.spec.words import Words
from stormdrill.spec.yaml import parse

ALL = Indicators("web", good="ok", total="all", histogram="took", labels=("tier",))


def system(indicators: Indicators | None = None) -> System:
    return System(
        name="shop",
        entry="web",
        instances=(ServiceInstance("web", "web", ("x",)),),
        labels=("region",),
        metrics=(
            MetricSource("freshness", "web", "age_seconds", constants={"kind": "report"}),
            MetricSource("latency", "", promql="q", labels=("zone",), unit="ms"),
            MetricSource("share", "web", http="/x", unit="ratio"),
            MetricSource("heap", "", command=("x",), unit="bytes"),
            MetricSource("age", "", command=("x",)),
        ),
        alerts=(AlertSource("Down", "web", "alerts", ("pool",)), AlertSource("Slow", "", server="prometheus")),
        indicators=indicators,
    )


def read(text: str, indicators: Indicators | None = None, *, observed: bool = True) -> tuple[Expression | None, str]:
    """What `text` says, and the problem that it has."""
    document = parse("e.yaml", f"guard: '{text}'\n")
    words = Words(document, system(indicators), None, load=True, observed=observed)
    found = words.expression("guard")
    said = "; ".join(str(problem) for problem in document.problems)
    return (found[0] if found else None), said


@pytest.mark.parametrize(
    "text",
    [
        "freshness{kind=report, region=eu} < 90s",
        "latency{zone=a} < 400ms",
        "share{region=eu} > 20%",
        "heap < 150MB",
        "age < 3",
        "alert(Down{severity=page, owner=serving, runbook=region-loss, region=eu, pool=cpu}) within 10s",
        "alert(Slow{severity=page}) within 10s",
    ],
)
def test_what_a_source_has_may_be_asked(text: str) -> None:
    assert read(text)[1] == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("freshness{kind=api} < 90s", "every sample of freshness has kind=report; write report, or leave it out"),
        ("freshness{tier=1} < 90s", "unknown label tier; known: kind, region"),
        ("latency{region=eu} < 1s", "unknown label region; known: zone"),
        ("latency < 400", "a time needs its unit"),
        ("share > 0.2", "a share needs %"),
        ("alert(Down{sevrity=page}) within 10s", "unknown label sevrity; write severity"),
    ],
)
def test_what_it_has_not_is_refused_with_what_to_write(text: str, said: str) -> None:
    assert said in read(text)[1]


@pytest.mark.parametrize("text", ["success{tier=1, region=eu} > 98%", "p95 < 1s", "goodput > 1/s", "throughput > 1/s"])
def test_with_observed_load_what_is_counted_may_be_asked(text: str) -> None:
    assert read(text, ALL)[1] == ""


@pytest.mark.parametrize(
    ("text", "indicators", "said"),
    [
        (
            "success > 98%",
            None,
            "with load: observed, success needs what counts it; add indicators: {from: SERVICE, good",
        ),
        ("success > 98%", Indicators("web", total="x"), "add good: COUNTER, total: COUNTER to indicators in the file"),
        ("goodput > 1/s", Indicators("web", total="x"), "goodput needs what counts it"),
        ("throughput > 1/s", None, "add indicators: {from: SERVICE, total: COUNTER} to the file of the system shop"),
        ("p95 < 1s", Indicators("web", good="x", total="x"), "add histogram: NAME to indicators in the file"),
        ("jobs_lost = 0", ALL, "jobs_lost follows the jobs of a load of our own, and the load is observed; remove it"),
        ("completion_p95 < 1s", ALL, "completion_p95 follows the jobs"),
        ("success{kind=api} > 98%", ALL, "unknown label kind; known: region, tier"),
    ],
)
def test_what_nobody_counts_is_refused_with_what_to_add(text: str, indicators: Indicators | None, said: str) -> None:
    assert said in read(text, indicators)[1]


def test_throughput_may_be_counted_by_a_histogram() -> None:
    assert read("throughput > 1/s", Indicators("web", histogram="took"))[1] == ""


def test_a_load_of_ones_own_asks_for_no_indicators() -> None:
    assert read("success > 98%", observed=False)[1] == ""


@pytest.mark.parametrize(
    "text", ["share{region=us} > 20%", "success{tier=1, region=us} > 98%", "alert(Down{region=us}) within 10s"]
)
def test_a_label_of_instances_has_a_value_that_one_of_them_carries(text: str) -> None:
    carries = replace(system(ALL), instances=(ServiceInstance("web", "web", ("x",), {"region": "eu"}),))
    told = []
    for known in (system(ALL), carries):
        document = parse("e.yaml", f"guard: '{text}'\n")
        Words(document, known, None, load=True, observed=True).expression("guard")
        told.append("; ".join(f"{problem.what}; {problem.fix}" for problem in document.problems))
    assert told == ["", "no instance has region=us; known: eu"]
