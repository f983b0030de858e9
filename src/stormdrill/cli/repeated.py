"""How several runs of one experiment went, for a person and for a program."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

from stormdrill.cli import figures, report
from stormdrill.cli.screen import Sink, width_of
from stormdrill.core import telling

if TYPE_CHECKING:
    from stormdrill import api
    from stormdrill.api.repeats import Repeated
    from stormdrill.core.combine import Combined, CombinedObjective


def combined_lines(combined: Combined, width: int = 100) -> list[str]:
    """The verdict of all, what each run said by itself, each objective over all of them, and why."""
    lines = textwrap.wrap(
        combined.sentence, width, initial_indent=f"  {combined.verdict:<6} ", subsequent_indent=" " * 9
    )
    lines.append("")
    for run in combined.runs:
        word = "left out" if run.left_out else run.verdict
        lines += _wrapped(f"{word:<12}  {run.run}" + (f": {run.left_out}" if run.left_out else ""), width, 16)
    lines.append("")
    rows = [("", "", "", "in all runs", "95% interval", "n", "held"), *(_row(one) for one in combined.objectives)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [f"{text:<{size}}" for text, size in zip(row[:3], widths[:3], strict=True)]
        cells += [f"{text:>{size}}" for text, size in zip(row[3:], widths[3:], strict=True)]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    whys = [one.sentence for one in combined.objectives if one.verdict != "PASS" and one.values] + list(
        combined.reasons
    )
    for why in dict.fromkeys(whys):
        if not combined.sentence.startswith(why) and not any(
            why == f"{run.run} is left out: {run.left_out}" for run in combined.runs
        ):
            lines += ["", *_wrapped(f"- {why}", width, 2)]
    return lines


def repeat(
    times: int,
    one: Callable[[int | None, str], api.RunResult],
    close: Callable[[api.RunResult], None],
    *,
    seed: int | None,
    expected: str,
    as_json: bool,
) -> int:
    """All runs, one after the other, and what they say together; returns the exit code."""
    import json

    from stormdrill.api import repeats

    out = sys.stderr if as_json else sys.stdout
    repeated = repeats.run(times, one, seed=seed, expected=expected, ended=close)
    if as_json:
        Sink(sys.stdout).write(f"{json.dumps(repeated_object(repeated))}\n")
    last = Sink(out)
    lines = ["", *combined_lines(repeated.combined, width_of(out))] if repeated.combined is not None else []
    for line in [*lines, *([f"  {repeated.note}"] if repeated.note else [])]:
        last.write(f"{line}\n")
    last.flush()
    return repeated.exit_code


def _wrapped(text: str, width: int, indent: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="  ", subsequent_indent=" " * (indent + 2))


def _row(one: CombinedObjective) -> tuple[str, ...]:
    return (
        "" if one.verdict == "PASS" else one.verdict,
        one.name,
        telling.phase(one.phase),
        figures.measured(one.value, one.unit),
        figures.interval(one.low, one.high, one.unit),
        figures.count(one.n) if one.n else "",
        f"{one.passed} of {len(one.values)}",
    )


def repeated_object(repeated: Repeated) -> dict[str, object]:
    """What `run --repeat --json` prints: every run as `run` prints it, and the verdict of all."""
    import msgspec

    return {
        "runs": [report.result_object(result) for result in repeated.results],
        "combined": msgspec.to_builtins(repeated.combined),
        "note": repeated.note,
    }
