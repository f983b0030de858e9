"""Whether a locustfile can be imported, found out before anything is touched: half a second in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stormdrill.errors import Refused

_LIMIT_S = 20.0
_LAST_LINES = 8


def try_locustfile(path: str | Path, *, closed_loop: bool) -> None:
    """Import it as the generator will. Raises Refused, with the line, when that fails or it has no user class to run.

    What the file does when it is imported, it does here too: a locustfile opens its connections in `on_start`.
    """
    kind = "closed" if closed_loop else "open"
    argv = [sys.executable, "-P", "-m", "stormdrill.load.locust.locustfile", str(path), kind]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        raise Refused(
            f"{path}: it takes more than {_LIMIT_S:g} s to be imported; move what waits or connects into on_start"
        ) from None
    if done.returncode == 0:
        return
    lines = done.stderr.strip().splitlines()
    if done.returncode == Refused.exit_code and lines:
        raise Refused(lines[-1])
    told = "\n".join(lines[-_LAST_LINES:]) or "it said nothing"
    raise Refused(f"{path}: importing it ends its process with code {done.returncode}; its last lines:\n{told}")
