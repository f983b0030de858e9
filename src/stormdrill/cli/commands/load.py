"""`stormdrill load …`: what a demand is, without sending it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from stormdrill.cli import options
from stormdrill.cli.load_calibrate import calibrate
from stormdrill.cli.load_worker import worker

if TYPE_CHECKING:
    from stormdrill.api.demand import Shown


class RateType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """Arrivals a second, a minute or an hour."""

    name = "RATE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from stormdrill.model.units import parse_rate

        try:
            rate_per_s = parse_rate(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if rate_per_s == 0:
            self.fail("a rate of 0 is no demand; write for instance 60/s", param, ctx)
        return rate_per_s


class LengthType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """A duration."""

    name = "DURATION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from stormdrill.model.units import parse_duration

        try:
            for_s = parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not 0 < for_s <= LONGEST_S:
            self.fail(f"{value} is not between 1ms and 30d; write for instance 2m", param, ctx)
        return for_s


LONGEST_S = 30 * 86400.0
COLUMNS = 240
"""Parts of the time in `--json`."""


@click.group("load")
def load() -> None:
    """Look at a demand: what it asks for over time; and send a part of one that another machine's run asks for."""


load.add_command(worker)
load.add_command(calibrate)


@load.command("show")
@click.argument("what", metavar="PROFILE|EXPERIMENT")
@click.option("--rate", type=RateType(), default=None, help="What factor 1 is; by default 60/s, or as recorded.")
@click.option("--for", "length", type=LengthType(), default=None, help="How much of it; by default its whole course.")
@options.seed
@options.settings
@options.fast
@options.as_json
def show(
    what: str,
    rate: float | None,
    length: float | None,
    seed: int | None,
    settings: dict[str, str],
    fast: bool,
    as_json: bool,
) -> None:
    """Draw λ(t) of a profile, of a sum ("peak + 0.5 x spike") or of an experiment, and say what it amounts to."""
    from stormdrill.api.demand import Wanted
    from stormdrill.api.demand import show as look
    from stormdrill.cli import curve
    from stormdrill.cli.screen import width_of
    from stormdrill.errors import StormdrillError

    columns = COLUMNS if as_json else curve.columns_of(width_of(sys.stdout))
    wanted = Wanted(rate, length, 1 if seed is None else seed, columns, settings, fast)
    try:
        shown = look(what, wanted)
    except StormdrillError as error:
        if as_json:
            options.say_refusal(error)
        raise
    if as_json:
        _say_object(shown)
        return
    for line in curve.curve_lines(shown, curve.letters_for(sys.stdout.encoding or "ascii")):
        click.echo(line)


def _say_object(shown: Shown) -> None:
    """Everything that is drawn, and the stages."""
    import msgspec

    told = {
        "title": shown.title,
        "says": shown.says,
        "demand": shown.figures,
        "phases": shown.phases,
        "stages": shown.profile.every_stage if shown.profile else (),
        "notes": shown.notes,
    }
    click.echo(msgspec.json.encode(told).decode())
