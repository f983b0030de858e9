"""How wide to write."""

from __future__ import annotations

import shutil
from typing import TextIO

PLAIN_WIDTH = 100
WIDEST = 120
NARROWEST = 40


def width_of(out: TextIO) -> int:
    """Columns to write to: the terminal's, within reason; without a terminal a fixed width."""
    if not out.isatty():
        return PLAIN_WIDTH
    return max(NARROWEST, min(WIDEST, shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns))
