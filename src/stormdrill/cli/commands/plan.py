"""`stormdrill plan`: what a run would do, exactly, with nothing touched."""

from __future__ import annotations

import click

from stormdrill.cli import options


@click.command("plan")
@options.experiment
@options.target
@options.settings
@options.fast
@options.seed
@options.as_json
def plan(experiment: str, target: str, settings: dict[str, str], fast: bool, seed: int | None, as_json: bool) -> None:
    """Show the exact targets, the undo of each injection, the worst case and the permissions of a run."""
    from stormdrill import api

    made = api.plan(experiment, target, settings, fast, seed)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(made).decode())
        return
    from stormdrill.cli.outline import plan_lines

    for line in plan_lines(made):
        click.echo(line)
