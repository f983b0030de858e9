"""How tests wait: for what must come true, and with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(holds: Callable[[], object], limit_s: float = 20.0, what: str = "what had to come true") -> None:
    """Until it holds; `what` is named when that takes too long."""
    end_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end_s, f"not in time: {what}"
        time.sleep(0.005)
