"""`stormdrill run`: one experiment, from its file to its review."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from stormdrill.cli import options


@click.command("run")
@options.experiment
@options.target
@options.as_json
@options.runs_dir
@options.settings
@options.fast
@options.seed
@options.same_plan
@click.option(
    "--yes",
    is_flag=True,
    expose_value=False,
    help="Accepted for scripts; nothing is asked yet.",
)
@click.pass_context
def run(
    ctx: click.Context,
    experiment: str,
    target: str,
    as_json: bool,
    runs_dir: Path,
    settings: dict[str, str],
    fast: bool,
    seed: int | None,
    expected: str | None,
) -> None:
    """Run EXPERIMENT: start its system, load it, inject, observe, revert, judge, write the review.

    Ctrl-C stops the run and reverts everything; the exit code says how it ended.
    """
    from stormdrill import api
    from stormdrill.cli import report
    from stormdrill.cli.screen import Sink, width_of
    from stormdrill.cli.terminal import open_view
    from stormdrill.errors import Problem, Refused

    out = sys.stderr if as_json else sys.stdout
    try:
        with open_view(out) as view:
            result = api.run(
                experiment,
                target=target,
                settings=settings,
                fast=fast,
                seed=seed,
                expected=expected or "",
                runs_dir=runs_dir,
                announce=view.announce,
                observer=view,
            )
    except Exception as error:
        if as_json:
            problems = error.problems if isinstance(error, Refused) else (Problem("", 0, 0, str(error)),)
            click.echo(json.dumps(report.refusal_object(problems)))
        raise
    if as_json:
        Sink(sys.stdout).write(f"{json.dumps(report.result_object(result))}\n")
    last = Sink(out)
    for line in report.closing_lines(result, width_of(out)):
        last.write(f"{line}\n")
    last.flush()
    ctx.exit(result.exit_code)
