"""A whole drill on a cluster with its load sent from inside; and one that is led through the API server, to look."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster_shop import Shop, outcome, shop

from stormdrill.model.event import Injected, LoadClockCompared, LoadEnded, LoadStarted

pytestmark = [pytest.mark.real, pytest.mark.timeout(180.0)]
PROFILE = """
description: A steady stream.
user: http_user
arrivals: constant
streams:
  get: {share: 100%, deadline: 1s, parameters: {path: /}}
"""
EXPERIMENT = """
title: Users are served while a region is gone
hypothesis: us goes on serving
owner: tests
system: shop
load: {{profile: plain, rate: 60/s{more}}}
phases: {{warmup: 1s, baseline: 4s, fault: 4s, recovery: 2s}}
faults:
  - region-loss: {{region: eu, mode: crash}}
objectives:
  baseline:
    - success > 90%
  fault after 2s, recovery:
    - success > 40%
guards: []
"""
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
}


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path) as found:
        found.cluster.apply(SERVICE)
        found.as_user("admin")
        yield found


def drill(at: Shop, more: str = "") -> dict:
    at.lay_out()
    (at.root / "experiments" / "shop.yaml").write_text(EXPERIMENT.format(more=more))
    (at.root / "loadgen").mkdir(exist_ok=True)
    (at.root / "loadgen" / "plain.yaml").write_text(textwrap.dedent(PROFILE))
    printed = at.repository.command("plan", "experiments/shop.yaml", "--rbac")
    assert printed.returncode == 0, printed.stderr
    at.cluster.apply(list(yaml.safe_load_all(printed.stdout)))
    done = at.repository.command("run", "experiments/shop.yaml", "--target", "kubernetes", "--json", limit_s=120)
    told = outcome(done.stdout)
    assert told.get("verdict"), f"{done.stderr}\n{done.stdout}"
    assert at.causes() == []
    assert at.left_behind() == []
    return told


def test_a_drill_whose_load_is_sent_from_inside_is_judged_by_what_came_home(at: Shop) -> None:
    told = drill(at)
    assert told["verdict"] == "PASS", (at.run_dir / "verdict.json").read_text()
    (ended,) = at.of(LoadEnded)
    assert ended.sent == ended.scheduled >= 600
    assert (ended.lost_workers, ended.dropped) == (0, 0)
    assert at.of(LoadStarted)[0].through == ""
    assert {item.when for item in at.of(LoadClockCompared)} == {"before", "after"}
    assert not at.cluster.objects("jobs.batch", "stormdrill")


def test_a_load_from_here_is_invalid_says_why_and_harms_nobody(at: Shop) -> None:
    told = drill(at, ", from: here")
    assert told["verdict"] == "INVALID", told
    assert at.of(LoadStarted)[0].through == "a port-forward of the API server"
    assert at.of(LoadEnded)[0].sent > 100
    baseline = next(item for item in told["objectives"] if item["phase"] == "baseline")
    assert baseline["verdict"] == "INVALID"
    why = "the load was sent through a port-forward of the API server, for looking only"
    assert why in (at.run_dir / "verdict.json").read_text()
    assert not at.of(Injected)
