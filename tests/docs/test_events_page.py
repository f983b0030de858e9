"""The page on events names every type and every field, in the code's words, and nothing that doesn't exist."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from stormdrill.model.event import EVENTS
from stormdrill.store.journal import RESERVED


@pytest.fixture(scope="module")
def page(repository):  # type: ignore[no-untyped-def]  # a path
    return (repository / "docs" / "reference" / "events.md").read_text(encoding="utf-8")


def sections(page: str) -> dict[str, str]:
    parts = re.split(r"^## `([a-z-]+)`$", page, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_type_has_its_section_and_no_section_is_without_a_type(page: str) -> None:
    named = re.findall(r"^## `([a-z-]+)`$", page, flags=re.MULTILINE)
    assert sorted(named) == sorted(EVENTS)  # in the order in which a run meets them, not in that of the modules


@pytest.mark.parametrize("word", list(EVENTS))
def test_every_field_is_explained(page: str, word: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*\w.*) \|$", sections(page)[word], flags=re.MULTILINE)
    assert [name for name, _ in rows] == [item.name for item in fields(EVENTS[word])]  # type: ignore[arg-type]


@pytest.mark.parametrize("word", list(EVENTS))
def test_it_says_which_events_are_on_the_disk_at_once(page: str, word: str) -> None:
    assert ("On the disk at once." in sections(page)[word]) is EVENTS[word].durable


def test_it_says_what_is_still_written_on_a_full_disk(page: str) -> None:
    (sentence,) = re.findall(r"From the moment that the disk is full.*", page)
    assert set(re.findall(r"`([a-z-]+)`", sentence)) == RESERVED
