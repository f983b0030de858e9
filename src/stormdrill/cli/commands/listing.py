"""`stormdrill list`: what can be run from here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from stormdrill.cli import options

if TYPE_CHECKING:
    from stormdrill.spec.yaml import Node

SHELVES = (
    ("experiments", "experiments", ".yaml", "title"),
    ("systems", "experiments/systems", ".yaml", "entry"),
    ("profiles", "loadgen", ".yaml", "description"),
    ("runbooks", "runbooks", ".md", "title"),
)


class Item(NamedTuple):
    """One file of a content folder."""

    kind: str
    name: str
    says: str
    path: str
    built_in: bool
    targets: Sequence[str] = ()
    """Of an experiment or a system: for which its system file has a section."""
    faults: Sequence[str] = ()
    checks: Sequence[str] = ()
    """Backpressure checks and sets of them, as an experiment names them."""


@click.command("list")
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.as_json
def listing(folder: Path, as_json: bool) -> None:
    """List the experiments, systems, profiles and runbooks of DIR, and those that stormdrill brings along."""
    items = find_items(folder)
    if as_json:
        import json

        click.echo(json.dumps([item._asdict() for item in items]))
        return
    from stormdrill.cli.screen import width_of

    width = width_of(sys.stdout)
    label = max((len(item.name) for item in items), default=0)
    for kind, *_ in SHELVES:
        found = [item for item in items if item.kind == kind]
        if found:
            click.echo(f"  {kind}")
        for item in found:
            text = f"    {item.name:<{label}}  {item.says}{' (built in)' if item.built_in else ''}"
            click.echo(text if len(text) <= width else f"{text[: width - 1]}…")
            does = [", ".join(item.faults)] if item.faults else []
            does += [f"backpressure: {', '.join(item.checks)}"] if item.checks else []
            if does:
                where = f"its system has sections for {', '.join(item.targets)}" if item.targets else "no system"
                text = f"    {'':<{label}}  {'; '.join(does)} · {where}"
                click.echo(text if len(text) <= width else f"{text[: width - 1]}…")


def find_items(folder: Path) -> list[Item]:
    """The user's own first; a built-in one of the same name is hidden by it, as it is when running."""
    from stormdrill.spec import catalogue

    built_in = catalogue.root()
    roots = [folder] if folder.absolute() == built_in else [folder, built_in]
    items: list[Item] = []
    for kind, below, ending, key in SHELVES:
        for name in catalogue.names(roots, below, ending):
            path = catalogue.find(roots, f"{below}/{name}{ending}")
            if path is not None:
                shipped = len(roots) > 1 and path.absolute().is_relative_to(built_in)
                items.append(Item(kind, name, _says(path, key), str(path), shipped, *_runs(kind, path, roots)))
    return items


def _runs(kind: str, path: Path, roots: list[Path]) -> tuple[list[str], list[str], list[str]]:
    """The targets, the faults and the backpressure checks of an experiment, as far as its file can be read; no
    parameter is filled in."""
    from stormdrill.spec import catalogue
    from stormdrill.spec.services import SECTIONS
    from stormdrill.spec.yaml import Scalar, parse

    if kind not in ("experiments", "systems"):
        return [], [], []
    try:
        document = parse(str(path), path.read_text(encoding="utf-8"))
        system = document
        named = document.node("system")
        if kind == "experiments":
            found = (
                catalogue.find(roots, f"experiments/systems/{named.text}.yaml") if isinstance(named, Scalar) else None
            )
            system = parse(str(found), found.read_text(encoding="utf-8")) if found else document
    except (OSError, UnicodeDecodeError):
        return [], [], []
    targets = [name for name in SECTIONS if system.node(name) is not None]
    return targets, _words(document.node("faults")), _words(document.node("backpressure"))


def _words(node: Node | None) -> list[str]:
    """Of a list whose entries are words, or words with a table."""
    from stormdrill.spec.yaml import Listing, Scalar, Table

    found: list[str] = []
    for entry in node.items if isinstance(node, Listing) else ():
        found += entry.entries if isinstance(entry, Table) else [entry.text] if isinstance(entry, Scalar) else []
    return list(dict.fromkeys(found))


def _says(path: Path, key: str) -> str:
    """The one line by which a person knows the file; a file that cannot be read says so."""
    from stormdrill.spec.yaml import Scalar, parse

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "cannot be read"
    if path.suffix == ".md":
        text = text.removeprefix("---\n").partition("\n---\n")[0]
    node = parse(str(path), text).node(key)
    if not isinstance(node, Scalar):
        return "does not validate"
    said = " ".join(node.text.split())
    return f"load enters at {said}" if key == "entry" else said
