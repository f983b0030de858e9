"""SIGKILL of the runner, the keeper, or both, at random moments: what is left, and for how long."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from bench.figure import Figure, at_most

SEED = 20261121
ALONE, BOTH = 300, 50


def measure(quick: bool) -> Iterator[Figure]:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "real"))
    from killing import figures_of, sweep

    kills = sweep(10 if quick else ALONE, 4 if quick else BOTH, SEED)
    seen = figures_of(kills)
    yield Figure("kills_held", seen["held"], "kills", f">= {len(kills)}", seen["held"] == len(kills))
    yield at_most("kills_gone_worst", seen["gone_worst_ms"] / 1000, "s", 1.0)
    yield Figure("kills_gone_median", seen["gone_median_ms"] / 1000, "s", "", None)
    yield Figure("kills_that_found_something_armed", seen["with_armed"], "kills", "", None)
