"""`stormdrill import`: what other tools ask of a service, in stormdrill's own lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stormdrill.cli import options

if TYPE_CHECKING:
    from stormdrill.spec.openslo import Imported


@click.group("import")
def importing() -> None:
    """Turn objectives of other tools into lines of a system file and of an experiment."""


@importing.command("openslo")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=False))
@options.as_json
def openslo(files: tuple[Path, ...], as_json: bool) -> None:
    """Read OpenSLO v1 (SLO, SLI, DataSource and the others) and print what it is here.

    Metrics and window go into the system file, objectives into an experiment. Notes say what has no counterpart.
    """
    from stormdrill.spec.openslo import read_openslo

    found = read_openslo(files)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(found).decode())
        return
    for line in lines(found):
        click.echo(line)


def lines(found: Imported) -> list[str]:
    """YAML to be copied, the notes as comments."""
    told = ["# into the system file"]
    told += ["servers:", f"  prometheus: {found.server or 'http://127.0.0.1:9090  # where yours is'}"]
    told.append("metrics:" if found.metrics else "metrics: {}")
    for metric in found.metrics:
        quoted = metric.promql.replace("'", "''").replace("$", "$$")  # $ begins a parameter in a system file
        unit = f", unit: {metric.unit}" if metric.unit else ""
        told.append(f"  {metric.name}: {{promql: '{quoted}'{unit}}}")
    if found.window:
        told.append(f"# traffic: {{rate: 100/s, window: {found.window}}}  # the rate that you expect; no SLO tells it")
    told += ["", "# into an experiment", "objectives:", "  baseline, recovery:"]
    for line in found.objectives:
        told.append(f"    - {line.expression}  # {line.slo}")
    if not found.objectives:
        told.append("    []")
    if found.notes:
        told += ["", "# what has no counterpart"]
        told += [f"# {note.where}:{note.line}: {note.what}" for note in found.notes]
    return told
