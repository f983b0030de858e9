"""A source in trouble, from the bytes that it sends to the verdict that rests on it: never PASS, and a sentence why."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from test_probes_misbehaviour import ANSWERS, MISBEHAVIOUR, Serve, endpoint, raw

from stormdrill.core.evidence import Evidence
from stormdrill.core.judge import judge
from stormdrill.engine import watch as watch_module
from stormdrill.engine.watch import Watch
from stormdrill.model import event as ev
from stormdrill.model.system import MetricSource, Servers, ServiceInstance, System
from stormdrill.ports import Instance
from stormdrill.probes.prometheus import scrape
from stormdrill.probes.sources import Sources
from stormdrill.store.evidence import load
from synthetic_run import START_MS, comparison, make_run, objective

ASKED = objective("fault", comparison("queue_depth < 10", "queue_depth", "<", 10.0))
FAULT_MS = START_MS + 27_012.0
Of = Callable[[str], MetricSource]
TEXT: Of = lambda url: MetricSource("queue_depth", "web", "queue_depth")  # noqa: E731
HTTP: Of = lambda url: MetricSource("queue_depth", "web", http="/state", value=".depth")  # noqa: E731
QUERY: Of = lambda url: MetricSource("queue_depth", "", promql="queue_depth")  # noqa: E731


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return load(make_run(tmp_path_factory.mktemp("run") / "run"))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "LIMIT_S", 0.5)


def readings(metric: MetricSource, url: str) -> list[ev.Reading]:
    """What one look at this source becomes in the journal."""
    web = ServiceInstance("web", "web", ("x",))
    system = System("shop", "web", (web,), metrics=(metric,), servers=Servers(prometheus=url))
    found: list[ev.Event] = []
    instance = Instance("web", "web", {}, url.removeprefix("http://"))
    watch = Watch(system, lambda: [instance], scrape, lambda event, _: found.append(event), readers=Sources(system))
    watch.read_now()
    watch.stop()
    return [event for event in found if isinstance(event, ev.Reading)]


def sentence(drill: Evidence, looks: list[ev.Reading]) -> str:
    """Of the objective that rests on it, had every look of a drill been like this one; it must not have passed."""
    others = [item for item in drill.events if not _is_of(item.event)]
    again = [ev.Recorded(20_000 + at, "", FAULT_MS + at * 1000, look) for at in range(30) for look in looks]
    plan = replace(drill.plan, experiment=replace(drill.plan.experiment, objectives=(ASKED,)))
    (found,) = judge(plan, (*others, *again), drill.records, drill.ledger).objectives
    assert found.verdict == "INCONCLUSIVE"
    return found.sentence


def _is_of(event: ev.Event) -> bool:
    return isinstance(event, ev.Reading) and event.metric == "queue_depth"


@pytest.mark.parametrize(
    ("of", "serve", "said"),
    [
        (TEXT, MISBEHAVIOUR["sends a page"], "line 1 is not a sample: '<html><body>It works!</body></html>'"),
        (TEXT, MISBEHAVIOUR["sends garbage"], "is not a sample"),
        (TEXT, MISBEHAVIOUR["says NaN"], "there was no reading of queue_depth: queue_depth is nan"),
        (TEXT, MISBEHAVIOUR["sends 50 MB"], "the answer has more than 1000000 bytes"),
        (TEXT, MISBEHAVIOUR["says nothing"], "did not answer GET /metrics within 0.5 s"),
        (TEXT, MISBEHAVIOUR["drips its body"], "did not answer GET /metrics within 0.5 s"),
        (TEXT, MISBEHAVIOUR["fails"], "answered 500"),
        (TEXT, raw(b"HTTP/1.1 200 OK\r\n\r\nother 3\n"), "no sample queue_depth at http://"),
        (HTTP, MISBEHAVIOUR["sends a page"], "the answer is not JSON"),
        (HTTP, raw(b'HTTP/1.1 200 OK\r\n\r\n{"depht": 3}'), "the answer has no .depth"),
        (HTTP, MISBEHAVIOUR["sends 50 MB"], "the answer has more than 1000000 bytes"),
        (QUERY, MISBEHAVIOUR["says nothing"], "did not answer GET /api/v1/query"),
        (QUERY, MISBEHAVIOUR["sends 50 MB"], "the answer has more than 1000000 bytes"),
        *((QUERY, serve, said) for serve, said in ANSWERS.values()),
    ],
)
def test_what_rests_on_a_source_in_trouble_does_not_pass_and_says_why(
    of: Of, serve: Serve, said: str, drill: Evidence
) -> None:
    with endpoint(serve) as url:
        looks = readings(of(url), url)
    assert [item.value for item in looks] == [None]
    assert said in sentence(drill, looks)


def test_a_source_that_vanished_passes_nothing(drill: Evidence) -> None:
    with endpoint(MISBEHAVIOUR["fails"]) as url:
        pass
    assert "connection refused" in sentence(drill, readings(TEXT(url), url))


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import time; print(3, flush=True); time.sleep(60)", "did not end within 0.5 s and was ended"),
        ("print(3); raise SystemExit(4)", "ended with exit code 4"),
        ("print('three')", "its last line is no number: 'three'"),
        ("", "it wrote nothing"),
    ],
)
def test_a_command_in_trouble_passes_nothing(
    program: str, said: str, drill: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "time" not in program:
        monkeypatch.setattr(watch_module, "LIMIT_S", 5.0)
    looks = readings(MetricSource("queue_depth", "", command=(sys.executable, "-c", program)), "http://127.0.0.1:1")
    assert said in sentence(drill, looks)


def test_a_source_that_was_never_looked_at_passes_nothing(drill: Evidence, tmp_path: Path) -> None:
    assert sentence(drill, []).endswith("there was no reading of queue_depth")
