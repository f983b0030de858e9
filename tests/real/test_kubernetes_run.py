"""A whole run on a cluster: found, held, harmed, reverted, judged; and whoever dies or is stopped, nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_shop import NODES, Shop, outcome, shop

from stormdrill.model.event import ClusterHeld, RevertVerified
from stormdrill.targets.kubernetes.rbac import manifests  # noqa: F401

LIMIT_S = 180.0
pytestmark = [pytest.mark.real, pytest.mark.timeout(LIMIT_S)]


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path) as found:
        found.as_user("admin")
        yield found


def allow(at: Shop, *arguments: str) -> None:
    """What `plan --rbac` prints, applied."""
    import yaml

    printed = at.repository.command("plan", "experiments/shop.yaml", "--rbac", *arguments)
    assert printed.returncode == 0, printed.stderr
    at.cluster.apply(list(yaml.safe_load_all(printed.stdout)))


def test_a_region_of_nodes_is_lost_and_comes_back_and_the_run_is_judged(at: Shop) -> None:
    at.lay_out(NODES)
    allow(at)
    before = at.cluster.objects("nodes")
    done = at.repository.command("run", "experiments/shop.yaml", "--target", "kubernetes", "--json", limit_s=120)
    told = outcome(done.stdout)
    assert told.get("verdict") == "PASS", f"{done.stderr}\n{done.stdout}"
    assert at.causes() == []
    assert at.left_behind() == []
    assert at.of(ClusterHeld)
    assert all(item.gone for item in at.of(RevertVerified))
    assert {node["metadata"]["name"] for node in before} == {n["metadata"]["name"] for n in at.cluster.objects("nodes")}
