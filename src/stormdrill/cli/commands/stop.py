"""`stormdrill abort` and `stormdrill recover`: the two ways to end what still goes on."""

from __future__ import annotations

from pathlib import Path

import click

from stormdrill.cli import options

DIRTY = 5


@click.command("abort")
@click.argument("run", metavar="[RUN]", required=False)
@options.runs_dir
@click.pass_context
def abort(ctx: click.Context, run: str | None, runs_dir: Path) -> None:
    """Stop RUN, or the only one that runs: its faults are reverted and its system is ended."""
    from stormdrill import api
    from stormdrill.errors import Refused

    if run is None:
        running = [line for line in api.runs(runs_dir) if line.state == "running"]
        if len(running) != 1:
            names = ", ".join(line.run for line in running)
            raise Refused(f"which one? running are {names}" if names else "no run is going on")
        run = running[0].dir
    stopped = api.abort(run, runs_dir)
    click.echo(f"{stopped.run}: {stopped.status}, ended by its {stopped.by}")
    ctx.exit(DIRTY if stopped.status == "dirty" else 0)


@click.command("recover")
@click.argument("run", metavar="[RUN]", required=False)
@options.runs_dir
@click.option("--accept-left", is_flag=True, help="I have mended by hand what could not be shown to be reverted.")
@click.pass_context
def recover(ctx: click.Context, run: str | None, runs_dir: Path, accept_left: bool) -> None:
    """Mend what killed runs left behind: all of them, or RUN alone."""
    from stormdrill import api

    results = api.recover(run, runs_dir, accept_left=accept_left)
    if not results:
        going = ", ".join(line.run for line in api.runs(runs_dir) if line.state == "running")
        click.echo(f"nothing was left behind{f'; {going} goes on (stop it with: stormdrill abort)' if going else ''}")
    for result in results:
        click.echo(f"{result.run}: {result.status}")
        for injection, outcome, detail in result.reverted:
            click.echo(f"  {injection}: {outcome}{f', {detail}' if detail else ''}")
        if result.ended:
            click.echo(f"  {result.ended} processes were still alive and are no more")
        if result.removed:
            click.echo(f"  removed {', '.join(result.removed)}")
        for left in result.left:
            click.echo(f"  LEFT {left}; mend it by hand, then: stormdrill recover {result.run} --accept-left")
    ctx.exit(DIRTY if any(result.status == "dirty" for result in results) else 0)
