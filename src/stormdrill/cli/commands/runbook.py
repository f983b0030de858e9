"""`stormdrill runbook …`: the same runbook that drills prove, in a person's hands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stormdrill.cli import options

if TYPE_CHECKING:
    from stormdrill.model.runbook import Runbook

approve = click.option("--approve", multiple=True, metavar="STEP", help="Approve this step beforehand. Repeatable.")
parameters = click.option(
    "--set",
    "settings",
    type=options.Setting(),
    multiple=True,
    callback=options.as_settings,
    help="A parameter of the runbook. Repeatable.",
)


@click.group("runbook")
def runbook() -> None:
    """List, show and check runbooks; execute one step by step, and go on where a crash interrupted."""


@runbook.command("list")
def listed() -> None:
    """List the runbooks here and those that are built in."""
    from stormdrill.cli.commands.listing import find_items

    items = [item for item in find_items(Path()) if item.kind == "runbooks"]
    label = max((len(item.name) for item in items), default=0)
    for item in items:
        click.echo(f"  {item.name:<{label}}  {item.says}{' (built in)' if item.built_in else ''}")


@runbook.command("show")
@click.argument("name", metavar="NAME")
def show(name: str) -> None:
    """Show what a runbook answers, what it needs, and its steps in order."""
    book = _read(name)
    for label, text in (
        ("answers", ", ".join(book.answers)),
        ("service", f"{book.service}, owned by {book.owner}"),
        ("escalation", book.escalation),
        ("severity", book.severity),
        ("done when", book.exit.text),
        ("proved by", ", ".join(book.proved_by) or "nothing yet"),
    ):
        click.echo(f"  {label:<11} {text}")
    for parameter in book.parameters:
        given = parameter.source or (f"default {parameter.default}" if parameter.default is not None else "to be given")
        choices = f" of {', '.join(parameter.choices)}" if parameter.choices else ""
        click.echo(f"  {'parameter':<11} {parameter.name}{choices}: {given}")
    click.echo()
    for step in book.steps:
        notes = [step.kind, f"{step.risk} risk"] if step.kind == "action" else [step.kind]
        notes += ["needs approval"] * bool(step.approvals) + [f"undo {step.undo}"] * bool(step.undo)
        click.echo(f"  {step.id:<20} {', '.join(notes)}")


@runbook.command("check")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def check(files: tuple[str, ...]) -> None:
    """Check runbooks and say everything that is wrong with them."""
    from stormdrill.errors import Problem, Refused
    from stormdrill.spec.runbook import read_runbook

    problems: list[Problem] = []
    for file in files:
        try:
            read_runbook(Path(file))
        except Refused as error:
            problems += error.problems
        else:
            click.echo(f"{file}: valid")
    if problems:
        raise Refused(problems)


@runbook.command("run")
@click.argument("name", metavar="NAME")
@click.option("--system", default=None, metavar="NAME|URL", help="Whose admin address it calls, when it needs one.")
@parameters
@approve
@options.runs_dir
@click.pass_context
def execute(
    ctx: click.Context,
    name: str,
    system: str | None,
    settings: dict[str, str],
    approve: tuple[str, ...],
    runs_dir: Path,
) -> None:
    """Execute a runbook step by step, with its checks, approvals and a record.

    Without a terminal nobody is asked: a step that needs an approval which wasn't given beforehand fails.
    """
    from stormdrill import api
    from stormdrill.cli.person import person_at
    from stormdrill.cli.screen import width_of
    from stormdrill.cli.terminal import PlainView

    width = width_of(sys.stdout)
    done = api.runbook_run(
        _find(name),
        settings,
        system=system,
        approved=approve,
        person=person_at(sys.stdin, sys.stdout, width),
        runs_dir=runs_dir,
        observer=PlainView(sys.stdout, width),
    )
    ctx.exit(_ended(done.outcome, done.detail, done.dir))


@runbook.command("resume")
@options.run_name
@approve
@options.runs_dir
@click.pass_context
def resume(ctx: click.Context, run: str, approve: tuple[str, ...], runs_dir: Path) -> None:
    """Go on with a runbook that was interrupted: nothing that is done is done again without asking."""
    from stormdrill import api
    from stormdrill.cli.person import person_at
    from stormdrill.cli.screen import width_of
    from stormdrill.cli.terminal import PlainView
    from stormdrill.store import rundir

    width = width_of(sys.stdout)
    done = api.runbook_resume(
        rundir.find(run, runs_dir),
        approved=approve,
        person=person_at(sys.stdin, sys.stdout, width),
        observer=PlainView(sys.stdout, width),
    )
    ctx.exit(_ended(done.outcome, done.detail, done.dir))


def _ended(outcome: str, detail: str, directory: Path) -> int:
    """The last lines, and the exit code: 0 done, 4 cancelled by a person, 1 for everything else."""
    click.echo(f"\n  {outcome}{f': {detail}' if detail else ''}\n  record   {directory}")
    if outcome not in ("done", "cancelled"):
        click.echo(f"  next     stormdrill runbook resume {directory.name}")
    return {"done": 0, "cancelled": 4}.get(outcome, 1)


def _find(name: str) -> Path:
    """A path, or the name of a runbook here or built in."""
    from stormdrill.errors import Refused
    from stormdrill.spec import catalogue

    if Path(name).is_file():
        return Path(name)
    roots = [Path(), catalogue.root()]
    found = catalogue.find(roots, f"runbooks/{name}.md")
    if found is None:
        raise Refused(f"no runbook {name!r}; there are {', '.join(catalogue.names(roots, 'runbooks', '.md'))}")
    return found


def _read(name: str) -> Runbook:
    from stormdrill.spec.runbook import read_runbook

    return read_runbook(_find(name))
