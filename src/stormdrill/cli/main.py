"""The entry point: commands found lazily, and every way to end turned into an exit code of the contract."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import click

from stormdrill import __version__

DEFECT = 70
STOPPED = 4
COMPLETION = "_STORMDRILL_COMPLETE"
"""Set by a shell that asks what could come next."""


class Word(NamedTuple):
    """Where a command lives and what `--help` says of it, known without importing it."""

    module: str
    attribute: str
    summary: str


COMMANDS: dict[str, Word] = {
    "init": Word("init", "init", "Lay out the four folders and a first drill of your own system."),
    "list": Word("listing", "listing", "List experiments, systems, profiles and runbooks."),
    "validate": Word("validate", "validate", "Check files and say everything that is wrong with them."),
    "plan": Word("plan", "plan", "Show exactly what a run would do, without doing it."),
    "run": Word("run", "run", "Run an experiment, from its file to its review."),
    "abort": Word("stop", "abort", "Stop a run: everything is reverted."),
    "recover": Word("stop", "recover", "Mend what a killed run left behind."),
    "sweep": Word("sweep", "sweep", "List what is ours on this machine, and remove what is stale."),
    "runs": Word("runs", "runs", "List runs, the open ones first."),
    "show": Word("runs", "show", "Show one run: what happened, and the verdict."),
    "judge": Word("runs", "judge", "Compute the verdict again from the run's record alone."),
    "combine": Word("combine", "combine", "Judge several runs of one experiment together."),
    "verify": Word("runs", "verify", "Check that the record is whole and unchanged."),
    "runbook": Word("runbook", "runbook", "List, show, check, run and resume runbooks."),
    "review": Word("runs", "review", "Render the review again and copy it to reviews/."),
    "load": Word("load", "load", "Draw what a profile or an experiment asks for over time."),
    "platform": Word("platform", "platform", "Print the reference platform for a cluster, as manifests."),
    "import": Word("importing", "importing", "Turn other tools' objectives (OpenSLO) into expressions."),
    "schema": Word("schema", "schema", "Print the JSON Schema that editors use."),
    "doctor": Word("doctor", "doctor", "Say what this machine offers, and what a missing part costs."),
}
PACKAGE = "stormdrill.cli.commands"


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, and not for `--help`."""

    def __init__(self, *args: object, words: dict[str, Word], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # click's own keywords pass through
        self.words = words

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.words)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        word = self.words.get(cmd_name)
        if word is None:
            return None
        command = getattr(importlib.import_module(f"{PACKAGE}.{word.module}"), word.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, word.summary) for name, word in self.words.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.words:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.words, 1)
            hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(self.words)}"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)


EPILOG = """\b
Exit codes, the first that applies:
   2  refused before anything was touched
   5  DIRTY: something could not be shown to be reverted
  70  a defect of stormdrill itself; everything was reverted
   4  stopped by a person or to protect this machine
   1  FAIL     3  INCONCLUSIVE or INVALID     0  PASS"""


@click.group(
    "stormdrill",
    cls=LazyGroup,
    words=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "--version", message="stormdrill %(version)s")
def root() -> None:
    """Inject a failure under load, judge it honestly, run the runbook, write the review."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and leave with its exit code. No traceback reaches a user."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a letter shows "?" and not a defect.
            stream.reconfigure(errors="replace")
    code = _run(list(sys.argv[1:] if argv is None else argv))
    try:
        sys.stdout.flush()
    except OSError:
        _fall_silent()
    sys.exit(code)


def _run(argv: list[str]) -> int:
    try:
        if COMPLETION in os.environ:
            from click.shell_completion import shell_complete

            return shell_complete(root, {}, "stormdrill", COMPLETION, os.environ[COMPLETION])
        with root.make_context("stormdrill", argv) as context:
            root.invoke(context)
        return 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return STOPPED
    except BrokenPipeError:
        # The reader left (`stormdrill runs | head`): nothing to say, and nobody to say it to.
        _fall_silent()
        return 0
    except Exception as error:
        return _explain(error, argv)


def _fall_silent() -> None:
    """Let what is still buffered go nowhere, so that the interpreter's own last flush doesn't complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _explain(error: Exception, argv: Sequence[str]) -> int:
    """Say what went wrong, in words for a person; returns the exit code."""
    from stormdrill.errors import Refused, StormdrillError

    if isinstance(error, Refused):
        for problem in error.problems:
            click.echo(str(problem), err=True)
        return error.exit_code
    if isinstance(error, StormdrillError) and error.exit_code != DEFECT:
        click.echo(str(error), err=True)
        return error.exit_code
    from stormdrill.cli.defect import write_report

    place = write_report(error, argv)
    click.echo(f"a defect of stormdrill itself: {type(error).__name__}", err=True)
    click.echo(f"report   {place}" if place else "the report file could not be written", err=True)
    click.echo("next     stormdrill runs   says whether anything is still open; please send the report", err=True)
    return DEFECT
