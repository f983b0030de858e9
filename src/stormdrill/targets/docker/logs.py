"""What a container has written, taken from the engine and kept in the run directory."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from stormdrill.targets.docker.engine import Engine

FETCH_LIMIT_S = 3.0
HEADER = 8
"""Without a terminal, each piece of output is preceded by its stream and its length."""


def save(engine: Engine, container: str, place: Path) -> bool:
    """All of it, standard output and error as they came. False when the engine doesn't give it."""
    heard = engine.call("GET", f"/containers/{quote(container)}/logs?stdout=1&stderr=1", None, FETCH_LIMIT_S)
    if heard.error or heard.status != 200:
        return False
    place.write_bytes(joined(heard.body))
    return True


def joined(framed: bytes) -> bytes:
    """The pieces without their headers; what has none is a terminal's, and stays as it is."""
    parts, at = [], 0
    while at + HEADER <= len(framed):
        stream, size = framed[at], int.from_bytes(framed[at + 4 : at + HEADER])
        if stream > 2 or framed[at + 1 : at + 4] != b"\0\0\0":
            return framed
        parts.append(framed[at + HEADER : at + HEADER + size])
        at += HEADER + size
    return b"".join(parts)


def tail(place: Path, lines: int = 5) -> str:
    """The last lines, for messages; empty when there are none."""
    if not place.is_file():
        return ""
    text = place.read_bytes()[-4000:].decode("utf-8", "replace")
    return "\n".join(text.strip().splitlines()[-lines:])
