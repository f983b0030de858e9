"""Options that several commands share, with one meaning each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class Setting(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """KEY=VALUE, as `--set` takes it."""

    name = "KEY=VALUE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, sign, text = str(value).partition("=")
        if not sign or not key.strip():
            self.fail(f"{str(value)!r} is no setting; write a name, =, and a value: --set region=us", param, ctx)
        return key.strip(), text


def as_settings(ctx: click.Context, param: click.Parameter, value: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """The settings as a mapping; a name given twice is refused, since one of them would be ignored."""
    settings: dict[str, str] = {}
    for key, text in value:
        if key in settings:
            raise click.BadParameter(f"{key!r} is set twice; which one is meant?", ctx, param)
        settings[key] = text
    return settings


class Seed(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """A whole number of 32 bits."""

    name = "N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        if not (text.isascii() and text.isdigit()) or int(text[:12]) >= 2**32:
            self.fail(f"{text!r} is no seed; write a whole number from 0 to {2**32 - 1:,}: --seed 7", param, ctx)
        return int(text)


class Digest(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """The digest of a plan, or its first digits."""

    name = "DIGEST"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip().lower()
        if not 6 <= len(text) <= 12 or set(text) - set("0123456789abcdef"):
            self.fail(f"{text!r} is no digest of a plan; stormdrill plan EXPERIMENT prints one", param, ctx)
        return text


def say_refusal(error: Exception) -> None:
    """One object on stdout for a program that asked for one: what is wrong, and where."""
    import json

    from stormdrill.errors import Problem, Refused

    problems = error.problems if isinstance(error, Refused) else (Problem("", 0, 0, str(error)),)
    click.echo(json.dumps({"status": "refused", "problems": [problem._asdict() for problem in problems]}))


experiment = click.argument("experiment", metavar="EXPERIMENT")
run_name = click.argument("run", metavar="RUN")
settings = click.option(
    "--set",
    "settings",
    type=Setting(),
    multiple=True,
    callback=as_settings,
    help="Set a parameter of the experiment or of its system. Repeatable.",
)
fast = click.option("--fast", is_flag=True, help="Use the experiment's `fast:` section: shorter, for tests.")
target = click.option(
    "--target",
    type=click.Choice(["process", "docker", "kubernetes"]),
    default="process",
    show_default=True,
    help="Where the system runs.",
)
seed = click.option("--seed", type=Seed(), default=None, help="Arrivals and choices repeat with it.")
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout; progress goes to stderr.")
runs_dir = click.option(
    "--runs",
    "runs_dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where run directories are kept.",
)
same_plan = click.option(
    "--plan",
    "expected",
    type=Digest(),
    default=None,
    metavar="DIGEST",
    help="Refuse unless the plan is still the one with this digest.",
)


def one_cluster(command: Command) -> Command:
    """Which cluster is meant by a command that looks at one without a system file."""
    command = click.option("--suite", metavar="NAMESPACE", default="stormdrill", show_default=True, help=SUITE)(command)
    return click.option("--context", metavar="NAME", default="", help=CONTEXT)(command)


CONTEXT = "With --target kubernetes: a context of the kubeconfig; the current one when left out."
SUITE = "With --target kubernetes: the suite's own namespace."
context = click.option("--context", metavar="NAME", default="", help=CONTEXT)
"""For a command that reads a system file, which may name contexts itself."""
