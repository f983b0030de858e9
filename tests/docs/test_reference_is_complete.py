"""Everything that a user can name has a page, and what the pages point at is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from stormdrill.cli.main import COMMANDS, root
from stormdrill.faults.builtin import BUILTIN

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def section(name: str) -> str:
    text = (REFERENCE / "commands.md").read_text(encoding="utf-8")
    return text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def options(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield parameter.opts[-1]
    if isinstance(command, click.Group):
        yield from command.list_commands(click.Context(command))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_a_section_that_names_each_option(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    text = section(name)
    assert text
    assert [word for word in options(command) if word not in text] == []


@pytest.mark.parametrize("word", sorted(BUILTIN))
def test_every_fault_has_a_page_that_names_each_parameter(word: str) -> None:
    page = (REFERENCE / "faults" / f"{word}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {word}\n")
    assert [name for name in BUILTIN[word].parameters.__struct_encode_fields__ if f"`{name}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert missing == []


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = [page for folder in ("how-to", "reference") for page in (ROOT / "docs" / folder).rglob("*.md")]
    assert [page.name for page in pages if f"{page.relative_to(ROOT / 'docs').as_posix()}" not in index] == []
