"""`stormdrill runs`, `show`, `judge`, `verify`, `review`: everything that is said about a run afterwards."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from stormdrill.cli import options

OPEN = ("running", "killed", "dirty", "unknown")


@click.command("runs")
@options.runs_dir
@options.as_json
def runs(runs_dir: Path, as_json: bool) -> None:
    """List the runs in DIR and every open run wherever it is, the open ones first."""
    from stormdrill import api

    found = sorted(api.runs(runs_dir), key=lambda line: line.state not in OPEN)
    if as_json:
        import dataclasses
        import json

        click.echo(json.dumps([{**dataclasses.asdict(line), "verdict": _verdict(line.dir)} for line in found]))
        return
    for line in found:
        click.echo(f"  {line.state:<10} {_verdict(line.dir):<12}  {line.run}  {line.title}")
        for left in line.left:
            click.echo(f"             left: {left}")
    waiting = [line for line in found if line.held and line.state in ("killed", "dirty")]
    unheld = [line for line in found if not line.held and line.state in ("killed", "unknown")]
    if not found:
        click.echo(f"  no runs in {runs_dir}")
    if waiting:
        click.echo(f"\n  next     stormdrill recover   mends {len(waiting)} of them")
    for line in unheld:
        why = "its processes are gone" if line.state == "killed" else "no process of it can be seen from this machine"
        click.echo(f"\n  {line.run} is held by nobody here; {why}: stormdrill recover {line.run}")


def _verdict(directory: str) -> str:
    """The word in the run's verdict.json; empty when none was computed yet."""
    import json

    try:
        return str(json.loads((Path(directory) / "verdict.json").read_bytes())["verdict"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@click.command("show")
@options.run_name
@options.runs_dir
@options.as_json
def show(run: str, runs_dir: Path, as_json: bool) -> None:
    """Show one run: what happened, told from its record, and the verdict."""
    from stormdrill.cli.past import story_lines, story_object

    directory = _directory(run, runs_dir)
    if as_json:
        import json

        click.echo(json.dumps(story_object(directory)))
        return
    from stormdrill.cli.screen import width_of

    for line in story_lines(directory, width_of(sys.stdout)):
        click.echo(line)


@click.command("judge")
@options.run_name
@options.runs_dir
@options.as_json
@click.pass_context
def judge(ctx: click.Context, run: str, runs_dir: Path, as_json: bool) -> None:
    """Compute the verdict again, from the run's record alone, and write verdict.json."""
    from stormdrill import api

    directory = _directory(run, runs_dir)
    verdict = api.judge(directory)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(verdict).decode())
    else:
        from stormdrill.cli.report import verdict_lines
        from stormdrill.cli.screen import width_of

        for line in verdict_lines(verdict, width_of(sys.stdout)):
            click.echo(line)
    ctx.exit(api.exit_code_of(directory, verdict))


@click.command("verify")
@options.run_name
@options.runs_dir
@click.option("--head", default="", help="The last hash, as it was printed when the run ended or posted elsewhere.")
def verify(run: str, runs_dir: Path, head: str) -> None:
    """Check the record: the chain of the journal, and every file whose hash it carries."""
    from stormdrill import api
    from stormdrill.errors import Refused

    directory = _directory(run, runs_dir)
    problems = api.verify(directory, head)
    if problems:
        raise Refused(problems)
    click.echo(f"{directory.name}: whole and unchanged{f', head {head}' if head else ''}")


@click.command("review")
@options.run_name
@options.runs_dir
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("reviews"),
    show_default=True,
    help="Where the copy goes.",
)
def review(run: str, runs_dir: Path, to: Path) -> None:
    """Render the review again, from the run's record alone, and copy it to reviews/."""
    from stormdrill import api

    published = api.review(_directory(run, runs_dir), to)
    for place in (published.markdown, published.html):
        click.echo(str(place))
    for problem in published.problems:
        click.echo(f"  {problem}")


def _directory(run: str, runs_dir: Path) -> Path:
    from stormdrill.store import rundir

    return rundir.find(run, runs_dir)
