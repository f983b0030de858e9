"""Whole runs in which somebody lays hands on a fault: the verdict hears of it, whenever it was, whatever they did. And
in which somebody takes their consent back: it is over then.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_shop import NODES, PODS, REGION, Shop, outcome, shop

from stormdrill.cluster.api import MERGE_PATCH, Api
from stormdrill.model.event import AbortRequested, CauseChanged, EffectObserved, Reverted, RevertStarted

LIMIT_S = 180.0
pytestmark = [pytest.mark.real, pytest.mark.timeout(LIMIT_S)]
WEB = "/apis/apps/v1/namespaces/shop/deployments/web-eu"
AGREED = {"stormdrill.dev/drill": "allowed"}
QUOTA = "quota-exhaustion: {service: web, region: eu}"


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path) as found:
        found.as_user("admin")
        yield found


def begun(at: Shop, use: str, fault: str = "4s", *, account: bool = False) -> subprocess.Popen[str]:
    """A drill that has just bitten. `account`: under the one that `plan --rbac` prints."""
    at.lay_out(use, fault=fault)
    printed = at.repository.command("plan", "experiments/shop.yaml", "--rbac")
    at.cluster.apply(list(yaml.safe_load_all(printed.stdout)))
    if account:
        at.as_user(at.cluster.account("stormdrill", "stormdrill"))
    process = at.repository.start("run", "experiments/shop.yaml", "--target", "kubernetes", "--json")
    at.eventually(lambda: at.of(EffectObserved) or process.poll() is not None, what="it never bit")
    assert process.poll() is None, process.communicate()[1]
    return process


def person(at: Shop, path: str, body: object) -> None:
    """As `kubectl edit` does."""
    query = {"fieldManager": "kubectl-edit"}
    assert Api(at.cluster.admin).call("PATCH", path, body, content_type=MERGE_PATCH, query=query).good


def judged(at: Shop, process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=90)
    told = outcome(out)
    assert told.get("status") == "completed", err
    assert process.returncode == 3
    assert at.causes() == []
    assert at.left_behind() == []
    return dict(json.loads((at.run_dir / "verdict.json").read_text()))


def test_who_puts_it_back_when_nobody_looks_any_more_is_met_by_the_undo_and_by_the_verdict(at: Shop) -> None:
    process = begun(at, PODS)
    at.cluster.trouble(("GET", f"{WEB}$"), "503", 1000)  # no look tells anything from here to the revert
    person(at, WEB, {"spec": {"replicas": 1}})
    at.eventually(lambda: at.of(RevertStarted))
    at.cluster.troubles.clear()
    told = judged(at, process)
    (seen,) = at.of(CauseChanged)
    assert (seen.gone, seen.at_revert, seen.edited) == (True, True, False)
    assert "spec.replicas is 1" in seen.detail
    assert at.of(Reverted)[-1].outcome == "superseded"
    assert told["verdict"] == "INVALID"
    assert "before its revert, by somebody else" in " ".join(told["reasons"])


def test_who_edits_a_quota_of_the_run_is_told_and_so_is_what_goes_with_it(at: Shop) -> None:
    process = begun(at, QUOTA)
    (quota,) = at.cluster.objects("resourcequotas", "shop")
    path = f"/api/v1/namespaces/shop/resourcequotas/{quota['metadata']['name']}"
    person(at, path, {"spec": {"hard": {"pods": "99"}}})
    told = judged(at, process)
    (seen,) = at.of(CauseChanged)
    assert (seen.gone, seen.edited, seen.at_revert) == (True, True, False)
    assert "spec.hard.pods was written anew (kubectl-edit)" in seen.detail
    assert told["verdict"] == "INVALID"
    assert "was edited" in " ".join(told["reasons"])
    assert at.cluster.objects("resourcequotas", "shop") == [], "it is the run's own"
    reverted = at.of(Reverted)[-1]
    assert reverted.outcome == "done"
    assert "and with it what somebody had changed in it: " in reverted.detail
    assert "spec.hard.pods was written anew (kubectl-edit)" in reverted.detail


@pytest.mark.parametrize("whose", ["shop", "others"])
def test_who_takes_their_consent_back_ends_the_run_also_a_bystander(at: Shop, whose: str) -> None:
    """With the printed rights alone."""
    spec = {"nodeSelector": {REGION: "eu"}, "containers": [{"name": "theirs", "image": "theirs:1"}]}
    template = {"metadata": {"labels": {"app": "theirs"}}, "spec": spec}
    theirs = {"replicas": 1, "selector": {"matchLabels": {"app": "theirs"}}, "template": template}
    meta = {"name": "theirs", "namespace": "others"}
    at.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "others", "labels": AGREED}})
    at.cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": theirs})
    at.eventually(lambda: any(pod["spec"].get("nodeName") for pod in at.cluster.objects("pods", "others")))
    asked = len(at.cluster.requests)
    process = begun(at, NODES, "60s", account=True)
    person(at, f"/api/v1/namespaces/{whose}", {"metadata": {"labels": dict.fromkeys(AGREED)}})
    out, err = process.communicate(timeout=90)
    assert process.returncode == 4, err
    assert outcome(out)["status"] == "aborted"
    reason = at.of(AbortRequested)[0].reason
    assert reason.startswith(f"the namespace {whose} lets itself be drilled no longer: somebody took its label ")
    assert [one for one in at.cluster.requests[asked:] if one.status == 403] == []
    assert at.causes() == []
    assert at.left_behind() == []
