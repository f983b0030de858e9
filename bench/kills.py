"""SIGKILL of the runner, the keeper, or both, at random moments: what is left, and for how long."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from bench.figure import Figure, at_most

SEED = 20261121
ALONE, BOTH = 300, 50


def measure(quick: bool) -> Iterator[Figure]:
    """Every count of what went wrong is asked to be 0."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "real"))
    from killing import figures_of, sweep

    kills = sweep(10 if quick else ALONE, 4 if quick else BOTH, SEED)
    for name, value in figures_of(kills).items():
        if name.endswith("_s"):
            yield at_most(f"kills_{name}", value, "s", 1.0)
        elif name in ("alone", "both"):
            yield Figure(f"kills_{name}", value, "kills", "", None)
        else:
            yield at_most(f"kills_{name}", value, "kills", 0)
