"""From the breach of a guard, as the guards' look saw it, to the start of the revert, with something hanging."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.figure import Figure, at_most

TIMES = 10
LIMIT_MS = 200.0
"""Beyond one interval of the probe that saw it; the interval itself passes before the look."""


def measure(quick: bool) -> Iterator[Figure]:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "real"))
    from breaching import HANGS, breached, latency_ms

    worst_ms = 0.0
    for hangs in HANGS:
        found = []
        for _ in range(2 if quick else TIMES):
            with TemporaryDirectory(prefix="guard-") as folder:
                found.append(latency_ms(breached(Path(folder) / "run", hangs)))
        worst_ms = max(worst_ms, *found)
        name = "guard_to_revert_" + hangs.replace("'s", "").replace(" ", "_")
        yield Figure(name, round(median(found), 2), "ms", "", None)
    yield at_most("guard_to_revert_worst", round(worst_ms, 2), "ms", LIMIT_MS)
