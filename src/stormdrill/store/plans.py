"""The last plans that were shown, by their digest: with one of them at hand, a run can say what has changed since."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from stormdrill.store.holds import state_home

KEPT = 50
DIGEST = re.compile(r"[0-9a-f]{6,12}")


def keep(digest: str, facts: Mapping[str, str]) -> bool:
    """Write it down whole or not at all; returns whether it could be. The oldest beyond KEPT are removed."""
    try:
        folder = _folder()
        folder.mkdir(mode=0o700, exist_ok=True)
        draft = folder / f".{digest}.{os.getpid()}"
        draft.write_text(json.dumps(dict(facts), indent=1), encoding="utf-8")
        draft.replace(folder / f"{digest}.json")
        for old in sorted(folder.glob("*.json"), key=lambda place: place.stat().st_mtime_ns)[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def known(digest: str) -> dict[str, str] | None:
    """The facts of the plan with this digest, or of the only one that begins so; None when there is none."""
    with contextlib.suppress(OSError, ValueError):
        found = sorted(_folder().glob(f"{digest}*.json")) if DIGEST.fullmatch(digest) else []
        if len(found) == 1:
            read = json.loads(found[0].read_text(encoding="utf-8"))
            return {str(name): str(text) for name, text in read.items()} if isinstance(read, dict) else None
    return None


def _folder() -> Path:
    return state_home() / "plans"
