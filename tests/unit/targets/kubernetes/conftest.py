"""A fake cluster with nodes, and a run's hold on it, for whoever asks; laws that a real one keeps too are contracts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fake_cluster import FakeCluster
from kube_rig import Kube, Rig, a_fake_cluster


@pytest.fixture
def kube() -> Iterator[Kube]:
    with a_fake_cluster() as found:
        yield found


@pytest.fixture
def fake(kube: Kube) -> FakeCluster:
    assert kube.fake is not None
    return kube.fake


@pytest.fixture
def rig(kube: Kube) -> Iterator[Rig]:
    made = Rig(kube)
    yield made
    made.reverted.update(made.words)  # whatever goes on behind a call ends
