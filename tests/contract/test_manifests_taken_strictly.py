"""What stormdrill prints for a cluster is taken by a server that drops no unknown field and forgives no mistake."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from fake_cluster import FakeCluster
from fake_cluster.scenes import namespace
from stormdrill.api.manifests import manifests
from stormdrill.cluster.api import Api
from stormdrill.targets.kubernetes.manifests import Layout
from stormdrill.targets.kubernetes.scheduled import Scheduled
from stormdrill.targets.kubernetes.scheduled import manifests as scheduled

FILES = {"experiments/node-loss.yaml": "title: x\n", "policy.yaml": "y\n"}


def take(documents: list[dict[str, Any]]) -> list[str]:
    """What is refused, with the words."""
    refused = []
    with FakeCluster(world=False) as cluster:
        cluster.apply(namespace("stormdrill", drill=False))
        api = Api(cluster.admin)
        for document in documents:
            kind = cluster.registry.kinds.of_object(document)
            root = f"/apis/{kind.group}/{kind.version}" if kind.group else "/api/v1"
            where = f"/namespaces/{document['metadata']['namespace']}" if kind.namespaced else ""
            answer = api.call("POST", f"{root}{where}/{kind.plural}", document, query={"fieldValidation": "Strict"})
            refused += [] if answer.good else [f"{kind.kind} {document['metadata']['name']}: {answer.said}"]
        api.close()
    return refused


@pytest.mark.parametrize(
    "layout",
    [
        Layout(image="stormdrill:1"),
        Layout(image="stormdrill:1", storage="claim", regions=("eu", "us", "ap")),
        Layout(image="stormdrill:1", storage="none", nodes={"pool": "drill"}, gpu_resource="nvidia.com/gpu"),
    ],
    ids=["plain", "claims in three regions", "chosen nodes with GPUs"],
)
def test_the_platform_is_taken(layout: Layout) -> None:
    documents = [document for document in yaml.safe_load_all(manifests(layout)) if document]
    assert len(documents) > 10
    assert not take(documents)


def test_a_scheduled_run_is_taken() -> None:
    wanted = Scheduled(
        experiment="node-loss",
        path="experiments/node-loss.yaml",
        schedule="0 3 * * 1",
        files=FILES,
        image="stormdrill:1",
        suite="stormdrill",
        account="drill",
        lasts_s=75.0,
    )
    documents: list[dict[str, Any]] = list(scheduled(wanted))
    assert not take(documents)
