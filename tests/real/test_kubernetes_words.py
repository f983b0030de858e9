"""Whole runs of what only clusters do: releases that don't work, nodes within budgets, a person who changes it too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_shop import SHOP, Shop, outcome, shop

from fake_cluster import FakeCluster
from stormdrill.model.event import EffectObserved, Injected, Reverted, RevertVerified

LIMIT_S = 180.0
WEB = "/apis/apps/v1/namespaces/shop/deployments/web-eu"
pytestmark = [pytest.mark.real, pytest.mark.timeout(LIMIT_S)]


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path) as found:
        found.as_user("admin")
        yield found


def drilled(at: Shop, use: str, empties: str = "taint") -> dict[str, Any]:
    at.lay_out(use, empties=empties)
    printed = at.repository.command("plan", "experiments/shop.yaml", "--target", "kubernetes", "--rbac")
    assert printed.returncode == 0, printed.stderr
    at.cluster.apply([one for one in yaml.safe_load_all(printed.stdout) if one])
    at.as_user(at.cluster.account("stormdrill", "stormdrill"))  # with these rules and no others
    done = at.repository.command("run", "experiments/shop.yaml", "--target", "kubernetes", "--json", limit_s=120)
    return {**outcome(done.stdout), "progress": done.stderr}


def image(cluster: FakeCluster) -> str:
    return str((cluster.read(WEB) or {})["spec"]["template"]["spec"]["containers"][0]["image"])


@pytest.mark.parametrize("mode", ["image", "crash", "unready"])
def test_a_release_that_does_not_work_reaches_no_user_and_is_taken_back(mode: str, at: Shop) -> None:
    before = at.cluster.read(WEB)
    told = drilled(at, f"bad-release: {{mode: {mode}, service: web, region: eu}}")
    assert told.get("verdict") == "PASS", told["progress"]
    assert [item.bit for item in at.of(EffectObserved)][:1] == [True]
    assert [item.gone for item in at.of(RevertVerified)] == [True]
    after = at.cluster.read(WEB)
    assert before is not None
    assert after is not None
    assert after["spec"] == before["spec"]
    assert at.causes() == []
    assert at.left_behind() == []


def test_a_release_that_somebody_rolls_out_during_the_fault_stays_and_the_record_says_so(at: Shop) -> None:
    def another() -> None:
        at.eventually(lambda: at.of(EffectObserved), what="it never bit")
        at.cluster.registry.change("deployments.apps", "shop", "web-eu", theirs)

    def theirs(held: dict[str, Any]) -> None:
        held["spec"]["template"]["spec"]["containers"][0]["image"] = f"{SHOP}-fixed"

    at.cluster.run_pods[f"{SHOP}-fixed"] = []
    person = threading.Thread(target=another)
    person.start()
    told = drilled(at, "bad-release: {mode: image, service: web, region: eu}")
    person.join()
    assert told["status"] == "completed", told["progress"]
    assert image(at.cluster) == f"{SHOP}-fixed"
    assert "superseded" in {item.outcome for item in at.of(Reverted)}
    assert [item.gone for item in at.of(RevertVerified)] == [True]
    assert at.causes() == []


@pytest.mark.parametrize("empties", ["evict", "delete"])
def test_a_region_is_emptied_pod_by_pod_and_they_come_back(empties: str, at: Shop) -> None:
    told = drilled(at, "region-loss: {region: eu, mode: crash}", empties)
    assert told.get("verdict") == "PASS", told["progress"]
    (bitten,) = [item for item in at.of(EffectObserved) if item.bit]
    assert "1 of 1 pods that were on eu-cpu-1 are gone or going" in bitten.detail
    asked = [(one.method, one.path.endswith("/eviction")) for one in at.cluster.requests if "/pods/web-eu-" in one.path]
    assert (("POST", True) in asked) == (empties == "evict")
    assert at.causes() == []
    at.eventually(lambda: at.ready("eu"), what="nobody came back")


def test_what_a_disruption_budget_keeps_is_not_begun(at: Shop) -> None:
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web", "region": "eu"}}}
    metadata = {"name": "eu", "namespace": "shop"}
    at.cluster.apply({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": spec})
    at.lay_out("region-loss: {region: eu, mode: crash}", empties="evict")
    done = at.repository.command("run", "experiments/shop.yaml", "--target", "kubernetes", "--json", limit_s=120)
    assert done.returncode == 2, done.stdout
    assert "disruption budget shop/eu allows nobody to go" in done.stderr
    assert at.of(Injected) == []
    assert at.causes() == []
