"""What a run depends on, copied into its directory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from stormdrill.api.session import Inputs


def texts(inputs: Inputs) -> dict[str, str]:
    """Every text that is copied into the run directory: no secret may stand in one of them."""
    found = {name: source.text for name, source in inputs.sources.items()}
    if inputs.templates is not None:
        for path in sorted(inputs.templates.iterdir()):
            if path.is_file():
                found[f"templates/{path.name}"] = path.read_text(errors="replace")
    return found


def remove_empty(run_dir: Path) -> None:
    for sub in ("load", "logs"):
        (run_dir / sub).rmdir()
    run_dir.rmdir()


def copied(inputs: Inputs, run_dir: Path) -> dict[str, str]:
    """Copies of everything that the run depends on; returns their SHA-256."""
    files = {name: source.text.encode() for name, source in inputs.sources.items()}
    files["plan.json"] = msgspec.json.format(msgspec.json.encode(inputs.plan), indent=1) + b"\n"
    if inputs.templates is not None:
        for path in sorted(inputs.templates.iterdir()):
            if path.is_file():
                files[f"templates/{path.name}"] = path.read_bytes()
    for name, data in files.items():
        place = run_dir / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
