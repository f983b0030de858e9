"""By which Services load enters: those of the users, which lead to all of the entry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_cluster import FakeCluster
from shop_cluster import pod, service, shop, system_of, target_of

ADDRESS = "/api/v1/namespaces/shop/services/{}"


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(world=False) as made:
        shop(made)
        yield made


def entered(cluster: FakeCluster, tmp_path: Path) -> tuple[str, ...]:
    target = target_of(cluster, system_of(tmp_path), tmp_path)
    target.world()
    return target.entered()


def url(cluster: FakeCluster, name: str) -> str:
    found = cluster.read(ADDRESS.format(name))
    assert found is not None
    return f"http://{found['spec']['clusterIP']}:{found['spec']['ports'][0]['port']}"


def test_load_enters_by_the_service_of_the_entry(cluster: FakeCluster, tmp_path: Path) -> None:
    assert entered(cluster, tmp_path) == (url(cluster, "web"),)


def test_a_service_that_leads_to_a_part_of_the_entry_is_none_of_the_ways_in(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    cluster.apply(pod("web", "eu-1", {"app": "web", "team": "shopping", "zone": "a"}, 3))
    cluster.apply(service("web-a", {"app": "web", "zone": "a"}))
    assert entered(cluster, tmp_path) == (url(cluster, "web"),)


def test_several_that_lead_to_all_of_it_are_all_ways_in(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.apply(service("web-too", {"app": "web"}))
    assert set(entered(cluster, tmp_path)) == {url(cluster, "web"), url(cluster, "web-too")}


def test_what_a_drill_has_put_there_is_none(cluster: FakeCluster, tmp_path: Path) -> None:
    ours = service("web-orig", {"app": "web"})
    metadata = ours["metadata"]
    assert isinstance(metadata, dict)
    metadata["labels"] = {"stormdrill": "run"}
    cluster.apply(ours)
    assert entered(cluster, tmp_path) == (url(cluster, "web"),)
