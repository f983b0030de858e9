"""A cluster whose API server is far away: what takes a second to be answered through it is seen all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from fake_cluster import FakeCluster
from kube_rig import Kube, injection
from kube_scenes import told
from shop_cluster import system_of, target_of
from stormdrill.engine.watch import Far
from stormdrill.model.mechanism import Tell
from stormdrill.targets.kubernetes.target import KubernetesTarget

SYSTEM = """name: shop
entry: web
kubernetes:
  namespace: {shop}
  services:
    web: {{select: {{app: web}}, port: 8080, ready: GET /}}
"""
WAY_S = 1.2
"""Five rounds of a quarter of a second, about as from one continent to another."""


@pytest.fixture
def how(kube: Kube) -> Tell:
    made = told(kube)
    assert isinstance(made, Tell)
    return made


@pytest.fixture
def target(how: Tell, kube: Kube, fake: FakeCluster, tmp_path: Path) -> Iterator[KubernetesTarget]:
    found = target_of(fake, system_of(tmp_path, SYSTEM.format(shop=kube.namespaces[-1])), tmp_path)
    found.world()
    fake.trouble(("GET", "/portforward"), f"slow:{WAY_S}", times=1000)
    yield found
    found.leave()


def test_what_the_system_was_told_is_seen(target: KubernetesTarget, how: Tell) -> None:
    (instance,) = target.world().instances
    seen = target.mechanisms["tell"].observe(replace(injection("tell", how), instance=instance.name))
    assert seen.gone, seen


def test_an_instance_is_seen_to_answer(target: KubernetesTarget) -> None:
    (instance,) = target.world().instances
    assert target.answers(instance.name)


def test_looks_at_metrics_have_as_long(target: KubernetesTarget) -> None:
    assert isinstance(target, Far)
    assert target.look_limit_s > WAY_S
