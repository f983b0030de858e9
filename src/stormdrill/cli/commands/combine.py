"""`stormdrill combine`: several runs of one experiment, judged together."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from stormdrill.cli import options


@click.command("combine")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@options.runs_dir
@options.as_json
@click.pass_context
def combine(ctx: click.Context, runs: tuple[str, ...], runs_dir: Path, as_json: bool) -> None:
    """Judge several runs of one plan together, each from its own record.

    Runs that can't be believed or were stopped are left out, and named. The exit code is that of the common verdict.
    """
    from stormdrill import api
    from stormdrill.api import repeats
    from stormdrill.store import rundir

    combined = repeats.combine([rundir.find(run, runs_dir) for run in runs])
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(combined).decode())
    else:
        from stormdrill.cli.repeated import combined_lines
        from stormdrill.cli.screen import width_of

        for line in combined_lines(combined, width_of(sys.stdout)):
            click.echo(line)
    ctx.exit(api.EXIT_OF[combined.verdict])
