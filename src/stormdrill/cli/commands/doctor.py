"""`stormdrill doctor`: what this machine offers to a drill."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import click

from stormdrill.cli import options

MARKS = {"ok": "ok", "weak": "weak", "missing": "MISSING"}


@click.command("doctor")
@options.runs_dir
@options.as_json
@click.pass_context
def doctor(ctx: click.Context, runs_dir: Path, as_json: bool) -> None:
    """Say what this machine offers to a drill, and what each missing part costs.

    Exit code 2 when drills on processes cannot run here, else 0.
    """
    from stormdrill.cli.host import findings
    from stormdrill.cli.screen import width_of

    found = findings(runs_dir)
    stops = [one for one in found if one.state == "missing" and one.part in NEEDED]
    if as_json:
        import json

        click.echo(json.dumps([one._asdict() for one in found]))
    else:
        width = width_of(sys.stdout)
        label = max(len(one.part) for one in found)
        for one in found:
            click.echo(f"  {one.part:<{label}}  {MARKS[one.state]:<7}  {one.seen}")
            indent = " " * (label + 13)
            for line in textwrap.wrap(one.cost, width, initial_indent=indent, subsequent_indent=indent):
                click.echo(line)
        click.echo()
        end = (
            f"cannot run here: {', '.join(one.part for one in stops)}" if stops else "drills on processes can run here"
        )
        click.echo(f"  {end}")
    ctx.exit(2 if stops else 0)


NEEDED = frozenset({"kernel", "loopback", "runs", "state", "processes"})
"""Parts without which no drill on processes can run."""
