"""The reference platform, as its manifests are printed, runs in the fake cluster: processes behind Services."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from fake_cluster import FakeCluster

pytestmark = pytest.mark.real
Obj = dict[str, Any]


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    argv = [sys.executable, "-m", "stormdrill", "platform", "manifests"]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    with FakeCluster(run_images={"stormdrill-platform:latest"}) as made:
        for region in ("eu", "us"):
            made.nodes(2, region)
        made.apply([one for one in yaml.safe_load_all(printed) if one])
        made.settle()
        until = time.monotonic() + 60
        while not all(ready(one) for one in made.objects("pods", "platform")):
            assert time.monotonic() < until, made.objects("pods", "platform")
            time.sleep(0.05)
        yield made


def ready(pod: Obj) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions") or [])


def asked(cluster: FakeCluster, service: str, path: str = "/healthz") -> int:
    address = (cluster.read(f"/api/v1/namespaces/platform/services/{service}") or {})["spec"]["clusterIP"]
    with urllib.request.urlopen(f"http://{address}:8080{path}", timeout=10) as answer:
        return int(answer.status)


def gateway(cluster: FakeCluster) -> Obj:
    pods = [one for one in cluster.objects("pods", "platform") if not one["metadata"].get("deletionTimestamp")]
    return next(one for one in pods if one["metadata"]["name"].startswith("gateway-eu"))


def test_it_gets_ready_answers_and_comes_back_under_another_uid(cluster: FakeCluster) -> None:
    services = ("edge", "feed", "gateway-eu", "gateway-us")
    assert [asked(cluster, name) for name in services] == [200] * 4
    first = gateway(cluster)["metadata"]
    cluster.registry.end("pods", "platform", first["name"], grace=0)
    until = time.monotonic() + 60
    cluster.settle()
    while not ready(gateway(cluster)):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert gateway(cluster)["metadata"]["uid"] != first["uid"]
    assert asked(cluster, "gateway-eu") == 200
