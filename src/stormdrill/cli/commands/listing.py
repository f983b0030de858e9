"""`stormdrill list`: what can be run from here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import click

from stormdrill.cli import options

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
                items.append(Item(kind, name, _says(path, key), str(path), shipped))
    return items


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
