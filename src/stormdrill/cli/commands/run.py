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
@options.context
@options.as_json
@options.runs_dir
@options.settings
@options.fast
@options.seed
@options.same_plan
@click.option(
    "--repeat",
    "times",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    metavar="N",
    help="Run it N times, each a whole run, and judge them together.",
)
@click.option(
    "--yes",
    is_flag=True,
    expose_value=False,
    help="Accepted for scripts; nothing is asked yet.",
)
@click.pass_context
def run(  # noqa: PLR0913  (the options of the command)
    ctx: click.Context,
    experiment: str,
    target: str,
    context: str,
    as_json: bool,
    runs_dir: Path,
    settings: dict[str, str],
    fast: bool,
    seed: int | None,
    expected: str | None,
    times: int,
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

    def one(seed: int | None, expected: str) -> api.RunResult:
        with open_view(out) as view:
            return api.run(
                experiment,
                target=target,
                context=context,
                settings=settings,
                fast=fast,
                seed=seed,
                expected=expected,
                runs_dir=runs_dir,
                announce=view.announce,
                observer=view,
            )

    def close(result: api.RunResult) -> None:
        last = Sink(out)
        for line in report.closing_lines(result, width_of(out)):
            last.write(f"{line}\n")
        last.flush()

    try:
        if times > 1:
            from stormdrill.cli.repeated import repeat

            ctx.exit(repeat(times, one, close, seed=seed, expected=expected or "", as_json=as_json))
        result = one(seed, expected or "")
    except click.exceptions.Exit:
        raise
    except Exception as error:
        if as_json:
            problems = error.problems if isinstance(error, Refused) else (Problem("", 0, 0, str(error)),)
            click.echo(json.dumps(report.refusal_object(problems)))
        raise
    if as_json:
        Sink(sys.stdout).write(f"{json.dumps(report.result_object(result))}\n")
    close(result)
    ctx.exit(result.exit_code)
