"""One kept run for each law of the keeper's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kube_ground
from keeping import KeptRun, kept_run


@pytest.fixture(scope="session", autouse=True)
def namespaces_are_gone() -> Iterator[None]:
    """Those that the session made on a real cluster."""
    yield
    kube_ground.wait_until_gone()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[KeptRun]:
    with kept_run(tmp_path / "runs") as kept:
        yield kept
