"""What a command costs before it does anything."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from bench.figure import Figure, at_most, cpu_of, middle_of

COMMAND = str(Path(sys.executable).parent / "stormdrill")
LIMIT_S = 0.10


def measure(quick: bool) -> Iterator[Figure]:
    times = 5 if quick else 25
    for name, argv in {
        "version_cpu": (COMMAND, "--version"),
        "help_cpu": (COMMAND, "--help"),
        "validate_cpu": (COMMAND, "validate", "experiments/region-loss.yaml"),
    }.items():
        cpu_of(argv)  # the first one also compiles
        yield at_most(name, middle_of(times, lambda argv=argv: cpu_of(argv)), "s", LIMIT_S)  # type: ignore[misc]
