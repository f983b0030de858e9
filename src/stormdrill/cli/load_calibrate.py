"""`stormdrill load calibrate`: how much a load generator can send on time on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from stormdrill.cli import options

if TYPE_CHECKING:
    from stormdrill.load.ceiling import Ceiling


@click.command("calibrate")
@options.as_json
def calibrate(as_json: bool) -> None:
    """Measure what one generator sends on time on this machine, for some seconds, and remember it.

    It sends to a server of its own that answers at once, on loopback. Runs use what is remembered: they refuse a rate
    that the generators can't send, and measure by themselves what was not measured on this machine, or by another
    version.
    """
    from stormdrill.load.calibrate import calibrate_machine
    from stormdrill.load.ceiling import remember

    found = calibrate_machine()
    place = remember(found)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(found).decode())
        return
    for line in lines_of(found):
        click.echo(line)
    click.echo(f"\n  kept in {place}")


def lines_of(ceiling: Ceiling) -> Iterator[str]:
    """The steps as a table, and what follows from them."""
    machine = ceiling.machine
    yield f"  {machine.cpu}, {machine.cores} cores, load average {ceiling.load_average:.1f} before it began"
    yield ""
    yield "  asked         sent    lag p99"
    for step in ceiling.steps:
        mark = "" if step.on_time else "   late"
        yield f"  {step.rate_per_s:>6g}/s  {step.sent_of_scheduled:>8.2%}  {step.lag_p99_ms:>6.2f} ms{mark}"
    yield ""
    more = "" if any(not step.on_time for step in ceiling.steps) else ", and perhaps more"
    yield f"  one generator sends {ceiling.measured_per_s:g}/s on time here{more};"
    yield f"  runs ask each for {ceiling.usable_per_s:g}/s at most: the system under test needs this machine too"
