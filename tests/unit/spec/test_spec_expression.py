"""What expressions mean, and what is said about those that mean nothing."""

from __future__ import annotations

import pytest

from stormdrill.model.expression import AlertWithin, Comparison
from stormdrill.spec.expression import ExpressionError, parse_expression, show


def test_a_share_is_read_in_percent() -> None:
    assert parse_expression("success{tier=1} > 98%") == Comparison(
        text="success{tier=1} > 98%", metric="success", op=">", limit=98.0, unit="%", labels={"tier": "1"}
    )


def test_a_latency_is_read_in_seconds_and_remembers_its_unit() -> None:
    found = parse_expression("p99.9 <= 400ms within 2m")
    assert found == Comparison(
        text="p99.9 <= 400ms within 2m", metric="p99.9", op="<=", limit=0.4, unit="ms", within_s=120.0
    )


def test_a_rate_may_be_written_a_minute() -> None:
    found = parse_expression("goodput{kind=api} >= 90/m for 10s")
    assert isinstance(found, Comparison)
    assert (found.limit, found.unit, found.for_s) == (1.5, "/m", 10.0)


def test_a_limit_may_be_a_multiple_of_the_baseline() -> None:
    found = parse_expression("p95 < 1.5 x baseline after 5s")
    assert isinstance(found, Comparison)
    assert (found.limit, found.relative, found.unit, found.after_s) == (1.5, True, "", 5.0)


def test_an_alert_may_have_labels_and_a_time() -> None:
    assert parse_expression('alert(RegionDown{region="eu", tier=1}) within 10s') == AlertWithin(
        text='alert(RegionDown{region="eu", tier=1}) within 10s',
        alert="RegionDown",
        labels={"region": "eu", "tier": "1"},
        within_s=10.0,
    )


def test_blanks_don_t_matter_and_are_folded_in_the_name() -> None:
    assert parse_expression("jobs_lost   =  0") == parse_expression("jobs_lost = 0")
    assert parse_expression("success{ tier = 1 }>98%").labels == {"tier": "1"}


@pytest.mark.parametrize("metric", ["queue_depth", "p50", "completion_p95"])
def test_an_unknown_metric_is_let_pass_only_where_nobody_knows_the_metrics(metric: str) -> None:
    assert isinstance(parse_expression(f"{metric} < 3s"), Comparison)
    with pytest.raises(ExpressionError, match="unknown metric"):
        parse_expression(f"{metric} < 3s", {"other": "time"})


@pytest.mark.parametrize(
    ("text", "offset", "said"),
    [
        ("", 0, "nothing is compared"),
        ("   ", 0, "nothing is compared"),
        ("98%", 0, "98 is not a metric"),
        ("success", 7, "a comparison is missing after success"),
        ("success >> 1%", 9, "a number is missing after >"),
        ("success => 1%", 8, "=> is not a comparison here"),
        ("success == 1%", 8, "== is not a comparison here"),
        ("success > -1%", 10, "'-' does not belong here"),
        ("success > 98", 10, "98 has no unit"),
        ("success > 98 %  for", 19, "a duration is missing after for"),
        ("success > 98% for 10", 18, "10 has no unit"),
        ("success > 98% for 10 s", 18, "10 has no unit"),
        ("success > 98% for 10y", 20, "y is not a unit of time"),
        ("success{tier} > 98%", 12, "= is missing before }"),
        ("success{tier=1,} > 98%", 15, "a label's name is missing"),
        ("success{tier=1} > 98% > 97%", 22, "> after the end of the expression"),
        ("p95 < 2 x", 9, "x without baseline"),
        ("p95 < 2 baseline", 6, "2 has no unit"),
        ("alert RegionDown", 6, "( is missing before RegionDown"),
        ("alert(RegionDown", 16, ") is missing at the end"),
        ("alert(A) within 5s within 6s", 19, "within after the end of the expression"),
        ("success > 98%; ls", 13, "';' does not belong here"),
    ],
)
def test_what_cannot_be_read_is_said_at_its_character(text: str, offset: int, said: str) -> None:
    with pytest.raises(ExpressionError) as error:
        parse_expression(text)
    assert (error.value.offset, error.value.what) == (offset, said)
    assert error.value.fix


def test_the_canonical_spelling_quotes_only_odd_labels() -> None:
    assert show(parse_expression('success{path="/a b",tier=1}>98%')) == 'success{path="/a b", tier=1} > 98%'
    assert show(parse_expression("alert(A)within 90s")) == "alert(A) within 90s"
