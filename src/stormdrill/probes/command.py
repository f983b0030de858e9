"""One number from one command: the last line of its standard output, or a place in its JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stormdrill.ports import Answer
from stormdrill.probes.call import run_command
from stormdrill.probes.http import number_at
from stormdrill.probes.prometheus import NUMBER
from stormdrill.spec.runbook_path import parse_path


class CommandProbe:
    """An argument vector, never a shell; it must exit with 0."""

    def __init__(self, argv: Sequence[str], path: str = "", *, cwd: str | None = None) -> None:
        """Raises ValueError for a path that cannot be read."""
        self.argv, self._cwd = tuple(argv), cwd
        self._path = parse_path(path) if path else None

    def read(self, timeout_s: float) -> Answer:
        ran = run_command(self.argv, timeout_s, cwd=self._cwd)
        if ran.error:
            return Answer((), ran.error, ran.took_ms)
        if ran.code != 0:
            return Answer((), f"{self.argv[0]} ended with exit code {ran.code}", ran.took_ms)
        value, detail = number_at(ran.output, self._path) if self._path is not None else _last_number(ran.output)
        if detail:
            return Answer((), f"{self.argv[0]}: {detail}", ran.took_ms)
        return Answer((({}, value),), took_ms=ran.took_ms)


def _last_number(text: str) -> tuple[float, str]:
    lines = text.strip().splitlines()
    if not lines:
        return 0.0, "it wrote nothing"
    if not NUMBER.fullmatch(lines[-1].strip()):
        return 0.0, f"its last line is no number: {lines[-1].strip()[:60]!r}"
    value = float(lines[-1].strip())
    return (value, "") if math.isfinite(value) else (0.0, f"the number is {value}")
