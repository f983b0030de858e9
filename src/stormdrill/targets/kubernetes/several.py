"""How many names are told at once: some of them, and how many more there are."""

from __future__ import annotations

from collections.abc import Sequence

MOST = 5


def several(names: Sequence[str], most: int = MOST, between: str = ", ") -> str:
    """`a, b and 3 more`."""
    more = len(names) - most
    return between.join(names[:most]) + (f" and {more} more" if more > 0 else "")
