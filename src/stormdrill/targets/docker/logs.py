"""What a container has written, taken from the engine and kept in the run directory."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from stormdrill.redact import Redactor
from stormdrill.targets.docker.engine import Engine, joined

FETCH_LIMIT_S = 3.0
LONGEST_LINE = 200


def save(engine: Engine, container: str, place: Path, redactor: Redactor) -> bool:
    """All of it, standard output and error as they came, without secrets. False when the engine doesn't give it."""
    heard = engine.call("GET", f"/containers/{quote(container)}/logs?stdout=1&stderr=1", None, FETCH_LIMIT_S)
    if heard.error or heard.status != 200:
        return False
    text = joined(heard.body).decode("utf-8", "surrogateescape")
    place.write_bytes(redactor.text(text).encode("utf-8", "surrogateescape"))
    return True


def last_line(place: Path) -> str:
    """For messages; empty when there is none."""
    if not place.is_file():
        return ""
    lines = place.read_bytes()[-4000:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:LONGEST_LINE] if lines else ""
