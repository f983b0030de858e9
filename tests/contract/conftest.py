"""One kept run for each law of the keeper's, one cluster for each of clusters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kube_ground
from keeping import KeptRun, kept_run
from kube_rig import Kube, a_cluster


@pytest.fixture(scope="session", autouse=True)
def namespaces_are_gone() -> Iterator[None]:
    """Those that the session made on a real cluster."""
    yield
    kube_ground.wait_until_gone()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[KeptRun]:
    with kept_run(tmp_path / "runs") as kept:
        yield kept


@pytest.fixture
def kube() -> Iterator[Kube]:
    with a_cluster() as found:
        if found.fake is not None and found.fake.behaviour is not None:
            found.fake.behaviour.kubelet.first_ones = True
        yield found
