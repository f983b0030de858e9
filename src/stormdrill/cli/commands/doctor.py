"""`stormdrill doctor`: what this machine offers to a drill."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stormdrill.cli import options

if TYPE_CHECKING:
    from stormdrill.cli.host import Finding

MARKS = {"ok": "ok", "weak": "weak", "missing": "MISSING"}


@click.command("doctor")
@options.runs_dir
@click.option("--target", type=click.Choice(["kubernetes"]), help="Look at a cluster, too.")
@options.one_cluster
@options.as_json
@click.pass_context
def doctor(ctx: click.Context, runs_dir: Path, target: str | None, context: str, suite: str, as_json: bool) -> None:
    """Say what this machine offers to a drill, which mechanisms work on each target, and what a missing part costs.

    Exit code 2 when drills on processes cannot run here, else 0.
    """
    from stormdrill.cli.host import findings, of_cluster
    from stormdrill.cli.screen import width_of

    found = [*findings(runs_dir), *(of_cluster(context, suite) if target else ())]
    stops = [one for one in found if one.state == "missing" and one.part in NEEDED and not one.target]
    if as_json:
        import json

        click.echo(json.dumps([one._asdict() for one in found]))
    else:
        for line in lines_of(found, width_of(sys.stdout)):
            click.echo(line)
        click.echo()
        click.echo(f"  {_conclusion(found, stops)}")
    ctx.exit(2 if stops else 0)


def _conclusion(found: Sequence[Finding], stops: Sequence[Finding]) -> str:
    """Where drills can run, in one line."""
    if stops:
        return f"cannot run here: {', '.join(one.part for one in stops)}"
    containers = next(one for one in found if one.part == "containers")
    there = "and in containers too" if containers.state == "ok" else f"in containers {containers.seen}"
    return f"drills on processes can run here, {there}"


NEEDED = frozenset({"kernel", "loopback", "runs", "state", "processes"})
"""Parts without which no drill on processes can run."""


def lines_of(found: Sequence[Finding], width: int) -> Iterator[str]:
    """In columns, a target's mechanisms indented below it."""
    shown = [(f"  {one.part}" if one.target else one.part, one) for one in found]
    label = max(len(part) for part, one in shown if len(part) <= WIDEST_PART)
    for part, one in shown:
        indent = " " * (label + 13)
        if len(part) > label:
            yield f"  {part}"
            part = ""
        yield from textwrap.wrap(
            one.seen, width, initial_indent=f"  {part:<{label}}  {MARKS[one.state]:<7}  ", subsequent_indent=indent
        )
        yield from textwrap.wrap(one.cost, width, initial_indent=indent, subsequent_indent=indent)


WIDEST_PART = 24
