"""What came back from one HTTP request, whoever made it."""

from __future__ import annotations

from typing import NamedTuple


class Heard(NamedTuple):
    """What came back from one request."""

    status: int = 0
    """0: no answer began."""
    body: bytes = b""
    error: str = ""
    """Why there is no complete answer."""
    sent: bool = False
    """True when the other side may have acted on it."""
    took_ms: float = 0.0
