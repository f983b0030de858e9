"""`stormdrill runbook …`: the same runbook that drills prove, in a person's hands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stormdrill.cli import options

if TYPE_CHECKING:
    from stormdrill.engine.runbook import StepReport
    from stormdrill.engine.runbook_alone import AloneRun
    from stormdrill.engine.runbook_person import Person
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
@click.option("--live", is_flag=True, help="Also look once at the live system, changing nothing.")
@parameters
@click.pass_context
def check(ctx: click.Context, files: tuple[str, ...], live: bool, settings: dict[str, str]) -> None:
    """Check runbooks: what is wrong with the files, and what they need that isn't here."""
    from stormdrill.api import runbooks
    from stormdrill.errors import Problem, Refused

    problems: list[Problem] = []
    for file in files:
        try:
            found = runbooks.check(Path(file))
        except Refused as error:
            found = error.problems
        problems += found
        if not found:
            click.echo(f"{file}: valid")
    if problems:
        raise Refused(problems)
    if live:
        looks = [look for file in files for look in runbooks.look(Path(file), settings)]
        for look in looks:
            click.echo(f"  {'ok' if look.ok else 'NO':<3} {look.step:<20} {look.detail}")
        ctx.exit(0 if all(look.ok for look in looks) else 1)


@runbook.command("run")
@click.argument("name", metavar="NAME")
@parameters
@approve
@options.runs_dir
@click.pass_context
def execute(ctx: click.Context, name: str, settings: dict[str, str], approve: tuple[str, ...], runs_dir: Path) -> None:
    """Execute a runbook step by step, with its checks, approvals and a record.

    Without a terminal nobody is asked: a step that needs an approval which wasn't given beforehand fails.
    """
    from stormdrill.api import runbooks

    done = runbooks.run(_find(name), settings, approved=approve, person=_person(), runs_dir=runs_dir, on_step=_say_step)
    ctx.exit(_ended(done))


@runbook.command("resume")
@options.run_name
@approve
@options.runs_dir
@click.pass_context
def resume(ctx: click.Context, run: str, approve: tuple[str, ...], runs_dir: Path) -> None:
    """Go on with a runbook that was interrupted: nothing that is done is done again without asking."""
    from stormdrill.api import runbooks
    from stormdrill.store import rundir

    directory = rundir.find(run, runs_dir)
    ctx.exit(_ended(runbooks.resume(directory, approved=approve, person=_person(), on_step=_say_step)))


def _person() -> Person | None:
    from stormdrill.cli.person import person_at
    from stormdrill.cli.screen import width_of

    return person_at(sys.stdin, sys.stdout, width_of(sys.stdout))


def _say_step(report: StepReport) -> None:
    from stormdrill.cli.figures import milliseconds

    detail = f"  {report.detail}" if report.detail else ""
    click.echo(f"  {report.step:<20} {report.kind:<10} {report.outcome:<10} {milliseconds(report.took_ms):>8}{detail}")


def _ended(done: AloneRun) -> int:
    """The last lines, and the exit code: 0 done, 4 cancelled by a person, 1 for everything else."""
    from stormdrill.cli.report import near

    click.echo(f"\n  {done.outcome}{f': {done.detail}' if done.detail else ''}")
    for standing in done.standing:
        click.echo(f"  still stands: {standing}")
    click.echo(f"  record   {near(done.dir)}   head {done.head[:4]}…{done.head[-2:]}")
    if done.outcome != "done":
        click.echo(f"  next     stormdrill runbook resume {done.dir.name}")
    return {"done": 0, "cancelled": 4}.get(done.outcome, 1)


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
