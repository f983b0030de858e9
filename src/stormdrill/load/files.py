"""Files that came from another machine: the locustfile, and what the profile names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from stormdrill.load.messages import File


def unpack(files: Iterable[File], folder: Path) -> None:
    """Write them below the folder. Raises ValueError for one that was changed on the way or belongs elsewhere."""
    for file in files:
        if hashlib.sha256(file.data).hexdigest() != file.sha256:
            raise ValueError(f"{file.name} arrived changed")
        place = (folder / file.name).resolve()
        if not place.is_relative_to(folder.resolve()):
            raise ValueError(f"{file.name}: outside of the worker's directory")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.data)
