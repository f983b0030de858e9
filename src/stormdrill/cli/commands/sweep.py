"""`stormdrill sweep`: everything of ours on this machine, and the removal of what is stale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stormdrill.cli import options

if TYPE_CHECKING:
    from stormdrill.keeper.sweep import Swept

DIRTY = 5


@click.command("sweep")
@click.argument("run", metavar="[RUN]", required=False)
@click.option("--dry-run", is_flag=True, help="List it, and touch nothing.")
@click.option("--target", type=click.Choice(["kubernetes"]), help="Look into a cluster, too.")
@options.one_cluster
@options.as_json
@click.pass_context
def sweep(
    ctx: click.Context, run: str | None, dry_run: bool, target: str | None, context: str, suite: str, as_json: bool
) -> None:
    """List what runs, or RUN alone, have on this machine, and remove what is stale: what no living run owns."""
    from stormdrill import api
    from stormdrill.api.far import ClusterPlace

    swept = api.sweep(run or "", dry_run=dry_run, cluster=ClusterPlace(context, suite) if target else None)
    if as_json:
        import dataclasses
        import json

        things = [{**dataclasses.asdict(thing), "stale": thing.stale} for thing in swept.things]
        told = {"dry_run": dry_run, "things": things, "notes": swept.notes, "left": len(swept.left)}
        click.echo(json.dumps(told))
    else:
        _show(swept)
    ctx.exit(DIRTY if swept.left else 0)


def _show(swept: Swept) -> None:
    things = swept.things
    kind, name = (max((len(getattr(thing, part)) for thing in things), default=0) for part in ("kind", "name"))
    run = ""
    for thing in things:
        if thing.run != run:
            run = thing.run
            click.echo(f"  {run}  {thing.owner}")
        expires = f"until {thing.expires}" if thing.expires else ""
        click.echo(f"    {thing.kind:<{kind}}  {thing.name:<{name}}  {expires:<31}  {thing.outcome}".rstrip())
    for note in swept.notes:
        click.echo(f"  {note}")
    stale = sum(thing.stale for thing in things)
    if not things:
        click.echo("  nothing of ours is here")
    elif swept.dry_run:
        click.echo(f"\n  {len(things)} things, {stale} of them stale: stormdrill sweep removes those")
    else:
        click.echo(f"\n  {len(things)} things, {stale - len(swept.left)} removed, {len(swept.left)} left")
