"""One kept run for each law of the keeper's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keeping import KeptRun, kept_run


@pytest.fixture
def run(tmp_path: Path) -> Iterator[KeptRun]:
    with kept_run(tmp_path / "runs") as kept:
        yield kept
