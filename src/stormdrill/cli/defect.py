"""The report that stands in for a traceback when stormdrill itself is at fault."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from stormdrill import __version__


def state_home() -> Path:
    """Where stormdrill keeps what outlives a run: `$XDG_STATE_HOME/stormdrill`."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base else Path.home() / ".local" / "state") / "stormdrill"


def without_values(argv: Sequence[str]) -> list[str]:
    """The arguments, but of KEY=VALUE only the key: a value may be a secret."""
    return [f"{word.split('=', 1)[0]}=…" if "=" in word else word for word in argv]


def write_report(error: BaseException, argv: Sequence[str]) -> Path | None:
    """Write what a developer needs, readable by its owner only; None when no place could be written."""
    now = datetime.now(UTC)
    text = "\n".join(
        (
            f"stormdrill {__version__}, Python {sys.version.split()[0]}, {platform.platform()}",
            f"at {now.isoformat(timespec='milliseconds')}",
            f"command: stormdrill {' '.join(without_values(argv))}",
            "",
            "".join(traceback.format_exception(error)),
        )
    )
    for folder in (state_home() / "reports", Path(tempfile.gettempdir())):
        place = folder / f"stormdrill-{now:%Y%m%dT%H%M%SZ}-{os.getpid()}.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            continue
        return place
    return None
