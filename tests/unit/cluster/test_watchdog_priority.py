"""The watchdog's pod has the priority that the system file names: nobody's pod takes its place then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import cluster_rig as rig
from cluster_rig import SUITE
from fake_cluster import FakeCluster
from shop_cluster import system_of
from stormdrill.cluster.api import Api
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.job import Wanted
from stormdrill.errors import Refused
from stormdrill.model.system import KubernetesSpec

CLASS = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "drill"}, "value": 1000}


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(run_images={rig.IMAGE: []}) as made:
        rig.small_world(made)
        yield made


def hold(cluster: FakeCluster, ready_s: float) -> Hold:
    return Hold(
        Api(cluster.admin), "r1", "platform", rig.IMAGE, lease_s=1.0, wanted=Wanted(priority="drill"), ready_s=ready_s
    )


def test_its_pod_has_the_class_that_is_named(cluster: FakeCluster) -> None:
    cluster.apply(CLASS)
    held = hold(cluster, 20.0)
    held.open()
    (pod,) = cluster.objects("pods", SUITE)
    assert (pod["spec"]["priorityClassName"], pod["spec"]["priority"]) == ("drill", 1000)
    assert held.close() == ()


def test_a_class_that_is_not_there_is_asked_about_where_no_pod_was_made(cluster: FakeCluster) -> None:
    with pytest.raises(Refused, match=r"is there a PriorityClass drill\?"):
        hold(cluster, 1.0).open()


def test_the_system_file_names_it(tmp_path: Path) -> None:
    named, unnamed = system_of(tmp_path, priority_class="drill").kubernetes, system_of(tmp_path).kubernetes
    assert isinstance(named, KubernetesSpec)
    assert isinstance(unnamed, KubernetesSpec)
    assert (named.priority_class, unnamed.priority_class) == ("drill", "")
