"""`stormdrill abort` and `stormdrill recover`: the two ways to end what still goes on."""

from __future__ import annotations

import click


@click.command("abort")
@click.argument("run", metavar="[RUN]", required=False)
@click.pass_context
def abort(ctx: click.Context, run: str | None) -> None:
    """Stop RUN, or the only run that is open: its faults are reverted and its system is ended."""
    from stormdrill import api
    from stormdrill.cli.outline import said

    ctx.exit(said(api.abort(run)))


@click.command("recover")
@click.argument("run", metavar="[RUN]", required=False)
@click.pass_context
def recover(ctx: click.Context, run: str | None) -> None:
    """Mend what killed runs left behind: all of them, or RUN alone."""
    from stormdrill import api
    from stormdrill.cli.outline import said

    ctx.exit(said(api.recover(run)))
