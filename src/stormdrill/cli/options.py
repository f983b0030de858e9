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
seed = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=None, help="Arrivals and choices repeat with it."
)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout; progress goes to stderr.")
runs_dir = click.option(
    "--runs",
    "runs_dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where run directories are kept.",
)
