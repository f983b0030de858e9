"""`stormdrill plan`: what a run would do, exactly, without doing it."""

from __future__ import annotations

import sys

import click

from stormdrill.cli import options


@click.command("plan")
@options.experiment
@options.target
@options.context
@options.settings
@options.fast
@options.seed
@options.as_json
@click.option("--rbac", is_flag=True, help="Print the account with the least rights on the cluster, as manifests.")
@click.option("--cluster", metavar="NAME", default="", help="Of several, the one that --rbac prints for.")
@click.option("--schedule", metavar="CRON", help="Print the manifests of a run that the cluster begins by itself.")
@click.option("--claim", metavar="NAME", default="", help="The volume claim that keeps the runs of --schedule.")
def plan(  # noqa: PLR0913  (the options of the command)
    experiment: str,
    target: str,
    context: str,
    settings: dict[str, str],
    fast: bool,
    seed: int | None,
    as_json: bool,
    rbac: bool,
    cluster: str,
    schedule: str | None,
    claim: str,
) -> None:
    """Show who would be hit by what, the undo, the worst case, what it takes, and a digest to run exactly this."""
    from stormdrill import api
    from stormdrill.cli import blueprint
    from stormdrill.errors import StormdrillError

    if rbac or schedule is not None:
        target = "kubernetes" if target == "process" else target
        outside = False if schedule is not None else None  # what is scheduled runs in the cluster
        parts = []
        if rbac:
            parts.append(
                api.rules(experiment, target, settings, fast, outside=outside, cluster=cluster, context=context)
            )
        if schedule is not None:
            how = {"claim": claim, "context": context}
            parts.append(api.schedule(experiment, target, schedule, settings=settings, fast=fast, **how))
        click.echo("---\n".join(parts), nl=False)  # the account first, for `kubectl apply -f -`
        return
    if claim:
        raise click.UsageError("--claim says where the runs of --schedule are kept; write both")
    try:
        made = api.plan(experiment, target, settings, fast, seed, context)
    except StormdrillError as error:
        if as_json:
            options.say_refusal(error)
        raise
    kept = api.keep_plan(made)
    if as_json:
        import json

        click.echo(json.dumps(blueprint.blueprint_object(made)))
        return
    from stormdrill.cli.screen import width_of

    asked = [experiment, *_asked(target, settings, fast, context)]
    for line in blueprint.blueprint_lines(made, asked, width_of(sys.stdout)):
        click.echo(line)
    if not kept:
        click.echo("  the plan could not be kept: a later --plan will not say what has changed", err=True)


def _asked(target: str, settings: dict[str, str], fast: bool, context: str = "") -> list[str]:
    """The options that make the plan what it is, as they would be written; the seed changes nothing that is harmed."""
    said = ["--target", target] if target != "process" else []
    said += ["--context", context] if context else []
    for name, value in settings.items():
        said += ["--set", f"{name}={value}"]
    return [*said, "--fast"] if fast else said
