"""OpenSLO files become lines that stormdrill itself can read; what has no counterpart is said, never dropped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from stormdrill.cli.commands.importing import lines
from stormdrill.cli.main import _run
from stormdrill.errors import Refused
from stormdrill.spec.expression import parse_expression
from stormdrill.spec.openslo import Imported, read_openslo, window_of
from stormdrill.spec.system import read_system

SHOP = """\
apiVersion: openslo/v1
kind: Service
metadata: {name: checkout}
spec: {description: takes orders}
---
apiVersion: openslo/v1
kind: DataSource
metadata: {name: metrics}
spec:
  type: Prometheus
  connectionDetails: {url: "http://prometheus.example:9090", bearer: x}
---
# orders that were taken
apiVersion: openslo/v1
kind: SLO
metadata: {name: orders-taken}
spec:
  service: checkout
  budgetingMethod: Occurrences
  timeWindow:
    - {duration: 4w, isRolling: true}
  indicatorRef: orders
  objectives:
    - {displayName: promised, target: 0.995}
    - {displayName: hoped for, targetPercent: 99.95}
  alertPolicies: [{alertPolicyRef: page}]
---
apiVersion: openslo/v1
kind: SLI
metadata: {name: orders}
spec:
  ratioMetric:
    counter: true
    good:
      metricSource:
        metricSourceRef: metrics
        spec:
          query: |
            # answered
            sum(rate(orders_total{code=~"2..", shop='eu'}[1m]))
    total:
      metricSource: {metricSourceRef: metrics, spec: {query: 'sum(rate(orders_total[1m]))'}}
---
apiVersion: openslo/v1
kind: AlertPolicy
metadata: {name: page}
spec: {alertWhenBreaching: true}
"""
OWN = """\
name: shop
entry: web
process: {services: {web: {command: [python, web.py], ready: GET /}}}
"""
LATENCY = """\
apiVersion: openslo/v1
kind: SLO
metadata: {name: "p95 of pages"}
spec:
  service: web
  indicator:
    metadata: {name: p95}
    spec:
      thresholdMetric:
        metricSource:
          type: Prometheus
          spec: {query: 'histogram_quantile(0.95, sum by (le) (rate(took_seconds_bucket[1m])))'}
  timeWindow:
    - duration: 1M
      calendar: {startTime: 2026-01-01 00:00:00, timeZone: Europe/Berlin}
  budgetingMethod: Timeslices
  objectives:
    - {op: lte, value: 0.3, target: 0.99, timeSliceTarget: 0.95, timeSliceWindow: 1m}
"""


def imported(tmp_path: Path, *texts: str) -> Imported:
    paths = []
    for number, text in enumerate(texts):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(text)
    return read_openslo(paths)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(Refused) as refused:
        imported(tmp_path, text)
    return str(refused.value).replace(str(tmp_path) + "/", "")


def test_a_ratio_becomes_a_metric_and_an_objective_for_each_target(tmp_path: Path) -> None:
    found = imported(tmp_path, SHOP)
    (metric,) = found.metrics
    good, total = "sum(rate(orders_total{code=~\"2..\", shop='eu'}[1m]))", "sum(rate(orders_total[1m]))"
    assert (metric.name, metric.promql, metric.unit) == ("orders_taken_good", f"({good}) / ({total})", "ratio")
    assert [line.expression for line in found.objectives] == [
        "orders_taken_good >= 99.5%",
        "orders_taken_good >= 99.95%",
    ]
    assert {line.slo for line in found.objectives} == {"checkout/orders-taken"}
    assert (found.window, found.server) == ("28d", "http://prometheus.example:9090")


def test_what_has_no_counterpart_is_noted_with_its_line(tmp_path: Path) -> None:
    notes = [(note.line, note.what.split(":")[0]) for note in imported(tmp_path, SHOP).notes]
    assert (11, "bearer of metrics") in notes
    assert (26, "alert policies of orders-taken") in notes
    assert any(what.startswith("AlertPolicy page has no counterpart") for _, what in notes)


def test_a_threshold_is_compared_as_it_was_and_its_doubts_are_said(tmp_path: Path) -> None:
    found = imported(tmp_path, LATENCY)
    assert [line.expression for line in found.objectives] == ["p95_of_pages <= 0.3"]
    assert found.window == "30d"
    told = "\n".join(note.what for note in found.notes)
    assert "has a calendar window: the error budget here rolls over 30d" in told
    assert "counts Timeslices" in told
    assert "here the worst reading must hold" in told


def test_all_that_is_printed_can_be_read_again(tmp_path: Path) -> None:
    found = imported(tmp_path, SHOP, LATENCY)
    read = yaml.safe_load("\n".join(lines(found)))
    assert read["metrics"]["orders_taken_good"]["promql"] == found.metrics[0].promql
    measures = {"orders_taken_good": "share", "p95_of_pages": "any"}
    for text in read["objectives"]["baseline, recovery"]:
        assert parse_expression(text, measures).text == text  # type: ignore[arg-type]  # literals in a dict


ODD = """\
apiVersion: openslo/v1
kind: DataSource
metadata: {name: metrics}
spec: {type: Prometheus, connectionDetails: {url: "https://me:hidden@prometheus.example:9090/p?token=hidden"}}
---
apiVersion: openslo/v1
kind: SLO
metadata: {name: p95}
spec:
  service: "web\\nagain"
  indicator:
    spec:
      thresholdMetric: {metricSource: {metricSourceRef: metrics, spec: {query: 'max(took{code=~"2..$"})'}}}
  timeWindow: [{duration: 1Q}]
  objectives: [{op: lt, value: 0.3, target: 0.95}]
"""


def test_what_is_odd_elsewhere_is_a_system_file_all_the_same(tmp_path: Path) -> None:
    found = imported(tmp_path, ODD)
    told = lines(found)
    begin = told.index("# into an experiment")
    rated = [line.removeprefix("# ") if line.startswith("# traffic:") else line for line in told[:begin]]
    (tmp_path / "shop.yaml").write_text("\n".join([OWN, *rated]))
    system = read_system(tmp_path / "shop.yaml")
    (metric,) = system.metrics
    assert (metric.name, metric.promql) == ("slo_p95", 'max(took{code=~"2..$"})')
    assert (system.servers.prometheus, "hidden" in "\n".join(told)) == ("https://prometheus.example:9090/p", False)
    assert system.traffic is not None
    assert system.traffic.window_s == 91 * 86400
    assert yaml.safe_load("\n".join(told[begin:])) == {"objectives": {"baseline, recovery": ["slo_p95 < 0.3"]}}
    assert "holds more than that: give it under servers, headers" in "\n".join(told)


@pytest.mark.parametrize(
    ("metric", "query"),
    [
        ("bad: {metricSource: {type: Thanos, spec: {query: b}}}\n    total: {metricSource: {type: Mimir, spec: t}}",
         "1 - (b) / (t)"),
        ("raw: {metricSource: {type: Prometheus, spec: {query: r}}}\n    rawType: failure", "1 - (r)"),
        ("raw: {metricSource: {type: Prometheus, spec: {query: r}}}\n    rawType: success", "r"),
    ],
)  # fmt: skip
def test_each_way_to_write_a_ratio_means_the_share_of_good_ones(tmp_path: Path, metric: str, query: str) -> None:
    sli = f"apiVersion: openslo/v1\nkind: SLI\nmetadata: {{name: i}}\nspec:\n  ratioMetric:\n    {metric}\n"
    slo = (
        "apiVersion: openslo/v1\nkind: SLO\nmetadata: {name: s}\nspec: {indicatorRef: i, objectives: [{target: 0.9}]}\n"
    )
    assert imported(tmp_path, f"{sli}---\n{slo}").metrics[0].promql == query
    assert imported(tmp_path, slo, sli).objectives[0].expression == "s_good >= 90%"  # in any file, in any order


def test_counters_divided_since_their_start_are_told_of(tmp_path: Path) -> None:
    text = SHOP.replace("rate(", "(").replace("[1m]", "")
    assert any("put rate(...[1m]) around each" in note.what for note in imported(tmp_path, text).notes)


def test_a_source_that_is_not_promql_is_noted_and_asked_of_nobody(tmp_path: Path) -> None:
    found = imported(tmp_path, SHOP.replace("type: Prometheus", "type: Datadog"))
    assert (found.metrics, found.objectives) == ((), ())
    assert any("good comes from Datadog: only PromQL can be asked" in note.what for note in found.notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("openslo/v1\nkind: SLO", "openslo/v2alpha1\nkind: SLO"),
            "0.yaml:14:13: apiVersion openslo/v2alpha1 is not read",
        ),
        (("kind: SLO", "kind: Slo"), "0.yaml:15:7: kind Slo is not one of OpenSLO v1"),
        (("indicatorRef: orders", "indicatorRef: order"), "0.yaml:22:17: no SLI order in these files"),
        (("target: 0.995", "target: 99.5"), "0.yaml:24:7: a target of 9950%"),
        (("{displayName: promised, target: 0.995}", "{displayName: promised}"), "an objective without a target"),
        (("duration: 4w", "duration: 4 weeks"), "0.yaml:21:18: 4 weeks is no duration"),
        (("    total:", "    sum:"), "a ratioMetric without its parts; write good and total"),
        (("query: 'sum(rate(orders_total[1m]))'", "text: x"), "total has no query"),
        (("metadata: {name: orders-taken}", "metadata: {}"), "metadata.name is missing"),
        (
            ("      metricSource: {metricSourceRef: metrics,", "     metricSource: {metricSourceRef: metrics,,"),
            "0.yaml:",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    assert change[0] in SHOP
    assert said in refusal(tmp_path, SHOP.replace(*change))


def test_files_without_an_slo_are_refused(tmp_path: Path) -> None:
    assert "no SLO; name the files that hold kind: SLO" in refusal(tmp_path, SHOP.split("---")[0])
    assert "the file is empty" in refusal(tmp_path, "# nothing\n") or "no SLO" in refusal(tmp_path, "# nothing\n")


@pytest.mark.parametrize(
    ("text", "ours"),
    [("5m", "5m"), ("12h", "720m"), ("4w", "28d"), ("1Q", "91d"), ("1Y", "365d"), ("0d", ""), ("d", "")],
)
def test_durations_are_told_in_our_units(text: str, ours: str) -> None:
    assert window_of(text) == ours


def test_the_command_prints_lines_or_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(SHOP)
    assert _run(["import", "openslo", str(path)]) == 0
    out = capsys.readouterr().out
    assert "    - orders_taken_good >= 99.5%  # checkout/orders-taken" in out
    assert f"# {path}:26: alert policies" in out
    assert _run(["import", "openslo", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["window"] == "28d"
    assert _run(["import", "openslo", str(tmp_path / "none.yaml")]) == 2
    assert "no such file" in capsys.readouterr().err
