"""What is on this machine already, seen with the standard library alone, so that `doctor` can say it at once."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ASK_LIMIT_S = 10.0
INSTALL = "make in stormdrill's checkout installs it, and so does pip install 'PATH-TO-THE-CHECKOUT[docker]' elsewhere"
"""By its path: what an index has under this name need not be this."""


def compose_tool() -> tuple[str, ...]:
    """The words that call the tool which reads compose files; empty when none answers."""
    for argv in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(argv[0]) is None:
            continue
        try:
            subprocess.run([*argv, "version"], capture_output=True, check=True, timeout=ASK_LIMIT_S)
        except (subprocess.SubprocessError, OSError):
            continue
        return argv
    return ()


def remembered_in(id: str) -> Path:
    """The file that says what the base image with this id was found to offer, once it was asked."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stormdrill"
    return cache / "images" / f"{id.removeprefix('sha256:')[:16]}.json"
