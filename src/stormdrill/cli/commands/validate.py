"""`stormdrill validate`: everything that is wrong with a file, at once."""

from __future__ import annotations

import click

from stormdrill.cli import options


@click.command("validate")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@options.settings
@options.fast
def validate(files: tuple[str, ...], settings: dict[str, str], fast: bool) -> None:
    """Check experiments, with their system, profile, runbook and the policy; or system files alone.

    Each problem is said as file:line:column, what is wrong, and what to write. Nothing is started.
    """
    from stormdrill import api
    from stormdrill.errors import Problem, Refused

    problems: list[Problem] = []
    for file in files:
        try:
            said = api.validate_any(file, settings, fast)
        except Refused as error:
            problems += error.problems
        else:
            click.echo(f"{file}: {said}")
    if problems:
        raise Refused(dict.fromkeys(problems))
