"""One experiment several times: each a whole run, and a verdict of all together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from stormdrill import api
from stormdrill.errors import Refused

if TYPE_CHECKING:
    from stormdrill.core.combine import Combined, Repeat

SEEDS = 2**32
ENDS = (Refused.exit_code, api.EXIT_DIRTY, api.EXIT_DEFECT, api.EXIT_STOPPED)
"""Exit codes after which no run follows, in the contract's order."""


class Repeated(Struct, frozen=True):
    """What `run --repeat` leaves behind."""

    results: tuple[api.RunResult, ...]
    combined: Combined | None
    """None when fewer than two runs came to an end."""
    exit_code: int
    note: str = ""
    """Why there are fewer runs than were asked for."""


def combine(run_dirs: Sequence[Path]) -> Combined:
    """One verdict of several runs, each from its own record. Raises Refused: different plans, a run that goes on."""
    from stormdrill.core import combine as court

    return court.combine([_repeat(directory) for directory in run_dirs])


def _repeat(run_dir: Path) -> Repeat:
    from stormdrill.core import combine as court
    from stormdrill.model.event import RunEnded
    from stormdrill.store import evidence

    found = evidence.load(run_dir)
    if not any(isinstance(item.event, RunEnded) for item in found.events):
        raise Refused(f"{run_dir.name} isn't ended: it is going on, or waits for stormdrill recover; combine it then")
    return court.repeat_of(found.plan, found.events, found.records, found.ledger)


def run(
    times: int,
    one: Callable[[int | None, str], api.RunResult],
    *,
    seed: int | None = None,
    expected: str = "",
    ended: Callable[[api.RunResult], None] = api.silent,
) -> Repeated:
    """`one`: a whole run with a seed, and the digest of the plan that is meant. With `seed` the second run has
    `seed + 1` and so on; else each has its own. After one that was stopped, that ended dirty or by a defect, none
    follows; a plan that is another one meanwhile ends the repeats too."""
    results: list[api.RunResult] = []
    note = ""
    for index in range(times):
        try:
            result = one(None if seed is None else (seed + index) % SEEDS, expected)
        except Refused as refused:
            if not results:
                raise
            note = f"run {index + 1} of {times} was refused: {refused}"
            break
        results.append(result)
        ended(result)
        if result.exit_code in ENDS:
            note = f"no run followed {result.run}, which ended with {result.exit_code}" if index + 1 < times else ""
            break
        if not expected:
            expected = _digest(result.dir)  # what is asked, and who is there, must not change in between
    combined = combine([result.dir for result in results]) if len(results) > 1 else None
    return Repeated(tuple(results), combined, exit_code([result.exit_code for result in results], combined, note), note)


def _digest(run_dir: Path) -> str:
    from stormdrill.store import evidence

    return evidence.plan_of(run_dir).digest


def exit_code(codes: Sequence[int], combined: Combined | None, note: str) -> int:
    """What ended a run otherwise than by its verdict comes first, in the contract's order. Fewer runs than were asked
    for have not passed."""
    for code in ENDS:
        if code in codes:
            return code
    found = codes[-1] if combined is None else api.EXIT_OF[combined.verdict]
    return api.EXIT_OF["INCONCLUSIVE"] if note and found == 0 else found
