"""Every probe that has a word has a row in the reference."""

from __future__ import annotations

from pathlib import Path

from stormdrill.probes.builtin import BUILTIN

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "probes.md"


def test_every_probe_has_a_row_in_the_reference() -> None:
    page = PAGE.read_text()
    assert [word for word in BUILTIN if f"| `{word}` |" not in page] == []
