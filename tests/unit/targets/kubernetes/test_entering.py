"""By which Services load enters: those of the users, which lead to all of the entry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_cluster import FakeCluster
from shop_cluster import Object, pod, service, shop, system_of, target_of
from stormdrill.cluster.api import Api

WEB = "10.96.0.1"


def reached(name: str, selector: dict[str, str], ip: str, **metadata: object) -> Object:
    """A Service that has its address."""
    made = service(name, selector)
    spec, about = made["spec"], made["metadata"]
    assert isinstance(spec, dict)
    assert isinstance(about, dict)
    spec["clusterIP"] = ip
    about.update(metadata)
    return made


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(world=False) as made:
        shop(made)
        assert Api(made.admin).call("DELETE", "/api/v1/namespaces/shop/services/web").good
        made.apply(reached("web", {"app": "web"}, WEB))
        yield made


def entered(cluster: FakeCluster, tmp_path: Path) -> tuple[str, ...]:
    target = target_of(cluster, system_of(tmp_path), tmp_path)
    target.world()
    return target.entered()


def url(ip: str) -> str:
    return f"http://{ip}:8080"


def test_load_enters_by_the_service_of_the_entry(cluster: FakeCluster, tmp_path: Path) -> None:
    assert entered(cluster, tmp_path) == (url(WEB),)


def test_a_service_that_leads_to_a_part_of_the_entry_is_none_of_the_ways_in(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    cluster.apply(pod("web", "eu-1", {"app": "web", "team": "shopping", "zone": "a"}, 3))
    cluster.apply(reached("web-a", {"app": "web", "zone": "a"}, "10.96.0.2"))
    assert entered(cluster, tmp_path) == (url(WEB),)


def test_several_that_lead_to_all_of_it_are_all_ways_in(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.apply(reached("web-too", {"app": "web"}, "10.96.0.2"))
    assert set(entered(cluster, tmp_path)) == {url(WEB), url("10.96.0.2")}


def test_what_a_drill_has_put_there_is_none(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.apply(reached("web-orig", {"app": "web"}, "10.96.0.2", labels={"stormdrill": "run"}))
    assert entered(cluster, tmp_path) == (url(WEB),)
