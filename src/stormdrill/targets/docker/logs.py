"""What a container has written, taken from the engine and kept in the run directory."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from stormdrill.targets.docker.engine import Engine, joined

FETCH_LIMIT_S = 3.0


def save(engine: Engine, container: str, place: Path) -> bool:
    """All of it, standard output and error as they came. False when the engine doesn't give it."""
    heard = engine.call("GET", f"/containers/{quote(container)}/logs?stdout=1&stderr=1", None, FETCH_LIMIT_S)
    if heard.error or heard.status != 200:
        return False
    place.write_bytes(joined(heard.body))
    return True


def tail(place: Path, lines: int = 5) -> str:
    """The last lines, for messages; empty when there are none."""
    if not place.is_file():
        return ""
    text = place.read_bytes()[-4000:].decode("utf-8", "replace")
    return "\n".join(text.strip().splitlines()[-lines:])
